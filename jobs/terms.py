"""Terms: what a job is run with, beside what was sent; and one hash over both."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from jobs.manifest import Manifest
from jobs.names import encoded
from sandbox.model import Limits, Member


class Terms(NamedTuple):
    """What the runner that takes the job gives it."""

    interpreter: str
    version: str  # as the interpreter told it, inside a sandbox
    limits: Limits
    log_bytes: int = 0  # kept of each log

    def limits_in_integers(self) -> dict[str, int]:
        """The limits as they are signed: no reader of JSON rounds these."""
        limits = self.limits
        return {
            "cpu_millis": round(limits.cpus * 1000),  # of a core
            "cpu_usec": round(limits.cpu_seconds * 1e6),  # 0: no limit of its own
            "descriptors": limits.descriptors,
            "disk_bytes": limits.disk_bytes,
            "inodes": limits.inodes,
            "log_bytes": self.log_bytes,
            "memory_bytes": limits.memory_bytes,
            "tasks": limits.tasks,
            "wall_usec": round(limits.wall_seconds * 1e6),
        }


def input_bytes(manifest: Manifest, members: Sequence[Member]) -> int:
    """About how much `input_hash` has to look at."""
    return manifest.held_bytes + sum(200 + 3 * len(member.path) for member in members)


def input_hash(manifest: Manifest, members: Iterable[Member], terms: Terms) -> str:
    """SHA-256 in hex over all that decides what runs: every file with its name and mode, every word
    of the program, its interpreter and limits. docs/receipts.md says the bytes.
    """
    document = {
        "args": manifest.args,
        "entrypoint": encoded(manifest.entrypoint),
        "env": manifest.env,
        "files": sorted(
            [encoded(member.path), f"{member.mode:04o}", member.size, member.sha256]
            for member in members
        ),
        "interpreter": {"name": terms.interpreter, "version": terms.version},
        "limits": terms.limits_in_integers(),
        "outputs": manifest.outputs,
        "stdin": manifest.stdin,
        "stdin_live": manifest.stdin_live,
    }
    return hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()
