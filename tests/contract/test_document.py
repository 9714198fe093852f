"""The document names what the code has, and nothing else: paths and reasons. docs/api.md says what
the document says.
"""

import ast
import re
from collections.abc import Iterator
from typing import Any

from django.urls import URLPattern

from jobs.api import sockets, urls
from jobs.api.openapi import document
from jobs.api.openapi.notation import REASONS
from jobs.conf import Config
from tests.contract.reference import REFERENCE, written
from tests.journeys.server import REPOSITORY

DOCUMENT: dict[str, Any] = document(Config(), ("python3",))


def template(route: URLPattern) -> str:
    """The route as OpenAPI writes it."""
    text = str(route.pattern).removeprefix(r"(?s)\A").removesuffix(r"\Z")
    text = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", text)
    return "/" + re.sub(r"<str:(\w+)>", r"{\1}", text).replace("{name}", "{path}")


def test_every_route_is_in_the_document_and_the_other_way_round() -> None:
    routes = {template(route) for route in (*urls.urlpatterns, *sockets.urlpatterns)}
    assert routes | {"/"} == set(DOCUMENT["paths"])


def raised() -> Iterator[tuple[str, int | None]]:
    """Every reason in the code, with its status where that stands beside it."""
    for file in (REPOSITORY / "jobs").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and file.name == "errors.py":
                for line in node.body:
                    if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "reason":
                        yield from ((word, None) for word in words(line.value))
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                if name == "refuse" and len(node.args) >= 3:
                    status = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                    yield from ((word, status) for word in words(node.args[2]))
                if name in ("_body", "problem") and len(node.args) >= 3:
                    yield from ((word, None) for word in words(node.args[2]))
                if name == "OverQuota":
                    yield from ((word, None) for word in words(node.args[1]))


def words(node: ast.expr) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def test_every_reason_in_the_code_is_in_the_document_and_the_other_way_round() -> None:
    found = set(raised())
    assert {reason for reason, _ in found} == set(REASONS)
    for reason, status in found:
        assert status is None or status in REASONS[reason], (reason, status)


def test_every_reason_is_an_answer_to_some_operation() -> None:
    told = set()
    for name in DOCUMENT["components"]["responses"]:
        status, *reasons = name.split(".")
        told |= {(reason, int(status)) for reason in reasons}
    known = {(reason, status) for reason, statuses in REASONS.items() for status in statuses}
    assert known - told == {("method_not_allowed", 405)}, "which no operation has"


def test_every_reference_leads_somewhere() -> None:
    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        if isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in references(DOCUMENT):
        place: Any = DOCUMENT
        for key in reference.removeprefix("#/").split("/"):
            place = place[key]


def test_the_reference_is_written_from_the_document() -> None:
    assert REFERENCE.read_text() == written(), "script/api-reference writes it anew"
