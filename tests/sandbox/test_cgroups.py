"""Cgroups from the keeper's side: made whole or not at all, and what the dead left is removed."""

import os
import resource
import subprocess
from pathlib import Path

import pytest

from sandbox import cgroups
from sandbox.errors import SandboxError
from sandbox.model import Usage

pytestmark = pytest.mark.core


def _ours(name: str) -> list[str]:
    return [path for path, _, _ in os.walk("/sys/fs/cgroup") if f"/{name}" in path]


def test_everything_is_undone_when_one_controller_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cgroups, "CONTROLLERS", ("memory", "pids", "imaginary"))
    name = cgroups.name_of_this_process()
    with pytest.raises(SandboxError, match="offers no imaginary controller") as caught:
        cgroups.prepare(name)
    assert caught.value.step == "cgroup"
    assert not _ours(name)


def test_sweeping_removes_what_the_dead_left_and_nothing_of_the_living() -> None:
    dead = subprocess.Popen(["sleep", "60"])
    name = f"sandrun-{dead.pid}-{cgroups._start_time(dead.pid)}"
    parents = cgroups.prepare(name)
    try:
        assert name not in cgroups.sweep(), "it is alive"
        assert _ours(name)
        dead.kill()
        dead.wait()
        assert name in cgroups.sweep()
        assert not _ours(name)
    finally:
        dead.kill()
        cgroups.remove(parents)


def test_a_pid_that_was_given_again_is_not_the_living_keeper() -> None:
    name = f"sandrun-{os.getpid()}-1"
    parents = cgroups.prepare(name)
    try:
        assert name in cgroups.sweep()
    finally:
        cgroups.remove(parents)


def test_a_machine_that_swaps_is_refused_also_where_cgroups_may_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cgroups, "_mounts", lambda: ({}, None))
    name = cgroups.name_of_this_process()
    assert cgroups.prepare(name, cgroups.CONTROLLERS) == []
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type Size Used Priority\n/swapfile file 1048572 0 -2\n")
    monkeypatch.setattr(cgroups, "SWAPS", swaps)
    with pytest.raises(SandboxError, match="swapoff"):
        cgroups.prepare(name, cgroups.CONTROLLERS)


def test_cpu_time_that_nobody_counts_is_not_limited_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hierarchies = {name: tmp_path / name for name in cgroups.CONTROLLERS}  # and no cpuacct
    monkeypatch.setattr(cgroups, "_mounts", lambda: (dict(hierarchies), None))
    with pytest.raises(SandboxError, match="offers no cpu controller.*=cgroup-cpu$"):
        cgroups.prepare("sandrun-1-1")
    parents = cgroups.prepare("sandrun-1-1", {"cpu"})
    assert [parent.controllers for parent in parents] == [("memory",), ("pids",)]


def test_a_machine_that_swaps_is_refused_or_kept_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type Size Used Priority\n/swapfile file 1048572 0 -2\n")
    monkeypatch.setattr(cgroups, "SWAPS", swaps)
    name = cgroups.name_of_this_process()
    if "memory" in cgroups._mounts()[0]:
        with pytest.raises(SandboxError, match="swapoff") as caught:
            cgroups.prepare(name)
        assert caught.value.step == "swap"
        assert not _ours(name)
    else:
        parents = cgroups.prepare(name)
        try:
            top = Path(parents[0].path).parent
            assert (top / "memory.swap.max").read_text() == "0\n"
        finally:
            cgroups.remove(parents)


@pytest.mark.parametrize("kills, least", [(0, 3_000_000), (1, 64_000_000)])
def test_where_no_kernel_remembers_the_peak_it_is_what_is_known_of_it(
    tmp_path: Path, kills: int, least: int
) -> None:
    """The files of a cgroup of Linux 5.12 to 5.18, which has no memory.peak."""
    for name, text in {
        "memory.current": "3000000\n", "memory.max": "64000000\n",
        "memory.events": f"low 0\noom {kills}\noom_kill {kills}\n", "cpu.stat": "usage_usec 7\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    fd = os.open(tmp_path, os.O_DIRECTORY)
    try:
        folder = cgroups._Folder(2, cgroups.CONTROLLERS, fd, fd, "1")
        used = resource.getrusage(resource.RUSAGE_SELF)
        usage = cgroups.Cgroup([folder]).usage(9, used)
    finally:
        os.close(fd)
    peak = least if kills else max(least, used.ru_maxrss * 1024)
    assert usage == Usage(cpu_usec=7, memory_peak_bytes=peak, wall_usec=9)
