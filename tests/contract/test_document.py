"""The document names what the code has, and nothing else: paths and reasons. docs/api.md says what
the document says.
"""

import re
from collections.abc import Iterator
from typing import Any, get_args

from django.urls import URLPattern

from jobs.api import sockets, urls
from jobs.api.openapi import document
from jobs.api.openapi.notation import REASONS
from jobs.conf import Config
from jobs.errors import Reason
from tests.contract.reference import REFERENCE, written

DOCUMENT: dict[str, Any] = document(Config(), ("python3",))


def template(route: URLPattern) -> str:
    """The route as OpenAPI writes it."""
    text = str(route.pattern).removeprefix(r"(?s)\A").removesuffix(r"\Z")
    text = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", text)
    return "/" + re.sub(r"<str:(\w+)>", r"{\1}", text).replace("{name}", "{path}")


def test_every_route_is_in_the_document_and_the_other_way_round() -> None:
    routes = {template(route) for route in (*urls.urlpatterns, *sockets.urlpatterns)}
    assert routes | {"/"} == set(DOCUMENT["paths"])


def test_every_reason_is_in_the_document_and_the_other_way_round() -> None:
    """That no other is raised, the type checker sees."""
    assert set(get_args(Reason)) == set(REASONS)


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
