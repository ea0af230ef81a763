"""The table of requirements is current, and its generator reads every kind of mark."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _generator():
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generate = _generator()


def test_the_committed_table_is_current_and_every_mark_names_a_row() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_marks_are_read_from_functions_classes_modules_and_parameters(tmp_path) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_a.py").write_text(
        "import pytest\n"
        "pytestmark = [pytest.mark.req('M1')]\n"
        "@pytest.mark.req('F1', 'F2')\nasync def test_one(): ...\n"
        "@pytest.mark.req('C1')\nclass TestBox:\n    def test_two(self): ...\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.req('P1'))])\n"
        "def test_three(x): ...\n"
        "def test_four(): ...\n"
        "@pytest.mark.req('Z9')\ndef helper(): ...\n"
    )
    marks = generate.read_marks(tests)
    assert marks["F1"] == marks["F2"] == ["tests/test_a.py::test_one"]
    assert marks["C1"] == ["tests/test_a.py::TestBox::test_two"]
    assert marks["P1"] == ["tests/test_a.py::test_three"]
    assert len(marks["M1"]) == 4
    assert "Z9" not in marks


def test_a_mark_without_a_row_is_reported_and_a_row_without_a_mark_is_not_yet() -> None:
    groups = [generate.Group("Platform", {"P1": "Typed.", "P2": "Plain."})]
    marks = {"P1": ["tests/test_a.py::test_one"], "P99": ["tests/test_b.py::test_two"]}
    assert generate.unknown_marks(groups, marks) == ["P99: tests/test_b.py::test_two"]
    page = generate.render(groups, marks)
    assert "1 of 2 rows have a test." in page
    assert "| P1 | Typed. | `test_a.py::test_one` |" in page
    assert "| P2 | Plain. | *not yet* |" in page
