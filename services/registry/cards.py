"""The Adaptation Card: everything about one adapter, from its run's log and artifacts (R3)."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.base import Digest
from contracts.card import AdaptationCard
from contracts.curation import DatasetCurated
from contracts.data import DatasetCard
from contracts.diagnosis import TrainingAdvised
from contracts.job import AdaptationJob, RolloutPolicy
from contracts.registry import AdapterId
from contracts.run import Run
from contracts.training import AdapterTrained, Recipe
from services.registry.chain import verdicts

_OBJECTIVES = {
    "sft": "cross_entropy",
    "instruction": "cross_entropy",
    "lora": "cross_entropy",
    "qlora": "cross_entropy",
    "cpt": "causal_lm",
}
"""Method → objective tag, where the method's own name is not the objective."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The facts a run must have stated before its candidate can have a card."""

    job: AdaptationJob
    job_digest: Digest
    advised: TrainingAdvised
    dataset: DatasetCurated
    trained: AdapterTrained

    @classmethod
    def of(cls, run: Run) -> Candidate | None:
        """None if the run has not come far enough."""
        if (
            run.job is None
            or run.job_digest is None
            or run.advised is None
            or run.dataset is None
            or run.trained is None
        ):
            return None
        return cls(
            job=run.job,
            job_digest=run.job_digest,
            advised=run.advised,
            dataset=run.dataset,
            trained=run.trained,
        )


def build_card(
    run: Run,
    candidate: Candidate,
    *,
    adapter_id: AdapterId,
    dataset: DatasetCard,
    recipe: Recipe,
    special_tokens: tuple[str, ...],
    rollback: str,
) -> AdaptationCard:
    """The candidate's card. It depends on its arguments only, so building it again is harmless."""
    job = candidate.job
    return AdaptationCard(
        adapter_id=str(adapter_id),
        tenant=run.ref.tenant,
        run=run.ref.run,
        job=job,
        job_digest=candidate.job_digest,
        diagnosis=candidate.advised.diagnosis,
        choice=candidate.advised.choice,
        dataset=dataset,
        dataset_digest=candidate.dataset.card,
        recipe=recipe,
        training=candidate.trained,
        gates=tuple(run.gates[gate] for gate in sorted(run.gates)),
        base=candidate.trained.base,
        tokenizer=candidate.trained.tokenizer,
        special_tokens=special_tokens,
        objective=_OBJECTIVES.get(recipe.method, recipe.method),
        rollback=rollback,
        monitoring=monitoring(job.rollout),
        reconsider_when=reconsider_when(job),
        created_at=verdicts(run)[-1].record.at.isoformat(),
    )


def monitoring(policy: RolloutPolicy) -> dict[str, float]:
    """Metric → the threshold that raises an alert once the adapter serves."""
    return {
        "task_success": policy.minimum_success,
        "latency_p95_ratio": policy.maximum_latency_ratio,
        "error_rate": policy.maximum_error_rate,
    }


def reconsider_when(job: AdaptationJob) -> tuple[str, ...]:
    """What would make this adaptation worth another look."""
    return (
        f"the base {job.base.label} is replaced or its tokenizer changes",
        f"a lighter rung reaches {100 * job.behaviour.target:.0f} % on the dev set",
        f"task success in production stays below {100 * job.rollout.minimum_success:.0f} %",
        "a data source loses its licence or must be forgotten",
    )
