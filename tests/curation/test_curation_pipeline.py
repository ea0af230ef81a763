import json

import pytest

from contracts.base import digest_of
from contracts.data import parse_row
from services.curation.pipeline import Curated, Halted, synthetic_source
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

SECRET = "sk-proj-" + "a1B2c3D4e5F6g7H8i9J0"


def planted():
    leaked = clean_rows(3, "leak", start=50)
    near = "Please draft a long and friendly welcome letter for the new colleagues in Lisbon team{}"
    rows = clean_rows(30)
    rows += leaked
    rows += [
        {**clean_rows(1)[0], "id": "copy"},
        row("near1", near.format("")),
        row("near2", near.format(".!")  + " x"),
        row("mail", "Write to jane.roe@example.com about the plan",
            json.dumps({"name": "mail", "arguments": {"to": "jane.roe@example.com"}})),
        row("key", f"Log in with {SECRET} and list the buckets"),
        row("group", "Rename this folder to archive", group="shared-document"),
    ]  # fmt: skip
    dev = held_out([row("d1", "Something else entirely goes here", group="shared-document")], "dev")
    heldout = held_out([{**r, "id": f"h-{r['id']}"} for r in leaked])
    return training(rows), {"dev": dev, "heldout": heldout}


@pytest.mark.req("C4")
@pytest.mark.req("C5")
@pytest.mark.req("C6")
@pytest.mark.req("C8")
def test_every_planted_row_is_accounted_for_in_the_cards_stage_reports(job, detector):
    source, evaluation = planted()
    done = curate(job(), [source], evaluation, detector)
    assert isinstance(done, Curated)
    stages = {s.stage: s for s in done.snapshot.card.stages}
    assert stages["contamination"].dropped == {"dev:group": 1, "heldout:exact": 3}
    assert done.snapshot.card.contamination == {"dev": 1, "heldout": 3}
    assert stages["redaction"].changed == {"redacted:EMAIL": 2, "redacted:SECRET": 1}
    assert stages["exact_duplicates"].dropped == {"exact_duplicate": 1}
    assert stages["near_duplicates"].dropped == {"near_duplicate": 1}
    assert stages["contamination"].rows_in == 39
    assert sum(done.rows.values()) == 39 - 4 - 1 - 1
    for one, after in zip(done.snapshot.card.stages, done.snapshot.card.stages[1:], strict=False):
        assert one.rows_out == after.rows_in
        assert one.rows_in - sum(one.dropped.values()) == one.rows_out
    everything = b"".join(contents(done).values()) + done.snapshot.card_bytes
    assert b"jane.roe" not in everything
    assert SECRET.encode() not in everything


@pytest.mark.req("C4")
def test_lineage_leads_from_every_row_to_its_source_line(job, detector):
    source, evaluation = planted()
    done = curate(job(), [source], evaluation, detector)
    entries = [json.loads(line) for line in content(done, "lineage.jsonl").splitlines()]
    assert len(entries) == 39
    lines = source.content.splitlines()
    for entry in entries:
        assert entry["source"] == digest_of(source.content)
        assert json.loads(lines[entry["line"] - 1])["id"] == entry["row"]
    by_row = {e["row"]: e for e in entries}
    assert by_row["copy"]["detail"] == "of r1"
    assert by_row["near2"]["detail"].startswith("of near1")
    assert by_row["mail"]["transformations"] == ["redacted"]
    kept = content(done, "train.jsonl").splitlines()
    digests = {e["digest"] for e in entries if e.get("split") == "train"}
    assert digests == {digest_of(line) for line in kept}


@pytest.mark.req("C8")
def test_the_same_job_twice_gives_the_same_bytes_and_identity(job, detector):
    source, evaluation = planted()
    one = curate(job(), [source], evaluation, detector)
    two = curate(job(), [source], evaluation, detector)
    assert contents(one) == contents(two)
    assert one.snapshot.digest == two.snapshot.digest
    for name, digest in one.snapshot.card.files.items():
        assert digest_of(content(one, name)) == digest
    rows = [parse_row(line) for line in content(one, "train.jsonl").splitlines()]
    assert len(rows) == one.rows["train"]
    assert "| contamination | 39 | 35 |" in one.card_markdown


@pytest.mark.req("C1")
def test_a_mix_off_its_shares_is_a_warning_and_no_row_is_resampled(job, detector):
    done = curate(job(), [training(clean_rows(20))], {}, detector)
    assert sum(done.rows.values()) == 20
    assert len(done.snapshot.card.warnings) == 3
    assert "positive rows are 100.0% of the mix, 80% wanted" in done.snapshot.card.warnings[2]


