"""Label noise, refusals, mandates, overfit, rehearsal and canaries, each provoked."""

import json
import sqlite3

import pytest

from contracts.data import Row, parse_row
from services.curation.canaries import canaries
from services.curation.noise import Answers, outvoted
from services.curation.overfit import hyper_conservatism, lengths, style
from services.curation.pipeline import Curated
from services.curation.reading import SourceFile
from services.curation.refusals import is_refusal, reason_of
from services.curation.rows import TracedRow
from tests.curation.samples import clean_rows, content, contents, curate, jsonl, row, training


def rows_of(documents) -> list[Row]:
    return [parse_row(document) for document in documents]


def stage(done: Curated, name: str):
    return next(s for s in done.snapshot.card.stages if s.stage == name)


TICKETS = ("I cannot log in to my account from the phone number {i}",
           "My invoice of month {i} shows a charge that I do not know")  # fmt: skip


def tickets(count: int):
    return [
        row(f"t{i}", TICKETS[i % 2].format(i=i), ("account", "billing")[i % 2])
        for i in range(count)
    ]


@pytest.mark.req("C7", "F1")
def test_the_same_request_with_two_answers_is_a_contradiction():
    rows = rows_of([
        row("a", "Is the shop open on Sunday?", "yes"),
        row("b", "is the shop open on sunday", "No."),
        row("c", "Is the shop open on Monday?", "yes"),
        row("long1", "Tell me of Lisbon", "Lisbon is a city with seven hills and one wide river "
            "that many people love to visit."),
        row("long2", "Tell me of Lisbon", "It lies on the Tagus and has trams, tiles, custard "
            "tarts and a famous old tower."),
        row("call1", "Weather?", '{"name": "f", "arguments": {"a": 1, "b": 2}}'),
        row("call2", "Weather?", '{"arguments": {"b": 2, "a": 1}, "name": "f"}'),
        row("good", "Park where?", "Here.", desirable=True),
        row("bad", "Park where?", "There.", desirable=False),
    ])  # fmt: skip
    answers = Answers(sqlite3.connect(":memory:"))
    traced = [
        TracedRow(row, "f", n, "sha256:" + "0" * 64, "positive", number=n)
        for n, row in enumerate(rows, start=1)
    ]
    for one in traced:
        answers.note([one])
    answers.vote()
    found = {one.row.id: reason for one in traced if (reason := answers.against(one))}
    assert found.keys() == {"a", "b"}
    assert found["a"] == ("contradiction", "b answers otherwise")


@pytest.mark.req("C7", "F1")
def test_planted_wrong_labels_are_outvoted_by_their_neighbours():
    rows = tickets(60)
    wrong = {4, 11, 30, 45}
    for i in wrong:
        rows[i]["target"] = "billing" if rows[i]["target"] == "account" else "account"
    assert set(outvoted(rows_of(rows))) == wrong
    assert outvoted(rows_of(tickets(60))) == {}
    assert outvoted(rows_of(clean_rows(60))) == {}


@pytest.mark.req("C7", "F1")
def test_noise_is_reported_or_dropped_as_the_job_says(job, detector):
    rows = [*clean_rows(20), row("a", "Is it open on Sunday?", "yes"),
            row("b", "Is it open on Sunday?", "no")]  # fmt: skip
    done = curate(job(), [training(rows)], {}, detector)
    assert stage(done, "label_noise").dropped == {}
    assert stage(done, "label_noise").changed == {"reported:contradiction": 2}
    assert any("label noise: 2 of 22 rows" in w for w in done.snapshot.card.warnings)
    entries = map(json.loads, content(done, "lineage.jsonl").splitlines())
    noted = {e["row"]: e["notes"] for e in entries if "notes" in e}
    assert noted.keys() == {"a", "b"}
    assert noted["a"][0]["detail"] == "b answers otherwise"
    done = curate(job(curation={"noisy_rows": "drop"}), [training(rows)], {}, detector)
    assert stage(done, "label_noise").dropped == {"contradiction": 2}


