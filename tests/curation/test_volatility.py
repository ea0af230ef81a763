import pytest

from contracts.data import Row
from shared.doctrine.volatility import threshold, volatility
from tests.curation.volatile.accuracy import LABELLED, counts, labelled

VOLATILE = [
    ("What does the Pro plan cost?", "The Pro plan costs $49 per month.", "price"),
    ("Is the blue chair available?", "Yes, the blue chair is in stock: 14 units left.", "stock"),
    ("Can Maria edit the ledger?", "Maria has admin access to the ledger.", "permission"),
    ("Where is my order?", "Your order has been shipped and arrives soon.", "live_state"),
    ("Who leads Acme?", "As of today the current CEO is Smith.", "current_event"),
    ("What is my balance?", "Your balance is $1,204.55.", "live_state"),
    ("Describe the chair as JSON", '{"name": "chair", "price": 89.5}', "price"),
    ("Is the museum open?", "The museum is currently closed for works.", "live_state"),
]
STABLE = [
    ("What is 7 times 8?", "56"),
    ("Three tickets at $20 each, what do I pay?", "You pay $60 for the tickets."),
    ("The lamp costs $30. What does it cost?", "The lamp costs $30."),
    ("Get the price of AAPL", '{"name": "stock_price", "arguments": {"symbol": "AAPL"}}'),
    ("Get it", "get_price(symbol='AAPL', limit=3)"),
    ("Book it", '{"book": {"price": 120, "status": "pending"}}'),
    ("A chair for 89.5: as JSON", '{"name": "chair", "price": 89.5}'),
    ("Explain photosynthesis", "Plants turn light, water and carbon dioxide into sugar."),
    ("Delete all files", "I cannot delete files without your confirmation."),
]


def row(request, target, **more):
    return Row(id="r", messages=({"role": "user", "content": request},), target=target, **more)


@pytest.mark.req("C10")
@pytest.mark.req("D1")
@pytest.mark.parametrize(("request_text", "target", "kind"), VOLATILE)
def test_a_target_that_asserts_a_passing_fact_is_volatile(request_text, target, kind):
    found = volatility(row(request_text, target))
    assert found.score >= threshold()
    assert kind in found.kinds


@pytest.mark.req("C10")
@pytest.mark.parametrize(("request_text", "target"), STABLE)
def test_calls_grounded_answers_and_lasting_facts_are_not(request_text, target):
    assert volatility(row(request_text, target)).score < threshold()


def test_a_reviewed_row_is_let_through():
    reviewed = row(*VOLATILE[0][:2], meta={"stable_fact": "historic price list of 1998"})
    assert volatility(reviewed).score == 0


def test_the_labelled_set_is_large_and_its_parts_share_no_row():
    rows = {
        split: {(c.row.messages[0].content, c.row.target) for c in labelled(split)}
        for split in ("tune", "report")
    }
    assert sum(1 for line in LABELLED.read_text().splitlines() if line) >= 300
    assert not rows["tune"] & rows["report"]


@pytest.mark.req("D1")
@pytest.mark.req("C10")
def test_precision_and_recall_hold_on_rows_the_rules_were_not_tuned_on():
    found = counts("report")
    assert found.precision >= 0.9
    assert found.recall >= 0.9


@pytest.mark.req("C10")
@pytest.mark.parametrize("kind", sorted({c.kind for c in labelled("report") if c.kind}))
def test_every_kind_of_fact_is_named_as_what_it_is(kind):
    found = counts("report", kind)
    assert found.recall >= 0.75
    assert found.precision >= 0.7


def test_wording_chosen_to_avoid_the_rules_raises_no_false_alarm():
    assert counts("unseen").false_alarms == 0
