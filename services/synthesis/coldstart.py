"""Rows without a teacher: templates that are filled in, and simulators that play the task.

Both are for a task that has few examples yet. They cost nothing, their answers are right by
construction, and their origin says how they were made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import gcd, prod

from pydantic import ValidationError

from contracts.base import Problem, digest_of
from contracts.data import Message, Origin, Row, RowTemplate, parse_row
from shared.errors import InvalidInput
from shared.sandbox import Limits, Sandbox

_LIMITS = Limits(wall_s=20.0, cpu_s=20, output_bytes=4 << 20)


def from_templates(templates: Sequence[RowTemplate], count: int) -> list[Row]:
    """Up to `count` rows, templates in turn, each way to fill a template at most once."""
    made: list[Row] = []
    streams = [_filled(template) for template in templates]
    while streams and len(made) < count:
        for stream in list(streams):
            row = next(stream, None)
            if row is None:
                streams.remove(stream)
            elif len(made) < count:
                made.append(row)
    return made


def _filled(template: RowTemplate) -> Iterator[Row]:
    """Every way to fill the slots once, in an order that spreads over all of them."""
    names = sorted(template.slots)
    total = prod(len(template.slots[name]) for name in names)
    version = digest_of(template.model_dump_json().encode())
    stride = next(s for s in range(max(1, round(total * 0.618)), total + 2) if gcd(s, total) == 1)
    for step in range(total):
        index = rest = step * stride % total
        values = {}
        for name in names:
            rest, chosen = divmod(rest, len(template.slots[name]))
            values[name] = template.slots[name][chosen]
        turns = [] if template.system is None else [Message(role="system", content=template.system)]
        turns.append(Message(role="user", content=_fill(template.request, values)))
        yield Row(
            id=f"tpl-{template.id}-{index}",
            messages=tuple(turns),
            tools=template.tools,
            target=_fill(template.target, values),
            expected=None
            if template.expected is None
            else json.loads(_fill(template.expected, values)),
            group=f"template:{template.id}",
            origin=_origin(f"template:{template.id}", version),
        )


def _fill(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


def from_simulator(program: bytes, count: int, seed: int = 0) -> list[Row]:
    """Rows that a program prints as JSON Lines; it is run as `simulator.py COUNT SEED`.

    It runs in the sandbox: no network, no files, and nothing random but its seed.

    Raises:
        InvalidInput: it fails, or prints a line that is no row.
    """
    done = Sandbox(_LIMITS).run(
        ["python3", "-I", "simulator.py", str(count), str(seed)], files={"simulator.py": program}
    )
    if not done.succeeded:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [done.ending]
        raise _wrong("simulator", f"ended without its rows: {reason[0]}")
    rows = []
    for number, line in enumerate(done.stdout.splitlines()[:count], start=1):
        try:
            row = parse_row(line)
        except ValidationError as error:
            raise _wrong(f"simulator line {number}", error.errors()[0]["msg"]) from error
        rows.append(row.model_copy(update={"origin": _origin("simulator", digest_of(program))}))
    return rows


def _origin(model: str, version: str) -> Origin:
    return Origin(
        model=model,
        api_version=version,
        temperature=0.0,
        top_p=1.0,
        prompt_template="none",
    )


def _wrong(where: str, problem: str) -> InvalidInput:
    mend = "print one row a line; see `sluice schema row`"
    return InvalidInput([Problem(where=f"synthesis.{where}", problem=problem, mend=mend)])
