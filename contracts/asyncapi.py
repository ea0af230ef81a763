"""The AsyncAPI 3.0 document, generated from the topology and the catalog.

Every subject pattern is a channel; every service receives what its consumers filter and sends the
facts it owns. Message headers are CloudEvents 1.0 in binary mode.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any, get_args

from pydantic import BaseModel

from contracts.alerts import Alert
from contracts.base import Event, Service
from contracts.catalog import EVENTS
from contracts.commands import Approve, Cancel, Hold, Observe, Retry, Rollback, Withdraw
from contracts.documents import DOCUMENTS
from contracts.fault import StepFailed
from contracts.job import AdaptationJob, GateId
from contracts.progress import Progress
from contracts.remedies import Remedy
from contracts.subjects import PREFIX
from contracts.telemetry import Feedback, Outcome
from contracts.topology import CONSUMERS, STREAMS, Consumer

Json = dict[str, Any]

COMMANDS: dict[str, type[BaseModel]] = {
    "submit": AdaptationJob,
    "cancel": Cancel,
    "retry": Retry,
    "approve": Approve,
    "hold": Hold,
    "rollback": Rollback,
    "withdraw": Withdraw,
    "observe": Observe,
}
_PARAMETERS = {
    "tenant": "The tenant: 1-64 of a-z 0-9 _ -.",
    "run": "The run id: 1-64 of a-z 0-9 _ -.",
    "deployment": "The deployment's public alias.",
    "metric": "The metric's name.",
    "remedy": "What has to be done, as in the schema `remedy`.",
    "stage": "The service or part of it that reports.",
    "service": "A service's name.",
    "gate": "The gate: g1 to g5.",
}


def asyncapi_document() -> Json:
    """The whole document, as JSON data."""
    channels = _channels()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Sluiceway",
            "version": "1.0.0",
            "description": (
                "Typed events of model adaptation over NATS JetStream. Subjects are versioned "
                f"(`{PREFIX}`); bodies are JSON; headers are CloudEvents 1.0 in binary mode and "
                "W3C trace context."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "127.0.0.1:4222",
                "protocol": "nats",
                "description": "; ".join(f"{row.name}: {row.purpose}" for row in STREAMS),
            }
        },
        "channels": channels,
        "operations": _operations(channels),
        "components": {
            "messages": {name: _message(name, kind) for name, kind in _messages().items()},
            "schemas": {"CloudEventHeaders": _fact_headers(), "CommandHeaders": _command_headers()},
        },
    }


def _messages() -> dict[str, type[BaseModel]]:
    facts = {event.__name__: event for event in EVENTS.values()}
    commands = {kind.__name__: kind for kind in COMMANDS.values()}
    others = {kind.__name__: kind for kind in (Progress, Outcome, Feedback, Alert, Remedy)}
    return {**commands, **facts, **others}


def _message(name: str, kind: type[BaseModel]) -> Json:
    message: Json = {
        "name": name,
        "title": name,
        "summary": (kind.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
        "payload": {"$ref": f"./{_file_of(kind)}.json"},
    }
    if issubclass(kind, Event):
        message["name"] = kind.type_name()
        message["headers"] = {"$ref": "#/components/schemas/CloudEventHeaders"}
    elif kind in COMMANDS.values():
        message["headers"] = {"$ref": "#/components/schemas/CommandHeaders"}
    return message


def _file_of(kind: type[BaseModel]) -> str:
    return next(name for name, model in DOCUMENTS.items() if model is kind)


def _fact_address(event: type[Event]) -> str:
    service = "{service}" if event is StepFailed else str(event.service)
    token = "{gate}_judged" if event.fact == "gate_judged" else event.fact
    return f"{PREFIX}.run.{{tenant}}.{{run}}.{service}.{token}"


def _channels() -> dict[str, Json]:
    channels: dict[str, Json] = {}

    def add(key: str, address: str, stream: str, kind: type[BaseModel]) -> None:
        names = re.findall(r"{(\w+)}", address)
        channels[key] = {
            "address": address,
            "summary": f"Stream {stream}.",
            "parameters": {name: {"description": _PARAMETERS[name]} for name in names},
            "messages": {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"}},
        }

    for verb, command in COMMANDS.items():
        add(f"job.{verb}", f"{PREFIX}.job.{{tenant}}.{{run}}.{verb}", "JOBS", command)
    for event in EVENTS.values():
        add(event.type_name().removeprefix("sluice.v1."), _fact_address(event), "RUN", event)
    add("progress", f"{PREFIX}.progress.{{tenant}}.{{run}}.{{stage}}", "PROGRESS", Progress)
    add("telemetry", f"{PREFIX}.telemetry.{{tenant}}.{{deployment}}", "TELEMETRY", Outcome)
    add(
        "feedback",
        f"{PREFIX}.telemetry.{{tenant}}.{{deployment}}.feedback",
        "TELEMETRY",
        Feedback,
    )
    add("alert", f"{PREFIX}.alert.{{tenant}}.{{deployment}}.{{metric}}", "ALERTS", Alert)
    add("remedy", f"{PREFIX}.remedy.{{tenant}}.{{deployment}}.{{remedy}}", "REMEDIES", Remedy)
    return channels


def _operations(channels: dict[str, Json]) -> dict[str, Json]:
    operations: dict[str, Json] = {}

    def add(service: str, action: str, key: str, summary: str) -> None:
        operations[f"{service}.{action}.{key}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{key}"},
            "summary": summary,
            "tags": [{"name": service}],
        }

    for event in EVENTS.values():
        key = event.type_name().removeprefix("sluice.v1.")
        owners = list(Service) if event is StepFailed else [event.service]
        for owner in owners:
            add(owner, "send", key, f"{owner} states {event.__name__}.")
    for consumer in CONSUMERS:
        for key in _received(consumer, channels):
            add(consumer.service, "receive", key, f"Durable consumer {consumer.durable}.")
    add(Service.SERVING, "send", "telemetry", "One outcome per served request.")
    add(Service.MONITORING, "send", "alert", "A metric crossed its threshold, or came back.")
    add(Service.MONITORING, "send", "remedy", "Something has to be done, or no longer.")
    for verb in COMMANDS:
        add("user", "send", f"job.{verb}", f"Ask for: {verb}.")
    for key in ("progress", "alert", "remedy"):
        add("user", "receive", key, "Any client may follow it.")
    return operations


def _received(consumer: Consumer, channels: dict[str, Json]) -> list[str]:
    """Channels whose subjects a consumer's filters match."""
    return [
        key
        for key, channel in channels.items()
        if any(
            fnmatchcase(subject, pattern)
            for subject in _examples(channel["address"])
            for pattern in consumer.filters
        )
    ]


