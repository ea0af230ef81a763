"""The labelled set is large enough, and redaction keeps the precision and recall it had."""

import json

import pytest

from services.curation.pipeline import Curated
from tests.curation.pii.accuracy import PARTS, labelled, measure
from tests.curation.samples import clean_rows, content, contents, curate, kept, row, training

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
    for part, least in (("tune", 0.99), ("unseen", 0.95), ("fresh", 0.85), ("later", 0.60)):
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
