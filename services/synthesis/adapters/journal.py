"""Paid answers on disk before they count: a restart reads them and asks nothing twice (S8).

JSON Lines, appended and fsynced one answer at a time. A crash can tear only the last line; it is
cut off when the journal is opened, and that one request is asked again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from services.synthesis.teachers import Completion


class Journal:
    """Request key → completion, None where the teacher will never answer."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._answers: dict[str, Completion | None] = {}
        self._file = path.open("a+b")
        self._load()

    def _load(self) -> None:
        self._file.seek(0)
        sound = 0
        for line in self._file:
            try:
                entry = json.loads(line)
                self._answers[entry["key"]] = (
                    None
                    if entry["text"] is None
                    else Completion(
                        entry["text"],
                        entry["api"],
                        entry.get("tokens", 0),
                        entry.get("cut", False),
                    )
                )
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

    def answer(self, key: str) -> Completion | None:
        """The journaled answer. Raises KeyError for a key that was never answered."""
        return self._answers[key]

    def append(self, key: str, answer: Completion | None) -> None:
        """Make an answer durable, then visible."""
        entry = {
            "key": key,
            "text": answer and answer.text,
            "api": answer and answer.api_version,
            "tokens": answer.tokens if answer else 0,
            "cut": bool(answer and answer.cut),
        }
        line = json.dumps(entry, ensure_ascii=True).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._answers[key] = answer

    def close(self) -> None:
        self._file.close()
