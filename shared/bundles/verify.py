"""Verify a bundle offline: a folder and public keys in, every link with its reason out (R3, R4).

The trusted keys come from the caller; the copy inside the bundle must equal one of them. Every byte
of the folder is covered: adapter files by the card, each attestation by its signature and its
successor, everything by the promotion. What cannot be verified, for whatever reason, has failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from contracts.base import Digest
from contracts.card import (
    ATTESTATION_TYPE,
    PROMOTION_TYPE,
    REVOCATION_TYPE,
    Attestation,
    Promotion,
    Revocation,
)
from shared.bundles import layout
from shared.bundles.adapter import inspect_adapter
from shared.bundles.card import SignedCard, open_card
from shared.bundles.chain import (
    Opened,
    chain_faults,
    missing_verdicts,
    newest_verdicts,
    promotion_faults,
)
from shared.bundles.scan import read_bounded, scan
from shared.errors import InvalidInput, SluiceError
from shared.signing import PublicKey, Statement, open_envelope
from shared.signing.envelope import MAXIMUM_ENVELOPE_BYTES

State = Literal["candidate", "promoted", "invalid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One thing that was checked: a file of the bundle, `chain`, or `adapter`."""

    name: str
    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The verdict on a bundle. Only `state == "promoted"` may serve production traffic."""

    ok: bool
    state: State
    adapter_id: str | None
    links: tuple[Link, ...]
    reached: tuple[str, ...] = ()
    """What the chain attests, in order: `G2 passed`, `G8 passed`. The end of a candidate's may have
    been cut off: it reached at least this."""
    missing: tuple[str, ...] = ()
    """Verdicts that a promotion still needs."""

    @property
    def failed(self) -> tuple[Link, ...]:
        return tuple(link for link in self.links if not link.ok)


def verify_bundle(
    folder: Path,
    keys: PublicKey | Sequence[PublicKey],
    revocations: Mapping[str, bytes] | None = None,
    *,
    threshold: int = 1,
) -> Verification:
    """Check the bundle in `folder` against the trusted `keys`. Never raises for what it finds.

    `threshold` signatures must be on the document that closes the bundle: its promotion, or the
    card of a candidate.

    `revocations` are signed revocations by the name to report them under. One that cannot be read
    fails the bundle: it might be the one that matters.
    """
    trusted = (keys,) if isinstance(keys, PublicKey) else tuple(keys)
    bundle = _Bundle(folder=folder, keys=trusted, threshold=threshold)
    try:
        bundle.check()
        bundle.heed(revocations or {})
    except Exception as error:  # a verifier that crashes has not verified
        bundle.fault("bundle", f"cannot be verified ({type(error).__name__}: {error})")
    links = tuple(
        Link(name=name, ok=not reason, reason=reason) for name, reason in bundle.links.items()
    )
    ok = bool(links) and all(link.ok for link in links) and bundle.card is not None
    promoted = layout.PROMOTION in bundle.links
    state: State = "invalid" if not ok else "promoted" if promoted else "candidate"
    adapter_id = bundle.card.card.adapter_id if bundle.card else None
    return Verification(
        ok=ok,
        state=state,
        adapter_id=adapter_id,
        links=links,
        reached=bundle.reached if ok else (),
        missing=bundle.missing if ok else (),
    )


@dataclass(slots=True)
class _Bundle:
    folder: Path
    keys: tuple[PublicKey, ...]
    threshold: int
    links: dict[str, str] = field(default_factory=dict)
    """Link → why it fails; empty where it holds."""
    files: dict[str, Digest] = field(default_factory=dict)
    card: SignedCard | None = None
    reached: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def fault(self, name: str, reason: str) -> None:
        self.links[name] = self.links.get(name) or reason

    def check(self) -> None:
        found = scan(self.folder)
        self.links = dict.fromkeys(sorted(found.files), "") | dict(found.refused)
        self.files = dict(found.files)
        self._markers()
        self._public_key()
        self._card()
        self._adapter()
        opened = list(self._attestations())
        if self.card:
            for name, reason in chain_faults(opened, self.card):
                self.fault(name, reason)
            self.reached = tuple(f"{k} {v}" for k, v in newest_verdicts(opened).items())
            self.missing = missing_verdicts(opened, self.card)
        if layout.PROMOTION in self.links:
            self._promotion(opened)
        else:
            self._unsigned()

    def heed(self, revocations: Mapping[str, bytes]) -> None:
        """Fail what a revocation names, by its id or by its adapter's digest."""
        for name, envelope in revocations.items():
            try:
                statement = open_envelope(envelope, self.keys, predicate_type=REVOCATION_TYPE)
                revoked = Revocation.model_validate(statement.predicate)
            except (SluiceError, ValueError) as error:
                self.fault(name, f"is no revocation of the trusted key: {error}")
                continue
            if self.card and (
                revoked.adapter_id == self.card.card.adapter_id
                or revoked.adapter == self.card.card.training.adapter
            ):
                self.fault(name, f"{revoked.adapter_id} is {revoked.kind}: {revoked.reason}")

    def _read(self, name: str) -> bytes:
        return read_bounded(self.folder / name, MAXIMUM_ENVELOPE_BYTES)

    def _open(self, name: str, predicate_type: str, threshold: int = 1) -> Statement | None:
        try:
            return open_envelope(
                self._read(name), self.keys, predicate_type=predicate_type, threshold=threshold
            )
        except (SluiceError, OSError, ValueError) as error:
            self.fault(name, str(error))
            return None

    def _markers(self) -> None:
        """The store's own mark in a fetched folder is no content, and says only what is true."""
        for prefix in (layout.ADAPTER, ""):
            marker = prefix + layout.TREE_MARKER
            if self.files.pop(marker, None) is None:
                continue
            held = layout.tree_digest(layout.below(prefix, self.files))
            if self._read(marker) != held.encode():
                self.fault(marker, "names another tree than the one it lies in")

    def _public_key(self) -> None:
        trusted = {key.pem for key in self.keys}
        if layout.PUBLIC_KEY in self.files and self._read(layout.PUBLIC_KEY) not in trusted:
            self.fault(layout.PUBLIC_KEY, "is not a trusted key")

    def _card(self) -> None:
        try:
            closes = layout.PROMOTION not in self.links
            self.card = open_card(
                self._read(layout.CARD), self.keys, threshold=self.threshold if closes else 1
            )
        except (SluiceError, OSError, ValueError) as error:
            missing = layout.CARD not in self.links
            self.fault(layout.CARD, "is missing" if missing else str(error))

    def _adapter(self) -> None:
        held = layout.below(layout.ADAPTER, self.files)
        if self.card:
            for name in sorted(held.keys() | self.card.files.keys()):
                if held.get(name) != self.card.files.get(name):
                    self.fault(layout.ADAPTER + name, _difference(name, held, self.card.files))
        try:
            config = inspect_adapter(self.folder / layout.ADAPTER)
        except InvalidInput as error:
            for problem in error.problems:
                name = problem.where.split(".json.")[0]
                name += ".json" if ".json." in problem.where else ""
                self.fault(layout.ADAPTER + name, problem.problem)
            return
        lora = self.card.card.recipe.lora if self.card else None
        if lora and (config.r, config.lora_alpha) != (lora.r, lora.alpha):
            self.fault(layout.ADAPTER + layout.CONFIG, "has another rank or alpha than the card")

    def _attestations(self) -> Iterator[Opened]:
        for name in sorted(layout.below(layout.ATTESTATIONS, self.files)):
            path = layout.ATTESTATIONS + name
            statement = self._open(path, ATTESTATION_TYPE)
            try:
                made = Attestation.model_validate(statement.predicate) if statement else None
            except ValidationError as error:
                self.fault(path, f"is no attestation: {error}")
                made = None
            yield Opened(path, made, statement.payload if statement else None)

    def _promotion(self, opened: list[Opened]) -> None:
        statement = self._open(layout.PROMOTION, PROMOTION_TYPE, self.threshold)
        if statement is None:
            return
        promotion = Promotion.model_validate(statement.predicate)
        others = {name: d for name, d in self.files.items() if name != layout.PROMOTION}
        for name in sorted(others.keys() | statement.subjects.keys()):
            if others.get(name) != statement.subjects.get(name):
                self.fault(name, _difference(name, others, statement.subjects))
        for name in (layout.README, layout.PUBLIC_KEY):
            if name not in statement.subjects:
                self.fault(layout.PROMOTION, f"does not cover {name}")
        if self.card is None:
            return
        for reason in promotion_faults(promotion, self.card, opened):
            self.fault(layout.PROMOTION, reason)
        all_opened = all(link.payload is not None for link in opened)
        if all_opened and (missing := missing_verdicts(opened, self.card)):
            self.fault("chain", f"no passed verdict for {', '.join(missing)}")
        else:
            self.links.setdefault("chain", "")

    def _unsigned(self) -> None:
        """Without a promotion nothing vouches for files beyond the card, adapter and links."""
        for name in self.files:
            if name not in {layout.CARD, layout.PUBLIC_KEY} and not name.startswith(
                (layout.ADAPTER, layout.ATTESTATIONS)
            ):
                self.fault(name, "no signature covers it")


def _difference(name: str, held: dict[str, Digest], signed: dict[str, Digest]) -> str:
    if name not in held:
        return "is missing"
    return "differs from what was signed" if name in signed else "no signature covers it"
