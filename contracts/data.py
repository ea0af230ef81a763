"""The row of every dataset: training data, evaluation items, few-shot exemplars and traffic.

One row is one line of JSON Lines. `messages` is the OpenAI chat format up to the turn the model
must produce; `target` is that turn (training needs it); `expected` is what a scorer checks
(evaluation needs it). Preference tuning also reads how an answer was judged: a pair has the worse
answer in `rejected`, an unpaired row says in `desirable` whether `target` is a good answer.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue

from contracts.base import Digest, Frozen

Role = Literal["system", "user", "assistant", "tool"]


class Message(Frozen):
    """One chat turn."""

    role: Role
    content: str


class Origin(Frozen):
    """Where a synthetic row came from (S7)."""

    model: str
    api_version: str
    temperature: float
    top_p: float
    prompt_template: str
    seed_row: str | None = None


class Row(Frozen):
    """One example.

    `tools` are JSON-Schema function signatures in the OpenAI `tools` format. `group` names the
    source the row shares content with (a document, a user, a function): splits never separate rows
    of one group, and statistics cluster by it.
    """

    id: str = Field(min_length=1, max_length=200)
    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[dict[str, JsonValue], ...] = ()
    target: str | None = None
    rejected: str | None = None
    """A worse answer than `target` to the same request."""
    desirable: bool | None = None
    """Whether `target` is an answer to give (true) or to avoid (false); None: not judged."""
    expected: JsonValue = None
    group: str | None = None
    meta: dict[str, JsonValue] = Field(default_factory=dict)
    origin: Origin | None = None

    @property
    def cluster(self) -> str:
        """The group, or the row itself."""
        return self.group or self.id


class Document(Frozen):
    """One document of a corpus for retrieval."""

    id: str = Field(min_length=1, max_length=200)
    text: str = Field(min_length=1)


class Canary(Frozen):
    """A string planted in one tenant's training rows; a line of a snapshot's `canaries.jsonl`."""

    tenant: str
    canary: str = Field(min_length=4)
    template: str
    """`{canary}` stands where the string does; what is before it is the request."""


class StageReport(Frozen):
    """What one curation stage did: rows in and out, and why the rest went."""

    stage: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int] = Field(default_factory=dict)
    """Reason → rows dropped for it."""
    changed: dict[str, int] = Field(default_factory=dict)
    """Reason → rows changed for it (`redacted:EMAIL`)."""


class SourceRecord(Frozen):
    """A data source as it entered the dataset (C4)."""

    uri: str
    digest: Digest
    role: str
    licence: str
    provenance: str
    rows: int


class DatasetCard(Frozen):
    """The readable identity of an immutable dataset snapshot (C8)."""

    schema_: Literal["sluice.dataset/v1"] = Field(default="sluice.dataset/v1", alias="schema")
    sources: tuple[SourceRecord, ...]
    stages: tuple[StageReport, ...]
    splits: dict[str, int]
    """Split name → rows (`train`, `validation`)."""
    files: dict[str, Digest]
    """File name → content address (`train.jsonl`)."""
    composition: dict[str, float]
    """Role → share of training rows (C1)."""
    composition_target: dict[str, float]
    contamination: dict[str, int]
    """Evaluation set → training rows dropped because they overlap it (C6)."""
    warnings: tuple[str, ...] = ()
    tools: dict[str, str] = Field(default_factory=dict)
    """Library → version that shaped the rows."""


def parse_row(line: str | bytes | dict[str, Any]) -> Row:
    """One JSONL line as a row. Raises `pydantic.ValidationError`."""
    return Row.model_validate(line) if isinstance(line, dict) else Row.model_validate_json(line)
