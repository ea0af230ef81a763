"""From a validation error to problems a person can mend."""

from __future__ import annotations

from pydantic import ValidationError

from contracts.base import Problem

SEE_SCHEMA = "see `sluice schema job`"


def dotted(location: tuple[str | int, ...]) -> str:
    """`data[0].licence`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def problems_of(error: ValidationError) -> tuple[Problem, ...]:
    """Every problem of a document, with the path of its field."""
    return tuple(
        _problem(detail["type"], detail["msg"], detail["loc"]) for detail in error.errors()
    )


def _problem(kind: str, message: str, location: tuple[int | str, ...]) -> Problem:
    where = dotted(location) or "document"
    match kind:
        case "extra_forbidden":
            return Problem(
                where=where, problem="is not a known field", mend=f"remove it; {SEE_SCHEMA}"
            )
        case "missing":
            return Problem(where=where, problem="is missing", mend=f"add it; {SEE_SCHEMA}")
        case "json_invalid":
            return Problem(
                where=where, problem=f"is not JSON: {message}", mend="publish the job as UTF-8 JSON"
            )
    problem = message.removeprefix("Value error, ")
    return Problem(where=where, problem=problem[:1].lower() + problem[1:], mend=SEE_SCHEMA)
