"""Writes the reference of the API from the comments of the protos, as Markdown.

`python protos/reference.py DESCRIPTOR_SET` reads what ``protoc --include_source_info`` wrote and prints
all services, messages and enums of the package, by the names of their files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb

PACKAGE = "sidejudge.v1"

# Numbers of fields in descriptor.proto, of which paths of source locations are made.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS = 2, 3, 4
_METHODS = _VALUES = 2

_Field = pb.FieldDescriptorProto
_SCALARS = {
    number: name.removeprefix("TYPE_").lower() for name, number in _Field.Type.items()
}
_NAMED = (_Field.TYPE_MESSAGE, _Field.TYPE_ENUM)

HEADER = """# API

The gRPC API `sidejudge.v1`, generated from the comments in `protos/` by `make generate`; do not edit.
[Errors](errors.md) explains the reasons; [getting started](getting-started.md) and the other guides explain what to do with it.

"""


class _Comments:
    """The comments of one file by the path of what they are about."""

    def __init__(self, file: pb.FileDescriptorProto) -> None:
        self._by_path = {
            tuple(location.path): location.leading_comments.strip()
            for location in file.source_code_info.location
            if location.leading_comments
        }

    def lines(self, *path: int) -> list[str]:
        """Return the lines of a comment."""
        return [line.strip() for line in self._by_path.get(path, "").splitlines()]

    def cell(self, *path: int) -> str:
        """Return a comment for a table."""
        return " ".join(self.lines(*path)).replace("|", "\\|")


def reference(files: Sequence[pb.FileDescriptorProto]) -> Iterator[str]:
    """Yield the lines of the reference."""
    ours = sorted(
        (file for file in files if file.package == PACKAGE), key=lambda file: file.name
    )
    yield HEADER.rstrip()
    yield ""
    yield "## Services"
    yield ""
    for file in ours:
        yield from (
            f"- [{service.name}](#{service.name.lower()})" for service in file.service
        )
    for file in ours:
        comments = _Comments(file)
        for place, service in enumerate(file.service):
            yield from _service(service, comments, (_SERVICES, place))
    yield ""
    yield "## Messages and enums"
    for file in ours:
        comments = _Comments(file)
        for place, message in enumerate(file.message_type):
            yield from _message(message, comments, (_MESSAGES, place), "")
        for place, enum in enumerate(file.enum_type):
            yield from _enum(enum, comments, (_ENUMS, place), "")


def _service(
    service: pb.ServiceDescriptorProto, comments: _Comments, path: tuple[int, ...]
) -> Iterator[str]:
    yield ""
    yield f"### {service.name}"
    yield ""
    yield from comments.lines(*path)
    for place, method in enumerate(service.method):
        yield ""
        yield f"#### {service.name}.{method.name}"
        yield ""
        answer = _link(method.output_type)
        stream = "a stream of " if method.server_streaming else ""
        yield f"Takes {_link(method.input_type)}, returns {stream}{answer}."
        yield ""
        yield from comments.lines(*path, _METHODS, place)


def _message(
    message: pb.DescriptorProto,
    comments: _Comments,
    path: tuple[int, ...],
    outer: str,
) -> Iterator[str]:
    if message.options.map_entry:
        return
    name = f"{outer}{message.name}"
    entries = {
        nested.name: nested
        for nested in message.nested_type
        if nested.options.map_entry
    }
    yield ""
    yield f"### {name}"
    yield ""
    yield from comments.lines(*path)
    if message.field:
        yield ""
        yield "| field | type | |"
        yield "|---|---|---|"
    for place, field in enumerate(message.field):
        text = comments.cell(*path, _FIELDS, place)
        if field.HasField("oneof_index") and not field.proto3_optional:
            text = f"One of `{message.oneof_decl[field.oneof_index].name}`. {text}"
        yield f"| `{field.name}` | {_type(field, entries)} | {text} |"
    for place, nested in enumerate(message.nested_type):
        yield from _message(nested, comments, (*path, _NESTED, place), f"{name}.")
    for place, enum in enumerate(message.enum_type):
        yield from _enum(enum, comments, (*path, _NESTED_ENUMS, place), f"{name}.")


def _enum(
    enum: pb.EnumDescriptorProto,
    comments: _Comments,
    path: tuple[int, ...],
    outer: str,
) -> Iterator[str]:
    yield ""
    yield f"### {outer}{enum.name}"
    yield ""
    yield from comments.lines(*path)
    yield ""
    yield "| value | number | |"
    yield "|---|---|---|"
    for place, value in enumerate(enum.value):
        text = comments.cell(*path, _VALUES, place)
        yield f"| `{value.name}` | {value.number} | {text} |"


def _type(field: _Field, entries: dict[str, pb.DescriptorProto]) -> str:
    entry = entries.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = entry.field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    name = _link(field.type_name) if field.type in _NAMED else _SCALARS[field.type]
    if field.label == _Field.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _link(full_name: str) -> str:
    """Return a link to a type of ours; the bare name of another."""
    name = full_name.removeprefix(".")
    ours = name.removeprefix(f"{PACKAGE}.")
    if ours == name:
        return f"`{name}`"
    return f"[{ours}](#{ours.lower().replace('.', '')})"


def main() -> None:
    """Print the reference."""
    files = pb.FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    sys.stdout.write("\n".join(reference(files.file)) + "\n")


if __name__ == "__main__":
    main()
