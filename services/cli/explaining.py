"""The ladder as a table: what each of its fifteen rungs measured, and its verdict. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from contracts.diagnosis import (
    Diagnosis,
    DiagnosisConcluded,
    MethodChoice,
    RungName,
    RungResult,
    TrainingAdvised,
    TrainingDeclined,
    Usage,
)
from contracts.run import Run
from services.cli import numbers

HEADS = ("", "rung", "success", "against the base", "tokens", "latency", "per success", "verdict")
_METHODS: dict[RungName, tuple[str, ...]] = {
    "sft": ("sft", "instruction"),
    "lora": ("lora", "qlora"),
    "preference_tuning": ("preference",),
    "distillation": ("distillation",),
}
"""Training rungs, and the methods that take them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RungLine:
    """One rung in words. Empty where nothing was measured."""

    step: int
    rung: RungName
    verdict: str
    success: str = ""
    gain: str = ""
    tokens: str = ""
    latency: str = ""
    per_success: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """As `HEADS`."""
        title = self.rung.replace("_", " ")
        figures = (self.success, self.gain, self.tokens, self.latency, self.per_success)
        return (str(self.step), title, *figures, self.verdict)


def ladder_lines(run: Run) -> tuple[RungLine, ...]:
    """The fifteen rungs in order; none where the run was stopped before any was measured."""
    if (diagnosis := run.diagnosis) is None:
        return ()
    suffices, choice = _decision(run)
    results = {result.rung: result for result in diagnosis.rungs}
    skipped = {skipped.rung: skipped.reason for skipped in diagnosis.skipped}
    lines = []
    for step, rung in enumerate(get_args(RungName), start=1):
        if rung == "no_adaptation":
            lines.append(_base_line(step, diagnosis, chosen=suffices == rung))
        elif rung in results:
            lines.append(_measured_line(step, results[rung], chosen=suffices == rung))
        elif rung in _METHODS:
            verdict = _method_verdict(_METHODS[rung], suffices, choice)
            lines.append(RungLine(step=step, rung=rung, verdict=verdict))
        else:
            reason = skipped.get(rung, "no reason was given")
            lines.append(RungLine(step=step, rung=rung, verdict=f"not run: {reason}"))
    return tuple(lines)


def _decision(run: Run) -> tuple[RungName | None, MethodChoice | None]:
    for record in reversed(run.log):
        match record.event:
            case TrainingDeclined(rung=rung):
                return rung, None
            case TrainingAdvised(choice=choice) | DiagnosisConcluded(choice=choice):
                return None, choice
            case _:
                pass
    return None, None


def _base_line(step: int, diagnosis: Diagnosis, *, chosen: bool) -> RungLine:
    reaches = diagnosis.base.value >= diagnosis.target
    usage = diagnosis.base_usage
    return RungLine(
        step=step,
        rung="no_adaptation",
        success=_bare(numbers.measurement(diagnosis.base)),
        tokens="" if usage is None else f"{usage.prompt_tokens + usage.completion_tokens:.0f}",
        latency="" if usage is None else f"{usage.latency_ms:.0f} ms",
        per_success=_per_success(usage),
        verdict=_verdict(reaches=reaches, chosen=chosen),
    )


def _measured_line(step: int, result: RungResult, *, chosen: bool) -> RungLine:
    low, high = result.against_base.interval.low, result.against_base.interval.high
    way = f"; best of {result.variants}: {result.variant}" if result.variants > 1 else ""
    return RungLine(
        step=step,
        rung=result.rung,
        success=_bare(numbers.measurement(result.success)),
        gain=f"{numbers.points(result.against_base.difference)} points "
        f"[{numbers.points(low)}, {numbers.points(high)}]",
        tokens=f"{result.added_prompt_tokens + result.added_completion_tokens:+.0f}",
        latency=f"{result.latency_ms:.0f} ms ({result.added_latency_ms:+.0f})",
        per_success=_per_success(result.usage),
        verdict=_verdict(reaches=result.reaches_target, chosen=chosen) + way,
    )


def _verdict(*, reaches: bool, chosen: bool) -> str:
    if chosen:
        return "suffices"
    return "reaches the target" if reaches else "below the target"


def _method_verdict(
    methods: tuple[str, ...], suffices: RungName | None, choice: MethodChoice | None
) -> str:
    if choice is None:
        return f"not needed: {suffices.replace('_', ' ')} suffices" if suffices else "not decided"
    if choice.method in methods:
        return f"would train ({choice.method}): {choice.reason}"
    return "not chosen: " + "; ".join(
        dict.fromkeys(choice.rejected[m] for m in methods if m in choice.rejected)
    )


def _per_success(usage: Usage | None) -> str:
    """The price where there is one, else the tokens."""
    if usage is None or usage.tokens_per_success is None:
        return ""
    if usage.cost_per_success is not None:
        return f"{usage.cost_per_success:.2g}"
    return f"{usage.tokens_per_success:.0f} tokens"


def _bare(measurement: str) -> str:
    """A measurement without its name: the row has one."""
    return measurement.split(" ", 1)[1]
