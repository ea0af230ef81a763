"""From a job and a curated dataset to a work folder, with real files and a real store."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from contracts.base import digest_of
from contracts.curation import DatasetCurated
from contracts.job import Method
from services.training.adapters import preparation
from services.training.adapters.preparation import longest, prepare, sizes_of, token_counter
from services.training.adapters.texts import pack_rows
from services.training.adapters.tokens import encode, read_rows
from services.training.memory import TURN_TOKENS, ModelDimensions
from services.training.plan import recipe_digest
from services.training.settings import TrainingSettings
from shared.artifacts import ArtifactStore
from shared.errors import ArtifactMissing, InvalidInput
from tests.training.test_plan import job
from tests.training.texts import conversation, document, likelihood_plan

EXACT = {"precision": "float32"}


@pytest.fixture
def settings(tmp_path):
    return TrainingSettings(home=tmp_path / "home", training_threads=1)


@pytest.fixture
def store(settings):
    return ArtifactStore(settings.artifacts_url)


@pytest.fixture
def curated(store, dataset):
    return DatasetCurated(
        card=digest_of(b"card"),
        train=store.put_file(dataset["train"]),
        validation=store.put_file(dataset["validation"]),
        rows={"train": 40, "validation": 4},
    )


@pytest.fixture
def the_job(base):
    plain = job(batch_size=8, precision="float32")
    return plain.model_copy(update={"base": plain.base.model_copy(update={"model": str(base)})})


@pytest.mark.req("T5", "D8")
def test_the_work_folder_holds_the_data_and_carries_the_recipes_name(
    the_job, curated, store, settings, dataset
):
    ready = prepare(the_job, curated, method="lora", store=store, settings=settings)
    assert ready.work.name == recipe_digest(ready.plan.recipe).removeprefix("sha256:")
    assert ready.plan.train.read_bytes() == dataset["train"].read_bytes()
    assert ready.plan.steps == 5
    assert ready.plan.base_label == "Tiny-Llama"
    assert {"torch", "trl", "peft"} <= ready.plan.recipe.versions.keys()
    assert {"weights", "gradients", "optimizer", "activations"} <= ready.memory.keys()
    assert prepare(the_job, curated, method="lora", store=store, settings=settings) == ready


@pytest.mark.req("D8")
def test_a_machine_without_the_memory_is_refused(the_job, curated, store, settings, monkeypatch):
    monkeypatch.setattr(preparation, "available_memory_bytes", lambda: 1000)
    with pytest.raises(InvalidInput, match="training needs"):
        prepare(the_job, curated, method="lora", store=store, settings=settings)


def test_a_dataset_that_is_not_in_the_store_is_named(the_job, curated, store, settings):
    gone = curated.model_copy(update={"train": digest_of(b"gone")})
    with pytest.raises(ArtifactMissing):
        prepare(the_job, gone, method="lora", store=store, settings=settings)


@pytest.mark.req("D8")
def test_lengths_are_counted_with_the_base_s_own_vocabulary(base, dataset):
    rows = list(read_rows(dataset["train"]))
    tokenizer = AutoTokenizer.from_pretrained(base)
    exact = max(len(encode(tokenizer, row).input_ids) for row in rows)
    whole, answer = longest(rows, token_counter(base))
    assert exact <= whole <= exact + 3 * TURN_TOKENS
    assert answer == max(len(tokenizer.encode(row.target)) for row in rows)


@pytest.mark.req("D8")
def test_texts_are_counted_as_the_blocks_they_are_packed_in(base, tmp_path):
    rows = [document(i, "domain") for i in range(20)] + [conversation(0)]
    plan = likelihood_plan(
        base, tmp_path, method="cpt", train=rows, validation=rows, steps=1, max_length=32
    )
    tokenizer = AutoTokenizer.from_pretrained(base)
    blocks = [len(e.input_ids) for e in pack_rows(tokenizer, rows, max_length=32).examples]
    sizes = sizes_of(plan.recipe, rows, token_counter(base))
    assert len(blocks) <= sizes.examples <= len(blocks) + 2  # a template is counted generously
    assert sizes.longest == sizes.scored == max(blocks)


@pytest.mark.req("D8")
def test_every_turn_of_the_assistant_counts_as_scored(base, tmp_path):
    rows = [conversation(i) for i in range(6)]
    plan = likelihood_plan(
        base, tmp_path, method="instruction", train=rows, validation=rows, steps=1
    )
    count = token_counter(base)
    turns = max(count(row.messages[2].content) for row in rows)
    assert sizes_of(plan.recipe, rows, count).scored == longest(rows, count)[1] + turns


@pytest.mark.req("D8", "T6")
def test_processes_share_a_batch_and_each_holds_the_weights(the_job, curated, store, settings):
    ask = {"method": "lora", "store": store}
    one = prepare(the_job, curated, settings=settings, **ask)
    two = prepare(
        the_job,
        curated,
        settings=settings.model_copy(update={"training_processes": 2}),
        **ask,
    )
    assert (one.plan.processes, two.plan.processes) == (1, 2)
    assert two.work == one.work
    for part in ("weights", "gradients", "optimizer", "runtime"):
        assert two.memory[part] == 2 * one.memory[part]
    assert two.memory["activations"] == one.memory["activations"]  # of as many rows together


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("SLUICE_TRAINING_THREADS", "3")
    assert TrainingSettings().training_threads == 3


@pytest.mark.req("D8")
def test_a_teacher_whose_logits_are_read_is_in_the_plan_and_counted(
    the_job, curated, store, settings, base
):
    taught = {"teacher": {"name": "T", "licence": "MIT", "checkpoint": str(base)}}
    wanted = the_job.model_copy(
        update={"method": Method(name="distillation", distillation=taught, train=EXACT)}
    )
    ready = prepare(wanted, curated, method="distillation", store=store, settings=settings)
    assert ready.plan.teacher == ready.plan.base == base
    assert ready.plan.recipe.method == "logit_distillation"
    assert (
        ready.memory["teacher"]
        > ModelDimensions.of(json.loads((base / "config.json").read_text())).parameters * 4
    )
    gone = {"teacher": {**taught["teacher"], "checkpoint": "nowhere"}}
    missing = wanted.model_copy(
        update={"method": Method(name="distillation", distillation=gone, train=EXACT)}
    )
    with pytest.raises(InvalidInput, match="no model folder 'nowhere'"):
        prepare(missing, curated, method="distillation", store=store, settings=settings)
