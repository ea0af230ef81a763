"""The labelled set is large enough, and redaction keeps the precision and recall it had."""

import json

import pytest

from services.curation.pipeline import Curated
from tests.curation.pii.accuracy import labelled, measure
from tests.curation.samples import clean_rows, content, contents, curate, kept, row, training

pytestmark = pytest.mark.req("C3")


def totals(detector, part: str) -> tuple[float, float]:
    counts = measure(detector, part)[0].values()
    found, missed = sum(c.found for c in counts), sum(c.missed for c in counts)
    return found / (found + missed), found / (found + sum(c.false_alarms for c in counts))


def test_the_labelled_set_has_more_than_three_hundred_strings_and_hidden_forms():
    cases = [*labelled("tune"), *labelled("unseen")]
    assert len({c.text for c in cases}) >= 300
    hidden = [c for c in cases if c.form not in {"plain", "harmless"}]
    assert len(hidden) >= 100
    assert len([c for c in cases if c.form == "harmless"]) >= 100


def test_precision_and_recall_hold(detector):
    recall, precision = totals(detector, "tune")
    assert recall >= 0.99
    assert precision >= 0.99
    recall, precision = totals(detector, "unseen")
    assert recall >= 0.70
    assert precision >= 0.95


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
