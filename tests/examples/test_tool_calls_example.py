from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from contracts.job import AdaptationJob
from shared.scoring import resolve

FOLDER = Path(__file__).parents[2] / "examples" / "tool-calls"


@pytest.fixture
def bfcl_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("bfcl_rows")
    sys.modules.pop("bfcl_rows", None)


def question(number: int, name: str, allowed: dict[str, Any], **properties: Any) -> dict[str, Any]:
    parameters = {"type": "dict", "properties": properties, "required": []}
    return {
        "id": f"simple_python_{number}",
        "question": [[{"role": "user", "content": f"request {number}"}]],
        "function": [{"name": name, "description": "d", "parameters": parameters}],
        "answer": [{name: allowed}],
    }


def write(folder: Path, items: list[dict[str, Any]]) -> None:
    (folder / "possible_answer").mkdir()
    answers = [{"id": i["id"], "ground_truth": i.pop("answer")} for i in items]
    for path, rows in (
        (folder / "BFCL_v4_simple_python.json", items),
        (folder / "possible_answer" / "BFCL_v4_simple_python.json", answers),
    ):
        path.write_text("\n".join(json.dumps(row) for row in rows))


def test_the_job_is_valid_and_its_scorer_exists() -> None:
    job = AdaptationJob.model_validate(yaml.safe_load((FOLDER / "job.yaml").read_text()))
    assert resolve(job.behaviour)
    assert [stage.outcomes for stage in job.rollout.stages] == [1, 4, 10, 12]


def test_a_question_becomes_a_row_its_scorer_accepts(tmp_path: Path, bfcl_rows: ModuleType) -> None:
    allowed = {
        "place": [{"city": ["NYC", "New York"], "zip": ["", "10001"]}],
        "times": [[1.5, 2]],
        "unit": ["", "km"],
        "who": ["Ann"],
    }
    item = question(
        0,
        "geo.find",
        allowed,
        place={"type": "dict", "properties": {"city": {"type": "string"}}},
        times={"type": "tuple", "items": {"type": "float"}},
        unit={"type": "string"},
        who={"type": "any"},
    )
    write(tmp_path, [item])
    (asked,) = bfcl_rows.questions(tmp_path, "simple_python")
    row = bfcl_rows.row_of(asked)
    call = {"name": "geo.find", "arguments": {"place": {"city": "NYC"}, "times": [1.5, 2]}}
    call["arguments"]["who"] = "Ann"  # type: ignore[index]
    assert json.loads(row.target) == call
    types = row.tools[0]["function"]["parameters"]["properties"]
    assert [types[k]["type"] for k in types] == ["object", "array", "string", "string"]
    assert types["times"]["items"] == {"type": "number"}


def test_a_question_whose_answer_breaks_its_own_signature_is_left_out(
    tmp_path: Path, bfcl_rows: ModuleType
) -> None:
    write(tmp_path, [question(0, "f", {"n": [["a"]]}, n={"type": "integer"})])
    (asked,) = bfcl_rows.questions(tmp_path, "simple_python")
    assert bfcl_rows.row_of(asked) is None


@pytest.mark.req("C8")
def test_no_function_is_in_two_splits_and_every_row_is_in_one(
    tmp_path: Path, bfcl_rows: ModuleType
) -> None:
    items = [question(i, f"f{i // 2}", {"n": [i]}, n={"type": "integer"}) for i in range(2 * 140)]
    write(tmp_path, items)
    rows = [bfcl_rows.row_of(q) for q in bfcl_rows.questions(tmp_path, "simple_python")]
    splits = bfcl_rows.split(rows)
    assert {name: len(part) for name, part in splits.items()} == {
        "heldout": 80,
        "traffic": 60,
        "dev": 40,
        "train": 100,
    }
    groups = [{row.group for row in part} for part in splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 140
    again = bfcl_rows.split(list(reversed(rows)))
    assert {n: {r.id for r in p} for n, p in again.items()} == {
        n: {r.id for r in p} for n, p in splits.items()
    }
