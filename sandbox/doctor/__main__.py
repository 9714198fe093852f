"""The command line of doctor: `sandrun doctor`, or python -I -m sandbox.doctor."""

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence

from sandbox.doctor import CHECKS, TRIALS
from sandbox.doctor.words import BAD, GOOD, WARNING, Finding, examine


def table(findings: Sequence[Finding]) -> str:
    """One line for what is good; for the rest also what it means and what to do."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.name:{width}}  {finding.verdict:7}  {finding.found}")
        if finding.meaning:
            lines += textwrap.wrap(finding.meaning, 96 - 4, initial_indent=" " * 4,
                                   subsequent_indent=" " * 4)  # fmt: skip
        if finding.remedy:
            lines.append(f"    Remedy: {finding.remedy}")
    verdicts = [finding.verdict for finding in findings]
    counts = (f"{verdicts.count(verdict)} {verdict}" for verdict in (BAD, WARNING, GOOD))
    return "\n".join([*lines, "", ", ".join(counts)])


def passes(findings: Sequence[Finding], strict: bool) -> bool:
    """Whether nothing is bad; if strict, whether everything is good."""
    refused = (BAD, WARNING) if strict else (BAD,)
    return not any(finding.verdict in refused for finding in findings)


def main() -> None:
    """Exit code 1 when it does not pass."""
    parser = argparse.ArgumentParser(
        prog="sandrun doctor", allow_abbrev=False,
        description="Say what this machine lacks, what that means, and what to do about it.",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a list of findings, for programs")
    parser.add_argument("--strict", action="store_true", help="warnings, too, make exit code 1")
    parser.add_argument(
        "--look", action="store_true", help="only look: make no sandbox, as a server will anyway"
    )
    arguments = parser.parse_args()
    findings = examine(CHECKS if arguments.look else (*CHECKS, *TRIALS))
    if arguments.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        print(table(findings))
    sys.exit(0 if passes(findings, arguments.strict) else 1)


if __name__ == "__main__":
    main()
