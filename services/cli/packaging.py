"""The rollout package: a verified bundle and what an operator elsewhere needs (H1, H10).

One tar file with `rollout.json` and the bundle under `bundle/`. The same bundle gives the same
bytes. `rollout.json` only repeats what the signed card says, so that a program need not open
envelopes; whoever receives it verifies the bundle.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from contracts.base import Problem, digest_of
from contracts.card import RolloutPackage
from shared.bundles import layout, open_card, verify_bundle
from shared.errors import InvalidInput
from shared.signing import PublicKey

MANIFEST = "rollout.json"
BUNDLE = "bundle/"


def describe(folder: Path, keys: Sequence[PublicKey]) -> RolloutPackage:
    """The package of the promoted bundle in `folder`.

    Raises:
        InvalidInput: it does not verify with `keys`, or was never promoted.

    """
    found = verify_bundle(folder, keys)
    if found.state != "promoted":
        problems = [
            Problem(where=link.name, problem=link.reason, mend="fetch the bundle again")
            for link in found.failed
        ]
        never = Problem(
            where=str(folder),
            problem=f"is a {found.state}, not promoted",
            mend="package a run whose rollout has completed",
        )
        raise InvalidInput(problems or [never])
    card = open_card((folder / layout.CARD).read_bytes(), keys).card
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != layout.TREE_MARKER
    }
    lora = card.recipe.lora
    return RolloutPackage(
        adapter_id=card.adapter_id,
        tenant=card.tenant,
        deployment=card.job.rollout.deployment,
        base_model=card.job.base.model,
        base=card.base,
        tokenizer=card.tokenizer,
        rank=lora.r if lora else None,
        adapter_bytes=sum(len(c) for n, c in files.items() if n.endswith(layout.WEIGHTS)),
        merge_policy=card.merge_policy,
        stacking_policy=card.stacking_policy,
        policy=card.job.rollout,
        monitoring=card.monitoring,
        rollback=card.rollback,
        reconsider_when=card.reconsider_when,
        files={name: digest_of(content) for name, content in files.items()},
    )


def misfits(
    package: RolloutPackage, *, max_rank: int | None, max_bytes: int | None
) -> list[Problem]:
    """Why an engine with these limits could not load the adapter (H5)."""
    found = []
    if max_rank is not None and package.rank is not None and package.rank > max_rank:
        problem = f"rank {package.rank}, the engine takes {max_rank}"
        mend = "train with a lower rank, or raise the engine's limit"
        found.append(Problem(where="rank", problem=problem, mend=mend))
    if max_bytes is not None and package.adapter_bytes > max_bytes:
        problem = f"{package.adapter_bytes} bytes of weights, the engine has {max_bytes}"
        mend = "train fewer modules or a lower rank, or give the engine memory"
        found.append(Problem(where="adapter_bytes", problem=problem, mend=mend))
    return found


def write(package: RolloutPackage, folder: Path, out: Path) -> None:
    """The tar file at `out`: names sorted, no times, no owners."""
    manifest = package.model_dump_json(by_alias=True, indent=2).encode() + b"\n"
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, MANIFEST, manifest)
        for name in sorted(package.files):
            _add(tar, BUNDLE + name, (folder / name).read_bytes())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))
