"""Which method, with the reason against every other (D6), and whether the data suffices (D7)."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.base import Problem
from contracts.diagnosis import MethodChoice
from contracts.job import AdaptationJob, MethodName


@dataclass(frozen=True, slots=True)
class Profile:
    """What a method asks for. Ranges are the specification's, in rows (tokens for CPT)."""

    least: int
    most: int
    unit: str
    against: str
    """Why it is not the default choice."""


PROFILES: dict[MethodName, Profile] = {
    "sft": Profile(
        1_000, 100_000, "pairs", "full-parameter updates forget more and cannot be unloaded"
    ),
    "instruction": Profile(10_000, 100_000, "pairs", "the base already follows chat instructions"),
    "lora": Profile(100, 10_000, "examples", "weight-level adaptation was not asked for"),
    "qlora": Profile(
        100, 10_000, "examples", "the base fits this machine's memory without quantization"
    ),
    "preference": Profile(1_000, 10_000, "pairs", "the job's rows carry targets, not preferences"),
    "domain_adaptation": Profile(
        10**8, 10**10, "tokens", "the gap is in behaviour, not in domain language"
    ),
    "distillation": Profile(
        10**5, 10**6, "outputs", "the job names no teacher price and traffic to break even on"
    ),
}


def choose(job: AdaptationJob) -> MethodChoice:
    """The job's method, or LoRA: the lightest one that changes weights and can be unloaded."""
    asked = job.method.name
    method: MethodName = "lora" if asked == "auto" else asked
    reason = (
        "a stable, measurable behaviour with 10^2-10^4 examples: LoRA updates few weights, "
        "regularizes against forgetting, and unloads"
        if asked == "auto"
        else "the job asks for it"
    )
    rejected = {name: p.against for name, p in PROFILES.items() if name != method}
    return MethodChoice(method=method, reason=reason, rejected=rejected)


def data_preflight(job: AdaptationJob, choice: MethodChoice, rows: int) -> list[Problem]:
    """D7: too little data for the method, unless the job says why that is acceptable."""
    profile = PROFILES[choice.method]
    if rows >= profile.least or job.method.data_range_override:
        return []
    return [
        Problem(
            where="data",
            problem=f"{rows} rows; {choice.method} needs {profile.least} to {profile.most} "
            f"{profile.unit}",
            mend="add rows, ask for synthesis, or set method.data_range_override to a reason",
        )
    ]
