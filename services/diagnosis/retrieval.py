"""Retrieval: the documents of a job's corpus that match a request, ranked by BM25.

The index is SQLite's full-text search (FTS5), in memory; its `bm25()` is Okapi BM25 with k1 = 1.2
and b = 0.75 (sqlite.org/fts5.html, section 5.1.1), over words without accents, stemmed by Porter.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence

from contracts.data import Document, Row

_WORD = re.compile(r"\w+")
_SHOWN = "Documents that may help:\n{documents}\n\n{request}"


def read_documents(content: bytes) -> list[Document]:
    """A corpus from JSON Lines. Raises `pydantic.ValidationError` on the first malformed line."""
    return [Document.model_validate_json(line) for line in content.splitlines() if line.strip()]


class Index:
    """A searchable corpus. Equal scores keep the corpus's order."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = tuple(documents)
        self._rows = sqlite3.connect(":memory:", check_same_thread=False)
        self._rows.execute(
            "CREATE VIRTUAL TABLE found USING fts5(text, tokenize='porter unicode61')"
        )
        self._rows.executemany(
            "INSERT INTO found(rowid, text) VALUES (?, ?)",
            ((place, document.text) for place, document in enumerate(self._documents)),
        )

    def search(self, request: str, count: int) -> tuple[Document, ...]:
        """At most `count` documents that share a word with `request`, the best first."""
        words = dict.fromkeys(_WORD.findall(request.lower()))
        if not words:
            return ()
        any_word = " OR ".join(f'"{word}"' for word in words)
        found = self._rows.execute(
            "SELECT rowid FROM found WHERE found MATCH ? ORDER BY bm25(found), rowid LIMIT ?",
            (any_word, count),
        )
        return tuple(self._documents[place] for (place,) in found)

    def shown(self, row: Row, count: int) -> Row:
        """The row with the documents its last user turn finds ahead of that turn's text."""
        last = max((n for n, m in enumerate(row.messages) if m.role == "user"), default=None)
        if last is None:
            return row
        turn = row.messages[last]
        documents = self.search(turn.content, count)
        if not documents:
            return row
        listed = "\n".join(f"[{document.id}] {document.text}" for document in documents)
        content = _SHOWN.format(documents=listed, request=turn.content)
        turns = list(row.messages)
        turns[last] = turn.model_copy(update={"content": content})
        return row.model_copy(update={"messages": tuple(turns)})