def _examples(address: str) -> list[str]:
    """Subjects of a channel, one for each gate where the gate is part of them."""
    gates = [gate.lower() for gate in get_args(GateId)]
    spelled = (
        [address.replace("{gate}", gate) for gate in gates] if "{gate}" in address else [address]
    )
    return [re.sub(r"{\w+}", "x", text) for text in spelled]


def _command_headers() -> Json:
    return {
        "type": "object",
        "description": "All optional on commands: a plain publish is enough.",
        "properties": {
            "traceparent": {"type": "string", "description": "W3C trace context of the caller."},
            "Nats-Expected-Last-Subject-Sequence": {
                "type": "string",
                "description": "`0` on submit: refuse a run id that is taken.",
            },
        },
    }


def _fact_headers() -> Json:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time"],
        "properties": {
            "Nats-Msg-Id": {**text, "description": "Equals ce-id."},
            "content-type": {"const": "application/json"},
            "ce-specversion": {"const": "1.0"},
            "ce-id": {**text, "description": "sha256 over tenant, run, type and cause, in hex."},
            "ce-type": {**text, "description": "`sluice.v1.<service>.<fact>`."},
            "ce-source": {**text, "description": "`/sluice/<service>`."},
            "ce-subject": {**text, "description": "`<tenant>/<run>`."},
            "ce-time": {**text, "format": "date-time"},
            "ce-sluicecause": {**text, "description": "ce-id of the message that led to it."},
            "traceparent": {**text, "description": "W3C trace context: one trace per run."},
        },
    }
