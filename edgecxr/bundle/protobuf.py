"""A strict reader of protobuf messages that strangers may have written.

A message can be encoded in many ways, and two parsers may disagree on the odd ones. This reader accepts only what
protobuf's own writers write, so that what it has seen is what every other parser will see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

Message = dict[str, Any]
"""Name of a field -> its value; a list of values if it may occur several times. Absent fields are absent."""

VARINT, LENGTH, FIXED32 = 0, 2, 5
"""Wire types; no others are accepted."""

_TWO_BYTES = 1 << 14


class Malformed(Exception):
    """Bytes that are not what protobuf's writers write for a schema."""


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        name: its key in a `Message`.
        kind: "int" (64 bits), "float" (its bits are not read), "text", "bytes" or "ints" (packed), or "message". The
            value of "bytes" is its place (start, end), so that weights are neither copied nor looked at.
        repeated: whether it may occur several times.
        schema: of a "message".
    """

    name: str
    kind: str
    repeated: bool = False
    schema: Mapping[int, Field] | None = None  # type: ignore[misc, unused-ignore]

    @property
    def wire(self) -> int:
        """The wire type of this kind."""
        return {"int": VARINT, "float": FIXED32}.get(self.kind, LENGTH)


Schema = Mapping[int, Field]
"""Tag, which is number and wire type, -> field."""


def schema(fields: Mapping[int, Field]) -> Schema:
    """Return a schema from field numbers."""
    tags = {number << 3 | field.wire: field for number, field in fields.items()}
    assert max(tags) < _TWO_BYTES
    return tags


def parse(data: bytes, fields: Schema, most: int) -> Message:
    """Return the content of a message.

    Time and memory are proportional to the number of fields, whatever their length; the depth is that of the schema.

    Args:
        data: the whole message.
        fields: the fields that it may have.
        most: limit of the number of fields, those of inner messages included.

    Raises:
        Malformed: the bytes end too early, have other fields or more, or are encoded in an unusual way.
    """
    reader = _Reader(data, most)
    try:
        return reader.message(0, len(data), fields)
    except IndexError:
        raise Malformed("it ends too early") from None


class _Reader:
    """The bytes of a message, and how many fields may still come."""

    def __init__(self, data: bytes, most: int) -> None:
        self._data = data
        self._left = most

    def message(self, at: int, end: int, fields: Schema) -> Message:
        """Read the fields from `at` to `end`."""
        data, content = self._data, Message()
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise Malformed("it has too many fields")
            tag = data[at]
            at += 1
            if tag >= 0x80:
                high = data[at]
                at += 1
                if not 0 < high < 0x80:
                    raise Malformed("it has a field number of unusual length")
                tag += (high - 1) << 7
            field = fields.get(tag)
            if field is None:
                raise Malformed(f"it has an unknown field {tag >> 3} of wire type {tag & 7}")
            value, at = self._value(field, at, end)
            if at > end:
                raise Malformed("a field is longer than its message")
            if field.repeated:
                content.setdefault(field.name, []).append(value)
            elif field.name in content:
                raise Malformed(f"it has {field.name} twice where one is allowed")
            else:
                content[field.name] = value
        return content

    def _value(self, field: Field, at: int, end: int) -> tuple[Any, int]:
        kind = field.kind
        if kind == "float":
            return math.nan, at + 4
        value, at = self._varint(at)
        if kind == "int":
            return value if value < 1 << 63 else value - (1 << 64), at
        stop = at + value
        if stop > end:
            raise Malformed("a field is longer than its message")
        if field.schema is not None:
            return self.message(at, stop, field.schema), stop
        if kind == "text":
            try:
                return self._data[at:stop].decode(), stop
            except UnicodeDecodeError:
                raise Malformed(f"{field.name} is no text") from None
        return (self._packed(at, stop) if kind == "ints" else (at, stop)), stop

    def _varint(self, at: int) -> tuple[int, int]:
        """Return an unsigned number of 64 bits and where it ends."""
        data = self._data
        byte = data[at]
        if byte < 0x80:
            return byte, at + 1
        value, shift = byte & 0x7F, 7
        while True:
            at += 1
            byte = data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise Malformed("it has a number of more than 64 bits")
        if byte == 0 or value >> 64:
            raise Malformed("it has a number of unusual length")
        return value, at + 1

    def _packed(self, at: int, stop: int) -> list[int]:
        values = []
        while at < stop:
            self._left -= 1
            if self._left < 0:
                raise Malformed("it has too many fields")
            value, at = self._varint(at)
            values.append(value if value < 1 << 63 else value - (1 << 64))
        if at > stop:
            raise Malformed("a field is longer than its message")
        return values
