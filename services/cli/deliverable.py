"""What a run leaves behind, signed: a bundle, a do-not-train certificate, or a candidate so far."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contracts.base import Digest, Problem
from contracts.diagnosis import TrainingDeclined
from contracts.registry import VerdictAttested
from contracts.run import Run
from shared.artifacts import ArtifactStore, Tree
from shared.bundles import layout
from shared.errors import InvalidInput, PermanentError

CERTIFICATE = "certificate.dsse.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliverable:
    """A signed result in the artifact store: its digest, and its files by name."""

    kind: Literal["bundle", "candidate", "certificate"]
    name: str
    digest: Digest
    files: dict[str, Digest]


def deliverable(run: Run, store: ArtifactStore) -> Deliverable:
    """The best there is.

    Raises:
        PermanentError: the run has signed nothing (yet).
        ArtifactMissing, ArtifactCorrupt: the store lost it.
    """
    if run.promoted:
        return _tree("bundle", run.promoted.adapter_id, store.tree(run.promoted.bundle))
    for record in reversed(run.log):
        if isinstance(record.event, TrainingDeclined):
            return Deliverable(
                kind="certificate",
                name=f"{run.ref.run}-do-not-train",
                digest=record.event.certificate,
                files={CERTIFICATE: record.event.certificate},
            )
    if run.registered:
        tree = layout.candidate_tree(run.registered.card, store.tree(run.registered.adapter))
        attested = {
            layout.attestation_path(link.index, link.name): link.attestation
            for record in run.log
            if isinstance(link := record.event, VerdictAttested)
            and link.adapter_id == run.registered.adapter_id
        }
        return _tree("candidate", run.registered.adapter_id, Tree({**tree.files, **attested}))
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
    marker = folder / layout.TREE_MARKER
    ours = marker.is_file() and marker.read_text(encoding="utf-8") == found.digest
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(
            [
                Problem(
                    where=str(folder), problem="is not an empty folder", mend="choose another --out"
                )
            ]
        )
    for name, digest in found.files.items():
        store.fetch(digest, folder / name)
    if found.kind != "certificate":
        marker.write_text(found.digest, encoding="utf-8")
    return sorted(found.files)


def _tree(kind: Literal["bundle", "candidate"], name: str, tree: Tree) -> Deliverable:
    return Deliverable(
        kind=kind, name=name, digest=layout.tree_digest(tree.files), files=dict(tree.files)
    )
