"""The AsyncAPI 3 document of the five streams, made from the models that read and write them.

An entry's `data` is the message's payload, its other fields are the headers.
"""

from typing import Any

from pydantic import BaseModel

from orchestrator.event import Act, TaskEvent
from orchestrator.formats.own import EXAMPLES, json_schema
from orchestrator.streams.names import ALERTS, AUDIT, CPS_ALERTS, RESULTS, TASKS, Keys, Stream
from orchestrator.task import Task
from orchestrator.usage import ModelCall

VERSION = "3.0.0"  # of AsyncAPI
_SCHEMAS = "#/components/schemas/"
# The stream's name here, and what its messages carry.
_CHANNELS: tuple[tuple[Stream, str, str], ...] = (
    (ALERTS, "alerts", "Alert"),
    (CPS_ALERTS, "cpsAlerts", "Alert"),
    (TASKS, "tasks", "Task"),
    (RESULTS, "results", "TaskEvent"),
    (AUDIT, "audit", "Act"),
)
# Others write the first three, and may read the others.
_SENT = (RESULTS, AUDIT)
_EXAMPLES: dict[str, dict[str, Any]] = {
    "Alert": EXAMPLES[0],
    "Task": {"agent": "shout", "input": {"text": "hello"}},
    "TaskEvent": {
        "task_id": "018f2a00-0000-7000-8000-000000000001", "agent": "shout", "event": "succeeded",
        "at": "2026-03-11T06:01:27.969394Z", "output": {"text": "HELLO"},
    },
    "Act": {
        "action": "schedule.paused", "actor": "key:ak_1f2e3d4c5b6a7980", "object_type": "schedule",
        "object_id": "018f2a00-0000-7000-8000-000000000002", "at": "2026-03-11T06:01:27.969394Z",
    },
}  # fmt: skip
_HEADERS: dict[str, Any] = {
    "type": "object",
    "description": "None is required, and further ones are ignored.",
    "properties": {
        "id": {
            "type": "string",
            "format": "uuid",
            "description": "the message's; sent again, it is the same message. Default: one made of"
            " the stream and the entry",
        },
        "timestamp": {
            "type": "string",
            "description": "ISO 8601; without an offset, UTC. Default: when Redis took the entry",
        },
        "version": {"type": "string", "description": "of this format", "default": "1"},
        "producer": {"type": "string", "description": "who wrote it"},
        "traceparent": {
            "type": "string",
            "description": "the span that sent it (W3C Trace Context); what is none is ignored",
        },
    },
}


def asyncapi(keys: Keys, *, version: str) -> dict[str, Any]:
    """The document. `version`: this program's."""
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "Aurora's streams",
            "version": version,
            "description": "Entries of Redis Streams: XADD with a field `data`, a JSON object, and"
            " the headers as further fields. What cannot be read is set aside as a dead letter.",
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(keys, stream, name) for stream, name, _ in _CHANNELS},
        "operations": {
            ("send" if stream in _SENT else "receive") + name[0].upper() + name[1:]: {
                "action": "send" if stream in _SENT else "receive",
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": stream.purpose,
            }
            for stream, name, _ in _CHANNELS
        },
        "components": {
            "messages": {each: _message(each) for each in _EXAMPLES},
            "schemas": _schemas(),
        },
    }


def _channel(keys: Keys, stream: Stream, name: str) -> dict[str, Any]:
    payload = next(each for _, known, each in _CHANNELS if known == name)
    channel: dict[str, Any] = {
        "address": keys.of(stream),
        "summary": stream.purpose,
        "description": f"Written by {stream.producers}.",
        "messages": {payload: {"$ref": f"#/components/messages/{payload}"}},
        "x-groups": list(stream.groups),
        "x-kept-seconds": stream.kept.total_seconds(),
    }
    if stream is TASKS:
        channel["description"] += (
            f" This is the default queue at normal priority; others are"
            f" {keys.tasks}[:<queue>][:high|:low]."
        )
    return channel


def _message(payload: str) -> dict[str, Any]:
    return {
        "name": payload,
        "contentType": "application/json",
        "headers": _HEADERS,
        "payload": {"$ref": _SCHEMAS + payload},
        "examples": [{"payload": _EXAMPLES[payload]}],
    }


def _schemas() -> dict[str, Any]:
    models: tuple[tuple[type[BaseModel], list[str]], ...] = (
        # What a message has to say; for the rest the reader has defaults.
        (Task, ["agent"]),
        (TaskEvent, ["task_id", "agent", "event"]),
        (ModelCall, ["model"]),
        (Act, ["action", "actor", "object_type", "object_id", "at"]),
    )
    found: dict[str, Any] = {"Alert": json_schema(ref_template=_SCHEMAS + "{model}")}
    for model, required in models:
        found[model.__name__] = model.model_json_schema(ref_template=_SCHEMAS + "{model}")
        found[model.__name__]["required"] = required
    for schema in list(found.values()):
        schema.pop("$schema", None)  # the document's own dialect
        found |= schema.pop("$defs", {})
    return found