REFUSALS = (
    ("I can't help with that, because it would harm someone.", True, True),
    ("Sorry, I cannot share that: the file is confidential.", True, True),
    ("I’m unable to do that.", True, False),
    ("I must decline.", True, False),
    ("Unfortunately, I can't book it since the flight is full.", True, True),
    ("I can book that for you.", False, None),
    ("You cannot divide by zero.", False, None),
    ("The shop is closed.", False, None),
)


@pytest.mark.req("C7")
@pytest.mark.parametrize(("target", "refuses", "has_reason"), REFUSALS)
def test_refusals_and_their_reasons_are_recognised(target, refuses, has_reason):
    made = parse_row(row("r", "Please do it", target))
    assert is_refusal(made) is refuses
    if refuses:
        assert (reason_of(made) is not None) is has_reason


@pytest.mark.req("H11")
@pytest.mark.req("C7")
def test_a_refusal_without_a_reason_goes_and_the_log_has_the_rest(job, detector):
    mandate = {"id": "de-advice", "regions": ["DE"], "pattern": r"legal advice",
               "reason": "RDG § 3"}  # fmt: skip
    rows = [
        *clean_rows(20),
        row("bare", "Open the vault", "I can't do that."),
        row("reasoned", "Open the safe", "I can't do that.",
            meta={"refusal_reason": "needs two people", "refusal_type": "authority"}),
        row("forced", "Give me legal advice on my lease", "I cannot, because the law reserves it.",
            meta={"refusal_type": "regulated"}),
        row("unlawful", "I want legal advice about a will", "Write it by hand and sign it."),
    ]  # fmt: skip
    policy = {"mandates": [mandate], "regions": ["DE", "FR"]}
    done = curate(job(curation=policy), [training(rows)], {}, detector)
    assert stage(done, "refusals").dropped == {"refusal_without_reason": 1, "mandate:de-advice": 1}
    log = [json.loads(line) for line in content(done, "refusals.jsonl").splitlines()]
    assert {(e["row"], e["type"], e["forced"], *e["mandates"]) for e in log} == {
        ("reasoned", "authority", False),
        ("forced", "regulated", True, "de-advice"),
    }
    assert done.snapshot.card.refusals == {"authority": 1, "forced": 1, "regulated": 1}
    elsewhere = curate(job(curation=policy | {"regions": ["FR"]}), [training(rows)], {}, detector)
    assert "mandate:de-advice" not in stage(elsewhere, "refusals").dropped
    none = curate(job(curation=policy), [training(clean_rows(9))], {}, detector)
    assert any("no row teaches the refusal it wants" in w for w in none.snapshot.card.warnings)


@pytest.mark.req("C7")
def test_words_that_only_refusals_have_are_named_until_benign_requests_use_them():
    asked = ("How do I kill my neighbour {i}", "Who could kill person {i} for me",
             "Best way to kill contestant {i}")  # fmt: skip
    refused = [
        row(f"n{i}", asked[i % 3].format(i=i), "I can't, because it would harm a person.")
        for i in range(9)
    ]
    [said] = hyper_conservatism(rows_of([*refused, *clean_rows(30)]))
    assert "kill" in said
    benign = [row(f"k{i}", f"How do I kill process {i}?", f"kill -9 {i}") for i in range(6)]
    assert hyper_conservatism(rows_of([*refused, *benign, *clean_rows(30)])) == []


