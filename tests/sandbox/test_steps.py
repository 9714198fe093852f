"""Fail closed: whatever step of the isolation fails, the job never ran and the answer names it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandbox import inside
from sandbox.errors import SandboxError
from tests.sandbox.box import Box, job_processes, tarred, wait_until
from tests.sandbox.faulty import AT_START, OUTSIDE

pytestmark = pytest.mark.core
INSIDE = [name for name, _ in inside.STEPS]


@contextmanager
def faulty(step: str, kind: str = "run") -> Iterator[Box]:
    box = Box([sys.executable, "-m", "tests.sandbox.faulty", kind, step])
    try:
        yield box
    finally:
        box.close()


@pytest.mark.parametrize("step", [*OUTSIDE, *INSIDE])
def test_a_fault_at_a_step_means_that_nothing_ran_and_names_the_step(step: str) -> None:
    with faulty(step) as box:
        box.start()
        seen: list[bytes] = []
        with pytest.raises(SandboxError) as caught:
            box.sh("echo ran; touch ran", on_output=lambda _, data: seen.append(data))
        assert caught.value.step == step
        assert "injected" in caught.value.detail
        assert not seen
        assert wait_until(lambda: not job_processes())
        assert wait_until(lambda: not box.cgroup_folders())
        assert box.process.poll() is None, "the launcher must live on"


@pytest.mark.parametrize("step", AT_START)
def test_a_launcher_that_cannot_get_ready_says_at_which_step(step: str) -> None:
    with faulty(step) as box, pytest.raises(SandboxError) as caught:
        box.start()
    assert caught.value.step == step


@pytest.mark.parametrize("step", INSIDE)
def test_a_fault_in_the_collector_is_named_as_its_own(step: str) -> None:
    with faulty(step, "collect") as box:
        box.start()
        with pytest.raises(SandboxError) as caught:
            box.sh("echo out > out.txt")
        assert caught.value.step == f"collect: {step}"


@pytest.mark.parametrize("step", INSIDE)
def test_a_fault_in_inspect_is_ours_and_not_the_archives(step: str) -> None:
    with faulty(step, "inspect") as box:
        box.start()
        with pytest.raises(SandboxError) as caught:
            box.inspect(tarred(("main.py", b"print(1)")))
        assert caught.value.step == f"inspect: {step}"


def test_without_a_fault_the_same_launcher_runs_the_job() -> None:
    with faulty("seccomp", "none of these") as box:
        assert box.start().sh("echo ran").text == "ran\n"
