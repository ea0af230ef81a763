"""The labelled set is large enough, and redaction keeps the precision and recall it had."""

import json
from pathlib import Path

import pytest

from services.curation.names import people
from services.curation.pipeline import Curated
from tests.curation.pii.accuracy import PARTS, labelled, measure
from tests.curation.samples import clean_rows, content, contents, curate, kept, row, training

NAMES = Path(__file__).with_name("pii") / "names.jsonl"
pytestmark = pytest.mark.req("C3")


def totals(detector, part: str) -> tuple[float, float]:
    counts = measure(detector, part)[0].values()
    found, missed = sum(c.found for c in counts), sum(c.missed for c in counts)
    return found / (found + missed), found / (found + sum(c.false_alarms for c in counts))


def test_the_labelled_set_has_more_than_three_hundred_strings_and_hidden_forms():
    cases = [case for part in PARTS for case in labelled(part)]
    assert len({c.text for c in cases}) >= 300
    hidden = [c for c in cases if c.form not in {"plain", "harmless"}]
    assert len(hidden) >= 100
    assert len([c for c in cases if c.form == "harmless"]) >= 100


def test_precision_and_recall_hold(detector):
    for part, least in (
        ("tune", 0.99), ("unseen", 0.95), ("fresh", 0.95), ("later", 0.95), ("last", 0.78),
    ):  # fmt: skip
        recall, precision = totals(detector, part)
        assert recall >= least, part
        assert precision >= 0.98, part


@pytest.mark.parametrize(
    "text",
    [
        "Call get_order for order 12345678 and text me the result",
        "call f(415, 5550186)",
        "text: 2024-11-25 10:30 meeting",
        "use token some_identifier_name_v2_long_enough",
        "access_key rotation_policy_v2_with_90_days",
        "weights -9.19521713256836 and 4.4539148803436467",
        "meet me at noon dot the i",
        "one two three four five six seven eight, text ends",
    ],
)
def test_what_tools_and_programs_say_is_nobodys_data(detector, text):
    assert detector.detect([text]) == [[]]


def test_terms_a_tenant_calls_private_leave_every_field(job, detector):
    rows = [
        *clean_rows(3),
        row("p", "Join Project Halibut with CRM_ACCOUNTS_V2", "select * from crm_accounts_v2"),
    ]
    policy = {"private_terms": ["Project Halibut", "crm_accounts_v2"], "validation_share": 0}
    done = curate(job(curation=policy), [training(rows)], {}, detector)
    assert isinstance(done, Curated)
    stay = {r.id: r for r in kept(done)}
    assert stay["p"].messages[0].content == "Join <PRIVATE> with <PRIVATE_2>"
    assert stay["p"].target == "select * from <PRIVATE_2>"
    audit = [json.loads(line) for line in content(done, "redactions.jsonl").splitlines()]
    assert {e["type"] for e in audit} == {"PRIVATE"}
    assert b"halibut" not in b"".join(contents(done).values()).lower()


def test_names_are_found_by_their_surroundings(detector):
    """A review signal: 0.79 of the names of a set written before the rules, hardly a false one."""
    found = missed = false = 0
    for line in NAMES.read_text("utf-8").splitlines():
        entry = json.loads(line)
        text = entry["text"]
        spans = people(text)
        values = [(text.index(name), text.index(name) + len(name)) for name in entry["names"]]
        for start, end in values:
            reach = max((min(s.end, end) - max(s.start, start) for s in spans), default=0)
            hit = reach >= 0.8 * (end - start)
            found, missed = found + hit, missed + (not hit)
        false += sum(not any(s.start < b and a < s.end for a, b in values) for s in spans)
    assert found / (found + missed) >= 0.75
    assert found / (found + false) >= 0.95


def test_a_row_that_names_a_person_is_noted_and_stays_as_it_is(job, detector):
    rows = [*clean_rows(3), row("n", "Book a table for Anna Berg at eight")]
    done = curate(job(curation={"validation_share": 0}), [training(rows)], {}, detector)
    stage = next(s for s in done.snapshot.card.stages if s.stage == "names")
    assert stage.changed == {"reported:person_named": 1}
    assert any(w.startswith("names: 1 rows name people (n)") for w in done.snapshot.card.warnings)
    [entry] = [e for e in map(json.loads, content(done, "lineage.jsonl").splitlines())
               if "notes" in e]  # fmt: skip
    assert entry["notes"][0]["detail"] == "1 names, at 17 of the row's text"
    assert "Anna Berg" in next(r for r in kept(done) if r.id == "n").messages[0].content
    assert b"Anna" not in content(done, "lineage.jsonl") + done.snapshot.card_bytes
