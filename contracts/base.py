"""Value types every context shares: frozen models, identifiers, digests.

Identifiers become NATS subject tokens, so they hold no dots, wildcards or spaces.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

SLUG = r"^[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?$"
Slug = Annotated[str, StringConstraints(pattern=SLUG)]
"""A tenant, run or deployment: 1-64 of `a-z 0-9 _ -`, beginning and ending alphanumeric."""

Namespace = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9_.]{0,62}[a-z0-9])?$")]
"""A task namespace: no hyphen, so that an adapter id parses from the right (ERRATA 16)."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""A content address: `sha256:` and 64 hex digits."""


Uri = Annotated[str, Field(min_length=1)]
"""A relative path (resolved by `sluice submit`), `file://`, or `sha256:` in the artifact store."""


def digest_of(content: bytes) -> str:
    """The content address of `content`."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Frozen(BaseModel):
    """A value: immutable, and strict about fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Service(StrEnum):
    """The ten services, in the order a run meets them."""

    DIAGNOSIS = "diagnosis"
    CURATION = "curation"
    SYNTHESIS = "synthesis"
    TRAINING = "training"
    EVALUATION = "evaluation"
    REGISTRY = "registry"
    ROLLOUT = "rollout"
    SERVING = "serving"
    MONITORING = "monitoring"
    CONSOLE = "console"


class Event(Frozen):
    """A fact in a run's log, named in the past tense.

    The body holds data only. Who it is about (tenant, run), its id, cause and time travel in the
    subject and the CloudEvents headers (see `contracts.envelope`).
    """

    service: ClassVar[Service]
    """The one service allowed to state this fact."""
    fact: ClassVar[str]
    """The last token of the CloudEvents type, `sluice.v1.<service>.<fact>`."""

    @classmethod
    def type_name(cls) -> str:
        """The CloudEvents type."""
        return f"sluice.v1.{cls.service}.{cls.fact}"

    def producer(self) -> Service:
        """Who states it. Equals `service` except for faults, which any service may report."""
        return self.service

    def token(self) -> str:
        """The last token of the subject. Equals `fact` except where one type fans out."""
        return self.fact


class Problem(Frozen):
    """Something wrong with an input: where, what, and how to mend it."""

    where: str
    """The field path (`data[0].licence`) or row (`train.jsonl:17`)."""
    problem: str
    mend: str
