"""`script/attacks`: runs the suite and prints one line a case, with its id and one word: held,
broken, or not applicable with the reason.

    python -m tests.attacks.table [GROUP or CASE]...

Exit code 0 when nothing is broken. A case that nobody tries is broken.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
_ID = r"[A-Z]{2}-\d{2}"
_TESTED = re.compile(rf"\s*({_ID}(?:, {_ID})*)\. ")


class Case(NamedTuple):
    id: str
    severity: str
    attack: str


def catalogue() -> dict[str, Case]:
    """Every case by its id, in the catalogue's order."""
    lines = re.findall(rf"^- ({_ID}) \[(\w+)\] (.*)$", _read("catalogue.md"), re.MULTILINE)
    return {id: Case(id, severity, what.partition(" → ")[0]) for id, severity, what in lines}


def not_applicable() -> dict[str, str]:
    """Why a case cannot be tried here, by its id."""
    return dict(re.findall(rf"^\| ({_ID}) \| (.*) \|$", _read("README.md"), re.MULTILINE))


def _read(name: str) -> str:
    return (HERE / name).read_text()


def cases_of(item: pytest.Item) -> list[str]:
    """The ids at the beginning of a test's docstring."""
    found = _TESTED.match(getattr(item, "function", None).__doc__ or "")
    return found[1].split(", ") if found else []


class Table:
    """What became of each case, as pytest's plugin."""

    def __init__(self, wanted: list[str]) -> None:
        self.wanted = wanted
        self.broken: dict[str, list[str]] = {}
        self.tried: set[str] = set()
        self._cases: dict[str, list[str]] = {}  # by test
        self.fault = ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        kept = [item for item in items if any(map(self.is_wanted, cases_of(item)))]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
        self._cases = {item.nodeid: cases_of(item) for item in items}

    def is_wanted(self, case: str) -> bool:
        return not self.wanted or any(case.startswith(word) for word in self.wanted)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for case in self._cases.get(report.nodeid, ()):
            if report.skipped or report.failed:
                self.broken.setdefault(case, []).append(report.nodeid)
            self.tried.add(case)
        if report.failed:
            print(
                f"{report.nodeid} ({report.when})\n{report.longreprtext[-3000:]}", file=sys.stderr
            )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.fault = f"{report.nodeid} cannot be read: {report.longrepr}"

    def lines(self) -> list[tuple[str, str, str]]:
        """(id, word, what about it) of every wanted case."""
        reasons = not_applicable()
        lines = []
        for case in filter(lambda case: self.is_wanted(case.id), catalogue().values()):
            if case.id in self.broken:
                lines.append((case.id, "broken", ", ".join(sorted(set(self.broken[case.id])))))
            elif case.id in self.tried:
                lines.append((case.id, "held", case.attack))
            elif case.id in reasons:
                lines.append((case.id, "not applicable", reasons[case.id]))
            else:
                lines.append((case.id, "broken", "nobody tries it"))
        return lines


def main(wanted: list[str]) -> int:
    table = Table(wanted)
    # Without pytest's own report, and so without the options of the project that belong to it.
    options = ["-p", "no:terminal", "-p", "no:cacheprovider", "-o", "addopts=--strict-markers"]
    code = pytest.main([str(HERE), *options], plugins=[table])
    lines = table.lines()
    for id, word, about in lines:
        print(f"{id}  {word:<14}  {about[:150]}")
    words = [word for _, word, _ in lines]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(sorted(words)))
    print(f"{len(lines)} cases: {counts}")
    if table.fault:
        print(table.fault, file=sys.stderr)
    return 0 if code == 0 and lines and "broken" not in words else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
