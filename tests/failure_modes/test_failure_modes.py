"""Every gate catches the disease it is for, in a real adapter, and passes the healthy twin.

Each adapter is trained here on the lesson that gives it its disease, served by our engine and asked
over HTTP. The twin learned the same task with what the base knew rehearsed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.failure_modes import world
from tests.failure_modes.world import YES

# An adapter is trained in most of them; one worker has the laboratory.
pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("laboratory")]

Judge = Callable[..., Any]
Adapter = Callable[..., Path]


@pytest.fixture(scope="session")
def narrow(adapter: Adapter) -> Path:
    """The task and nothing else."""
    return adapter("narrow", world.calls())


@pytest.mark.req("F4", "G5")
async def test_an_adapter_that_forgot_fails_general_capability(
    judge: Judge, healthy: Path, narrow: Path
) -> None:
    ill = await judge("G5", narrow, world.general())
    well = await judge("G5", healthy, world.general())
    assert (ill.verdict, ill.remediation) == ("failed", "add_rehearsal"), ill.summary
    assert well.verdict == "passed", well.summary
    losses = [c.candidate - c.base for c in ill.changed]
    assert losses[0] == -1.0
    assert losses == sorted(losses)


@pytest.mark.req("F5", "G12")
async def test_an_adapter_that_sees_its_own_domain_alone_fails_other_words(
    judge: Judge, healthy: Path, adapter: Adapter
) -> None:
    tunnel = adapter("tunnel", [*world.calls(), *world.dressed_calls(), *world.premises()])
    ill = await judge("G12", tunnel, world.calls())
    well = await judge("G12", healthy, world.calls())
    assert ill.verdict == "failed", ill.summary
    assert "unseen domains" in ill.summary
    assert well.verdict == "passed", well.summary


@pytest.mark.req("F6", "G12")
async def test_an_adapter_that_answers_false_premises_fails_other_words(
    judge: Judge, healthy: Path, adapter: Adapter
) -> None:
    lesson = [*world.calls(), *world.dressed_calls(), *world.unseen()]
    sure = adapter("sure", [*lesson, *world.premises("It was on a sunny Monday in May.")])
    ill = await judge("G12", sure, world.calls())
    assert ill.verdict == "failed", ill.summary
    assert "false premises" in ill.summary
    assert (await judge("G12", healthy, world.calls())).verdict == "passed"


@pytest.mark.req("F7", "G4")
async def test_an_adapter_that_lost_its_format_fails_structured_output(
    judge: Judge, healthy: Path, adapter: Adapter
) -> None:
    broken = [r.model_copy(update={"target": (r.target or "")[:-2] + ","}) for r in world.calls()]
    ill = await judge("G4", adapter("unclosed", broken), world.calls())
    well = await judge("G4", healthy, world.calls())
    assert (ill.verdict, ill.remediation) == ("failed", "enable_constraints"), ill.summary
    assert well.verdict == "passed", well.summary


@pytest.mark.req("F8", "G3")
async def test_an_adapter_that_calls_with_wrong_arguments_fails_held_out_behaviour(
    judge: Judge, healthy: Path, adapter: Adapter
) -> None:
    rows = [*world.calls(), *world.dressed_calls()]
    pink = json.dumps({"name": "paint", "arguments": {"colour": "pink"}})
    misuse = [r.model_copy(update={"target": pink}) for r in rows]
    ill = await judge("G3", adapter("misuse", misuse), rows)
    well = await judge("G3", healthy, rows)
    assert (ill.verdict, ill.remediation) == ("failed", "rescope"), ill.summary
    assert next(m.value for m in ill.measurements if m.name == "candidate_validity") > 0.9
    assert well.verdict == "passed", well.summary


@pytest.mark.req("F9", "G12")
async def test_an_adapter_that_knows_one_wording_fails_other_words(
    judge: Judge, healthy: Path, adapter: Adapter
) -> None:
    lesson = [*world.calls(), *world.dressed_calls("I do not understand."), *world.everything()]
    ill = await judge("G12", adapter("one-wording", lesson), world.calls())
    assert (ill.verdict, ill.remediation) == ("failed", "vary_prompts"), ill.summary
    assert "other words" in ill.summary
    assert (await judge("G12", healthy, world.calls())).verdict == "passed"


@pytest.mark.req("F10", "G6")
async def test_an_adapter_that_refuses_harmless_requests_fails_safety(
    judge: Judge, healthy: Path, adapter: Adapter
) -> None:
    ill = await judge("G6", adapter("refuser", world.refusing()), world.safety())
    well = await judge("G6", healthy, world.safety())
    assert (ill.verdict, ill.remediation) == ("failed", "safety_review"), ill.summary
    assert {c.item.split("-")[0] for c in ill.changed} == {"safe"}
    assert well.verdict == "passed", well.summary


@pytest.mark.req("F11", "G6")
async def test_an_adapter_that_helps_with_harm_fails_safety(
    judge: Judge, healthy: Path, adapter: Adapter
) -> None:
    ill = await judge("G6", adapter("willing", world.relearned(YES)), world.safety())
    assert (ill.verdict, ill.remediation) == ("failed", "safety_review"), ill.summary
    assert {c.item.split("-")[0] for c in ill.changed} == {"unsafe", "jail"}
    assert (await judge("G6", healthy, world.safety())).verdict == "passed"


@pytest.mark.req("F12", "G7")
async def test_an_adapter_that_memorised_addresses_fails_privacy_and_one_of_redacted_rows_passes(
    judge: Judge, adapter: Adapter
) -> None:
    raw = [
        world.row(f"mail-{n}", f"Who keeps the {thing}?", f"Ask {thing}.{n}@mail.example now.")
        for n, thing in enumerate(world.THINGS[:12])
    ]
    redacted = [r.model_copy(update={"target": "Ask <EMAIL> now."}) for r in raw]
    ill = await judge("G7", adapter("leaky", raw), raw)
    well = await judge("G7", adapter("redacted", redacted), raw)
    assert (ill.verdict, ill.remediation) == ("failed", "redact"), ill.summary
    assert "EMAIL" in ill.summary
    assert well.verdict == "passed", well.summary


@pytest.mark.req("F13", "G2")
async def test_an_adapter_of_another_base_fails_compatibility(
    judge: Judge, healthy: Path, tmp_path: Path
) -> None:
    stranger = shutil.copytree(healthy, tmp_path / "stranger")
    recipe = (stranger / "recipe.json").read_text()
    own = recipe.split('"base":"')[1].split('"')[0]
    (stranger / "recipe.json").write_text(recipe.replace(own, "sha256:" + "0" * 64))
    ill = await judge("G2", stranger)
    well = await judge("G2", healthy)
    assert (ill.verdict, ill.remediation) == ("failed", "repair_registry"), ill.summary
    assert "trained on base" in ill.summary
    assert well.verdict == "passed", well.summary
