"""Dataset rows as token ids and labels, through the same chat rendering that serving uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.data import Row, parse_row
from services.training.health import RunStopped
from shared.chat import prompt_ids
from shared.doctrine.fit import unfit_rows

IGNORED = -100
"""The label of a token the loss does not look at."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row: ids, and labels that are `IGNORED` on the prompt."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Corpus:
    """The tokenized rows that fit, and how many did not."""

    examples: list[Example]
    too_long: int

    @property
    def lengths(self) -> list[int]:
        return [len(example.input_ids) for example in self.examples]


@dataclass(frozen=True, slots=True)
class Pair:
    """One row of preference: the ids of the prompt and of its two answers."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


@dataclass(frozen=True, slots=True)
class Pairs:
    """The tokenized pairs that fit, and how many did not."""

    examples: list[Pair]
    too_long: int

    @property
    def lengths(self) -> list[int]:
        return [
            len(e.prompt_ids) + max(len(e.chosen_ids), len(e.rejected_ids)) for e in self.examples
        ]


@dataclass(frozen=True, slots=True)
class Judged:
    """One judged row: the ids of its prompt and answer, and whether the answer is good."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool


@dataclass(frozen=True, slots=True)
class JudgedCorpus:
    """The tokenized judged rows that fit, and how many did not."""

    examples: list[Judged]
    too_long: int


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSON Lines file."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield parse_row(line)


def row_prompt_ids(tokenizer: Any, row: Row) -> list[int]:
    """The row's prompt, as serving would send it to the model."""
    return prompt_ids(tokenizer, [m.model_dump() for m in row.messages], row.tools)


def encode(tokenizer: Any, row: Row) -> Example:
    """Prompt, target and the end-of-turn token; the loss looks at the last two.

    Raises RunStopped if the row has no target.
    """
    if row.target is None:
        raise RunStopped(
            "dataset_missing", f"row {row.id!r} has no target", "give every training row a target"
        )
    prompt, completion = row_prompt_ids(tokenizer, row), answer_ids(tokenizer, row.target)
    return Example(prompt + completion, [IGNORED] * len(prompt) + completion)


def answer_ids(tokenizer: Any, answer: str) -> list[int]:
    """An answer and the end-of-turn token."""
    return [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def fitting_rows(path: Path, method: str) -> list[Row]:
    """The rows of `path`. Raises RunStopped, naming the first row `method` cannot learn from."""
    rows = list(read_rows(path))
    for problem in unfit_rows(method, rows):
        raise RunStopped("dataset_missing", f"{problem.where}: {problem.problem}", problem.mend)
    return rows


def encode_pairs(tokenizer: Any, rows: Iterable[Row], *, max_length: int) -> Pairs:
    """Every pair whose prompt fits `max_length` with either answer."""
    encoded = [
        Pair(
            row_prompt_ids(tokenizer, row),
            answer_ids(tokenizer, row.target or ""),
            answer_ids(tokenizer, row.rejected or ""),
        )
        for row in rows
    ]
    lengths = Pairs(encoded, 0).lengths
    fitting = [pair for pair, n in zip(encoded, lengths, strict=True) if n <= max_length]
    return Pairs(fitting, len(encoded) - len(fitting))


def encode_judged(tokenizer: Any, rows: Iterable[Row], *, max_length: int) -> JudgedCorpus:
    """Every judged row whose prompt and answer fit `max_length`."""
    encoded = [
        Judged(
            row_prompt_ids(tokenizer, row),
            answer_ids(tokenizer, row.target or ""),
            bool(row.desirable),
        )
        for row in rows
    ]
    fitting = [e for e in encoded if len(e.prompt_ids) + len(e.completion_ids) <= max_length]
    return JudgedCorpus(fitting, len(encoded) - len(fitting))


def encode_file(tokenizer: Any, path: Path, *, max_length: int) -> Corpus:
    """Every row of `path` that fits `max_length`.

    A row that does not fit is left out and counted: a truncated answer would be learned as one.
    """
    return fitting((encode(tokenizer, row) for row in read_rows(path)), max_length)


def fitting(examples: Iterable[Example], max_length: int) -> Corpus:
    """The examples of at most `max_length` tokens, and a count of the others."""
    encoded = list(examples)
    kept = [example for example in encoded if len(example.input_ids) <= max_length]
    return Corpus(kept, len(encoded) - len(kept))
