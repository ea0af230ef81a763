"""Break-even against hand-computed values, and what must hold for every ledger."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from contracts.economics import Ledger
from services.cli.main import app
from shared.economics import break_even, sensitivity, svg, text
from shared.economics.break_even import costs

EXAMPLE = Path(__file__).parents[2] / "examples" / "economics" / "ledger.yaml"
DOCUMENT = yaml.safe_load(EXAMPLE.read_text())


def ledger(**changes: Any) -> Ledger:
    return Ledger.model_validate({**DOCUMENT, **changes})


def run(*arguments: object):
    return CliRunner().invoke(app, ["economics", *map(str, arguments)], env=dict(os.environ))


@pytest.mark.req("E1")
def test_the_published_ledger_breaks_even_at_383_8_million_tokens_not_at_23_1() -> None:
    found = break_even(ledger())
    assert found.break_even_tokens == pytest.approx(5700 / 14.85 * 1e6)
    assert found.break_even_tokens == pytest.approx(383.8e6, rel=1e-3)
    assert found.break_even_requests == pytest.approx(383_838, rel=1e-5)
    assert found.break_even_months == pytest.approx(7.677, rel=1e-3)
    assert found.verdict == "pays"
    assert found.claim is not None
    for said in ("23.1 million tokens is wrong", "343", "5,700", "383.8"):
        assert said in found.claim


@pytest.mark.req("E1")
def test_failures_that_fall_back_to_the_teacher_raise_the_price() -> None:
    found = break_even(ledger(fallback_rate=0.028))
    assert found.student_price_per_mtok == pytest.approx(0.57)
    assert found.break_even_tokens == pytest.approx(395.0e6, rel=1e-3)


@pytest.mark.req("E2")
@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"student_price_per_mtok": 15.0}, "never"),
        ({"student_price_per_mtok": 0.15, "fallback_rate": 0.995}, "never"),
        ({"monthly_requests": 30_000}, "too_late"),
        ({"monthly_requests": 0}, "too_late"),
        ({"monthly_requests": None}, "volume_unknown"),
        ({"one_off": {}}, "pays"),
    ],
)
def test_the_verdict_is_about_the_projected_volume(changes, verdict) -> None:
    assert break_even(ledger(**changes)).verdict == verdict


prices = st.floats(0.01, 100)
ledgers = st.builds(
    lambda once, teacher, student, share, tokens: ledger(
        one_off={"training": once},
        teacher_price_per_mtok=teacher,
        student_price_per_mtok=student,
        fallback_rate=share,
        tokens_per_request=tokens,
        claimed_break_even_tokens=None,
    ),
    st.floats(0, 1e6),
    prices,
    prices,
    st.floats(0, 1),
    st.floats(1, 1e5),
)


@given(ledgers)
def test_at_break_even_both_cost_the_same_and_before_it_the_teacher_is_cheaper(book) -> None:
    requests = break_even(book).break_even_requests
    if requests is None:
        ours, teachers = costs(book, 1e9)
        assert ours >= teachers or ours == pytest.approx(teachers)
        return
    assert costs(book, requests)[0] == pytest.approx(costs(book, requests)[1], rel=1e-6, abs=1e-9)
    ours, teachers = costs(book, requests / 2)
    assert ours >= teachers or ours == pytest.approx(teachers)


@given(ledgers, st.floats(1.01, 5))
def test_a_dearer_student_never_breaks_even_earlier(book, factor) -> None:
    dearer = book.model_copy(
        update={"student_price_per_mtok": book.student_price_per_mtok * factor}
    )
    now, then = break_even(book).break_even_tokens, break_even(dearer).break_even_tokens
    assert then is None or (now is not None and then >= now)


@pytest.mark.req("E1")
def test_sensitivity_names_the_entry_that_matters_most_first() -> None:
    rows = sensitivity(ledger())
    assert rows[0].entry == "teacher_price_per_mtok"
    assert rows[0].low == pytest.approx(5700 / (12 - 0.15) * 1e6)
    assert rows[0].high == pytest.approx(5700 / (18 - 0.15) * 1e6)
    assert {row.entry for row in rows} >= {"one_off.generation", "fallback_rate"}


@pytest.mark.parametrize("changes", [{}, {"student_price_per_mtok": 20.0}, {"currency": "<&"}])
def test_the_chart_is_well_formed_whatever_the_ledger(changes) -> None:
    root = ElementTree.fromstring(svg(ledger(**changes)))
    said = " ".join(root.itertext())
    assert "million tokens" in said
    assert ("break-even" in said) == ("student_price_per_mtok" not in changes)


@pytest.mark.req("E1")
def test_the_terminal_shows_where_the_two_lines_meet() -> None:
    lines = text(ledger()).splitlines()
    canvas = [line.partition("|")[2] for line in lines if "|" in line]
    (row,) = (n for n, line in enumerate(canvas) if "X" in line)
    assert canvas[row].index("X") == 28, "half of twice the break-even"
    assert "767.7 million tokens" in lines[-1]
    assert lines[1].startswith("11,515 |")
    assert (canvas[0].rstrip()[-1], canvas[-1][0]) == ("t", "t")
    before, after = canvas[row - 1], canvas[row + 1]
    assert "t" in before[28:]
    assert "t" in after[:28]
    never = text(ledger(student_price_per_mtok=20.0))
    assert "X" not in never.partition("\n")[2]
    assert text(ledger(one_off={}, student_price_per_mtok=0, teacher_price_per_mtok=0))


@pytest.mark.req("E1")
def test_the_command_says_it_in_words_as_json_and_as_a_chart(tmp_path: Path) -> None:
    words = run(EXAMPLE, "--svg", tmp_path / "chart.svg")
    assert words.exit_code == 0, words.output
    for said in ("383,838,384 tokens", "383,838 requests", "7.7 months", "23.1 million", "█"):
        assert said in words.stdout
    assert (tmp_path / "chart.svg").read_text().startswith("<svg")
    found = json.loads(run(EXAMPLE, "--json").stdout)
    assert found["break_even_requests"] == pytest.approx(383_838, rel=1e-5)
    assert found["sensitivity"][0]["entry"] == "teacher_price_per_mtok"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "one_off"),
        ("a: [", "cannot be read"),
        ("- 1", "ledger"),
        ("one_off: {training: -1}", "one_off.training"),
    ],
)
def test_a_wrong_ledger_names_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "ledger.yaml"
    path.write_text(text)
    done = run(path)
    assert done.exit_code == 2, done.output
    assert says in done.stderr.lower()
    assert run(tmp_path / "none.yaml").exit_code == 2
