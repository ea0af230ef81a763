"""The two folders behind `sluice gate`, and an engine of our own that answers for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contracts.base import Problem
from contracts.job import BaseModelRef
from services.cli.jobfile import read_job
from shared.bundles.layout import CONFIG
from shared.errors import InvalidInput, PermanentError
from shared.models import base_digest, digest_cache, resolve_base

BASE, CANDIDATE = "base", "candidate"
"""What the engine calls the two models."""
_PATIENCE_S = 30


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked."""

    url: str
    key: str


def adapter_folder(candidate: str) -> Path | None:
    """The adapter folder that `candidate` is; None if it is the name of a served model."""
    folder = Path(candidate).expanduser()
    if (folder / CONFIG).is_file():
        return folder.resolve()
    if folder.is_dir() or os.sep in candidate:
        raise _bad("--candidate", f"{candidate} holds no {CONFIG}", "give the folder PEFT saved")
    return None


def checkpoint_folder(base: str | None, adapter: Path, home: Path) -> Path:
    """The checkpoint that `base` means: a folder, a name, a label or a digest.

    None is the base the adapter was trained on.

    Raises:
        InvalidInput: there is no such checkpoint, here or under `<home>/models`.
    """
    wanted = base or _own_base(adapter)
    if not wanted.startswith("sha256:"):
        label = wanted.casefold()
        known = [f.name for f in _models(home) if f.name.casefold() == label]
        return resolve_base(BaseModelRef(model=known[0] if known else wanted), home)
    cache = digest_cache(home)
    for folder in _models(home):
        if base_digest(folder, cache=cache) == wanted:
            return folder
    raise _bad(
        "--base",
        f"no checkpoint under {home / 'models'} is {wanted[:19]}…",
        "put it there, or give its folder as --base",
    )


def _own_base(adapter: Path) -> str:
    """The digest in the adapter's recipe, or else the name PEFT wrote."""
    try:
        return str(json.loads((adapter / "recipe.json").read_bytes())["base"])
    except (OSError, ValueError, KeyError):
        config = json.loads((adapter / CONFIG).read_bytes())
        return str(config.get("base_model_name_or_path") or "unnamed")


def _models(home: Path) -> list[Path]:
    return sorted(f.parent for f in (home / "models").glob("*/config.json"))


def of_job(file: Path, folder: Path) -> dict[str, str]:
    """Options of the gates that a job file answers: itself as JSON, and its rows.

    A G7 without a dataset takes the first source of the job, before its curation; `--train` names
    the curated rows.

    Raises:
        InvalidInput: the file is no job, or its rows are not beside it.
    """
    job, _ = read_job(file)
    plain = folder / "job.json"
    plain.write_text(job.model_dump_json(by_alias=True), encoding="utf-8")
    found = {"--job": str(plain)}
    for option, uri in (("--suite", job.evaluation.heldout.uri), ("--train", job.data[0].uri)):
        rows = file.parent / uri
        if not rows.is_file():
            raise _bad(file.name, f"{uri} is no file beside it", f"give {option}")
        found[option] = str(rows)
    return found


@contextmanager
def engine(checkpoint: Path, adapter: Path) -> Iterator[Endpoint]:
    """Our engine in a process of its own, on a free port of 127.0.0.1, until the block ends.

    Raises:
        PermanentError: it did not start; it said why on standard error.
    """
    command = [sys.executable, "-m", "services.serving.alone", str(checkpoint), str(adapter)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise PermanentError(
                "the engine did not start",
                mend="see its error above; `sluice doctor` checks the installation",
            )
        yield Endpoint(**json.loads(line))
    finally:
        process.stdin.close()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def environment(**more: str) -> dict[str, str]:
    """This process's, with its import path."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, **more}


def _bad(where: str, problem: str, mend: str) -> InvalidInput:
    return InvalidInput([Problem(where=where, problem=problem, mend=mend)])
