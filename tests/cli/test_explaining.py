"""The ladder as a table: every rung has a verdict, whatever came of the run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest

from contracts.base import Event
from contracts.catalog import EVENTS
from contracts.diagnosis import DiagnosisHalted, RungName, TrainingDeclined
from contracts.envelope import Recorded
from contracts.export import SCHEMAS
from contracts.run import Run, fold
from contracts.subjects import RunRef
from services.cli.explaining import HEADS, ladder_lines

REF = RunRef("demo", "r1")


def sample(name: str) -> Event:
    text = (SCHEMAS.parent / "samples" / f"{name}.json").read_text(encoding="utf-8")
    return EVENTS[f"sluice.v1.{name}"].model_validate_json(text)


def run_of(*events: Event) -> Run:
    at = datetime(2026, 5, 4, tzinfo=UTC)
    return fold(
        REF,
        [
            Recorded(id=str(seq), ref=REF, event=event, cause="", at=at, seq=seq)
            for seq, event in enumerate(events, start=1)
        ],
    )


@pytest.mark.req("D2")
@pytest.mark.parametrize("name", ["train_advised", "train_declined", "concluded"])
def test_every_rung_has_a_line_with_a_verdict(name: str) -> None:
    run = run_of(sample("diagnosis.accepted"), sample(f"diagnosis.{name}"))
    lines = ladder_lines(run)
    assert [line.rung for line in lines] == list(get_args(RungName))
    assert [line.step for line in lines] == list(range(1, 16))
    assert all(line.verdict and len(line.cells) == len(HEADS) for line in lines)


def test_the_rung_that_suffices_is_named_and_training_is_not_needed() -> None:
    declined = sample("diagnosis.train_declined")
    assert isinstance(declined, TrainingDeclined)
    lines = {line.rung: line for line in ladder_lines(run_of(declined))}
    assert lines["structured_outputs"].verdict == "suffices"
    assert lines["structured_outputs"].gain == "+33.5 points [+26.2, +40.8]"
    assert lines["lora"].verdict == "not needed: structured outputs suffices"
    assert lines["no_adaptation"].verdict == "below the target"
    assert lines["retrieval"].verdict.startswith("not run: the job names no")


def test_the_method_that_would_train_is_named_and_the_others_have_their_reasons() -> None:
    lines = {line.rung: line for line in ladder_lines(run_of(sample("diagnosis.concluded")))}
    assert lines["lora"].verdict.startswith("would train (lora)")
    assert lines["distillation"].verdict == "not chosen: no teacher is named"


def test_a_preflight_that_halts_keeps_what_was_measured() -> None:
    halted, declined = sample("diagnosis.halted"), sample("diagnosis.train_declined")
    assert isinstance(halted, DiagnosisHalted)
    assert isinstance(declined, TrainingDeclined)
    assert ladder_lines(run_of(halted)) == ()
    kept = halted.model_copy(update={"diagnosis": declined.diagnosis})
    lines = {line.rung: line for line in ladder_lines(run_of(kept))}
    assert lines["structured_outputs"].verdict == "reaches the target"
    assert lines["sft"].verdict == "not decided"
