"""Paid answers on disk before they count: a restart reads them and asks nothing twice (S8).

JSON Lines, appended and fsynced one answer at a time. A crash can tear only the last line; it is
cut off when the journal is opened, and that one request is asked again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


class Journal:
    """Request key → answer text, None where the teacher will never answer."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._answers: dict[str, str | None] = {}
        self._file = path.open("a+b")
        self._load()

    def _load(self) -> None:
        self._file.seek(0)
        sound = 0
        for line in self._file:
            try:
                entry = json.loads(line)
                self._answers[entry["key"]] = entry["text"]
            except (ValueError, KeyError, TypeError):
                break
            if not line.endswith(b"\n"):
                break
            sound += len(line)
        self._file.truncate(sound)
        self._file.seek(0, os.SEEK_END)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __len__(self) -> int:
        return len(self._answers)

    def answer(self, key: str) -> str | None:
        """The journaled answer. Raises KeyError for a key that was never answered."""
        return self._answers[key]

    def append(self, key: str, text: str | None) -> None:
        """Make an answer durable, then visible."""
        line = json.dumps({"key": key, "text": text}, ensure_ascii=True).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._answers[key] = text

    def close(self) -> None:
        self._file.close()
