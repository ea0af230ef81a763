"""Texts as packed blocks of tokens, every one of them labelled, for continued pretraining."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contracts.data import Row
from services.training.adapters.tokens import (
    IGNORED,
    Corpus,
    Example,
    answer_ids,
    encode,
    read_rows,
)
from services.training.packing import packed


def text_ids(tokenizer: Any, row: Row) -> list[int]:
    """A document's text and an end token; of another row its whole conversation, as rendered."""
    if row.document is not None:
        return answer_ids(tokenizer, row.target or "")
    return encode(tokenizer, row).input_ids


def pack_rows(tokenizer: Any, rows: Iterable[Row], *, max_length: int) -> Corpus:
    """The rows end to end in blocks of `max_length`. None is too long."""
    blocks = packed((text_ids(tokenizer, row) for row in rows), max_length)
    return Corpus([Example(block, [IGNORED, *block[1:]]) for block in blocks], 0)


def encode_texts(tokenizer: Any, path: Path, *, max_length: int) -> Corpus:
    """Every row of `path`, packed."""
    return pack_rows(tokenizer, read_rows(path), max_length=max_length)
