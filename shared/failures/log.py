"""Reading a failure log: JSON Lines of traces."""

from __future__ import annotations

from pydantic import ValidationError

from contracts.base import Problem
from contracts.failures import Trace
from shared.errors import InvalidInput
from shared.problems import problems_of

NAMED = 20


def read_traces(content: bytes, name: str = "failures") -> tuple[Trace, ...]:
    """The traces of a log. Raises InvalidInput that names every malformed or repeated line."""
    traces: dict[str, Trace] = {}
    problems: list[Problem] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            trace = Trace.model_validate_json(line)
        except ValidationError as error:
            found = "; ".join(f"{p.where}: {p.problem}" for p in problems_of(error))
            problems.append(
                Problem(where=where, problem=found, mend="see `sluice schema failure-trace`")
            )
            continue
        if trace.id in traces:
            problems.append(
                Problem(where=where, problem=f"repeats id {trace.id!r}", mend="ids are unique")
            )
        traces[trace.id] = trace
    if not traces and not problems:
        problems.append(
            Problem(where=name, problem="holds no traces", mend="one failed request a line")
        )
    if problems:
        raise InvalidInput(problems[:NAMED])
    return tuple(traces.values())
