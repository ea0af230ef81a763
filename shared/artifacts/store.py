"""The content-addressed artifact store: `sha256:` digest → bytes, over any fsspec file system.

A blob is stored once under its digest and verified on every read, so a flipped bit is an error and
never a result. A *tree* (an adapter folder, a bundle) is a canonical JSON manifest of relative path
→ digest, itself a blob; the manifest's digest names the whole folder.

A digest may be *registered* as an evaluation set of a tenant, and is so from intake on. The handle
that the training path gets (`for_training`) neither reads nor writes such a digest, whoever asks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec

from contracts.base import Digest
from shared.errors import ArtifactCorrupt, ArtifactMissing, EvaluationWithheld

_CHUNK = 1 << 20
MAXIMUM_MANIFEST_BYTES = 8 << 20
MAXIMUM_FILES = 10_000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TENANT = re.compile(r"[\w-]+")
_HERE = PurePosixPath()


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder by content: relative POSIX path → digest."""

    files: dict[str, Digest]

    def to_bytes(self) -> bytes:
        return json.dumps({"files": self.files}, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Tree:
        """Raises ArtifactCorrupt if `content` is no manifest or names a path outside the tree."""
        try:
            files = json.loads(content)["files"]
            if not isinstance(files, dict) or len(files) > MAXIMUM_FILES:
                raise TypeError(f"not a mapping of at most {MAXIMUM_FILES} files")
            if not all(isinstance(k, str) and _DIGEST.fullmatch(v) for k, v in files.items()):
                raise TypeError("not every file has a path and a digest")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ArtifactCorrupt(f"not a tree manifest: {error}") from error
        for name in files:
            path = PurePosixPath(name)
            if path == _HERE or "\0" in name:
                raise ArtifactCorrupt(f"tree has a file without a name: {name!r}")
            if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
                raise ArtifactCorrupt(f"tree names a path outside itself: {name!r}")
            if any(str(parent) in files for parent in path.parents):
                raise ArtifactCorrupt(f"tree has a file where it needs a folder: {name!r}")
        return cls(files)


def _hash_and_copy(source: BinaryIO, target: BinaryIO | None = None) -> Digest:
    sha = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        sha.update(chunk)
        if target is not None:
            target.write(chunk)
    return "sha256:" + sha.hexdigest()


class ArtifactStore:
    """Blobs and trees by digest. Safe for concurrent writers: a write is a rename.

    Example: `ArtifactStore("file:///srv/sluice/artifacts")`, `ArtifactStore("s3://bucket/prefix")`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._fs: Any
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._fs.makedirs(self._root, exist_ok=True)

    def _path(self, digest: Digest) -> str:
        if not _DIGEST.fullmatch(digest):  # or it could name a file outside the store
            raise ArtifactMissing(f"{digest!r} is no digest")
        name = digest.removeprefix("sha256:")
        return f"{self._root}/sha256/{name[:2]}/{name[2:]}"

    def _registration(self, tenant: str, digest: Digest) -> str:
        if not (_DIGEST.fullmatch(digest) and _TENANT.fullmatch(tenant)):
            raise ArtifactMissing(f"{digest!r} of {tenant!r} cannot be an evaluation set")
        return f"{self._root}/evaluation/{tenant}/{digest.removeprefix('sha256:')}"

    def register_evaluation(self, tenant: str, digest: Digest) -> None:
        """From now on `digest` is an evaluation set of `tenant`; nothing takes that back."""
        path = self._registration(tenant, digest)
        self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        self._fs.touch(path, truncate=True)

    def is_evaluation(self, tenant: str, digest: Digest) -> bool:
        """Whether `digest` is registered as an evaluation set of `tenant`."""
        return bool(self._fs.exists(self._registration(tenant, digest)))

    def for_training(self, tenant: str, sets: Iterable[Digest] = ()) -> TrainingStore:
        """The same store for the training path of `tenant`: without its evaluation sets.

        `sets` are those of the run at hand. They are registered here too: a version that knew no
        registration may have taken the run in.
        """
        for digest in sets:
            self.register_evaluation(tenant, digest)
        return TrainingStore(self._url, tenant)

    def has(self, digest: Digest) -> bool:
        return bool(self._fs.exists(self._path(digest)))

    def put(self, content: bytes) -> Digest:
        """Store `content`; returns its digest."""
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        if not self.has(digest):
            self._commit(digest, lambda out: out.write(content))
        return digest

    def put_file(self, path: Path) -> Digest:
        """Store a file's content without reading it whole into memory."""
        with path.open("rb") as source:
            digest = _hash_and_copy(source)
        if not self.has(digest):

            def copy(out: BinaryIO) -> None:
                with path.open("rb") as again:
                    shutil.copyfileobj(again, out, _CHUNK)

            self._commit(digest, copy)
        return digest

    def _commit(self, digest: Digest, write: Any) -> None:
        final = self._path(digest)
        self._fs.makedirs(final.rsplit("/", 1)[0], exist_ok=True)
        part = f"{self._root}/.part-{uuid.uuid4().hex}"
        try:
            with self._fs.open(part, "wb") as out:
                write(out)
                if self._is_local:
                    out.flush()
                    os.fsync(out.fileno())
            self._fs.mv(part, final)
        except BaseException:
            if self._fs.exists(part):
                self._fs.rm(part)
            raise

    @property
    def _is_local(self) -> bool:
        protocol = self._fs.protocol
        return "file" in (protocol if isinstance(protocol, tuple | list) else (protocol,))

    def get(self, digest: Digest) -> bytes:
        """The content, verified.

        Raises:
            ArtifactMissing: no such digest.
            ArtifactCorrupt: the stored bytes do not hash to it.
        """
        try:
            content: bytes = self._fs.cat_file(self._path(digest))
        except FileNotFoundError as error:
            raise ArtifactMissing(f"{digest} is not in the artifact store") from error
        if "sha256:" + hashlib.sha256(content).hexdigest() != digest:
            raise ArtifactCorrupt(f"{digest} does not match its content")
        return content

    def fetch(self, digest: Digest, target: Path) -> Path:
        """Copy one blob to `target`, verified, atomically."""
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, part = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        try:
            with os.fdopen(fd, "wb") as out, self._open(digest) as source:
                if _hash_and_copy(source, out) != digest:
                    raise ArtifactCorrupt(f"{digest} does not match its content")
            Path(part).replace(target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        return target

    def _open(self, digest: Digest) -> BinaryIO:
        try:
            handle: BinaryIO = self._fs.open(self._path(digest), "rb")
        except FileNotFoundError as error:
            raise ArtifactMissing(f"{digest} is not in the artifact store") from error
        return handle

    def put_tree(self, folder: Path) -> Digest:
        """Store every regular file below `folder`; returns the manifest's digest."""
        files = {
            path.relative_to(folder).as_posix(): self.put_file(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_symlink() and path.name != ".tree"
        }
        return self.put(Tree(files).to_bytes())

    def tree(self, digest: Digest) -> Tree:
        """The manifest behind `digest`. Raises ArtifactMissing, ArtifactCorrupt."""
        if self.has(digest) and self._fs.size(self._path(digest)) > MAXIMUM_MANIFEST_BYTES:
            raise ArtifactCorrupt(f"{digest} is too large for a tree manifest")
        return Tree.from_bytes(self.get(digest))

    def fetch_tree(self, digest: Digest, target: Path) -> Path:
        """Materialize a tree at `target`. An existing, complete `target` is reused."""
        marker = target / ".tree"
        if marker.exists() and marker.read_text() == digest:
            return target
        for name, blob in self.tree(digest).files.items():
            self.fetch(blob, target / name)
        target.mkdir(parents=True, exist_ok=True)  # a tree may be empty
        marker.write_text(digest)
        return target


class TrainingStore(ArtifactStore):
    """A store that holds no evaluation set of a tenant (H9).

    Every read and write raises EvaluationWithheld for a registered digest: content is named by its
    digest alone, so no copy under another name gets past it.
    """

    def __init__(self, url: str, tenant: str) -> None:
        super().__init__(url)
        self._tenant = tenant

    def _allowed(self, digest: Digest) -> Digest:
        if self.is_evaluation(self._tenant, digest):
            raise EvaluationWithheld(digest)
        return digest

    def put(self, content: bytes) -> Digest:
        return self._allowed(super().put(content))

    def put_file(self, path: Path) -> Digest:
        return self._allowed(super().put_file(path))

    def get(self, digest: Digest) -> bytes:
        return super().get(self._allowed(digest))

    def _open(self, digest: Digest) -> BinaryIO:
        return super()._open(self._allowed(digest))
