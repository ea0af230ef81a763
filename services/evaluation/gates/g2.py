"""G2, artifact compatibility: what is served must be what was trained.

Two questions. Do the adapter's recorded facts (base, tokenizer, rank, modules) fit the engine? And
does the engine, asked the prompts training fingerprinted, render the same tokens and give the same
log-probabilities? Where not, the way in which they differ names the cause. A checkpoint into which
the adapter was merged is asked the same prompts: its base is its own, its answers must be the
trained model's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from contracts.base import Digest
from contracts.measure import Measurement
from contracts.training import Fingerprint
from services.evaluation.gates.judgement import Judgement

TOLERANCE_NATS = {"float32": 0.05, "bfloat16": 0.5}
"""By the engine's precision. Float32 against float32 differs by about 1e-4, which leaves room for
other kernels; SmolLM2-135M in bfloat16 was seen to differ by up to 0.39."""

Fault = Literal["wrong_template", "adapter_ignored", "wrong_base", "module_ignored", "lossy_merge"]

_CAUSES: dict[Fault, str] = {
    "wrong_template": "the chat template or tokenizer renders other tokens than in training",
    "adapter_ignored": "the engine answers as the base does: the adapter is not applied",
    "wrong_base": "the engine's base is not the base that was trained on",
    "module_ignored": "neither the base nor the trained model: a module is not applied, or scaled",
    "lossy_merge": "the merge is lossy: the merged weights answer as neither the base nor the "
    "trained model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFacts:
    """What the adapter artifact says of itself."""

    base: Digest
    tokenizer: Digest
    rank: int
    target_modules: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What the serving engine can take."""

    base: Digest
    tokenizer: Digest
    maximum_rank: int
    target_modules: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The engine's answer to one fingerprint's prompt: next-token log-probabilities by token id."""

    prompt_token_ids: tuple[int, ...]
    candidate: Mapping[int, float]
    base: Mapping[int, float] | None
    """None where the adapter is merged into the weights that answer."""


def incompatibilities(adapter: AdapterFacts, engine: EngineFacts) -> list[str]:
    """Why this engine cannot serve this adapter; empty if it can."""
    found = []
    if adapter.base != engine.base:
        found.append(f"trained on base {adapter.base[:19]}…, the engine has {engine.base[:19]}…")
    if adapter.tokenizer != engine.tokenizer:
        found.append("the tokenizers differ")
    if adapter.rank > engine.maximum_rank:
        found.append(f"rank {adapter.rank} is above the engine's {engine.maximum_rank}")
    named = {module.rpartition(".")[2] for module in adapter.target_modules}  # PEFT may give paths
    if unknown := sorted(named - set(engine.target_modules)):
        found.append(f"the engine has no {', '.join(unknown)}")
    return found


def fault(
    trained: Fingerprint, served: Served, tolerance: float = TOLERANCE_NATS["float32"]
) -> Fault | None:
    """How served differs from trained on one prompt; None if it does not."""
    if trained.prompt_token_ids != served.prompt_token_ids:
        return "wrong_template"
    if distance(trained.top_token_ids, trained.top_logprobs, served.candidate) <= tolerance:
        return None
    ids, base = trained.top_token_ids, trained.base_top_logprobs
    if served.base is not None and distance(ids, base, served.base) > tolerance:
        return "wrong_base"
    if distance(ids, base, served.candidate) <= tolerance:
        return "adapter_ignored"
    return "lossy_merge" if served.base is None else "module_ignored"


def distance(ids: Sequence[int], wanted: Sequence[float], served: Mapping[int, float]) -> float:
    """The largest difference of log-probability over `ids`; infinite where one is not a number."""
    differences = (abs(served.get(i, -math.inf) - w) for i, w in zip(ids, wanted, strict=True))
    return max((math.inf if math.isnan(d) else d for d in differences), default=0.0)


def judge(
    adapter: AdapterFacts,
    engine: EngineFacts,
    fingerprints: Sequence[Fingerprint],
    served: Sequence[Served],
    *,
    tolerance: float = TOLERANCE_NATS["float32"],
) -> Judgement:
    """Passed only if every fingerprint matches and at least one tells the adapter from the base."""
    found = incompatibilities(adapter, engine)
    faults = [fault(f, s, tolerance) for f, s in zip(fingerprints, served, strict=True)]
    measured = _measurements(fingerprints, served)
    if found:
        return _failed("; ".join(found), measured)
    if wrong := [f for f in faults if f is not None]:
        worst = min(wrong, key=list(_CAUSES).index)
        return _failed(f"on {len(wrong)} of {len(faults)} prompts {_CAUSES[worst]}", measured)
    telling = [f for f in fingerprints if _separation(f) > 2 * tolerance]
    if not telling:
        return Judgement(
            gate="G2",
            verdict="inconclusive",
            summary=(
                f"None of {len(fingerprints)} fingerprints tells the trained model from its base, "
                "so they cannot show that the adapter is applied."
            ),
            measurements=measured,
            remediation="retrain",
        )
    return Judgement(
        gate="G2",
        verdict="passed",
        summary=f"Served equals trained on {len(faults)} fingerprinted prompts.",
        measurements=measured,
    )


def _separation(fingerprint: Fingerprint) -> float:
    pairs = zip(fingerprint.top_logprobs, fingerprint.base_top_logprobs, strict=True)
    return max((abs(a - b) for a, b in pairs), default=0.0)


def _measurements(
    fingerprints: Sequence[Fingerprint], served: Sequence[Served]
) -> tuple[Measurement, ...]:
    distances = [
        distance(f.top_token_ids, f.top_logprobs, s.candidate)
        for f, s in zip(fingerprints, served, strict=True)
    ]
    n = len(distances)
    return (
        Measurement(name="largest_logprob_difference_nats", value=max(distances, default=0.0), n=n),
        Measurement(
            name="largest_adapter_effect_nats",
            value=max(map(_separation, fingerprints), default=0),
            n=n,
        ),
    )


def _failed(why: str, measurements: tuple[Measurement, ...]) -> Judgement:
    return Judgement(
        gate="G2",
        verdict="failed",
        summary=f"Served is not what was trained: {why}.",
        measurements=measurements,
        remediation="repair_registry",
    )
