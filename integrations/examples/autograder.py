#!/usr/bin/env python3
"""Grades a folder of submissions, and writes a CSV with a row for each:

    autograder.py SUBMISSIONS CASES.json GRADES.csv [--cpu-seconds 1] [--memory-mb 128]

A submission is a file (main.py, sum.c: its extension tells the language), or a folder with main.py.
CASES.json is a list of {"stdin": ..., "stdout": ..., "points": ...}. Each case is a job of its own,
and what is expected stays here: no submission sees another case, or can claim to have passed it.
CPU time is limited rather than time by the clock: a machine that has much to do makes nobody fail.
Where the server is at its limit we wait. Whatever a submission is, it gets its row.
"""

import argparse
import asyncio
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypedDict

import sandrun

PATIENCE = 3600.0  # seconds to wait where the server has enough of us
MESSAGE_CHARACTERS = 200
VERDICTS = {
    "exit": "crash",
    "signal": "crash",
    "timeout": "time limit",
    "cpu": "time limit",
    "memory": "memory limit",
}


@dataclass
class Row:
    name: str
    verdict: str = "accepted"  # or that of the first case that went wrong
    points: float = 0
    time_s: float = 0  # the most of all cases
    memory_mb: float = 0
    message: str = ""


class Limits(TypedDict):
    cpu_seconds: float
    timeout: int
    memory_mb: int


class Grader:
    def __init__(
        self, client: sandrun.AsyncClient, cases: Sequence[Mapping[str, str]],
        limits: Limits, at_once: int,
    ) -> None:  # fmt: skip
        self._client = client
        self._cases = cases
        self._limits = limits
        self._turns = asyncio.Semaphore(at_once)

    async def grade(self, submission: Path) -> Row:
        row = Row(submission.name)
        if is_strange(submission):
            return Row(submission.name, "not runnable", message="neither a file nor a folder")
        for number, case in enumerate(self._cases, 1):
            try:
                async with self._turns:
                    result = await self._client.run(
                        path=submission, stdin=case["stdin"], outputs=["none"], **self._limits
                    )
            except sandrun.InvalidJob as error:
                self._note(row, number, "not runnable", str(error))
                break
            except (sandrun.Refused, sandrun.ConnectionFailed) as error:
                self._note(row, number, "not graded", str(error))
                break
            except Exception as error:  # it cannot be read: no reason to lose the others
                self._note(row, number, "not runnable", str(error) or type(error).__name__)
                break
            row.time_s = max(row.time_s, round(result.usage.wall_seconds, 3))
            row.memory_mb = max(row.memory_mb, round(result.usage.memory_peak_bytes / 2**20, 1))
            if not result.ok:
                last = result.stderr.rstrip().rpartition("\n")[2]
                verdict = VERDICTS.get(result.reason or "", "not graded")
                self._note(row, number, verdict, f"{result.told}: {last}" if last else result.told)
            elif result.stdout.split() != case["stdout"].split():
                self._note(row, number, "wrong answer", f"it printed {result.stdout[:100]!r}")
            else:
                row.points += float(case.get("points", 1))
        return row

    def _note(self, row: Row, number: int, verdict: str, message: str) -> None:
        if row.verdict == "accepted":
            row.verdict = verdict
            row.message = plain(f"case {number}: {message}")[:MESSAGE_CHARACTERS]


def is_strange(path: Path) -> bool:
    """A link may lead to files of ours, and a pipe would keep us waiting."""
    return path.is_symlink() or not (path.is_file() or path.is_dir())


def plain(text: str) -> str:
    """Without control characters, and nothing that a spreadsheet takes for a formula."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") else shown


async def grade_all(
    submissions: Sequence[Path], cases: Sequence[Mapping[str, str]], options: argparse.Namespace
) -> list[Row]:
    limits: Limits = {
        "cpu_seconds": options.cpu_seconds,
        "timeout": options.timeout,
        "memory_mb": options.memory_mb,
    }
    async with sandrun.AsyncClient(options.server, patience=PATIENCE) as client:
        grader = Grader(client, cases, limits, options.at_once)
        return await asyncio.gather(*map(grader.grade, submissions))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("submissions", type=Path)
    parser.add_argument("cases", type=Path)
    parser.add_argument("grades", type=Path)
    parser.add_argument("--cpu-seconds", type=float, default=2, help="CPU time for each case")
    parser.add_argument("--timeout", type=int, default=30, help="seconds, for those who sleep")
    parser.add_argument("--memory-mb", type=int, default=128)
    parser.add_argument("--at-once", type=int, default=2, help="as many as the server lets you")
    parser.add_argument("--server", help="instead of $SANDRUN_SERVER")
    options = parser.parse_args()
    found = options.submissions.iterdir()
    submissions = sorted(path for path in found if not path.name.startswith("."))
    cases = json.loads(options.cases.read_text())
    rows = asyncio.run(grade_all(submissions, cases, options))
    with options.grades.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Row)])
        table.writeheader()
        table.writerows({**asdict(row), "name": plain(row.name)} for row in rows)
    ungraded = [row.name for row in rows if row.verdict == "not graded"]
    print(f"{len(rows)} submissions, {len(ungraded)} not graded: {options.grades}")
    return 1 if ungraded else 0


if __name__ == "__main__":
    sys.exit(main())
