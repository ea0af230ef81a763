"""Model checkpoints on disk: where a base is, and which one it is.

A base is a folder in the transformers layout with its weights in safetensors. Two digests identify
it: the *base* digest covers what computes the logits (weights and `config.json`), the *tokenizer*
digest what turns a chat into token ids (`tokenizer.json`, its settings and the chat template). Both
are the digest of a canonical manifest, file name → sha256, so anybody can recompute them.

Hashing half a gigabyte takes a second; file digests are remembered by path, size and mtime.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from contracts.base import Digest, Problem, digest_of
from contracts.job import BaseModelRef
from shared.errors import InvalidInput

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
)
_CHUNK = 1 << 20


def resolve_base(ref: BaseModelRef, home: Path) -> Path:
    """The folder of the job's base: a path as given, or a name under `<home>/models`.

    Raises InvalidInput if there is no such folder, or it holds no safetensors weights.
    """
    for folder in (Path(ref.model).expanduser(), home / "models" / ref.model):
        if (folder / "config.json").is_file():
            _require_files(folder)
            return folder.resolve()
    raise InvalidInput(
        [
            Problem(
                where="base.model",
                problem=f"no model folder {ref.model!r}, here or under {home / 'models'}",
                mend="name a folder with config.json and model.safetensors, "
                "or put one under the models folder",
            )
        ]
    )


def _require_files(folder: Path) -> None:
    problems = [
        Problem(where="base.model", problem=f"{folder} has no {what}", mend=mend)
        for what, found, mend in (
            (
                "model*.safetensors",
                any(folder.glob("model*.safetensors")),
                "save the checkpoint with save_pretrained(safe_serialization=True); "
                "pickled weights are not loaded",
            ),
            (
                "tokenizer.json",
                (folder / "tokenizer.json").is_file(),
                "save the tokenizer beside the weights with tokenizer.save_pretrained",
            ),
        )
        if not found
    ]
    if problems:
        raise InvalidInput(problems)


def parameter_count(folder: Path) -> int:
    """Elements of every tensor in the folder's safetensors files, from their headers alone.

    Raises OSError or ValueError for a file that is no safetensors.
    """
    return sum(_elements(path) for path in sorted(folder.glob("model*.safetensors")))


def _elements(path: Path) -> int:
    with path.open("rb") as source:
        size = int.from_bytes(source.read(8), "little")
        if not 0 < size <= path.stat().st_size:
            raise ValueError(f"{path.name} is not a safetensors file")
        header = json.loads(source.read(size))
    return sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")


def base_digest(folder: Path, *, cache: Path | None = None) -> Digest:
    """The digest of `config.json` and every `model*.safetensors` (and its index) in `folder`."""
    names = {p.name for p in folder.glob("model*.safetensors*")} | {"config.json"}
    return _manifest_digest(folder, names, cache)


def tokenizer_digest(folder: Path, *, cache: Path | None = None) -> Digest:
    """The digest of the tokenizer's files, chat template included, that exist in `folder`."""
    return _manifest_digest(folder, TOKENIZER_FILES, cache)


def digest_cache(home: Path) -> Path:
    """Where file digests are remembered."""
    return home / "cache" / "file-digests.json"


def _manifest_digest(folder: Path, names: Iterable[str], cache: Path | None) -> Digest:
    present = sorted(name for name in names if (folder / name).is_file())
    files = {name: file_digest(folder / name, cache=cache) for name in present}
    return digest_of(json.dumps({"files": files}, sort_keys=True, separators=(",", ":")).encode())


def file_digest(path: Path, *, cache: Path | None = None) -> Digest:
    """The sha256 of a file, from `cache` if its path, size and mtime are those it had."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    known = _read_cache(cache)
    if key in known:
        return known[key]
    sha = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            sha.update(chunk)
    digest = "sha256:" + sha.hexdigest()
    if cache is not None:
        _write_cache(cache, _read_cache(cache) | {key: digest})
    return digest


def _read_cache(cache: Path | None) -> dict[str, Digest]:
    if cache is None or not cache.exists():
        return {}
    try:
        content: dict[str, Digest] = json.loads(cache.read_text())
    except ValueError:
        return {}  # a cache that cannot be read is an empty one
    return content


def _write_cache(cache: Path, content: dict[str, Digest]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    fd, part = tempfile.mkstemp(dir=cache.parent, prefix=".part-")
    with os.fdopen(fd, "w") as out:
        json.dump(content, out)
    Path(part).replace(cache)
