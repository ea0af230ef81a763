"""Conversations as tokens and labels: the loss looks at every turn of the assistant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts.data import Row
from services.training.adapters.tokens import (
    Corpus,
    Example,
    answer_ids,
    encode,
    fitting,
    read_rows,
)
from shared.chat import prompt_ids


def encode_conversations(tokenizer: Any, path: Path, *, max_length: int) -> Corpus:
    """Every row of `path` that fits `max_length`."""
    return fitting((encode_conversation(tokenizer, row) for row in read_rows(path)), max_length)


def encode_conversation(tokenizer: Any, row: Row) -> Example:
    """The row's tokens, labelled at the assistant's turns and at `target`.

    An earlier turn is labelled where the tokens up to it are those serving would have sent, and its
    own are what an answer is made of. Some templates rewrite earlier turns (they drop reasoning,
    say); what they leave there was never an answer, and the loss does not look at it.

    Raises RunStopped if the row has no target.
    """
    example = encode(tokenizer, row)
    messages = [message.model_dump() for message in row.messages]
    for k, message in enumerate(row.messages):
        if message.role != "assistant":
            continue
        before = prompt_ids(tokenizer, messages[:k], row.tools)
        answer = answer_ids(tokenizer, message.content)
        start, end = len(before), len(before) + len(answer)
        if example.input_ids[:end] == before + answer:
            example.labels[start:end] = answer
    return example
