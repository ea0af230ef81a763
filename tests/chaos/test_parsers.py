"""Every parser of what strangers send: bytes, JSON, and samples with something wrong in them.

Each takes its input or refuses it with the error its callers expect; anything else fails the test.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from contracts.alerts import Alert
from contracts.base import Problem
from contracts.catalog import EVENTS
from contracts.commands import Approve, Cancel, Retry, Withdraw
from contracts.data import parse_row
from contracts.envelope import UnknownEvent, recorded
from contracts.job import AdaptationJob
from contracts.progress import Progress
from contracts.remedies import Remedy
from contracts.run import Run
from contracts.subjects import RunRef
from contracts.telemetry import Feedback, Outcome
from services.cli.jobfile import read_job
from shared.bundles import open_card
from shared.errors import InvalidInput, SluiceError
from shared.failures.log import read_traces
from shared.signing import SigningKey

SAMPLES = {
    path.stem: json.loads(path.read_text())
    for path in (Path(__file__).parents[2] / "contracts" / "samples").glob("*.json")
}
HEADERS = {"ce-id": "x", "ce-time": "2026-11-25T00:00:00+00:00", "ce-sluicecause": "t"}

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\x00", "../../etc/passwd", "a.b.>", "*", "sha256:" + "0" * 64, 10**400])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def spoiled(draw: st.DrawFn, sample: Any) -> bytes:
    """A sample with one place replaced, removed or added to."""
    document = copy.deepcopy(sample)
    place = document
    while isinstance(place, (dict, list)) and place:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
            place = place[key]
            continue
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "replace":
            place[key] = draw(values)
        elif what == "remove":
            del place[key]
        elif isinstance(place, dict):
            place[draw(st.text(max_size=8))] = draw(values)
        else:
            place.append(draw(values))
        break
    return json.dumps(document).encode("utf-8", "surrogatepass")


def hostile(sample: Any, *, deepest: int = 20_000) -> st.SearchStrategy[bytes]:
    """Bytes, any JSON, deep JSON, and spoiled samples."""
    return st.one_of(
        st.binary(max_size=200),
        values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
        st.sampled_from([1, 100, deepest]).map(lambda depth: b"[" * depth),
        st.sampled_from([1, 100, 2_000]).map(lambda depth: b'{"a":' * depth + b"1" + b"}" * depth),
        spoiled(sample),
    )


DOCUMENTS: dict[str, type[BaseModel]] = {
    "job": AdaptationJob,
    "alert": Alert,
    "remedy": Remedy,
    "telemetry": Outcome,
    "feedback": Feedback,
    "progress": Progress,
    "command.approve": Approve,
    "command.cancel": Cancel,
    "command.retry": Retry,
    "command.withdraw": Withdraw,
}


def takes_or_refuses(
    parse: Callable[[bytes], Any], body: bytes, *refusals: type[Exception]
) -> Any | None:
    """What was parsed, or None if it was refused as announced."""
    try:
        return parse(body)
    except refusals:
        return None


def refused(parse: Callable[[Any], Any], given: Any) -> tuple[Problem, ...]:
    """What is wrong with it: nothing if it was taken, at least one problem if it was refused."""
    try:
        parse(given)
    except InvalidInput as error:
        return error.problems or (Problem(where="", problem="refused in silence", mend=""),)
    return ()


def tries(short: int) -> int:
    """As many in the short form; the profile of the long form has twenty times the examples."""
    return short * settings().max_examples // 100


@pytest.mark.parametrize("name", DOCUMENTS)
@settings(max_examples=tries(60))
@given(data=st.data())
def test_a_message_is_taken_or_refused(name: str, data: st.DataObject) -> None:
    kind = DOCUMENTS[name]
    body = data.draw(hostile(SAMPLES[name]))
    taken = takes_or_refuses(kind.model_validate_json, body, ValidationError)
    if taken is not None:
        assert kind.model_validate_json(taken.model_dump_json(by_alias=True)) == taken


@settings(max_examples=tries(300))
@given(data=st.data())
def test_a_fact_is_taken_or_refused_and_what_is_taken_can_be_folded(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(set(SAMPLES) & {k[10:] for k in EVENTS})))
    body = data.draw(hostile(SAMPLES[name]))
    changed = st.dictionaries(st.sampled_from(sorted(HEADERS)), st.text(max_size=30), max_size=2)
    headers = {**HEADERS, "ce-type": f"sluice.v1.{name}", **data.draw(changed)}
    for lost in data.draw(st.lists(st.sampled_from(sorted(headers)), max_size=1)):
        del headers[lost]
    subject = data.draw(
        st.sampled_from([f"sluice.v1.run.acme.r1.{name}", "sluice.v1.run.acme", "x", ""])
    )
    taken = takes_or_refuses(
        lambda b: recorded(subject, headers, b, 1),
        body,
        UnknownEvent,
        ValidationError,
        ValueError,
        KeyError,
    )
    if taken is not None:
        assert Run(ref=RunRef("acme", "r1")).apply(taken).version == 1


@settings(max_examples=tries(100))
@given(body=hostile(SAMPLES["row"]))
def test_a_row_is_taken_or_refused(body: bytes) -> None:
    takes_or_refuses(parse_row, body, ValidationError)


@settings(max_examples=tries(100))
@given(body=hostile(SAMPLES["failure-trace"]), lines=st.integers(1, 3))
def test_a_failure_log_is_taken_or_refused_with_every_mend(body: bytes, lines: int) -> None:
    assert all(problem.mend for problem in refused(read_traces, b"\n".join([body] * lines)))


@settings(max_examples=tries(60))
@given(data=st.data())
def test_a_job_file_is_taken_or_refused_with_its_mend(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.mktemp("jobs", numbered=True)
    suffix = data.draw(st.sampled_from(["yaml", "json"]))
    path = folder / f"job.{suffix}"
    path.write_bytes(data.draw(hostile(SAMPLES["job"], deepest=2_000)))
    assert all(problem.mend for problem in refused(read_job, path))


KEY = SigningKey.generate()


@settings(max_examples=tries(100))
@given(
    body=hostile(
        {
            "payloadType": "application/vnd.in-toto+json",
            "payload": "e30=",
            "signatures": [{"keyid": KEY.public.key_id, "sig": "AAAA"}],
        }
    )
)
def test_no_card_is_made_of_anything_unsigned(body: bytes) -> None:
    with pytest.raises(SluiceError):
        open_card(body, [KEY.public])
