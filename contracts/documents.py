"""Every document of the published language, by the name of its schema."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from contracts.alerts import Alert
from contracts.card import (
    AdaptationCard,
    Attestation,
    DoNotTrain,
    Promotion,
    Revocation,
    RolloutPackage,
)
from contracts.catalog import EVENTS
from contracts.commands import Approve, Cancel, Hold, Observe, Retry, Rollback, Withdraw
from contracts.data import Annotation, DatasetCard, Document, Row, RowTemplate
from contracts.economics import Ledger, Pilots
from contracts.failures import FailureReport, Trace
from contracts.job import AdaptationJob
from contracts.progress import Progress
from contracts.remedies import Remedy
from contracts.telemetry import Feedback, Interaction, Outcome
from contracts.training import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"

DOCUMENTS: dict[str, type[BaseModel]] = {
    "job": AdaptationJob,
    "row": Row,
    "annotation": Annotation,
    "row-template": RowTemplate,
    "ledger": Ledger,
    "pilots": Pilots,
    "document": Document,
    "failure-trace": Trace,
    "failure-report": FailureReport,
    "dataset-card": DatasetCard,
    "recipe": Recipe,
    "card": AdaptationCard,
    "attestation": Attestation,
    "promotion": Promotion,
    "revocation": Revocation,
    "rollout-package": RolloutPackage,
    "do-not-train": DoNotTrain,
    "progress": Progress,
    "telemetry": Outcome,
    "feedback": Feedback,
    "interaction": Interaction,
    "alert": Alert,
    "remedy": Remedy,
    "command.cancel": Cancel,
    "command.retry": Retry,
    "command.approve": Approve,
    "command.hold": Hold,
    "command.rollback": Rollback,
    "command.withdraw": Withdraw,
    "command.observe": Observe,
    **{name.removeprefix("sluice.v1."): event for name, event in EVENTS.items()},
}
"""File name → the model behind it. Events are named by their CloudEvents type."""


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of a document. Raises KeyError."""
    schema = DOCUMENTS[name].model_json_schema(by_alias=True)
    return {"$schema": DIALECT, "$id": f"https://sluiceway.dev/schemas/v1/{name}.json", **schema}
