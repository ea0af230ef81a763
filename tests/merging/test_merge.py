"""Merges: TIES by hand, the merged checkpoint against PEFT's unmerged model, and refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from contracts.job import Hyperparameters, LoraParameters
from contracts.training import Recipe
from services.cli.main import app
from shared.bundles.base import base_serves
from shared.errors import InvalidInput
from shared.merging import merge_problems, read_source
from shared.merging.arithmetic import sign_conflict, task_vectors, ties
from shared.merging.merge import DERIVATION, RECORD, TOLERANCE, merge
from shared.models import base_digest, tokenizer_digest
from shared.signing import SigningKey
from shared.testing.tiny_model import build_tiny_llama

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="module")
def make_adapter(base, tmp_path_factory):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def make(seed: int, **recipe: object) -> Path:
        folder = tmp_path_factory.mktemp("adapters") / f"a{seed}"
        torch.manual_seed(seed)
        config = LoraConfig(
            r=4, lora_alpha=12, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"
        )
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.1)
        model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink()
        written = Recipe.model_validate(
            {
                "method": "lora",
                "base": base_digest(base),
                "tokenizer": tokenizer_digest(base),
                "dataset": "sha256:" + "0" * 64,
                "lora": LoraParameters(r=4, alpha=12),
                "train": Hyperparameters(),
                "versions": {},
            }
            | recipe
        )
        (folder / "recipe.json").write_text(written.model_dump_json())
        return folder

    return make


@pytest.fixture(scope="module")
def first(make_adapter) -> Path:
    return make_adapter(1)


@pytest.fixture(scope="module")
def second(make_adapter) -> Path:
    return make_adapter(2)


def log_probs(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.tensor([[1, 7, 30, 44, 9, 2]])).logits[0].float().log_softmax(-1)


@pytest.mark.req("T7")
@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
def test_one_adapter_merged_says_what_peft_says_unmerged(base, first, tmp_path, dtype):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "merged"
    key = SigningKey.load_or_create(tmp_path / "key")
    found = merge(base, [read_source(first)], out, dtype=dtype, signer=key)
    loaded = AutoModelForCausalLM.from_pretrained(out, dtype=getattr(torch, dtype))
    frozen = AutoModelForCausalLM.from_pretrained(base)
    plain = log_probs(frozen)
    unmerged = log_probs(PeftModel.from_pretrained(frozen, first))
    assert (log_probs(loaded) - unmerged).abs().max() < TOLERANCE[dtype]
    assert (plain - unmerged).abs().max() > 2 * TOLERANCE[dtype]
    assert found.largest_difference <= TOLERANCE[dtype]
    assert (found.method, found.re_evaluate, found.sign_conflict) == ("lora", None, None)
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert json.loads((out / RECORD).read_text())["derived"] == base_digest(out)
    assert base_serves(
        base_digest(base),
        base_digest(out),
        derivations=[(out / DERIVATION).read_bytes()],
        keys=[key.public],
    )


@pytest.mark.req("T7")
def test_ties_by_hand():
    """Density 0.5 of four: (4, -3), (-5, 2), signs elected by the total, means over those alike."""
    merged = ties(
        [torch.tensor([4.0, -3.0, 0.1, 1.0]), torch.tensor([-5.0, 0.2, 2.0, 0.3])], density=0.5
    )
    assert merged.tolist() == [-5.0, -3.0, 2.0, 0.0]
    conflict = sign_conflict([torch.tensor([1.0, -1.0, 0.0]), torch.tensor([1.0, 1.0, 2.0])])
    assert conflict == 0.5


@pytest.mark.req("T7")
def test_two_adapters_are_merged_by_ties_of_their_changes_not_of_their_factors(
    base, first, second, tmp_path
):
    from transformers import AutoModelForCausalLM

    sources = [read_source(first), read_source(second)]
    found = merge(base, sources, tmp_path / "merged", density=0.3)
    assert found.method == "ties"
    assert 0 < found.sign_conflict < 1
    assert "new model" in found.re_evaluate
    assert min(found.away_from) > 10 * found.largest_difference
    name = "model.layers.0.self_attn.q_proj.weight"
    change = ties([task_vectors(source)[name] for source in sources], density=0.3)
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder).get_parameter(name)
        for folder in (base, tmp_path / "merged")
    )
    assert torch.allclose(after - before, change, atol=1e-6)


@pytest.mark.req("T7")
def test_an_adapter_of_a_quantized_base_is_merged_into_the_full_one_and_says_so(
    base, make_adapter, tmp_path
):
    found = merge(base, [read_source(make_adapter(5, method="qlora"))], tmp_path / "merged")
    assert "4-bit" in found.re_evaluate
    assert "evaluate it again" in found.re_evaluate


@pytest.mark.req("F15")
@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        pytest.param({"base": "sha256:" + "1" * 64}, "another base", id="another base"),
        pytest.param({"tokenizer": "sha256:" + "1" * 64}, "another tokenizer", id="tokenizer"),
        pytest.param({"method": "dpo"}, "different objectives", id="another objective"),
    ],
)
def test_a_merge_that_adds_up_to_nothing_is_refused(
    base, first, make_adapter, tmp_path, recipe, says
):
    sources = [read_source(first), read_source(make_adapter(3, **recipe))]
    with pytest.raises(InvalidInput, match=says):
        merge(base, sources, tmp_path / "merged")
    assert not list(tmp_path.iterdir())


@pytest.mark.req("F15")
def test_the_same_adapter_twice_is_refused(base, first):
    source = read_source(first)
    (problem,) = merge_problems(
        [source, source], base=base_digest(base), tokenizer=tokenizer_digest(base)
    )
    assert "again" in problem.problem


@pytest.mark.req("T7")
def test_a_merge_that_does_not_verify_leaves_nothing(base, first, tmp_path, monkeypatch):
    monkeypatch.setitem(TOLERANCE, "bfloat16", 1e-9)
    with pytest.raises(InvalidInput, match="differ by"):
        merge(base, [read_source(first)], tmp_path / "merged", dtype="bfloat16")
    assert not list(tmp_path.iterdir())


@pytest.mark.req("T7")
def test_the_command_merges_and_reports(base, first, tmp_path):
    out = tmp_path / "merged"
    done = CliRunner().invoke(
        app, ["merge", str(base), str(first), "--out", str(out), "--json"], env=dict(os.environ)
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["largest_difference"] < 1e-3
    assert (out / "model.safetensors").is_file()
