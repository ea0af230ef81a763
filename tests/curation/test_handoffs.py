"""What other systems hand in: licensed records, tool schemas, evaluation sets."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

import services.synthesis
import services.training
from contracts.data import parse_row
from services.curation.pipeline import Curated, synthetic_source
from services.curation.tools import unsound
from tests.curation.samples import clean_rows, content, curate, held_out, jsonl, row, training


def tool(name="weather", **properties):
    schema = {"type": "object", "properties": properties, "required": sorted(properties)}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


CITY = {"type": "string", "pattern": "^[A-Z][a-z]+$"}


@pytest.mark.req("H6")
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        pytest.param(tool(city=CITY), "", id="sound"),
        pytest.param({"name": "bare", "parameters": {}}, "", id="without the wrapper"),
        pytest.param(tool("not a name"), "no function name", id="name"),
        pytest.param({"type": "function"}, "no function name", id="nothing"),
        pytest.param(tool(city={"type": "text"}), "no JSON Schema", id="type"),
        pytest.param(tool(city={"pattern": "("}), "no JSON Schema|no regular expression",
                     id="no pattern"),
        pytest.param(tool(city={"pattern": "^(a+)+$"}), "does not end", id="backtracks for ever"),
        pytest.param(tool(city={"items": {"pattern": "(x|x)*y"}}), "does not end", id="nested"),
    ],
)  # fmt: skip
def test_a_tool_is_believed_only_when_its_schema_is_sound(given, problem):
    said = unsound(given)
    assert any(part in said for part in problem.split("|")) if problem else said == ""


@pytest.mark.req("H6")
def test_calls_that_break_their_tools_schema_are_named_or_dropped(job, detector):
    calls = {
        "good": {"name": "weather", "arguments": {"city": "Oslo"}},
        "lower": {"name": "weather", "arguments": {"city": "oslo"}},
        "other": {"name": "wether", "arguments": {"city": "Oslo"}},
    }
    rows = [
        row(name, f"Show the weather as in case {name}", json.dumps(call), tools=[tool(city=CITY)])
        for name, call in calls.items()
    ]
    rows.append(row("unsound", "Show it", "no", tools=[tool(city={"pattern": "^(a+)+$"})]))
    rows.append(row("talk", "Say hello", "Hello!", tools=[tool(city=CITY)]))
    done = curate(job(), [training(rows)], {}, detector)
    stages = {s.stage: s for s in done.snapshot.card.stages}
    assert stages["tool_schemas"].dropped == {"tool_schema_unsound": 1}
    assert stages["tool_schemas"].changed == {"reported:call_breaks_schema": 2}
    assert any("2 targets break the schema" in w for w in done.snapshot.card.warnings)
    dropped = curate(job(curation={"noisy_rows": "drop"}), [training(rows)], {}, detector)
    lineage = map(json.loads, content(dropped, "lineage.jsonl").splitlines())
    gone = {e["row"]: e["detail"] for e in lineage if e.get("dropped_by") == "tool_schemas"}
    assert gone.keys() == {"lower", "other", "unsound"}
    assert "no function 'wether'" in gone["other"]


@pytest.mark.req("H9")
def test_the_training_path_has_no_way_to_an_evaluation_set():
    """Only diagnosis, curation (to sweep) and evaluation read them; training gets the dataset."""
    reached = []
    forbidden = {"evaluation", "heldout", "dev"}
    for package in (services.training, services.synthesis):
        for path in Path(package.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr in forbidden:
                    reached.append(f"{path.name}:{node.lineno}")
    assert reached == []


@pytest.mark.req("H9")
def test_nothing_of_an_evaluation_set_is_in_the_dataset(job, detector):
    items = [row(f"h{i}", f"Held question {i} about the kraken", "Held answer") for i in range(5)]
    rows = [*clean_rows(20), row("leak", "held QUESTION 3, about the kraken!")]
    done = curate(job(), [training(rows)], {"heldout": held_out(items)}, detector)
    assert isinstance(done, Curated)
    everything = b"".join(content(done, n) for n in ("train.jsonl", "validation.jsonl"))
    assert b"kraken" not in everything.lower()
    assert done.snapshot.card.contamination == {"heldout": 1}


@pytest.mark.req("H4")
def test_records_bring_their_licence_and_provenance_into_the_card(job, detector):
    data = [
        {"uri": "a.jsonl", "licence": "CC-BY-4.0", "provenance": {"source": "the archive"}},
        {"uri": "b.jsonl", "licence": "proprietary:acme", "provenance": {"source": "our tickets"}},
    ]
    files = [training(clean_rows(10, "a"), "a.jsonl"), training(clean_rows(10, "b", 40), "b.jsonl")]
    done = curate(job(data=data), files, {}, detector)
    found = [(s.licence, s.provenance, s.rows, s.digest) for s in done.snapshot.card.sources]
    assert found == [
        ("CC-BY-4.0", "the archive", 10, files[0].digest),
        ("proprietary:acme", "our tickets", 10, files[1].digest),
    ]


@pytest.mark.req("T1", "C4")
def test_in_a_distillation_the_teachers_answers_stand_in_for_the_positive_rows(job, detector):
    teacher = {"name": "Large", "licence": "CC-BY-4.0", "endpoint": {"model": "large"}}
    taught = {"objective": "sequence", "teacher": teacher}
    data = [
        {"uri": "a.jsonl", "licence": "MIT", "provenance": {"source": "us"}},
        {"uri": "b.jsonl", "licence": "MIT", "role": "negative", "provenance": {"source": "us"}},
    ]
    wanted = job(data=data, method={"name": "distillation", "distillation": taught})
    own = clean_rows(10, "a")
    answers = [{**r, "id": f"taught-{r['id']}", "target": "the teacher's words"} for r in own]
    negative = replace(training(clean_rows(2, "n", 40), "b.jsonl"), role="negative")
    files = [training(own, "a.jsonl"), negative]
    files.append(synthetic_source(wanted, jsonl(answers), taught=wanted.method.distillation))
    done = curate(wanted, files, {}, detector, taught=True)
    assert isinstance(done, Curated)
    targets = {r.target for r in map(parse_row, content(done, "train.jsonl").splitlines())}
    assert "the teacher's words" in targets
    assert not targets & {r["target"] for r in own}
    card = done.snapshot.card
    assert {s.stage: s.dropped for s in card.stages}["taught"] == {"replaced_by_teacher": 10}
    assert card.splits["train"] + card.splits["validation"] == 12
    assert card.sources[2].licence == "CC-BY-4.0 AND MIT"
    assert card.sources[2].provenance == "answers of Large to the curated rows' requests"
