"""What other systems hand in: licensed records, tool schemas, evaluation sets."""

import ast
import json
from pathlib import Path

import pytest

import services.synthesis
import services.training
from services.curation.pipeline import Curated
from services.curation.tools import unsound
from tests.curation.samples import clean_rows, content, curate, held_out, row, training


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
