"""The type of an error is a page, and there is a page for every reason."""

import ast
import re
import typing
from collections.abc import Iterator
from pathlib import Path

from jobs.api.openapi import notation
from jobs.api.problems import PAGES
from jobs.errors import Reason
from tests.jobs.test_api import ApiCase

ROOT = Path(__file__).resolve().parents[2]
REASONS = set(typing.get_args(Reason))


def said() -> Iterator[str]:
    """Every word that the code of jobs/ makes a reason of: mypy sees that it is a Reason."""
    for file in (ROOT / "jobs").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            parts: list[ast.expr] = []
            if isinstance(node, ast.Call):
                parts = [*node.args, *(keyword.value for keyword in node.keywords)]
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(getattr(target, "id", "") == "reason" for target in targets):
                    parts = [node.value]
            for part in parts:
                for child in ast.walk(part):
                    if isinstance(child, ast.Constant) and isinstance(child.value, str):
                        yield child.value


def statuses(reason: str) -> list[str]:
    """What the page says."""
    found = re.match(r"Status ((\d{3}|, | or )+)\. ", PAGES[reason].split("\n\n")[1])
    assert found, reason
    return re.findall(r"\d{3}", found[1])


class Pages(ApiCase):
    def test_every_reason_has_a_page_and_every_page_a_reason(self) -> None:
        self.assertEqual(set(PAGES), REASONS)
        self.assertLessEqual(REASONS, set(said()))

    def test_the_document_names_the_same_statuses(self) -> None:
        known = {
            reason: {str(code) for code in codes} for reason, codes in notation.REASONS.items()
        }
        self.assertEqual({reason: set(statuses(reason)) for reason in PAGES}, known)

    async def test_the_type_of_an_error_is_where_its_page_is(self) -> None:
        body = await self.get("/status/x", 404)
        self.assertEqual(body["type"], "/problems/unknown_job")
        response = await self.client.get(body["type"])
        self.assertEqual(response["Content-Type"], "text/plain; charset=utf-8")
        self.assertTrue(response.content.startswith(b"unknown_job\n\nStatus 404. "))

    async def test_problems_lists_them_all(self) -> None:
        text = (await self.client.get("/problems")).content.decode()
        for reason in REASONS:
            self.assertIn(f"/problems/{reason}\nStatus {statuses(reason)[0]}", text)

    async def test_no_other_page_is_there(self) -> None:
        for name in ("x", "Problems", "../problems.md", "unknown_job/", "unknown_job%0a", ""):
            body = await self.get(f"/problems/{name}", 404)
            self.assertEqual(body["reason"], "unknown_path")
