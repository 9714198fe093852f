"""`manage.py test` runs pytest, so that both commands run the same tests in the same way."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


class PytestRunner:
    """Django's TEST_RUNNER: labels are paths, node ids or dotted names (tests.jobs.test_quota)."""

    def __init__(
        self, verbosity: int = 1, failfast: bool = False, keyword: str = "", **_: Any
    ) -> None:
        self.options = {0: ["-q"], 1: []}.get(verbosity, ["-v"])
        self.options += ["-x"] * failfast + (["-k", keyword] if keyword else [])

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("-k", dest="keyword", default="", help="pytest's -k expression")

    def run_tests(self, test_labels: Sequence[str]) -> int:
        """The number of failed tests; never 0 when pytest itself ends badly."""
        count = _FailureCount()
        status = pytest.main([*self.options, *map(_path, test_labels)], plugins=[count])
        return count.failed or int(status)


class _FailureCount:
    failed = 0

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.failed = session.testsfailed


def _path(label: str) -> str:
    if "/" in label or "::" in label or Path(label).exists():
        return label
    path = Path(*label.split("."))
    return str(path if path.is_dir() else path.with_suffix(".py"))
