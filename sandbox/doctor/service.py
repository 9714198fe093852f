"""Service: what the server itself needs: a /tmp, descriptors, packages without known holes."""

import importlib.metadata
import re
import sys
from pathlib import Path

from sandbox.doctor.files import text_of, version_of
from sandbox.doctor.words import BAD, WARNING, Check, Seen, good


def _temporary(root: Path) -> Seen:
    """The keeper puts a tmpfs of its own over web's /tmp; TMPDIR from outside is not passed on."""
    if not (root / "tmp").is_dir():
        return Seen(
            BAD, "there is no /tmp", "Sandrun does not start: it covers /tmp with memory of its "
            "own.", "sudo mkdir -m 1777 /tmp",
        )  # fmt: skip
    return good("the server gets a /tmp of its own, in memory; yours and TMPDIR are not used")


def _descriptors(root: Path) -> Seen:
    limits = text_of(root, "proc/self/limits") or ""
    found = re.search(r"^Max open files\s+\S+\s+(\S+)", limits, re.MULTILINE)
    most = found[1] if found else "0"
    if most != "unlimited" and int(most) < 4096:
        return Seen(
            WARNING, f"{most} open files at most",
            "Every running job and every connection takes some; beyond that jobs fail and "
            "connections are refused.",
            "ulimit -Hn 65536, LimitNOFILE=65536 in a unit, --ulimit nofile=65536:65536 for a "
            "container",
        )  # fmt: skip
    return good(f"{most} open files at most")


# Below these a client can fill the memory of the server or slip past its checks (daphne: frames of
# any size and forged headers; autobahn: GHSA-hxp9-w8x3-p566, frames that inflate; Django, Twisted:
# requests that smuggle or cost too much).
_FLOORS = {"daphne": "4.2.3", "Django": "5.2.13", "Twisted": "24.7", "autobahn": "26.7.1"}


def _packages(root: Path) -> Seen:
    path = [str(root / folder.lstrip("/")) for folder in sys.path if folder.startswith("/")]
    found: dict[str, str] = {}
    for name in _FLOORS:
        for distribution in importlib.metadata.distributions(name=name, path=path):
            found.setdefault(name, distribution.version)
    old = [
        f"{name} {found.get(name, 'missing')} (needs {floor})"
        for name, floor in _FLOORS.items()
        if version_of(found.get(name, "0")) < version_of(floor)
    ]
    if old:
        return Seen(
            BAD, ", ".join(old), "Clients could do to the server what these versions let them.",
            "sudo script/setup",
        )  # fmt: skip
    return good(", ".join(f"{name} {version}" for name, version in found.items()))


CHECKS = (
    Check(123, "temporary files", _temporary),
    Check(124, "descriptors", _descriptors),
    Check(125, "packages", _packages),
)
