"""Writes the OpenAPI document of JSON over HTTP from the protos.

`python protos/openapi.py DESCRIPTOR_SET` reads what ``protoc --include_source_info`` wrote and prints JSON:
a path for each method, a schema for each message and enum, in the form of proto3 JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2 as pb

PACKAGE = "sidejudge.v1"

# Numbers of fields in descriptor.proto, of which paths of source locations are made.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS = 2, 3, 4
_METHODS = 2

_Field = pb.FieldDescriptorProto
_Json = dict[str, Any]

_LONG = {"type": "string", "format": "int64"}
_NUMBER = {
    "oneOf": [
        {"type": "number"},
        {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]},
    ]
}
_SCALARS: dict[int, _Json] = {
    _Field.TYPE_DOUBLE: _NUMBER,
    _Field.TYPE_FLOAT: _NUMBER,
    _Field.TYPE_INT64: _LONG,
    _Field.TYPE_UINT64: _LONG,
    _Field.TYPE_INT32: {"type": "integer", "format": "int32"},
    _Field.TYPE_UINT32: {"type": "integer", "format": "int64"},
    _Field.TYPE_BOOL: {"type": "boolean"},
    _Field.TYPE_STRING: {"type": "string"},
    _Field.TYPE_BYTES: {"type": "string", "format": "byte"},
}
# Messages with a JSON form of their own.
_WELL_KNOWN: dict[str, _Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string"}},
        "additionalProperties": True,
    },
    "google.rpc.Status": {
        "type": "object",
        "properties": {
            "code": {"type": "integer"},
            "message": {"type": "string"},
            "details": {"type": "array", "items": {"type": "object"}},
        },
    },
}
_ERROR: _Json = {
    "type": "object",
    "description": "A failed call; details are JSON of google.rpc messages, such as ErrorInfo with the reason.",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "status": {"type": "string", "description": "The gRPC code."},
                "message": {"type": "string"},
                "details": {"type": "array", "items": {"type": "object"}},
            },
            "required": ["code", "status", "message", "details"],
        }
    },
    "required": ["error"],
}


def openapi(files: Sequence[pb.FileDescriptorProto]) -> _Json:
    """Return the document."""
    ours = sorted(
        (file for file in files if file.package == PACKAGE), key=lambda file: file.name
    )
    schemas: _Json = {"Error": _ERROR}
    paths: _Json = {}
    for file in ours:
        comments = {
            tuple(location.path): " ".join(location.leading_comments.split())
            for location in file.source_code_info.location
            if location.leading_comments
        }
        for place, service in enumerate(file.service):
            for at, method in enumerate(service.method):
                text = comments.get((_SERVICES, place, _METHODS, at), "")
                path = f"/{PACKAGE}.{service.name}/{method.name}"
                paths[path] = {"post": _operation(service.name, method, text)}
        for place, message in enumerate(file.message_type):
            _add_message(schemas, message, comments, (_MESSAGES, place), "")
        for place, enum in enumerate(file.enum_type):
            schemas[enum.name] = _enum(enum, comments.get((_ENUMS, place), ""))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sidejudge",
            "version": "v1",
            "description": "The gRPC API as JSON over HTTP.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:50511"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def _operation(service: str, method: pb.MethodDescriptorProto, text: str) -> _Json:
    sent, answered = _reference(method.input_type), _reference(method.output_type)
    if method.client_streaming:
        sent = {"type": "array", "items": sent}
    kind = "text/event-stream" if method.server_streaming else "application/json"
    return {
        "operationId": f"{service}.{method.name}",
        "tags": [service],
        "description": text,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": sent}},
        },
        "responses": {
            "200": {
                "description": "Each event holds one of these."
                if method.server_streaming
                else "The answer.",
                "content": {kind: {"schema": answered}},
            },
            "default": {
                "description": "The call failed.",
                "content": {"application/json": {"schema": _reference(".Error")}},
            },
        },
    }


def _add_message(
    schemas: _Json,
    message: pb.DescriptorProto,
    comments: dict[tuple[int, ...], str],
    path: tuple[int, ...],
    outer: str,
) -> None:
    name = f"{outer}{message.name}"
    entries = {n.name: n for n in message.nested_type if n.options.map_entry}
    properties = {
        field.json_name: _property(
            field, entries, comments.get((*path, _FIELDS, place), "")
        )
        for place, field in enumerate(message.field)
    }
    schemas[name] = {
        "type": "object",
        "description": comments.get(path, ""),
        "properties": properties,
        "additionalProperties": False,
    }
    for place, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            _add_message(schemas, nested, comments, (*path, _NESTED, place), f"{name}.")
    for place, enum in enumerate(message.enum_type):
        text = comments.get((*path, _NESTED_ENUMS, place), "")
        schemas[f"{name}.{enum.name}"] = _enum(enum, text)


def _enum(enum: pb.EnumDescriptorProto, text: str) -> _Json:
    names = [value.name for value in enum.value]
    return {"type": "string", "description": text, "enum": names}


def _property(
    field: _Field, entries: dict[str, pb.DescriptorProto], text: str
) -> _Json:
    entry = entries.get(field.type_name.rpartition(".")[2])
    schema: _Json
    if entry is not None:
        schema = {"type": "object", "additionalProperties": _schema(entry.field[1])}
    elif field.label == _Field.LABEL_REPEATED:
        schema = {"type": "array", "items": _schema(field)}
    else:
        schema = _schema(field)
    return {**schema, "description": text} if text else schema


def _schema(field: _Field) -> _Json:
    return _SCALARS.get(field.type) or _reference(field.type_name)


def _reference(full_name: str) -> _Json:
    name = full_name.removeprefix(".")
    if name in _WELL_KNOWN:
        return _WELL_KNOWN[name]
    return {"$ref": f"#/components/schemas/{name.removeprefix(f'{PACKAGE}.')}"}


def main() -> None:
    """Print the document."""
    files = pb.FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    sys.stdout.write(json.dumps(openapi(files.file), indent=1) + "\n")


if __name__ == "__main__":
    main()
