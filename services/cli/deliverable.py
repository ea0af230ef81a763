"""What a run leaves behind, signed: a bundle, a do-not-train certificate, or a candidate's card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contracts.base import Digest, Problem
from contracts.diagnosis import TrainingDeclined
from contracts.run import Run
from shared.artifacts import ArtifactStore
from shared.errors import InvalidInput, PermanentError

FILE_NAMES = {"candidate card": "card.dsse.json", "certificate": "certificate.dsse.json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliverable:
    """A signed result in the artifact store. A bundle is a tree, the others are one file."""

    kind: Literal["bundle", "candidate card", "certificate"]
    name: str
    digest: Digest


def deliverable(run: Run) -> Deliverable:
    """The best there is. Raises PermanentError if the run has signed nothing (yet)."""
    if run.promoted:
        return Deliverable(kind="bundle", name=run.promoted.adapter_id, digest=run.promoted.bundle)
    for record in reversed(run.log):
        if isinstance(record.event, TrainingDeclined):
            return Deliverable(
                kind="certificate",
                name=f"{run.ref.run}-do-not-train",
                digest=record.event.certificate,
            )
    if run.registered:
        return Deliverable(
            kind="candidate card", name=run.registered.adapter_id, digest=run.registered.card
        )
    raise PermanentError(
        f"run {run.ref} is {run.status} and has no signed card",
        mend=f"a card is signed when the gates have passed; see `sluice show {run.ref}`",
    )


def deliver(found: Deliverable, store: ArtifactStore, folder: Path) -> list[str]:
    """Write it into `folder`, verified by digest; returns the file names.

    Raises:
        InvalidInput: the folder holds something else.
        ArtifactMissing, ArtifactCorrupt: the store lost it.
    """
    marker = folder / ".tree"
    ours = marker.is_file() and marker.read_text(encoding="utf-8") == found.digest
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(
            [
                Problem(
                    where=str(folder), problem="is not an empty folder", mend="choose another --out"
                )
            ]
        )
    if found.kind == "bundle":
        store.fetch_tree(found.digest, folder)
        return sorted(store.tree(found.digest).files)
    store.fetch(found.digest, folder / FILE_NAMES[found.kind])
    return [FILE_NAMES[found.kind]]
