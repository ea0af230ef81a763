"""The memory preflight against real parameter counts, and its refusal."""

from __future__ import annotations

import json

import pytest

from contracts.job import LoraParameters
from services.training.memory import (
    ModelDimensions,
    estimate,
    lora_parameters,
    require_memory,
    tokens_at_most,
)
from shared.errors import InvalidInput


@pytest.fixture
def dimensions(base):
    return ModelDimensions.of(json.loads((base / "config.json").read_text()))


@pytest.mark.req("D8")
def test_parameters_are_counted_as_transformers_and_peft_count_them(base, dimensions):
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from services.training.adapters.methods.lora import lora_config

    lora = LoraParameters(r=4)
    model = AutoModelForCausalLM.from_pretrained(base)
    assert dimensions.parameters == model.num_parameters()
    trainable, _ = get_peft_model(model, lora_config(lora)).get_nb_trainable_parameters()
    assert lora_parameters(dimensions, lora) == trainable


@pytest.mark.req("D8")
def test_adam_holds_two_float32_moments_per_trained_weight_not_six_times_the_weights(dimensions):
    """ERRATA 18."""
    full = estimate(dimensions, method="sft", lora=None, batch_size=1, length=8)
    assert full["weights"] == full["gradients"] == dimensions.parameters * 4
    assert full["optimizer"] == 2 * full["gradients"]
    lora = LoraParameters(r=4)
    small = estimate(dimensions, method="lora", lora=lora, batch_size=1, length=8)
    assert small["optimizer"] == 2 * 4 * lora_parameters(dimensions, lora)
    assert small["weights"] > full["weights"]


@pytest.mark.req("D8")
def test_activations_grow_with_the_batch_and_the_length(dimensions):
    def activations(batch_size, length):
        parts = estimate(
            dimensions,
            method="lora",
            lora=LoraParameters(),
            batch_size=batch_size,
            length=length,
            completion_length=4,
        )
        return parts["activations"]

    assert activations(8, 64) == 8 * activations(1, 64)
    assert activations(1, 64) < activations(1, 128) < 2 * activations(1, 64)


PARTS = {"weights": 500, "gradients": 10, "optimizer": 20, "activations": 8000}


@pytest.mark.req("D8")
def test_a_machine_too_small_is_refused_with_the_parts_and_a_batch_that_fits():
    with pytest.raises(InvalidInput) as refusal:
        require_memory(PARTS, available=3600, batch_size=8)
    problem = refusal.value.problems[0]
    assert "activations" in problem.problem
    assert problem.mend == "set method.train.batch_size to 3 and gradient_accumulation to 3"


@pytest.mark.req("D8")
def test_when_no_batch_fits_the_mend_is_another():
    with pytest.raises(InvalidInput) as refusal:
        require_memory(PARTS, available=600, batch_size=8)
    assert "smaller base" in refusal.value.problems[0].mend


@pytest.mark.req("D8")
def test_a_machine_just_large_enough_is_accepted():
    require_memory(PARTS, available=sum(PARTS.values()), batch_size=8)


def test_a_config_that_gives_no_sizes_is_named():
    with pytest.raises(InvalidInput, match="vocab_size"):
        ModelDimensions.of({"num_attention_heads": 2, "hidden_size": 8})


def test_tokens_are_never_underestimated_for_json(base, dataset):
    assert tokens_at_most(1000) >= 333
