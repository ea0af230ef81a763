"""The row of every dataset: training data, evaluation items, few-shot exemplars and traffic.

One row is one line of JSON Lines. `messages` is the OpenAI chat format up to the turn the model
must produce; `target` is that turn (training needs it); `expected` is what a scorer checks
(evaluation needs it). Preference tuning also reads how an answer was judged: a pair has the worse
answer in `rejected`, an unpaired row says in `desirable` whether `target` is a good answer.
Continued pretraining reads texts: a row that is a `document` has one in `target`, and its
`messages` only name it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue

from contracts.base import Digest, Frozen
from contracts.measure import Interval

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
    sandbox_run: Digest | None = None
    """The record of the run that verified it, in the generation's records."""


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
    document: Literal["domain", "general"] | None = None
    """`target` is a text, no answer: of the domain to learn, or of what must not be forgotten."""
    expected: JsonValue = None
    group: str | None = None
    meta: dict[str, JsonValue] = Field(default_factory=dict)
    origin: Origin | None = None

    @property
    def cluster(self) -> str:
        """The group, or the row itself."""
        return self.group or self.id


class RowTemplate(Frozen):
    """Rows by rule, for a task that has no examples yet.

    `{slot}` stands for a value of that slot in `request`, `target` and `expected`; each way to fill
    the slots is one row.
    """

    id: str = Field(min_length=1, max_length=100)
    request: str = Field(min_length=1)
    target: str = Field(min_length=1)
    expected: str | None = None
    """JSON, once its slots are filled."""
    system: str | None = None
    tools: tuple[dict[str, JsonValue], ...] = ()
    slots: dict[str, tuple[str, ...]]


class Document(Frozen):
    """One document of a corpus for retrieval."""

    id: str = Field(min_length=1, max_length=200)
    text: str = Field(min_length=1)


class Annotation(Frozen):
    """One rater's label of one row, on one line of the rubric (C2)."""

    item: str = Field(min_length=1, max_length=200)
    """The row's id."""
    rater: str = Field(min_length=1, max_length=200)
    """Who labels; a pseudonym will do, since only sameness counts."""
    label: str = Field(min_length=1, max_length=200)
    line: str = Field(default="label", min_length=1, max_length=200)
    """The line of the rubric. Lines are measured apart: their labels do not compare."""
    adjudication: bool = False
    """An expert's decision of a disputed row. It settles the row and is no vote in kappa."""


class LineAgreement(Frozen):
    """How well raters agree on one line of the rubric."""

    line: str
    kind: Literal["cohen", "fleiss"]
    kappa: float | None
    """None where only one label was ever given: no evidence."""
    interval: Interval | None = None
    items: int
    """Rows with at least two labels."""
    raters: int
    observed: float
    """Share of pairs of labels that agree."""
    base_rate: float
    """Share of the commonest label."""


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
    agreement: tuple[LineAgreement, ...] = ()
    """Of the raters, for each line of the rubric (C2)."""
    volatility: dict[str, int] = Field(default_factory=dict)
    """Kind of volatile fact → rows that assert one below the refusal threshold (C10)."""
    refusals: dict[str, int] = Field(default_factory=dict)
    """Type of refusal → rows; `forced` counts those a mandate wants (C7)."""
    canaries: int = 0
    """Canary strings among the training rows."""
    warnings: tuple[str, ...] = ()
    tools: dict[str, str] = Field(default_factory=dict)
    """Library → version that shaped the rows."""


def parse_row(line: str | bytes | dict[str, Any]) -> Row:
    """One JSONL line as a row. Raises `pydantic.ValidationError`."""
    return Row.model_validate(line) if isinstance(line, dict) else Row.model_validate_json(line)
