"""A job file: YAML or JSON, read with the line of every field, so that a problem can name its line.

YAML is read without its surprises: a date stays text, and a key given twice is a problem instead of
a silent overwrite.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from contracts.base import Problem
from contracts.job import AdaptationJob
from shared.errors import InvalidInput

Location = tuple[str | int, ...]
SEE_SCHEMA = "see `sluice schema job`"


class _Loader(yaml.SafeLoader):
    """SafeLoader whose dates stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class JobFile:
    """A file's content, and on which line each of its fields is (from 1)."""

    path: Path
    content: Any
    lines: dict[Location, int]

    def where(self, location: Location) -> str:
        """`job.yaml:12: data[0].licence`; a missing field has its parent's line."""
        line = next(
            (
                self.lines[location[:end]]
                for end in range(len(location), -1, -1)
                if location[:end] in self.lines
            ),
            None,
        )
        place = self.path.name if line is None else f"{self.path.name}:{line}"
        return f"{place}: {dotted(location)}" if location else place


def dotted(location: Location) -> str:
    """`data[0].licence`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_job(path: Path) -> tuple[AdaptationJob, JobFile]:
    """The job that a file describes.

    Raises:
        InvalidInput: every problem, with its line and its mend.
    """
    source = read_file(path)
    try:
        return AdaptationJob.model_validate(source.content), source
    except ValidationError as error:
        raise InvalidInput([_problem(source, detail) for detail in error.errors()]) from error


def read_own_job(path: Path, tenant: str | None) -> tuple[AdaptationJob, JobFile]:
    """The job that a file describes, which must be of `tenant` where one is given.

    Raises:
        InvalidInput: as `read_job`, or the job is another tenant's.
    """
    job, source = read_job(path)
    if tenant is not None and tenant != job.tenant:
        raise _unreadable(
            source.where(("tenant",)),
            f"the job is of tenant {job.tenant!r}, and you act as {tenant!r}",
            "correct `tenant` in the job, or --tenant / SLUICE_TENANT",
        )
    return job, source


def read_file(path: Path) -> JobFile:
    """The file as data. Raises InvalidInput if it is neither YAML nor JSON."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _unreadable(str(path), str(error.strerror), "name a readable job file") from error
    except UnicodeDecodeError as error:
        raise _unreadable(path.name, "is not UTF-8 text", "save it as UTF-8") from error
    try:
        if path.suffix == ".json":
            return JobFile(path, json.loads(text), {})
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise _unreadable(path.name, "is empty", SEE_SCHEMA)
        lines = dict(_lines(node, (), path))
        return JobFile(path, yaml.load(text, Loader=_Loader), lines)
    except RecursionError as error:
        raise _unreadable(path.name, "is nested too deeply", SEE_SCHEMA) from error
    except json.JSONDecodeError as error:
        where = f"{path.name}:{error.lineno}"
        raise _unreadable(where, f"is not JSON: {error.msg}", "correct the syntax") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path.name}:{mark.line + 1}" if mark else path.name
        raise _unreadable(where, f"is not YAML: {error.problem}", "correct the syntax") from error
    except yaml.YAMLError as error:
        raise _unreadable(path.name, f"is not YAML: {error}", "correct the syntax") from error


def _unreadable(where: str, problem: str, mend: str) -> InvalidInput:
    return InvalidInput([Problem(where=where, problem=problem, mend=mend)])


def _lines(node: yaml.Node, at: Location, path: Path) -> Iterator[tuple[Location, int]]:
    yield at, node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*at, index), path)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if name in seen:
                raise _unreadable(
                    f"{path.name}:{line}: {dotted((*at, name))}", "is given twice", "keep one"
                )
            seen.add(name)
            for place, found in _lines(value, (*at, name), path):
                yield place, line if place == (*at, name) else found


def _problem(source: JobFile, detail: Any) -> Problem:
    location: Location = tuple(detail["loc"])
    kind = str(detail["type"])
    message = str(detail["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return Problem(
            where=source.where(location),
            problem="is not a field of a job",
            mend=_nearest(str(location[-1]), _fields_at(location[:-1])),
        )
    if kind == "missing":
        mend = f"add `{location[-1]}`; {SEE_SCHEMA}"
        return Problem(where=source.where(location), problem="is missing", mend=mend)
    given = detail.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    return Problem(
        where=source.where(location),
        problem=message[:1].lower() + message[1:] + shown,
        mend=SEE_SCHEMA if kind != "string_pattern_mismatch" else f"rename it; {SEE_SCHEMA}",
    )


def _fields_at(location: Location) -> list[str]:
    """The fields the job has at `location`."""
    model: Any = AdaptationJob
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return []
        model = _model_in(field.annotation)
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"remove it; known here: {', '.join(known)}" if known else f"remove it; {SEE_SCHEMA}"
