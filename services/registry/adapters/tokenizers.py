"""The special tokens of a base's tokenizer, read from its files without loading it."""

from __future__ import annotations

import json
from pathlib import Path

from contracts.job import BaseModelRef

_MAXIMUM_BYTES = 256 << 20


class TokenizerFolder:
    """Tokenizers of the bases under `<home>/models`, or wherever a job's base is a folder."""

    def __init__(self, models: Path) -> None:
        self._models = models

    def special_tokens(self, base: BaseModelRef) -> tuple[str, ...]:
        """In order of their ids; empty where this machine does not hold the base."""
        for folder in (Path(base.model), self._models / base.label):
            path = folder / "tokenizer.json"
            if path.is_file() and path.stat().st_size <= _MAXIMUM_BYTES:
                added = json.loads(path.read_bytes()).get("added_tokens", [])
                return tuple(
                    row["content"]
                    for row in sorted(added, key=lambda row: row["id"])
                    if row.get("special")
                )
        return ()
