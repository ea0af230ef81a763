"""Recipes, their digests and step counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.base import digest_of
from contracts.curation import DatasetCurated
from contracts.job import AdaptationJob, Hyperparameters, Method
from services.training.bucketing import bucketed_order, padded_share, parts
from services.training.plan import (
    learning_rate_share,
    moving,
    optimizer_steps,
    recipe_digest,
    recipe_of,
    work_folder,
)

DIGESTS = [digest_of(bytes([i])) for i in range(5)]


def job(**train) -> AdaptationJob:
    files = {"uri": "rows.jsonl", "licence": "MIT"}
    return AdaptationJob.model_validate(
        {
            "schema": "sluice.job/v1",
            "name": "calls",
            "tenant": "acme",
            "task_namespace": "calls",
            "base": {"model": "/srv/models/Tiny"},
            "behaviour": {"description": "call", "scorer": "tool_call", "target": 0.9},
            "data": [files | {"provenance": {"source": "us"}}],
            "evaluation": {"dev": files, "heldout": files},
            "rollout": {"deployment": "calls"},
            "method": {"train": train},
        }
    )


def recipe(*, method="lora", card=DIGESTS[0], versions=None, **train):
    curated = DatasetCurated(card=card, train=DIGESTS[1], validation=None, rows={"train": 300})
    return recipe_of(
        job(**train),
        curated,
        method=method,
        base=DIGESTS[2],
        tokenizer=DIGESTS[3],
        versions=versions or {"torch": "1", "peft": "2"},
    )


@pytest.mark.req("T5")
def test_one_recipe_has_one_digest_however_its_versions_are_ordered():
    assert recipe_digest(recipe()) == recipe_digest(recipe(versions={"peft": "2", "torch": "1"}))


@pytest.mark.req("T5")
@pytest.mark.parametrize(
    "change",
    [
        {"card": DIGESTS[4]},
        {"versions": {"torch": "2", "peft": "2"}},
        {"seed": 1},
        {"learning_rate": 1e-4},
        {"method": "sft"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_shapes_the_adapter_changes_the_digest_and_the_work_folder(change):
    home = Path("/home")
    assert recipe_digest(recipe(**change)) != recipe_digest(recipe())
    assert work_folder(home, recipe(**change)) != work_folder(home, recipe())


@pytest.mark.parametrize(
    ("method", "given", "moves"),
    [
        ("lora", None, "lora"),
        ("qlora", None, "qlora"),
        ("preference", None, "lora"),
        ("sft", None, "full"),
        ("instruction", "lora", "lora"),
        ("domain_adaptation", None, "full"),
        ("domain_adaptation", "qlora", "qlora"),
    ],
)
def test_a_method_moves_the_weights_it_names_or_those_the_job_names(method, given, moves):
    named = job().model_copy(update={"method": Method(name=method, parameters=given)})
    curated = DatasetCurated(card=DIGESTS[0], train=DIGESTS[1], validation=None, rows={})
    made = recipe_of(
        named, curated, method=method, base=DIGESTS[2], tokenizer=DIGESTS[3], versions={}
    )
    assert moving(made) == moves
    assert made.lora is not None  # of the adapter that serves


def test_a_method_that_names_its_weights_takes_no_others():
    with pytest.raises(ValidationError, match="read under sft, instruction"):
        Method(name="lora", parameters="full")


@pytest.mark.parametrize(
    ("rows", "settings", "steps"),
    [
        (300, {"batch_size": 8}, 38),
        (300, {"batch_size": 8, "epochs": 2}, 76),
        (300, {"batch_size": 8, "epochs": 0.5}, 19),
        (300, {"batch_size": 8, "gradient_accumulation": 4}, 10),
        (300, {"batch_size": 8, "max_steps": 24}, 24),
        (1, {"batch_size": 8, "epochs": 0.1}, 1),
    ],
)
def test_steps_are_the_epochs_worth_unless_the_job_says(rows, settings, steps):
    assert optimizer_steps(rows, Hyperparameters(**settings)) == steps


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_the_learning_rate_rises_to_its_peak_and_falls_and_no_step_is_wasted(steps, warmup_share):
    rates = [learning_rate_share(s, steps=steps, warmup_share=warmup_share) for s in range(steps)]
    top = min(round(warmup_share * steps), steps - 1)
    assert min(rates) > 0
    assert max(rates) == rates[top] <= 1
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


lengths_of_rows = st.lists(st.integers(1, 1000), max_size=200)


@given(lengths_of_rows, st.integers(1, 16), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_visits_every_row_once_and_in_the_same_order_each_time(
    lengths, batch_size, seed, epoch
):
    order = bucketed_order(lengths, batch_size, seed=seed, epoch=epoch)
    assert sorted(order) == list(range(len(lengths)))
    assert order == bucketed_order(lengths, batch_size, seed=seed, epoch=epoch)


def test_bucketing_leaves_a_fraction_of_the_padding_and_epochs_differ():
    lengths = [100 + (i * 37) % 300 for i in range(400)]
    order = bucketed_order(lengths, 8, seed=0, epoch=0)
    assert padded_share(lengths, order, 8) < 0.1 < padded_share(lengths, range(400), 8)
    assert order != bucketed_order(lengths, 8, seed=0, epoch=1)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=24), st.integers(1, 1000))
def test_parts_hold_every_row_once_and_no_more_tokens_than_they_may(lengths, most):
    found = parts(lengths, most)
    assert sorted(index for part in found for index in part) == list(range(len(lengths)))
    for part in found:
        longest = max(lengths[i] for i in part)
        assert longest == lengths[part[0]]
        assert len(part) == 1 or longest * len(part) <= most
