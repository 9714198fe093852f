"""docs/api.md, written from the OpenAPI document: `script/api-reference`."""

import json
from collections.abc import Iterator
from typing import Any

from jobs.api.openapi import document
from jobs.api.openapi.notation import REASONS, STATUSES
from jobs.conf import Config
from tests.journeys.server import REPOSITORY

REFERENCE = REPOSITORY / "docs/api.md"
MARK = "<!-- From here on written by script/api-reference, from jobs/api/openapi. -->\n"
NAMES = "a name or alias of /environments"
ALWAYS = ("400.invalid_request", "408.timeout", "413.too_large", "414.too_large")
ALWAYS += ("431.too_large", "500.internal")

Object = dict[str, Any]


def written() -> str:
    """The file as it should be: what a person wrote, up to the mark, and what follows it."""
    by_hand = REFERENCE.read_text().partition(MARK)[0]
    about = document(Config(), (NAMES,))
    return (
        by_hand + MARK + "\n".join([*_operations(about), *_errors(about), *_bodies(about)]) + "\n"
    )


def _operations(about: Object) -> Iterator[str]:
    yield "\n## Operations\n"
    yield f"{about['info']['description']}\n"
    for path, methods in about["paths"].items():
        for method, operation in methods.items():
            yield f"### `{method.upper()} {path}`\n"
            owner = [] in [list(need) for need in operation.get("security", [[]])]
            token = "" if owner else "Needs `Authorization: Bearer OWNER_TOKEN`."
            yield (
                f"{operation['summary']}. {operation.get('description', '')}{token}".strip() + "\n"
            )
            if parameters := operation.get("parameters"):
                yield "| Parameter | In | Value | |\n|---|---|---|---|"
                for one in parameters:
                    value = _value(one["schema"])
                    yield f"| `{one['name']}` | {one['in']} | {value} | {one['description']} |"
                yield ""
            yield from _body(operation.get("requestBody"))
            yield from _answers(about, operation["responses"])


def _body(body: Object | None) -> Iterator[str]:
    if body:
        kinds = [f"`{kind}`: {_value(one['schema'])}" for kind, one in body["content"].items()]
        yield f"Body: {'; '.join(kinds)}. {body.get('description', '')}".strip() + "\n"


def _answers(about: Object, responses: Object) -> Iterator[str]:
    yield "| Answer | | Body | Headers |\n|---|---|---|---|"
    refused = []
    for status, answer in responses.items():
        if "$ref" in answer:
            name = answer["$ref"].rpartition("/")[2]
            if name not in ALWAYS:
                reasons = [f"`{word}`" for word in name.split(".")[1:] if word != "invalid_request"]
                refused.append(f"{status} {', '.join(reasons)}")
            continue
        kinds = [
            f"`{kind}`" + (f" {shape}" if (shape := _value(one["schema"])) not in _PLAIN else "")
            for kind, one in answer.get("content", {}).items()
        ]
        headers = ", ".join(f"`{name}`" for name in answer.get("headers", {}))
        yield f"| {status} | {answer['description']} | {', '.join(kinds)} | {headers} |"
    yield f"\nRefused: {'; '.join(refused)}.\n" if refused else ""


_PLAIN = ("text", "bytes", "object")


def _errors(about: Object) -> Iterator[str]:
    yield "## Errors\n"
    yield "| Status | `reason` | | Headers |\n|---|---|---|---|"
    for status, meaning in STATUSES.items():
        words = ", ".join(f"`{one}`" for one, known in REASONS.items() if status in known)
        headers: Object = {"Allow": {}} if status == 405 else {}
        for name, answer in about["components"]["responses"].items():
            headers |= answer.get("headers", {}) if name.startswith(str(status)) else {}
        yield f"| {status} | {words} | {meaning}. | {', '.join(f'`{one}`' for one in headers)} |"
    first = ", ".join(f"{name.split('.')[0]} `{name.split('.')[1]}`" for name in ALWAYS)
    yield f"\nEvery operation can answer {first}; they are not told again above.\n"


def _bodies(about: Object) -> Iterator[str]:
    yield "## Bodies\n"
    yield "What has a * is not always there. There may be more keys some day: ignore them."
    schemas = about["components"]["schemas"]
    for name, schema in schemas.items():
        yield f"\n### {name}\n"
        if "description" in schema:
            yield schema["description"] + "\n"
        if "oneOf" in schema:
            yield "| `type` | Beside it |\n|---|---|"
            for one in schema["oneOf"]:
                keys = dict(one["properties"])
                kind = _value(keys.pop("type"))
                yield f"| {kind} | {_keys({**one, 'properties': keys})} |"
            continue
        keys = schema["properties"]
        base = schemas["Status"]["properties"]
        if name != "Status" and len(keys.keys() & base) > len(base) / 2:
            missing = ", ".join(f"`{key}`" for key in base if key not in keys)
            without = f", without {missing}" if missing else ""
            yield f"As [Status](#status){without}, and with:\n"
            keys = {key: value for key, value in keys.items() if key not in base}
        yield "| Key | Value | |\n|---|---|---|"
        for key, value in keys.items():
            star = _star(schema, key)
            yield f"| `{key}`{star} | {_value(value)} | {value.get('description', '')} |"


def _star(schema: Object, key: str) -> str:
    return "" if key in schema.get("required", ()) else "*"


def _keys(schema: Object) -> str:
    """The keys of an object in one line."""
    said = []
    for key, one in schema["properties"].items():
        about = f" ({one['description'].rstrip('.')})" if "description" in one else ""
        said.append(f"`{key}`{_star(schema, key)}: {_value(one)}{about}")
    return ", ".join(said)


def _value(schema: Object) -> str:
    """The schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema and "type" not in schema:
        return " or ".join(_value(one) for one in schema["anyOf"])
    if "const" in schema:
        return "`" + json.dumps(schema["const"]).strip('"') + "`"
    if "enum" in schema:
        known = (NAMES if one == NAMES else f"`{one}`" for one in schema["enum"])
        return " or ".join(known).replace("``", '`""`')
    kind = schema["type"]
    if kind == "array":
        most = f", at most {schema['maxItems']}" if "maxItems" in schema else ""
        return f"list of {_value(schema['items'])}{most}"
    if kind == "object" and "properties" in schema:
        frame = schema["properties"].get("data", {}).get("contentSchema")
        return f"events, each with a {_value(frame)}" if frame else f"{{{_keys(schema)}}}"
    if kind == "object":
        items = schema.get("additionalProperties")
        return f"object of {_value(items)}" if items else "object"
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", 0), schema.get("maximum", 0)
        bounds = f" from {low:g} to {high:g}" if 0 < high < 1e9 else ""
        return f"{'whole ' if kind == 'integer' else ''}number{bounds}"
    return "bytes" if "contentMediaType" in schema else {"string": "text"}.get(kind, kind)


if __name__ == "__main__":
    REFERENCE.write_text(written())
