"""Whether two models read token ids alike, from their `tokenizer.json` alone.

Logits can be distilled only where position i of both vectors means the same token and both models
cut a text into the same tokens. Settings and chat templates may differ: the student's are used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def vocabulary_difference(student: Path, teacher: Path) -> str:
    """Why the ids of one model folder are not those of the other; empty if they are.

    Raises OSError or ValueError for a folder whose `tokenizer.json` cannot be read.
    """
    ours, theirs = _tokens(student), _tokens(teacher)
    if len(ours) != len(theirs):
        return f"the student has {len(ours):,} tokens and the teacher {len(theirs):,}"
    if differing := sum(theirs.get(token) != number for token, number in ours.items()):
        return f"{differing:,} of {len(ours):,} tokens have other ids in the teacher's vocabulary"
    if _cutting(student) != _cutting(teacher):
        return "both have the same tokens, and cut texts into them by different rules"
    return ""


def _tokens(folder: Path) -> dict[str, int]:
    content = _read(folder)
    vocabulary = content["model"].get("vocab")
    if isinstance(vocabulary, list):  # unigram: a list of (token, score)
        vocabulary = {token: number for number, (token, _score) in enumerate(vocabulary)}
    added = {entry["content"]: entry["id"] for entry in content.get("added_tokens") or ()}
    return {**(vocabulary or {}), **added}


def _cutting(folder: Path) -> Any:
    """Everything that decides where a text is cut, in a canonical form."""
    content = _read(folder)
    model = {key: value for key, value in content["model"].items() if key != "vocab"}
    merges = model.get("merges")
    if merges is not None:  # written as "a b" or as ["a", "b"], by the library's version
        model["merges"] = [m.split(" ") if isinstance(m, str) else list(m) for m in merges]
    return model, content.get("normalizer"), content.get("pre_tokenizer")


def _read(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"{folder.name}/tokenizer.json describes no tokenizer")
    return content
