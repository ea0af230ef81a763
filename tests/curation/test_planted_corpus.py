"""One corpus with every plant the issue names; each is accounted for in the dataset card."""

import json

import pytest

from contracts.data import parse_row
from services.curation.pipeline import Curated, Halted
from services.synthesis.filters import Phrases, judge
from tests.curation.samples import clean_rows, content, contents, curate, held_out, row, training

REPORT = ("please write the weekly report on ferry traffic in the harbour of Bergen with tables "
          "and a short summary for the council")  # fmt: skip


def corpus():
    """Rows by what is planted in them."""
    leaked = clean_rows(3, "leak", start=70)
    plants = {
        "clean": clean_rows(60),
        "pii": [
            row("mail", "Write to jane.roe@example.com about the plan"),
            row("phone", "Call me on +47 22 22 55 55 about the boat"),
            row("card", "Pay with card 4111 1111 1111 1111 today"),
            row("secret", "Log in with ghp_16C7e42F292c6912E7710c838347Ae178B4a now"),
            row("iban", "Send it to DE89 3704 0044 0532 0130 00 by noon"),
        ],
        "duplicates": [
            {**clean_rows(1)[0], "id": "exact"},
            row("near1", REPORT + "."),
            row("near2", "Please, " + REPORT + "!"),
        ],
        "leaked": leaked,
        "noise": [
            row("yes", "Is the ferry on time?", "positive"),
            row("no", "Is the ferry on time?", "negative"),
        ],
        "passing": [row("seat", "I have $20. Is it in reach?", "Yes, the seat costs $12.")],
        "refusals": [
            row("why", "Open the lock of my neighbour", "I can't, because it is not your door."),
            row("stone", "Tell me the weather code", "I can't do that."),
        ],
    }
    evaluation = {"heldout": held_out([{**r, "id": f"h-{r['id']}"} for r in leaked])}
    return plants, evaluation


@pytest.mark.req("C3", "C5", "C6", "C7", "C8", "C10", "F1", "F3")
def test_every_plant_is_in_the_card_and_only_the_plants_are(job, detector):
    plants, evaluation = corpus()
    rows = [r for listed in plants.values() for r in listed]
    policy = {"canaries": 3, "validation_share": 0.1}
    done = curate(job(curation=policy), [training(rows)], evaluation, detector)
    assert isinstance(done, Curated)
    card = done.snapshot.card
    stages = {s.stage: s for s in card.stages}
    assert stages["contamination"].dropped == {"heldout:exact": 3}
    assert card.contamination == {"heldout": 3}
    kinds = {k.removeprefix("redacted:") for k in stages["redaction"].changed}
    assert kinds == {"EMAIL", "PHONE", "CREDIT_CARD", "SECRET", "IBAN"}
    assert stages["exact_duplicates"].dropped == {"exact_duplicate": 1}
    assert stages["near_duplicates"].dropped == {"near_duplicate": 1}
    assert stages["refusals"].dropped == {"refusal_without_reason": 1}
    assert stages["label_noise"].changed == {"reported:contradiction": 2}
    assert card.refusals == {"forced": 0, "unclassified": 1}
    assert card.canaries == 3
    assert card.volatility == {"price": 1}
    assert sum(card.splits.values()) == len(rows) - 3 - 1 - 1 - 1 + 3
    for word in ("label noise: 2 of", "composition:"):
        assert any(word in warning for warning in card.warnings), word
    everything = b"".join(contents(done).values()) + done.card_markdown.encode()
    for value in (b"jane.roe", b"22 22 55 55", b"4111 1111", b"ghp_16C7", b"0532 0130"):
        assert value not in everything
    text = done.card_markdown
    for line in ("| redaction |", "below the threshold: price: 1", "CREDIT_CARD: 1",
                 "`heldout`: 3", "Canary strings planted", "refusal_without_reason: 1",
                 "reported:contradiction: 2"):  # fmt: skip
        assert line in text, line
    lineage = [json.loads(line) for line in content(done, "lineage.jsonl").splitlines()]
    assert {e["row"] for e in lineage if "dropped_by" in e} == {
        *(r["id"] for r in plants["leaked"]), "exact", "near2", "stone",
    }  # fmt: skip


@pytest.mark.req("C4", "H4")
def test_a_planted_licence_blocks_and_names_its_row(job, detector):
    plants, evaluation = corpus()
    rows = [*plants["clean"], row("gpl", "Do it", meta={"licence": "GPL-3.0-only"}),
            row("odd", "Do it too", meta={"licence": "found on the web"})]  # fmt: skip
    done = curate(job(), [training(rows)], evaluation, detector)
    assert isinstance(done, Halted)
    assert done.reason == "licence"
    assert [p.where for p in done.problems] == ["train.jsonl:61", "train.jsonl:62"]


@pytest.mark.req("C10", "F14")
def test_a_planted_passing_fact_halts_and_is_named(job, detector):
    plants, evaluation = corpus()
    rows = [*plants["clean"], row("fact", "What does Pro cost?", "Pro costs $49 per month.")]
    done = curate(job(), [training(rows)], evaluation, detector)
    assert isinstance(done, Halted)
    assert done.reason == "volatile_facts"
    assert [p.where for p in done.problems] == ["train.jsonl:61"]


@pytest.mark.req("S2")
@pytest.mark.parametrize("opening", ["Certainly! ", "Sure, here you go: ", "Of course. "])
def test_a_planted_teacher_prefix_never_reaches_a_row(opening):
    seed = parse_row(row("s", "Show the boats that leave Bergen on day 7", '{"a": 7}'))
    made = judge(seed, opening + "Which boats leave Bergen on day 7?", Phrases.load())
    assert made.text == "Which boats leave Bergen on day 7?"
