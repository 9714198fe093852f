"""A launcher a module, and after every test: nothing is left (processes, mounts, cgroups,
descriptors, files)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.model import FIRST_UID, UIDS, WEB_UID
from tests.sandbox.box import Box, job_processes, launcher_descriptors, wait_until


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box().start()
    try:
        yield box
    finally:
        box.close()


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    box: Box | None = request.getfixturevalue("box") if "box" in request.fixturenames else None
    before = _state(box)
    yield
    assert wait_until(lambda: not job_processes()), f"processes are left: {job_processes()}"
    if box is not None and box.process.poll() is None:
        assert wait_until(lambda: not box.cgroup_folders()), box.cgroup_folders()
    assert wait_until(lambda: _state(box) == before), f"{_state(box)} is not {before}"


def _state(box: Box | None) -> dict[str, object]:
    state: dict[str, object] = {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "files of jobs": list(_files_of_jobs()),
        "sysctls": Path("/proc/sys/user/max_user_namespaces").read_text(),
    }
    if box is not None and box.process.poll() is None:
        state["launcher descriptors"] = launcher_descriptors(box.process.pid)
        state["descriptors"] = len(os.listdir("/proc/self/fd"))
    return state


def _files_of_jobs() -> Iterator[str]:
    """Files of this machine that belong to a job's or to web's uid."""
    for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run"):
        for entry in os.scandir(folder):
            try:
                owner = entry.stat(follow_symlinks=False).st_uid
            except FileNotFoundError:
                continue
            if owner == WEB_UID or FIRST_UID <= owner < FIRST_UID + UIDS:
                yield entry.path
