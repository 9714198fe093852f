"""Cgroups: whether the limits of a job can be counted and enforced."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from sandbox.cgroups import MISSABLE
from sandbox.doctor.files import Mount, mounts, text_of
from sandbox.doctor.words import BAD, WARNING, Check, Seen, good

_CONTROLLERS = ("memory", "pids", "cpu")


def controllers(root: Path) -> dict[str, tuple[int, Mount]]:
    """Which version offers each controller, and where, as sandbox.cgroups looks for them."""
    found: dict[str, tuple[int, Mount]] = {}
    for mount in mounts(root):
        if mount.kind == "cgroup":
            for name in mount.options:
                found.setdefault(name, (1, mount))
    for mount in mounts(root):
        if mount.kind == "cgroup2":
            offered = text_of(root, f"{mount.point[1:]}/cgroup.controllers") or ""
            for name in offered.split():
                found.setdefault(name, (2, mount))
    return {name: found[name] for name in (*_CONTROLLERS, "cpuacct") if name in found}


def _cgroups(root: Path) -> Seen:
    offered = controllers(root)
    found = ", ".join(f"{name} v{version}" for name, (version, _) in offered.items()) or "none"
    closed = {name: mount for name, (_, mount) in offered.items() if "ro" in mount.options}
    wanted = [*_CONTROLLERS]
    if offered.get("cpu", (2,))[0] == 1:
        wanted.append("cpuacct")
    missing = [name for name in wanted if name not in offered or name in closed]
    if not missing:
        return good(found)
    told = f"no {', no '.join(missing)} (found: {found}{', read-only' if closed else ''})"
    if set(missing) <= _allowed_to_miss():
        return Seen(
            WARNING, told,
            "SANDRUN_ALLOW_MISSING lets jobs run: their limits are estimates, and one job can take "
            "from others what it likes for a moment.", _provide(offered, closed),
        )  # fmt: skip
    return Seen(
        BAD, told, "Sandrun does not start: no job runs without limits.", _provide(offered, closed)
    )


def _allowed_to_miss() -> set[str]:
    words = os.environ.get("SANDRUN_ALLOW_MISSING", "").split(",")
    return {name for word in words for name in MISSABLE.get(word.strip(), ())}


def _provide(offered: Collection[str], closed: Mapping[str, Mount]) -> str:
    for mount in closed.values():
        return f"sudo mount -o remount,rw {mount.point}; for a container see docs/deployment.md"
    if not offered:
        return "sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    return (
        "Boot with cgroup_no_v1=all cgroup_enable=memory; in a container, give it these controllers"
    )


def _delegation(root: Path) -> Seen:
    """Under systemd the cgroups below us are ours only in a scope that is delegated to us."""
    versions = {version for version, _ in controllers(root).values()}
    if not (root / "run/systemd/system").is_dir():
        return good("no systemd: Sandrun makes a cgroup of its own")
    there = any((root / folder / "systemd-run").exists() for folder in ("usr/bin", "bin"))
    if not there and 2 in versions:
        return Seen(
            WARNING, "systemd without systemd-run",
            "systemd may move or limit what Sandrun makes below a cgroup that is not its own.",
            "sudo apt-get install systemd, or use integrations/systemd/sandrun.service.",
        )  # fmt: skip
    if not there:
        return good("systemd does not manage the controllers of cgroup version 1")
    return good("systemd delegates a scope to script/server")


CHECKS = (
    Check(107, "cgroups", _cgroups),
    Check(108, "delegation", _delegation),
)
