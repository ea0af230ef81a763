"""The HTML card: complete, self-contained, and safe whatever the job's texts hold."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from contracts.base import digest_of
from contracts.card import AdaptationCard
from contracts.distillation import DistillationParameters
from contracts.measure import Interval, Measurement
from contracts.registry import CandidateRegistered
from contracts.rollout import StageJudged
from services.registry.page import page
from services.registry.readme import render
from shared.bundles import open_card
from tests.registry.registry_office import Office

PAYLOAD = digest_of(b"payload")


def card(office: Office) -> AdaptationCard:
    fact = office.registry.register(office.gated())
    assert isinstance(fact, CandidateRegistered)
    return open_card(office.artifacts.get(fact.card), [office.key.public]).card


def stage(percent: int, success: float) -> StageJudged:
    def measured(arm: str, value: float) -> Measurement:
        interval = Interval(low=max(0.0, value - 0.06), high=min(1.0, value + 0.03))
        return Measurement(name=f"{arm}_success", value=value, n=50, interval=interval)

    return StageJudged(
        deployment="assistant",
        adapter_id="x",
        stage="canary" if percent else "shadow",
        percent=percent,
        verdict="passed",
        summary="No evidence of harm.",
        measurements=(measured("candidate", success), measured("stable", 0.91)),
    )


STAGES = [stage(0, 0.96), stage(1, 1.0), stage(10, 0.94), stage(50, 0.97), stage(100, 0.96)]


@pytest.mark.req("R3")
def test_the_page_shows_gates_changes_stages_training_data_and_rollback(office: Office) -> None:
    made = card(office)
    text = page(made, STAGES, payload=PAYLOAD)
    for shown in (
        made.adapter_id,
        "+61.3 points (0.0 → 61.3 %",
        "canary 10 %",
        "rollback target",
        made.training.weights,
        PAYLOAD,
        *(gate.summary for gate in made.gates),
        *(source.licence for source in made.dataset.sources),
        *made.reconsider_when,
    ):
        assert shown in text
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 2
    for plot in plots:
        ElementTree.fromstring(plot)
    assert plots[1].count('class="after"') == len(STAGES)
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text


@pytest.mark.req("R3")
@pytest.mark.parametrize(
    ("objective", "learned"),
    [
        ("logits", "logits at temperature 2, weighing 50 % of the loss"),
        ("sequence", "its answers, asked 1 time a request"),
        ("reasoning", "its reasoning where the final answer was right, asked 1 time a request"),
    ],
)
def test_a_distilled_adapter_discloses_its_teacher(
    office: Office, objective: str, learned: str
) -> None:
    teacher = {"name": "Large-7B", "licence": "CC-BY-4.0", "checkpoint": "large"}
    teacher |= {"digest": PAYLOAD, "endpoint": {"model": "large"}}
    wanted = DistillationParameters.model_validate({"objective": objective, "teacher": teacher})
    plain = card(office)
    recipe = plain.recipe.model_copy(update={"method": wanted.recipe, "distillation": wanted})
    made = plain.model_copy(update={"recipe": recipe})
    said = f"Large-7B, CC-BY-4.0, checkpoint {PAYLOAD}, answering as large at serving"
    for shown in (said, learned):
        assert shown in page(made, (), payload=PAYLOAD)
        assert shown in render(made)
    assert "teacher" not in render(plain)


@pytest.mark.req("R3")
def test_hostile_text_stays_text(office: Office) -> None:
    made = card(office)
    evil = "<script>alert(1)</script>"
    behaviour = made.job.behaviour.model_copy(update={"description": evil})
    gates = tuple(
        gate.model_copy(
            update={
                "summary": evil,
                "comparisons": tuple(
                    row.model_copy(update={"metric": evil}) for row in gate.comparisons
                ),
            }
        )
        for gate in made.gates
    )
    job = made.job.model_copy(update={"behaviour": behaviour})
    changed = made.model_copy(update={"job": job, "gates": gates})
    assert "<script" not in page(changed, STAGES, payload=PAYLOAD)


def test_a_card_without_comparisons_or_stages_has_no_plots(office: Office) -> None:
    made = card(office)
    bare = tuple(gate.model_copy(update={"comparisons": ()}) for gate in made.gates)
    assert "<svg" not in page(made.model_copy(update={"gates": bare}), [], payload=PAYLOAD)
