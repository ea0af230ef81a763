"""Which services to run, from what the user typed."""

from __future__ import annotations

import re
from collections.abc import Iterable

from contracts.base import SLUG, Problem, Service
from shared.errors import InvalidInput

NONE = "none"


def select(only: Iterable[str], without: Iterable[str]) -> tuple[str, ...]:
    """The chosen services in the order a run meets them. Raises InvalidInput."""
    wanted, unwanted = _names(only, "--only"), _names(without, "--without")
    if not wanted:
        wanted = set(Service)
    return tuple(name for name in Service if name in wanted and name not in unwanted)


def user_programs(pairs: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`NAME=MODULE` pairs. Raises InvalidInput."""
    found = []
    for pair in pairs:
        name, _, module = pair.partition("=")
        if not re.fullmatch(SLUG, name) or not re.fullmatch(r"\w+(\.\w+)*", module):
            raise _bad("--with", f"{pair!r} is not NAME=MODULE", "as `--with labels=acme.labels`")
        if name in (*Service, "nats"):
            raise _bad("--with", f"{name!r} is a service of ours", "choose another name")
        found.append((name, module))
    return tuple(found)


def tenant_names(given: Iterable[str]) -> tuple[str, ...]:
    """The names, each once. Raises InvalidInput."""
    names = tuple(dict.fromkeys(name.strip() for name in given if name.strip()))
    for name in names:
        if not re.fullmatch(SLUG, name):
            raise _bad("tenant", f"{name!r} is no tenant name", "use 1-64 of a-z 0-9 _ -")
    return names


def _names(given: Iterable[str], option: str) -> set[str]:
    names = {name for text in given for name in text.split(",") if name}
    if unknown := names - set(Service) - {NONE}:
        known = ", ".join(Service)
        raise _bad(option, f"no service {', '.join(sorted(unknown))}", f"choose from {known}")
    return names


def _bad(where: str, problem: str, mend: str) -> InvalidInput:
    return InvalidInput([Problem(where=where, problem=problem, mend=mend)])
