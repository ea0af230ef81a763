"""The published language: current, complete, and never broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from contracts import export
from contracts.asyncapi import asyncapi_document
from contracts.base import Service
from contracts.catalog import EVENTS
from contracts.documents import DOCUMENTS, schema_of
from contracts.topology import CONSUMERS

SAMPLES = Path(export.__file__).parent / "samples"
EVENT_NAMES = sorted(name.removeprefix("sluice.v1.") for name in EVENTS)


@pytest.mark.req("P1")
def test_the_exported_files_are_current() -> None:
    assert export.stale() == [], "run `python -m contracts.export`"


@pytest.mark.req("P1")
def test_no_schema_breaks_the_frozen_baseline() -> None:
    assert export.broken() == []


def test_every_document_is_in_the_baseline() -> None:
    frozen = {path.stem for path in export.BASELINE.glob("*.json")}
    assert frozen == set(DOCUMENTS), "run `python -m contracts.export --freeze`"


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_every_schema_is_a_valid_json_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema_of(name))


@pytest.mark.parametrize(
    "name",
    [
        *EVENT_NAMES,
        "job",
        "alert",
        "remedy",
        "progress",
        "telemetry",
        "row",
        "failure-trace",
        "failure-report",
    ],
)
def test_the_golden_sample_parses_and_fits_its_schema(name: str) -> None:
    text = (SAMPLES / f"{name}.json").read_text(encoding="utf-8")
    sample = DOCUMENTS[name].model_validate_json(text)
    assert_kept(json.loads(text), sample.model_dump(mode="json", by_alias=True))
    jsonschema.validate(json.loads(text), schema_of(name))


def assert_kept(golden: object, now: object, at: str = "$") -> None:
    """Everything the golden document says is still said; optional fields may have joined it."""
    if isinstance(golden, dict):
        assert isinstance(now, dict), at
        for key, value in golden.items():
            assert key in now, f"{at}.{key}"
            assert_kept(value, now[key], f"{at}.{key}")
    elif isinstance(golden, list):
        assert isinstance(now, list), at
        assert len(golden) == len(now), at
        for index, (one, other) in enumerate(zip(golden, now, strict=True)):
            assert_kept(one, other, f"{at}[{index}]")
    else:
        assert golden == now, at


def test_every_sample_is_a_document() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} <= set(DOCUMENTS)


def test_check_reports_a_stale_and_a_leftover_file(tmp_path: Path) -> None:
    export.write(tmp_path)
    assert export.stale(tmp_path) == []
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "old.json").write_text("{}")
    assert export.stale(tmp_path) == ["job.json", "old.json"]
    export.write(tmp_path)
    assert export.stale(tmp_path) == []


def test_a_breaking_change_against_a_baseline_is_reported(tmp_path: Path) -> None:
    old = schema_of("alert")
    old["properties"]["shift"] = {"type": "string"}
    (tmp_path / "alert.json").write_text(json.dumps(old))
    (tmp_path / "gone.json").write_text("{}")
    assert export.broken(tmp_path) == ["alert: $.shift: removed", "gone: removed"]


def test_the_command_checks_the_committed_files() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "contracts.export", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.req("P1")
def test_the_asyncapi_document_has_a_channel_for_every_event_and_resolves() -> None:
    document = asyncapi_document()
    assert document["asyncapi"] == "3.0.0"
    assert set(EVENT_NAMES) <= set(document["channels"])
    for reference in _references(document):
        if reference.startswith("#/"):
            target = document
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]
        else:
            assert (export.SCHEMAS / reference).is_file(), reference


@pytest.mark.parametrize("consumer", CONSUMERS, ids=lambda row: row.durable)
def test_every_consumer_is_a_receive_operation(consumer) -> None:
    receives = [
        name
        for name, operation in asyncapi_document()["operations"].items()
        if operation["action"] == "receive" and name.startswith(f"{consumer.service}.")
    ]
    assert receives


def test_what_each_service_receives_is_what_its_consumers_filter() -> None:
    operations = asyncapi_document()["operations"]
    received = {
        service: {
            name.split(".", 2)[2] for name in operations if name.startswith(f"{service}.receive.")
        }
        for service in Service
    }
    assert received[Service.CURATION] == {"diagnosis.train_advised", "synthesis.synthesized"}
    assert received[Service.EVALUATION] == {"evaluation.gate_judged", "training.trained"}
    assert received[Service.DIAGNOSIS] == {
        "job.submit",
        "job.cancel",
        "job.retry",
        "job.observe",
        "diagnosis.accepted",
        "evaluation.gate_judged",
    }


def _references(value: object):
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
