"""The Adaptation Card and its attestations: what gets signed (R3, R4).

Each is the predicate of an in-toto Statement v1 whose subjects are digests (the adapter's weights
and files), wrapped in a DSSE envelope. The candidate card is signed when the evaluation gates have
passed; every stage of the rollout appends an attestation; `promotion` closes the chain.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contracts.base import Digest, Frozen
from contracts.commands import WithdrawalKind
from contracts.data import DatasetCard
from contracts.diagnosis import Diagnosis, MethodChoice
from contracts.economics import Condition
from contracts.evaluation import GateJudged
from contracts.job import AdaptationJob, RolloutPolicy
from contracts.rollout import StageJudged
from contracts.training import AdapterTrained, Recipe

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
CARD_TYPE = "https://sluiceway.dev/card/v1"
ATTESTATION_TYPE = "https://sluiceway.dev/attestation/v1"
PROMOTION_TYPE = "https://sluiceway.dev/promotion/v1"
DERIVATION_TYPE = "https://sluiceway.dev/derivation/v1"
REVOCATION_TYPE = "https://sluiceway.dev/revocation/v1"
CERTIFICATE_TYPE = "https://sluiceway.dev/do-not-train/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


class AdaptationCard(Frozen):
    """The immutable record of one adapter: what was asked, measured, trained on, and found."""

    schema_: Literal["sluice.card/v1"] = Field(default="sluice.card/v1", alias="schema")
    adapter_id: str
    tenant: str
    run: str
    job: AdaptationJob
    job_digest: Digest
    diagnosis: Diagnosis
    choice: MethodChoice
    dataset: DatasetCard
    dataset_digest: Digest
    recipe: Recipe
    training: AdapterTrained
    gates: tuple[GateJudged, ...]
    base: Digest
    tokenizer: Digest
    special_tokens: tuple[str, ...] = ()
    objective: str
    merge_policy: Literal["none", "static"] = "none"
    stacking_policy: Literal["exclusive"] = "exclusive"
    rollback: str = "base"
    """Adapter id, or `base`: what serves if this one is withdrawn."""
    monitoring: dict[str, float] = Field(default_factory=dict)
    """Metric → alert threshold."""
    reconsider_when: tuple[str, ...] = ()
    created_at: str


class Attestation(Frozen):
    """One link of the chain: a verdict bound to the card and to the link before it."""

    schema_: Literal["sluice.attestation/v1"] = Field(
        default="sluice.attestation/v1", alias="schema"
    )
    name: str
    """`G1`…`G5`, `G8`, `G9-10%`. A name repeats where a held stage was judged again."""
    index: int = Field(ge=0)
    card: Digest
    """Digest of the signed card's payload."""
    previous: Digest | None
    """Digest of the previous attestation's payload; None for the first."""
    verdict: GateJudged | StageJudged
    event_id: str
    at: str


class Promotion(Frozen):
    """The last link (G10): the chain up to here is complete and the adapter serves."""

    schema_: Literal["sluice.promotion/v1"] = Field(default="sluice.promotion/v1", alias="schema")
    adapter_id: str
    deployment: str
    card: Digest
    links: tuple[Digest, ...]
    """Payload digests of every attestation, in order."""
    rollback: str
    at: str


class Derivation(Frozen):
    """The signed word that `derived` is a serving copy of `source` (ERRATA 17)."""

    schema_: Literal["sluice.derivation/v1"] = Field(default="sluice.derivation/v1", alias="schema")
    source: Digest
    """The base checkpoint adapters were trained on."""
    derived: Digest
    """The copy, such as a quantized one."""
    tool: str
    """What made it, with its version and settings."""
    at: str


class Revocation(Frozen):
    """The signed word that an adapter is withdrawn; it outlives every card that says otherwise."""

    schema_: Literal["sluice.revocation/v1"] = Field(default="sluice.revocation/v1", alias="schema")
    adapter_id: str
    adapter: Digest
    kind: WithdrawalKind
    reason: str
    at: str


class RolloutPackage(Frozen):
    """What leaves the platform with a promoted bundle (H1): how and where it may be served.

    Unsigned: everything in it is in the bundle's signed card.
    """

    schema_: Literal["sluice.rollout-package/v1"] = Field(
        default="sluice.rollout-package/v1", alias="schema"
    )
    adapter_id: str
    tenant: str
    deployment: str
    base_model: str
    base: Digest
    tokenizer: Digest
    rank: int | None
    """Of the LoRA matrices; None where the whole model was trained."""
    adapter_bytes: int
    """Of the weights' file: what an engine must hold."""
    merge_policy: Literal["none", "static"]
    stacking_policy: Literal["exclusive"]
    policy: RolloutPolicy
    monitoring: dict[str, float]
    """Metric → alert threshold."""
    rollback: str
    reconsider_when: tuple[str, ...]
    files: dict[str, Digest]
    """The bundle's files by name."""


class DoNotTrain(Frozen):
    """The certificate that a lighter rung suffices (D4)."""

    schema_: Literal["sluice.do-not-train/v1"] = Field(
        default="sluice.do-not-train/v1", alias="schema"
    )
    tenant: str
    run: str
    job_digest: Digest
    rung: str
    diagnosis: Diagnosis
    reopen_when: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()
    """Those of `reopen_when` that an observation can break."""
    at: str