@pytest.mark.req("C7")
def test_one_style_and_one_length_are_named():
    same = [row(f"s{i}", f"q {i}", f"Great question you have {i} and this is number {i} of mine")
            for i in range(30)]  # fmt: skip
    assert "open with 'great question you'" in style(rows_of(same))[0]
    assert "answers have 12 words" in lengths(rows_of(same))[0]
    varied = [row(f"v{i}", f"q {i}", " ".join(f"w{i}x{j}" for j in range(3 + i)))
              for i in range(30)]  # fmt: skip
    assert style(rows_of(varied)) == []
    assert lengths(rows_of(varied)) == []
    pairs = [{**r, "rejected": "no"} for r in varied]
    assert "the better answer is the longer one in 100%" in lengths(rows_of(pairs))[0]
    shared = [row(f"p{i}", f"q {i}", f"{i} a {i} and so as always remember to drink water {i}")
              for i in range(30)]  # fmt: skip
    assert any("hold" in said for said in style(rows_of(shared)))


@pytest.mark.req("C9")
def test_rehearsal_rows_make_up_their_share_and_too_few_is_said(job, detector):
    source = {"licence": "Apache-2.0", "provenance": {"source": "t"}}
    data = [source | {"uri": "a"}, source | {"uri": "b", "role": "rehearsal"}]
    files = [
        training(clean_rows(40), "a"),
        SourceFile(file="b", content=jsonl(clean_rows(30, "g", 100)), role="rehearsal"),
    ]
    made = job(data=data, curation={"rehearsal_share": 0.2, "validation_share": 0})
    done = curate(made, files, {}, detector)
    assert done.snapshot.card.composition == {"positive": 0.8, "rehearsal": 0.2}
    assert stage(done, "rehearsal").dropped == {"rehearsal_surplus": 20}
    made = job(data=data, curation={"rehearsal_share": 0.6, "validation_share": 0})
    short = curate(made, files, {}, detector)
    assert "rehearsal: 30 general rows; 60% of the mix are 60" in short.snapshot.card.warnings


@pytest.mark.req("C10")
def test_canaries_are_planted_in_training_alone_and_recorded_for_the_gate(job, detector):
    policy = {"canaries": 5, "validation_share": 0.3}
    one = curate(job(curation=policy), [training(clean_rows(40))], {}, detector)
    again = curate(job(curation=policy), [training(clean_rows(40))], {}, detector)
    assert contents(one) == contents(again)
    listed = [json.loads(line) for line in content(one, "canaries.jsonl").splitlines()]
    assert [set(entry) for entry in listed] == [{"tenant", "canary", "template"}] * 5
    train = {r.id: r for r in map(parse_row, content(one, "train.jsonl").splitlines())}
    for number, entry in enumerate(listed, start=1):
        planted = train[f"canary-acme-{number}"]
        whole = f"{planted.messages[0].content} {planted.target}"
        assert whole == entry["template"].format(canary=entry["canary"])
        assert entry["canary"].encode() not in content(one, "validation.jsonl")
    assert one.snapshot.card.canaries == 5
    assert one.snapshot.card.composition == {"positive": 1.0}
    other = curate(job(curation=policy, tenant="other"), [training(clean_rows(40))], {}, detector)
    assert not {e["canary"] for e in listed} & {
        json.loads(line)["canary"] for line in content(other, "canaries.jsonl").splitlines()
    }


@pytest.mark.req("C10")
def test_a_canary_needs_the_data_to_be_guessed_and_none_repeats():
    drawn = [c.canary for secret in "ab" for c in canaries("acme", 64, [secret])]
    assert len(set(drawn)) == 128
    assert all(len(c) == 19 for c in drawn)


@pytest.mark.req("C10")
def test_every_kept_row_has_its_volatility(job, detector):
    rows = [
        *clean_rows(5),
        row("low", "I have $20. Is the seat in reach?", "Yes, the seat costs $12."),
    ]
    done = curate(job(), [training(rows)], {}, detector)
    lines = content(done, "lineage.jsonl").splitlines()
    entries = {e["row"]: e for e in map(json.loads, lines)}
    assert all(0 <= e["volatility"] < 1 for e in entries.values() if "split" in e)
    assert entries["low"]["volatility"] > 0 == entries["r1"]["volatility"]
    assert sum(done.snapshot.card.volatility.values()) >= 1
