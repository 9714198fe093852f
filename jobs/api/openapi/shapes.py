"""The JSON Schemas of which requests.py and answers.py put the bodies together."""

from collections.abc import Mapping

Schema = dict[str, object]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number", "minimum": 0}
INSTANT: Schema = {"type": "string", "format": "date-time"}
SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
JOB_ID: Schema = {"type": "string", "pattern": "^job-[0-9a-f]{32}$"}
STATE: Schema = {"enum": ["queued", "running", "completed", "failed"]}
NULL: Schema = {"type": "null"}
BINARY: Schema = {"type": "string", "contentMediaType": "application/octet-stream"}
# What the kernel can carry; JSON's strings can hold more.
WORD: Schema = {"type": "string", "pattern": "^[^\\u0000]*$"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def words(*known: str) -> Schema:
    return {"type": "string", "enum": list(known)}


def array(items: Schema, **more: object) -> Schema:
    return {"type": "array", "items": items, **more}


def table(items: Schema) -> Schema:
    """An object whose keys are names that nobody knows before."""
    return {"type": "object", "additionalProperties": items}


def either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def record(properties: Mapping[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """An object with these keys, of which all but the optional ones are always there."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}
