"""Programs prove themselves in the sandbox, and only the program is kept."""

import json

import pytest

from contracts.data import Row
from services.synthesis.cleaning import cleaned
from services.synthesis.filters import Rejected
from services.synthesis.verification import Verified, verify
from shared.errors import InvalidInput

TESTS = "assert sign(3) == 1\nassert sign(-2) == -1\nassert sign(0) == 0\n"
GOOD = "def sign(x):\n    if x > 0:\n        return 1\n    return -1 if x < 0 else 0\n"


def seed(expected) -> Row:
    return Row(id="s", messages=({"role": "user", "content": "Write it"},), target="x",
               expected=expected)  # fmt: skip


def python(answer: str, tests: str = TESTS):
    return verify("python", seed({"tests": tests}), answer)


@pytest.mark.req("S4")
def test_a_program_that_passes_has_its_branch_coverage_and_shape_recorded():
    done = python(f"Here you go:\n```python\n{GOOD}```\nHope it helps!")
    assert isinstance(done, Verified)
    assert done.target == GOOD.strip()
    assert (done.record["coverage"], done.record["branches"]) == (1.0, 4)
    assert done.record["shape"] == ["FunctionDef", "If", "Return", "Return"]
    half = python(GOOD, "assert sign(3) == 1")
    assert half.record["coverage"] == 0.25


@pytest.mark.req("S4")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param("def sign(x) return 1", "does_not_compile", id="syntax"),
        pytest.param("def sign(x):\n    return 1", "tests_fail", id="wrong"),
        pytest.param("def sign(x):\n    return signum(x)", "static_analysis", id="unbound name"),
        pytest.param("def sign(x):\n    try:\n        return 1\n    except:\n        return 0",
                     "static_analysis", id="bare except"),
        pytest.param("def sign(x):\n    return eval('1')", "static_analysis", id="eval"),
        pytest.param("while True:\n    pass", "no_verdict", id="endless"),
        pytest.param("import os\nos.write(1, b'passed')\nos._exit(0)", "tests_fail", id="exits"),
        pytest.param("import socket\nsocket.create_connection(('1.1.1.1', 80), 1)\n" + GOOD,
                     "tests_fail", id="network"),
        pytest.param("", "empty", id="empty"),
    ],
)  # fmt: skip
def test_a_program_that_does_not_prove_itself_is_rejected_by_its_reason(answer, reason):
    assert python(answer) == Rejected(reason)


@pytest.mark.req("S4")
def test_queries_and_structured_data_prove_themselves():
    wanted = {"schema": "create table t(a); insert into t values (1), (2);",
              "query": "select a from t where a > 1"}  # fmt: skip
    query = verify("sql", seed(wanted), "```sql\nSELECT a FROM t WHERE a = 2; -- the larger\n```")
    assert query.target == "SELECT a FROM t WHERE a = 2; -- the larger"
    assert verify("sql", seed(wanted), "select a from t") == Rejected("other_rows")
    assert verify("sql", seed(wanted), "drop table t") == Rejected("does_not_parse")
    schema = {"schema": {"type": "object", "required": ["a"],
                         "properties": {"a": {"type": "integer"}}}}  # fmt: skip
    assert verify("json_schema", seed(schema), '```json\n{"a": 1}\n```').target == '{"a": 1}'
    assert verify("json_schema", seed(schema), '{"a": "1"}') == Rejected("violates_schema")
    assert verify("json_schema", seed(schema), "a is 1") == Rejected("not_json")


def test_a_seed_without_anything_to_check_against_is_named():
    with pytest.raises(InvalidInput, match="tests"):
        verify("python", seed(None), GOOD)


@pytest.mark.req("S5")
def test_logs_warnings_paths_and_debug_lines_go_and_the_program_stays():
    noisy = (
        "import logging\n"
        "# generated in /home/ana/work/answer.py\n"
        "/tmp/x.py:3: DeprecationWarning: old\n"
        "def f(x):\n"
        "    logging.debug('x is %s', x)\n"
        "    if x:\n"
        "        print('DEBUG', x)\n"
        "    path = '/tmp/keep'  # as on C:\\Users\\ana\\x\n"
        "    return path\n"
        "Traceback (most recent call last):\n"
        "2026-01-02 10:11:12 DEBUG started\n"
    )
    program = cleaned(f"```python\n{noisy}```")
    assert program == (
        "import logging\n"
        "# generated in …\n"
        "def f(x):\n"
        "    if x:\n"
        "        pass\n"
        "    path = '/tmp/keep'  # as on …\n"
        "    return path"
    )
    compile(program, "p", "exec")


@pytest.mark.req("S5")
def test_what_the_sandbox_said_is_kept_beside_the_row_with_the_harness_version():
    done = python("import sys\nprint('to stderr', file=sys.stderr)\nprint('out')\n" + GOOD)
    assert "to stderr" in done.record["log"]
    assert "out" in done.record["log"]
    assert "to stderr" not in done.target.replace("print('to stderr'", "")
    assert done.record["harness"] == "python/v1"
    assert done.record["python"].startswith("3.")
    assert done.record["harness_digest"].startswith("sha256:")
    assert done.record["limits"]["wall_s"] > 0
    json.dumps(done.record)
