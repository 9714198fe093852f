"""Words: what a check says of what it saw, and how every check is asked."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

GOOD, WARNING, BAD = "good", "warning", "bad"
ROOT = Path("/")


class Finding(NamedTuple):
    """What one check saw. `meaning` and `remedy` are empty when it is good."""

    name: str
    verdict: str
    found: str
    meaning: str = ""
    remedy: str = ""


class Seen(NamedTuple):
    """A Finding whose check has yet to put its name to it."""

    verdict: str
    found: str
    meaning: str = ""
    remedy: str = ""


class Check(NamedTuple):
    """`number` makes the id of Django's check: sandrun.W101, sandrun.E101."""

    number: int
    name: str
    look: Callable[[Path], Seen]


def examine(checks: Sequence[Check], root: Path = ROOT) -> list[Finding]:
    """Every check's finding, in order. None of them can end the others."""
    return [Finding(check.name, *_look(check, root)) for check in checks]


def _look(check: Check, root: Path) -> Seen:
    try:
        return check.look(root)
    except PermissionError as error:
        return needs_root(str(error.filename or ""))
    except (OSError, ValueError, IndexError) as error:
        return Seen(
            WARNING, f"could not look: {error}", "Nobody knows.", "Report this as a fault of ours."
        )


def good(found: str) -> Seen:
    return Seen(GOOD, found)


def needs_root(what: str) -> Seen:
    found = f"needs root to read {what}" if what else "needs root"
    return Seen(WARNING, found, "Not looked at.", "sudo .venv/bin/sandrun doctor")


def sysctl(name: str, value: object) -> str:
    """The command that sets it now and after every boot."""
    file = "/etc/sysctl.d/90-sandrun.conf"
    return f"echo '{name} = {value}' | sudo tee -a {file} && sudo sysctl -p {file}"