@pytest.mark.req("C8")
def test_rows_of_one_group_are_never_on_both_sides(job, detector):
    rows = [{**r, "group": f"g{i % 7}"} for i, r in enumerate(clean_rows(60))]
    policy = {"validation_share": 0.2}
    done = curate(job(curation=policy), [training(rows)], {}, detector)
    sides = [
        {json.loads(line)["group"] for line in content(done, name).splitlines()}
        for name in ("train.jsonl", "validation.jsonl")
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param(b'{"id": ', "Invalid JSON", id="bad json"),
        pytest.param(b'{"id":"\xff"}', "not UTF-8 at byte 7", id="bad utf-8"),
        pytest.param(b'{"id":"q","messages":[{"role":"user","content":"x"}],"target":"t","zz":1}',
                     "`zz`: Extra inputs are not permitted", id="unknown field"),
        pytest.param(b'{"id":"q","messages":[{"role":"user","content":"x"}]}', "no `target`",
                     id="no target"),
        pytest.param(b'{"id":"q","messages":[{"role":"user","content":"x"}],"target":"t",'
                     b'"meta":{"x":NaN}}', "NaN", id="not a number"),
        pytest.param(b'{"id":"r1","messages":[{"role":"user","content":"x"}],"target":"t"}',
                     "already used at train.jsonl:1", id="duplicate id"),
        pytest.param(b'{"id":"q' + b"x" * (1 << 20) + b'"}', "more than 1048576", id="too large"),
    ],
)  # fmt: skip
@pytest.mark.req("C8")
def test_an_unreadable_row_halts_with_its_line_and_a_mend(job, detector, line, problem):
    content = training(clean_rows(2)).content + line + b"\n"
    done = curate(job(), [training(content)], {}, detector)
    assert isinstance(done, Halted)
    assert done.reason == "unreadable"
    [found] = done.problems
    assert found.where == "train.jsonl:3"
    assert problem in found.problem
    assert found.mend


def test_many_unreadable_rows_are_named_up_to_twenty_with_the_total(job, detector):
    done = curate(job(), [training(b"nonsense\n" * 57)], {}, detector)
    assert len(done.problems) == 21
    assert done.problems[-1].where == "57 unreadable rows"


@pytest.mark.req("C10")
def test_rows_that_fossilise_a_fact_halt_and_are_named(job, detector):
    rows = [*clean_rows(3), row("v", "What does the Pro plan cost?", "The Pro plan costs $49.")]
    done = curate(job(), [training(rows)], {}, detector)
    assert done.reason == "volatile_facts"
    assert [p.where for p in done.problems] == ["train.jsonl:4"]


def test_data_that_is_all_in_the_evaluation_set_leaves_too_few_rows(job, detector):
    rows = clean_rows(4)
    done = curate(job(), [training(rows)], {"heldout": held_out(rows)}, detector)
    assert done.reason == "too_few_rows"
    assert "heldout:exact 4" in done.problems[0].problem


def licensed(job, licence, detector, rows=None):
    source = {"uri": "train.jsonl", "licence": licence, "provenance": {"source": "t"}}
    return curate(job(data=[source]), [training(rows or clean_rows(3))], {}, detector)


@pytest.mark.req("C4")
@pytest.mark.parametrize(
    ("licence", "problem"),
    [
        ("apache-2.0", None),
        ("MIT OR GPL-3.0-only", None),
        ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", None),
        ("proprietary:acme", None),
        ("MIT AND GPL-3.0-only", "incompatible"),
        ("GPL-3.0-only WITH Classpath-exception-2.0", "incompatible"),
        ("CC-BY-NC-4.0", "incompatible"),
        ("proprietary:rival", "incompatible"),
        ("Apache 2", "unknown"),
        ("found on the web", "unknown"),
    ],
)
def test_a_licence_is_allowed_unknown_or_incompatible(job, detector, licence, problem):
    done = licensed(job, licence, detector)
    if problem is None:
        assert isinstance(done, Curated)
    else:
        assert done.reason == "licence"
        assert done.problems[0].where == "data[0].licence (train.jsonl)"
        assert done.problems[0].problem.startswith(problem)


