"""`precision: auto`: measured once for a recipe, and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.base import digest_of
from contracts.curation import DatasetCurated
from services.training.adapters import preparation
from services.training.adapters.precision_probe import measured as probe
from services.training.adapters.preparation import measured, prepare
from services.training.plan import with_precision
from services.training.precision import FASTER, PrecisionChoice, choice_for, chosen
from services.training.settings import TrainingSettings
from shared.artifacts import ArtifactStore
from tests.training.test_plan import job, recipe


@pytest.mark.parametrize(
    ("float32", "bfloat16", "taken"),
    [
        (3.0, 1.0, "bfloat16"),
        (1.0, 3.0, "float32"),
        pytest.param(1.0, 1.0, "float32", id="equal"),
        pytest.param(FASTER - 0.01, 1.0, "float32", id="not worth its loss of digits"),
    ],
)
def test_bfloat16_is_taken_where_it_is_clearly_faster(float32, bfloat16, taken):
    choice = chosen({"float32": float32, "bfloat16": bfloat16})
    assert choice.precision == taken
    assert f"{taken}, as measured" in str(choice)


@pytest.mark.req("T5")
def test_the_first_measurement_of_a_recipe_stays_and_another_recipe_has_its_own(tmp_path):
    auto = recipe()
    fast, slow = chosen({"float32": 9, "bfloat16": 1}), chosen({"float32": 1, "bfloat16": 9})
    assert choice_for(auto, tmp_path, lambda: fast) == fast
    assert choice_for(auto, tmp_path, lambda: slow) == fast  # a busy machine changes nothing
    assert choice_for(recipe(seed=1), tmp_path, lambda: slow) == slow
    assert with_precision(auto, fast.precision).train.precision == "bfloat16"


def test_of_two_who_measure_at_once_the_first_to_write_decides(tmp_path):
    auto = recipe()
    fast, slow = chosen({"float32": 9, "bfloat16": 1}), chosen({"float32": 1, "bfloat16": 9})

    def overtaken() -> PrecisionChoice:
        assert choice_for(auto, tmp_path, lambda: slow) == slow
        return fast

    assert choice_for(auto, tmp_path, overtaken) == slow


def test_both_precisions_are_timed_on_the_base_s_own_block(base):
    for full in (False, True):
        seconds = probe(base, tokens=64, full=full)
        assert seconds.keys() == {"float32", "bfloat16"}
        assert min(seconds.values()) > 0


@pytest.mark.req("T4", "T5")
def test_a_job_s_precision_is_measured_and_a_second_attempt_keeps_it(
    base, dataset, tmp_path, monkeypatch
):
    settings = TrainingSettings(home=tmp_path / "home", training_threads=1)
    store = ArtifactStore(settings.artifacts_url)
    plain = job(batch_size=4, max_length=64)
    auto = plain.model_copy(update={"base": plain.base.model_copy(update={"model": str(base)})})
    curated = DatasetCurated(
        card=digest_of(b"card"),
        train=store.put_file(dataset["train"]),
        validation=None,
        rows={"train": 40},
    )
    first = prepare(auto, curated, method="lora", store=store, settings=settings)
    precision = first.plan.recipe.train.precision
    assert precision in ("float32", "bfloat16")
    assert first.plan.precision_reason.startswith(f"{precision}, as measured")
    kept = json.loads(next((tmp_path / "home" / "training" / "precision").iterdir()).read_text())
    assert kept["precision"] == precision

    def again(*_: object, **__: object) -> PrecisionChoice:
        raise AssertionError("measured twice")

    monkeypatch.setattr(preparation, "measured", again)
    assert prepare(auto, curated, method="lora", store=store, settings=settings) == first


def test_what_cannot_be_measured_is_chosen_by_the_flags_and_says_so():
    choice = measured(Path("/nowhere"), recipe(), threads=1)
    assert not choice.seconds
    assert "by the processor's flags: the measurement failed" in str(choice)
