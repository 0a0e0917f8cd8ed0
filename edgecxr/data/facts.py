"""Checks of the facts in dataset.json or a pack."""

from __future__ import annotations

from functools import cache
from typing import Any

from edgecxr.errors import brief
from edgecxr.storage.reading import BadFile

LARGEST_FACTS = 8 << 20
"""Greatest number of bytes of such a JSON text."""

_TEXT = {"type": "string", "maxLength": 1000}
_COUNT = {"type": "integer", "minimum": 0, "maximum": (1 << 53) - 1}
_COUNTS = {"type": "object", "additionalProperties": _COUNT}
_TEXTS = {"type": "array", "items": {"type": "string", "maxLength": 10_000}}
_CLASSES = {
    "type": "object",
    "required": ["positive", "negative", "unknown"],
    "properties": {"positive": _COUNT, "negative": _COUNT, "unknown": _COUNT},
}
_SIDES = {"type": "array", "items": _COUNT, "minItems": 3, "maxItems": 3}
_ORIGIN = {
    "type": "object",
    "properties": {
        "kind": _TEXT, "source": {"type": "string", "maxLength": 10_000}, "warnings": _TEXTS, "cut": _TEXTS,
        "labels_from": {"type": "object", "additionalProperties": _TEXTS},
    },
}  # fmt: skip
_SPLIT = {
    "type": "object",
    "required": ["images", "patients", "abnormal", "labels"],
    "properties": {
        "images": _COUNT, "patients": _COUNT, "abnormal": _CLASSES,
        "labels": {"type": "object", "additionalProperties": _CLASSES}, "renderings": _COUNTS,
    },
}  # fmt: skip
_SCHEMA = {
    "type": "object",
    "required": ["format", "name", "labels", "phantom", "hash", "provenance", "counts", "rejected"],
    "properties": {
        "format": _COUNT, "name": _TEXT, "phantom": {"type": "boolean"}, "hash": _TEXT, "version": _TEXT,
        "labels": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1000, "uniqueItems": True},
        "images": _COUNT, "unlisted": _COUNT, "boxes": _COUNT, "boxes_unused": _COUNT,
        "data_hash": _TEXT, "inputs": _TEXT,
        "train_hash": {"type": ["string", "null"]},
        "large_hash": _TEXT, "boxes_hash": _TEXT, "decoded_hash": _TEXT,
        "rejected": _COUNTS, "warnings": _COUNTS, "duplicates": _COUNTS, "left": _TEXTS,
        "warned": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 10_000}},
        "films": {"type": "object", "required": ["rows", "columns"], "properties": {"rows": _SIDES, "columns": _SIDES}},
        "counts": {"type": "object", "additionalProperties": _SPLIT},
        "provenance": _ORIGIN,
        "origin": {
            "type": "object", "properties": {"provenance": _ORIGIN, "train_hash": {"type": ["string", "null"]}},
        },
    },
}  # fmt: skip


def check_facts(facts: Any) -> dict[str, Any]:
    """Return the facts, if they are those of a data set.

    Raises:
        BadFile: they are not.
    """
    import fastjsonschema

    try:
        _validator()(facts)
    except fastjsonschema.JsonSchemaException as error:
        raise BadFile(brief(error)) from error
    return dict(facts)


@cache
def _validator() -> Any:
    import fastjsonschema

    return fastjsonschema.compile(_SCHEMA)