@pytest.mark.req("C4")
def test_a_row_with_a_licence_of_its_own_is_named(job, detector):
    rows = clean_rows(3)
    rows[1]["meta"] = {"licence": "GPL-3.0-only"}
    done = licensed(job, "MIT", detector, rows)
    assert done.reason == "licence"
    assert done.problems[0].where == "train.jsonl:2"


@pytest.mark.req("C4")
@pytest.mark.req("C8")
def test_synthetic_rows_join_as_a_source_and_stay_beside_their_seeds(job, detector):
    policy = {"validation_share": 0.3}
    wish = job(curation=policy, synthesis={"rows": 5})
    first = curate(wish, [training(clean_rows(20))], {}, detector)
    seeds = [json.loads(line) for line in first.seeds.read_bytes().splitlines()]
    assert len(seeds) == first.rows["train"]
    origin = {"model": "m", "api_version": "1", "temperature": 1.0, "top_p": 0.95,
              "prompt_template": "paraphrase/v1"}  # fmt: skip
    made = [
        row(f"syn{i}", "Kindly do this for me: " + s["messages"][0]["content"], s["target"],
            group=s["id"], origin=origin | {"seed_row": s["id"]})
        for i, s in enumerate(seeds)
    ]  # fmt: skip
    two = [
        {"uri": f"{i}.jsonl", "licence": licence, "provenance": {"source": "t"}}
        for i, licence in enumerate(("MIT OR GPL-3.0-only", "Apache-2.0"))
    ]
    both = job(curation=policy, data=two)
    files = [training(clean_rows(20), "0.jsonl"), training(clean_rows(5, "o", 40), "1.jsonl")]
    files.append(synthetic_source(both, jsonl(made)))
    done = curate(both, files, {}, detector)
    assert isinstance(done, Curated)
    assert done.snapshot.card.sources[2].licence == "Apache-2.0 AND (MIT OR GPL-3.0-only)"
    assert done.snapshot.card.sources[2].rows == len(made)
    clusters = [
        {r.cluster for r in map(parse_row, content(done, name).splitlines())}
        for name in ("train.jsonl", "validation.jsonl")
    ]
    assert not clusters[0] & clusters[1]


@pytest.mark.req("C6")
@pytest.mark.parametrize(
    ("request_text", "reason"),
    [
        pytest.param("FIND the area, of a triangle!", "heldout:exact", id="re-punctuated"),
        pytest.param("Do me a favour: find the area of a triangle, then stop.", "heldout:ngram",
                     id="short item contained"),
        pytest.param("Now write a letter to the mayor of Lisbon about the new bicycle lanes in "
                     "town and sign it", "heldout:ngram", id="13 words in a row"),
        pytest.param("Write one leter to the mayor of Lisbon about the new bicycle lanes and rails",
                     "heldout:near", id="typo"),
        pytest.param("Write a poem on bicycles in Lisbon", None, id="same topic"),
    ],
)  # fmt: skip
def test_an_overlap_with_an_evaluation_item_is_dropped(job, detector, request_text, reason):
    evaluation = held_out(
        [
            row("h1", "Find the area of a triangle"),
            row("h2", "Write a letter to the mayor of Lisbon about the new bicycle lanes in town"),
            row(
                "h3", "Write one letter to the mayor of Lisbon about the new bicycle lanes and rail"
            ),
        ]
    )
    rows = [*clean_rows(2), row("t", request_text)]
    done = curate(job(), [training(rows)], {"heldout": evaluation}, detector)
    dropped = done.snapshot.card.stages[0].dropped
    assert dropped == ({reason: 1} if reason else {})


@pytest.mark.req("C3", "C5")
def test_judged_answers_keep_their_judgement_and_are_redacted_too(job, detector):
    mail = "Write to jane.roe@example.com about it"
    rows = [
        row("pair", "How do I cancel my booking?", "Open it.", rejected=mail),
        row("other pair", "How do I cancel my booking?", "Open it.", rejected="I do not know."),
        row("same pair", "How do I cancel my booking?", "Open it.", rejected="I do not know."),
        row("good", "Where can I park the car?", "Behind the house.", desirable=True),
        row("bad", "Where can I park the car?", "Behind the house!", desirable=False),
    ]
    done = curate(job(curation={"validation_share": 0}), [training(rows)], {}, detector)
    assert isinstance(done, Curated)
    stay = {r.id: r for r in kept(done)}
    assert stay.keys() == {"pair", "other pair", "good", "bad"}
    assert stay["pair"].rejected == "Write to <EMAIL> about it"
    assert (stay["good"].desirable, stay["bad"].desirable) == (True, False)
