"""Which tokenizers read ids alike: by tokens, their ids, and the rules that cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.vocabulary import vocabulary_difference

PLAIN: dict[str, Any] = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    "added_tokens": [{"id": 3, "content": "<end>"}],
    "pre_tokenizer": {"type": "ByteLevel"},
}


def written(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    content = json.loads(json.dumps(PLAIN))
    for path, value in changes.items():
        place = content
        *parents, last = path.split("__")
        for name in parents:
            place = place[name]
        place[last] = value
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({}, "", id="the same"),
        pytest.param({"model__merges": [["a", "b"]]}, "", id="merges written another way"),
        pytest.param({"truncation": None}, "", id="settings that cut nothing"),
        pytest.param({"added_tokens": []}, "4 tokens and the teacher 3", id="a token less"),
        pytest.param({"model__vocab": {"b": 0, "a": 1, "ab": 2}}, "2 of 4", id="other ids"),
        pytest.param({"model__merges": []}, "different rules", id="other merges"),
        pytest.param({"pre_tokenizer": None}, "different rules", id="other first cuts"),
    ],
)
def test_a_difference_that_moves_ids_is_named(tmp_path: Path, changes: Any, why: str) -> None:
    found = vocabulary_difference(written(tmp_path / "a"), written(tmp_path / "b", **changes))
    assert (why in found) if why else not found


def test_what_is_no_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="describes no tokenizer"):
        vocabulary_difference(written(tmp_path / "a"), written(tmp_path / "b", model=None))
