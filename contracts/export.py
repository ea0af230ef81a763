"""Export the published language: `python -m contracts.export [--check] [--freeze [--breaking]]`.

`schemas/<name>.json` is the JSON Schema (draft 2020-12) of each document, `schemas/asyncapi.json`
the AsyncAPI document: both always current, regenerated with every change. `schemas/v1/` is the
frozen baseline that other people's programs rely on: it changes only with `--freeze`, and a test
refuses any schema that breaks it (`contracts.compatibility`). `--freeze` takes additions only;
`--freeze --breaking` replaces the baseline, for a version that nobody relies on yet. Once somebody
does, a breaking change needs a `v2` beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from contracts.asyncapi import asyncapi_document
from contracts.compatibility import breaking_changes
from contracts.documents import DOCUMENTS, schema_of

SCHEMAS = Path(__file__).parent / "schemas"
BASELINE = SCHEMAS / "v1"


def exported() -> dict[str, str]:
    """File name → content, of everything under `schemas/` but the baseline."""
    documents: dict[str, Any] = {f"{name}.json": schema_of(name) for name in DOCUMENTS}
    documents["asyncapi.json"] = asyncapi_document()
    return {name: _text(document) for name, document in documents.items()}


def stale(folder: Path = SCHEMAS) -> list[str]:
    """Names of files in `folder` that are missing, outdated or left over."""
    wanted = exported()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )


def broken(baseline: Path = BASELINE) -> list[str]:
    """Every way in which today's schemas break the frozen baseline."""
    changes = []
    for path in sorted(baseline.glob("*.json")):
        name = path.stem
        if name not in DOCUMENTS:
            changes.append(f"{name}: removed")
            continue
        old = json.loads(path.read_text(encoding="utf-8"))
        changes += [f"{name}: {change}" for change in breaking_changes(old, schema_of(name))]
    return changes


def write(folder: Path = SCHEMAS) -> None:
    """Bring `folder` up to date."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = exported()
    for path in folder.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, content in wanted.items():
        (folder / name).write_text(content, encoding="utf-8")


def freeze(baseline: Path = BASELINE) -> None:
    """Make today's schemas the baseline."""
    baseline.mkdir(parents=True, exist_ok=True)
    for path in baseline.glob("*.json"):
        path.unlink()
    for name in DOCUMENTS:
        (baseline / f"{name}.json").write_text(_text(schema_of(name)), encoding="utf-8")


def _text(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> int:
    """The command. Exit code 1: something is stale, or breaks the baseline."""
    parser = argparse.ArgumentParser(prog="python -m contracts.export")
    parser.add_argument("--check", action="store_true", help="write nothing, report what is stale")
    parser.add_argument("--freeze", action="store_true", help="take additions into the baseline")
    parser.add_argument("--breaking", action="store_true", help="with --freeze: replace it")
    options = parser.parse_args()
    changes = [] if options.freeze and options.breaking else broken()
    for change in changes:
        print(f"breaks v1: {change}", file=sys.stderr)
    if options.check:
        outdated = stale()
        for name in outdated:
            print(f"stale: schemas/{name}; run `python -m contracts.export`", file=sys.stderr)
        return 1 if outdated or changes else 0
    write()
    if options.freeze and not changes:
        freeze()
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
