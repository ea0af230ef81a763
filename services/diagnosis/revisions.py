"""Prompt revisions: the job's candidates, or the systematic ones of `revisions.yaml`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

from contracts.base import Frozen
from contracts.data import Message, Row
from contracts.job import Behaviour
from shared.errors import Misconfigured

REVISIONS = Path(__file__).with_name("revisions.yaml")


class Revision(Frozen):
    """A named rewriting of a system prompt."""

    name: str
    text: str

    def of(self, prompt: str, behaviour: str) -> str:
        """The revised prompt."""
        filled = self.text.replace("{behaviour}", behaviour).replace("{prompt}", prompt)
        return filled.strip()


@cache
def revisions(path: Path = REVISIONS) -> tuple[Revision, ...]:
    """The systematic revisions, in the file's order.

    Raises:
        Misconfigured: two have one name.
    """
    loaded: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = tuple(Revision.model_validate(entry) for entry in loaded)
    if len({revision.name for revision in found}) < len(found):
        raise Misconfigured(f"{path.name} names a revision twice", mend="Name each once.")
    return found


def revised(row: Row, revision: Revision, behaviour: Behaviour) -> Row:
    """The row under the revised prompt: of the job's system prompt, else of the row's own."""
    own = "\n".join(m.content for m in row.messages if m.role == "system")
    prompt = own if behaviour.system_prompt is None else behaviour.system_prompt
    text = revision.of(prompt, behaviour.description)
    turns = tuple(m for m in row.messages if m.role != "system")
    return row.model_copy(update={"messages": (Message(role="system", content=text), *turns)})


def systematic(behaviour: Behaviour) -> dict[str, Callable[[Row], Row]]:
    """Name → how that revision rewrites a row."""
    return {r.name: partial(revised, revision=r, behaviour=behaviour) for r in revisions()}
