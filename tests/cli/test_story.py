"""Every fact has words; what stopped a run is named with its mend."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from contracts.catalog import EVENTS
from contracts.diagnosis import RunRejected
from contracts.envelope import Recorded
from contracts.export import SCHEMAS
from contracts.run import CLOSED, fold
from contracts.subjects import RunRef
from services.cli.numbers import duration, size
from services.cli.outcome import EXIT_CODES
from services.cli.story import stopped_by, tell, tells
from services.cli.timing import gate_seconds, stage_seconds, times_text

SAMPLES = SCHEMAS.parent / "samples"
REF = RunRef("demo", "r1")


def sample(name: str):
    text = (SAMPLES / f"{name}.json").read_text(encoding="utf-8")
    return EVENTS[f"sluice.v1.{name}"].model_validate_json(text)


def run_of(*names: str):
    return fold(
        REF,
        [
            Recorded(
                id=str(seq),
                ref=REF,
                event=sample(name),
                cause="",
                at=datetime(2026, 5, 4, 12, 0, seq * 2, tzinfo=UTC),
                seq=seq,
            )
            for seq, name in enumerate(names, start=1)
        ],
    )


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_every_fact_has_words(name: str) -> None:
    assert tells(EVENTS[name])
    telling = tell(sample(name.removeprefix("sluice.v1.")))
    assert telling.headline
    assert telling.mood != "bad" or telling.mends


def test_every_closed_outcome_has_an_exit_code() -> None:
    assert set(EXIT_CODES) == CLOSED


def test_a_gate_is_told_with_its_interval_and_n() -> None:
    telling = tell(sample("evaluation.gate_judged"))
    assert telling.headline.startswith("G3 passed: ")
    assert telling.details[0].startswith(
        "success 31.0 % → 78.5 %: +47.5 points [+42.0, +53.0] n=400"
    )


def test_latency_is_not_told_as_a_share() -> None:
    assert (
        "latency_ms 790 → 812: +22 [-14, +58] n=50" in tell(sample("rollout.stage_judged")).details
    )


@pytest.mark.parametrize(
    ("names", "headline"),
    [
        (("diagnosis.accepted", "diagnosis.halted"), "diagnosis halted: evaluation gap"),
        (("diagnosis.accepted", "training.stopped"), "training stopped at step 17: not a number"),
        (("diagnosis.accepted", "any.failed"), "training-train failed: ArtifactMissing"),
    ],
)
def test_what_stopped_a_run_is_named(names, headline) -> None:
    stop = stopped_by(run_of(*names))
    assert stop is not None
    assert stop.headline == headline
    assert stop.mends


def test_nothing_stopped_a_promoted_run() -> None:
    assert stopped_by(run_of("diagnosis.accepted", "registry.promoted")) is None


def test_time_goes_to_the_service_that_stated_the_fact() -> None:
    run = run_of("diagnosis.accepted", "diagnosis.train_advised", "curation.curated")
    assert stage_seconds(run) == {"diagnosis": 2.0, "curation": 2.0}
    submitted = run.log[0].at - timedelta(seconds=3)
    assert stage_seconds(run, submitted) == {"diagnosis": 5.0, "curation": 2.0}


def test_the_gates_time_runs_from_the_adapter_to_the_last_verdict() -> None:
    assert gate_seconds(run_of("diagnosis.accepted", "evaluation.gate_judged")) == {}
    names = ("training.trained", "evaluation.gate_judged")
    gate = sample("evaluation.gate_judged").gate
    run = run_of("diagnosis.accepted", *names, *names)  # another attempt begins the count anew
    assert gate_seconds(run) == {gate: 2.0}
    assert f"gates: 2.0 s from the adapter to the last verdict, {gate}" in times_text(run)


def test_many_problems_are_cut_short() -> None:
    [problem] = sample("diagnosis.rejected").problems
    telling = tell(RunRejected(problems=(problem,) * 40))
    assert len(telling.details) == 9
    assert telling.details[-1] == "… and 32 more; --json shows all"
    assert len(telling.mends) == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_durations(seconds, text) -> None:
    assert duration(seconds) == text


def test_sizes() -> None:
    assert (size(512), size(3 << 20), size(5 << 40)) == ("512 B", "3 MiB", "5 TiB")


@pytest.mark.req("G9")
def test_a_stage_is_told_with_what_it_wants_and_what_it_can_show() -> None:
    began = sample("rollout.stage_started")
    assert tell(began.model_copy(update={"outcomes": None})).details == ()
    plan = {"outcomes": 50, "requests": 500, "detects": "50 outcomes: a success of 66% or less"}
    assert tell(began.model_copy(update=plan)).details == (
        "it wants 50 outcomes, about 500 requests; 50 outcomes: a success of 66% or less",
    )
