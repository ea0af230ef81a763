"""Generated code, queries and structured data prove themselves before they become rows (S4, S5).

Python must compile, satisfy static analysis and pass the seed's tests in the sandbox; its branch
coverage and the shape of its algorithm are recorded. SQL must give the expected rows on the seed's
tables. JSON must satisfy its schema. What the sandbox said is evidence and stays beside the rows.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

import jsonschema

from contracts.base import Problem, digest_of
from contracts.data import Row
from services.synthesis.cleaning import cleaned
from services.synthesis.filters import Rejected
from shared.errors import InvalidInput
from shared.sandbox import Sandbox
from shared.scoring.program import sql_query

Language = Literal["python", "sql", "json_schema"]
_LOG = 4000


@dataclass(frozen=True, slots=True)
class Verified:
    """A program that proved itself, and the evidence."""

    target: str
    record: dict[str, Any] = field(default_factory=dict)


def verify(language: Language, seed: Row, answer: str) -> Verified | Rejected:
    """Check one answer against its seed.

    Raises:
        InvalidInput: the seed does not say what to check against.
    """
    checks: dict[Language, Callable[[Row, str], Verified | Rejected]] = {
        "python": _python,
        "sql": _sql,
        "json_schema": _json,
    }
    return checks[language](seed, answer)


def _python(seed: Row, answer: str) -> Verified | Rejected:
    tests = _wanted(seed, "tests")
    program = cleaned(answer)
    if not program:
        return Rejected("empty")
    mark = secrets.token_hex(16)
    given = {"mark": mark, "answer": program, "tests": tests}
    script = resources.files("services.synthesis").joinpath("harness.py").read_bytes()
    done = _sandbox().run(
        ["python3", "-I", "harness.py"],
        files={"harness.py": script},
        stdin=json.dumps(given).encode(),
    )
    verdict: dict[str, Any] = {"outcome": "no_verdict", "reason": done.ending}
    for line in reversed(done.stdout.decode(errors="replace").splitlines()):
        if line.startswith(mark):
            verdict = json.loads(line.removeprefix(mark))
            break
    if verdict["outcome"] != "passed":
        return Rejected(str(verdict["outcome"]))
    limits = _sandbox().limits
    return Verified(
        program,
        {
            **verdict,
            "language": "python",
            "ending": done.ending,
            "log": done.stderr.decode(errors="replace")[:_LOG],
            "limits": {"wall_s": limits.wall_s, "memory_bytes": limits.memory_bytes},
            "harness_digest": digest_of(script),
            "program": hashlib.sha256(program.encode()).hexdigest(),
        },
    )


def _sql(seed: Row, answer: str) -> Verified | Rejected:
    program = cleaned(answer, comment="--").rstrip(";").strip()
    score = sql_query(seed, program)
    if score.value != 1.0:
        return Rejected("does_not_parse" if not score.valid else "other_rows")
    return Verified(program, {"language": "sql", "outcome": "passed", "harness": "sql/v1"})


def _json(seed: Row, answer: str) -> Verified | Rejected:
    schema = seed.expected.get("schema") if isinstance(seed.expected, dict) else None
    if not isinstance(schema, dict):
        raise _unchecked(seed, "schema")
    try:
        value = json.loads(cleaned(answer, comment="//"))
        jsonschema.Draft202012Validator(schema).validate(value)
    except ValueError:
        return Rejected("not_json")
    except jsonschema.ValidationError:
        return Rejected("violates_schema")
    target = json.dumps(value, ensure_ascii=False)
    return Verified(target, {"language": "json_schema", "outcome": "passed", "harness": "json/v1"})


def _wanted(seed: Row, name: str) -> str:
    expected = seed.expected
    value = expected.get(name) if isinstance(expected, dict) else None
    if not isinstance(value, str):
        raise _unchecked(seed, name)
    return value


def _unchecked(seed: Row, name: str) -> InvalidInput:
    return InvalidInput(
        [
            Problem(
                where=f"{seed.id}.expected",
                problem=f"verification has no `{name}` to check an answer with",
                mend=f'give every seed expected: {{"{name}": …}}, or leave synthesis.verify out',
            )
        ]
    )


@cache
def _sandbox() -> Sandbox:
    return Sandbox()
