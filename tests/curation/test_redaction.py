import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.data import Row
from services.curation.redaction import Audit, redaction
from services.curation.rows import TracedRow, through
from services.curation.view import view_of

AWS = "AKIA" + "QX7RBZ4W2NPLM3TD"
PLANTS = {
    "jane.roe@example.com": "EMAIL",
    "jane%2Eroe%40example.com": "EMAIL",
    "ｊane@example.com": "EMAIL",
    "+1 212 555 0188": "PHONE",
    "(212) 555-0188": "PHONE",
    "10.20.30.40": "IP",
    "2001:db8:85a3::8a2e:370:7334": "IP",
    "db7.prod.internal": "HOST",
    "4111 1111 1111 1111": "CREDIT_CARD",
    "DE89370400440532013000": "IBAN",
    "212-09-9999": "NATIONAL_ID",
    "AIza" + "SyA1234567890abcdefghijklmnopqrstuv": "SECRET",
    "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNmQwErTyUi": "SECRET",
    "npm_" + "a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8": "SECRET",
    "sk-ant-" + "api03-a1B2c3D4e5F6g7H8": "SECRET",
    AWS: "SECRET",
}
HARMLESS = (
    "Book a table on 2024-03-17 for 4 people",
    "between 08-16-2022 and 07-20-2022",
    "a mass of 8990000000.0 kg at 1234567890 metres",
    "open https://www.python.org/downloads and read it",
    "the years 1990-1995 in New York at $1,250.50",
    "version 3.12.4 of the library",
    "order 100200300400 with item 5551234567",
    '{"name": "math.factorial", "arguments": {"number": 5}}',
    'del "C:\\\\Users\\\\Public\\\\notes.txt"',
)


def redacted(rows, detector):
    audit = Audit()
    traced = [TracedRow(r, "f", i, "sha256:" + "0" * 64, "positive") for i, r in enumerate(rows)]
    stream, tallies = through([redaction(detector, audit)], traced)
    return [t.row for t in stream], audit, tallies[0].report()


def ask(request, target="ok", **more):
    return Row(id="r", messages=({"role": "user", "content": request},), target=target, **more)


@pytest.mark.req("C3")
@pytest.mark.parametrize(("value", "kind"), PLANTS.items(), ids=range(len(PLANTS)))
def test_a_planted_value_becomes_its_placeholder_and_the_audit_keeps_no_content(
    value, kind, detector
):
    [row], audit, report = redacted([ask(f"Please use {value} for this")], detector)
    assert row.messages[0].content == f"Please use <{kind}> for this"
    assert report.changed == {f"redacted:{kind}": 1}
    [entry] = [json.loads(line) for line in audit.drained()]
    assert entry == {
        "row": "r", "field": "messages[0].content", "type": kind, "position": 11,
        "length": len(value),
    }  # fmt: skip


@pytest.mark.req("C3")
@pytest.mark.parametrize("text", HARMLESS)
def test_arguments_of_tool_calls_are_no_personal_data(text, detector):
    row = ask(text, text)
    assert redacted([row], detector)[0] == [row]


@pytest.mark.req("C3")
def test_request_target_and_expected_agree_on_every_placeholder(detector):
    target = {"name": "call", "arguments": {"phone": 2125550188, "cc": ["b@x.org", "a@x.org"]}}
    row = ask(
        "Call (212) 555-0188, tell a@x.org and B@x.org",
        json.dumps(target),
        expected={"call": {"phone": [2125550188], "cc": [["b@x.org", "a@x.org"]]}},
        group="user:a@x.org",
    )
    [done], _, _ = redacted([row], detector)
    assert done.messages[0].content == "Call <PHONE>, tell <EMAIL> and <EMAIL_2>"
    arguments = json.loads(done.target)["arguments"]
    assert arguments == {"phone": "<PHONE>", "cc": ["<EMAIL_2>", "<EMAIL>"]}
    assert done.expected == {"call": {"phone": ["<PHONE>"], "cc": [["<EMAIL_2>", "<EMAIL>"]]}}
    assert done.group.startswith("redacted-")


@pytest.mark.req("C3")
def test_a_tools_structure_and_json_keys_survive_a_value_of_the_same_spelling(detector):
    schema = {
        "type": "object",
        "description": "Logs in at http://jenkins:8080 as ops@x.org",
        "properties": {"jenkins": {"type": "string", "description": "a jenkins name"},
                       "description": {"type": "string", "default": "ops@x.org"}},
        "required": ["jenkins", "password"],
    }  # fmt: skip
    tool = {"type": "function", "function": {"name": "login", "parameters": schema}}
    target = '{"jenkins": "a", "password": "S3cr3t-pass"}'
    row = ask("Log in, the password is 'password'. password: S3cr3t-pass", target, tools=(tool,))
    [done], _, _ = redacted([row], detector)
    after = done.tools[0]["function"]["parameters"]
    assert after["description"] == "Logs in at http://<HOST>:8080 as <EMAIL>"
    assert after["required"] == schema["required"]
    assert after["properties"]["jenkins"] == schema["properties"]["jenkins"]
    assert after["properties"]["description"] == {"type": "string", "default": "<EMAIL>"}
    arguments = json.loads(done.target)
    assert list(arguments) == ["jenkins", "password"]
    assert arguments["jenkins"] == "a"
    assert arguments["password"].startswith("<SECRET")


@pytest.mark.req("C3")
@settings(max_examples=25, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    pieces=st.lists(
        st.sampled_from([*PLANTS, *HARMLESS, "and", "<EMAIL>", "ünïcode %7E"]), max_size=5
    )
)
def test_redaction_is_idempotent(detector, pieces):
    once, _, _ = redacted([ask(" then ".join(pieces), "; ".join(reversed(pieces)))], detector)
    twice, audit, _ = redacted(once, detector)
    assert twice == once
    assert audit.entries == []


@given(text=st.text(max_size=40))
def test_a_view_leads_back_to_the_span_it_came_from(text):
    view = view_of(text)
    for i in range(len(view.text)):
        start, end = view.raw_span(i, i + 1)
        assert 0 <= start < end <= len(text)
        assert view.text[i] in view_of(text[start:end]).text
