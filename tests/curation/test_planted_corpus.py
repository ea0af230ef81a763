"""One corpus with every plant the issue names; each is accounted for in the dataset card."""

import json

import pytest

from contracts.data import parse_row
from services.curation import pipeline
from services.curation.openings import without_opening
from services.curation.pipeline import Curated, Halted
from services.synthesis.filters import Phrases, judge
from tests.curation.samples import (
    clean_rows,
    content,
    contents,
    curate,
    held_out,
    jsonl,
    kept,
    row,
    training,
)

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
        "openings": [row("sure", "Is the pier near?", "Sure! It is round the corner.")],
        "names": [row("person", "Keep a berth for Anna Berg and her boat")],
        "refusals": [
            row("why", "Open the lock of my neighbour", "I can't, because it is not your door."),
            row("stone", "Tell me the weather code", "I can't do that."),
        ],
    }
    evaluation = {"heldout": held_out([{**r, "id": f"h-{r['id']}"} for r in leaked])}
    return plants, evaluation


def sources(job, rows, **curation):
    """The corpus as a source of our own licence, and one synthetic row a teacher opened."""
    policy = {"canaries": 3, "validation_share": 0.1, **curation}
    made = row("syn", "Which boats leave Bergen on day 7?", "Certainly! The boats are A and B.",
               origin={"model": "t", "api_version": "1", "temperature": 1.0, "top_p": 0.95,
                       "prompt_template": "answer/v1"})  # fmt: skip
    known = job(curation=policy)
    return known, [training(rows), pipeline.synthetic_source(known, jsonl([made]))]


@pytest.mark.req("C3", "C4", "C5", "C6", "C7", "C8", "C10", "F1", "F3", "F14", "H4", "S2")
def test_every_plant_is_in_the_card_and_only_the_plants_are(job, detector):
    """Licences and passing facts halt, each named; mended, the rest is in the card."""
    plants, evaluation = corpus()
    licences = [row("gpl", "Do it", meta={"licence": "GPL-3.0-only"}),
                row("odd", "Do it too", meta={"licence": "found on the web"})]  # fmt: skip
    fact = [row("fact", "What does Pro cost?", "Pro costs $49 per month.")]
    rows = [r for listed in plants.values() for r in listed]
    halts = {}
    for planted in (rows + licences + fact, rows + fact):
        known, given = sources(job, planted)
        halted = curate(known, given, evaluation, detector)
        assert isinstance(halted, Halted)
        halts[halted.reason] = [p.where for p in halted.problems]
    at = len(rows)
    assert halts == {
        "licence": [f"train.jsonl:{at + 1}", f"train.jsonl:{at + 2}"],
        "volatile_facts": [f"train.jsonl:{at + 1}"],
    }
    known, given = sources(job, rows)
    done = curate(known, given, evaluation, detector)
    assert isinstance(done, Curated)
    card = done.snapshot.card
    stages = {s.stage: s for s in card.stages}
    assert [s.licence for s in card.sources] == ["Apache-2.0", "Apache-2.0"]
    assert stages["contamination"].dropped == {"heldout:exact": 3}
    assert card.contamination == {"heldout": 3}
    kinds = {k.removeprefix("redacted:") for k in stages["redaction"].changed}
    assert kinds == {"EMAIL", "PHONE", "CREDIT_CARD", "SECRET", "IBAN"}
    assert stages["openings"].changed == {
        "reported:teacher_opening": 1, "stripped:teacher_opening": 1,
    }  # fmt: skip
    assert stages["exact_duplicates"].dropped == {"exact_duplicate": 1}
    assert stages["near_duplicates"].dropped == {"near_duplicate": 1}
    assert stages["refusals"].dropped == {"refusal_without_reason": 1}
    assert stages["label_noise"].changed == {"reported:contradiction": 2}
    assert stages["names"].changed == {"reported:person_named": 1}
    assert card.refusals == {"forced": 0, "unclassified": 1}
    assert card.canaries == 3
    assert card.volatility == {"price": 1}
    assert sum(card.splits.values()) == len(rows) + 1 - 3 - 1 - 1 - 1 + 3
    for word in ("label noise: 2 of", "composition:", "teacher openings: 1", "names: 1 rows"):
        assert any(word in warning for warning in card.warnings), word
    everything = b"".join(contents(done).values()) + done.card_markdown.encode()
    for value in (b"jane.roe", b"22 22 55 55", b"4111 1111", b"ghp_16C7", b"0532 0130"):
        assert value not in everything
    synthetic = next(r for split in ("train", "validation") for r in kept(done, split)
                     if r.id == "syn")  # fmt: skip
    assert synthetic.target == "The boats are A and B."
    text = done.card_markdown
    for line in ("| redaction |", "below the threshold: price: 1", "CREDIT_CARD: 1",
                 "`heldout`: 3", "Canary strings planted", "refusal_without_reason: 1",
                 "reported:contradiction: 2", "stripped:teacher_opening: 1"):  # fmt: skip
        assert line in text, line
    lineage = [json.loads(line) for line in content(done, "lineage.jsonl").splitlines()]
    assert {e["row"] for e in lineage if "dropped_by" in e} == {
        *(r["id"] for r in plants["leaked"]), "exact", "near2", "stone",
    }  # fmt: skip
    assert {e["row"] for e in lineage if "notes" in e} == {"yes", "no", "sure", "person"}


@pytest.mark.req("S2")
@pytest.mark.parametrize("opening", ["Certainly! ", "Sure, here you go: ", "Of course. "])
def test_a_planted_teacher_prefix_never_reaches_a_row(opening):
    seed = parse_row(row("s", "Show the boats that leave Bergen on day 7", '{"a": 7}'))
    made = judge(seed, opening + "Which boats leave Bergen on day 7?", Phrases.load())
    assert made.text == "Which boats leave Bergen on day 7?"


@pytest.mark.req("S2")
@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("Certainly! Of course, the boat is red.", "The boat is red."),
        ("As an AI language model, I see two boats.", "I see two boats."),
        ("Absolutely.", "Absolutely."),
        ("Surely it is red.", "Surely it is red."),
        ("Sure of it.", "Sure of it."),
        ('{"name": "sure"}', '{"name": "sure"}'),
    ],
)
def test_an_opening_goes_and_what_it_opens_stays(answer, left):
    assert without_opening(answer) == left
