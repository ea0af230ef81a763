"""Greedy answers on disk: the same model asked the same thing is not asked again.

The key is the model's *content* (its digest) and the whole request; where the model runs and what
it is called there do not matter.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from shared.asking.request import Answer


class AnswerCache:
    """A folder of answers, one small file each. Safe for several writers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self, identity: str, request: Mapping[str, Any]) -> str:
        """The content address of one question to one model."""
        canonical = json.dumps([identity, request], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def get(self, key: str) -> Answer | None:
        """The answer, marked `cached`; None if there is none that can be read."""
        try:
            stored = json.loads(self._path(key).read_text(encoding="utf-8"))
            return replace(Answer(**stored), cached=True)
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def put(self, key: str, answer: Answer) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(asdict(answer), out, ensure_ascii=False)
        Path(part).replace(path)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
