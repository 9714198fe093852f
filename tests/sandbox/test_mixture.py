"""Limits and their evidence, whichever version each controller has on this machine. The guest
kernel of tests/uml runs this with mixtures, and says in SANDRUN_TEST_V1 what must be version 1."""

import os

import pytest

from tests.sandbox.box import Box

pytestmark = pytest.mark.core


FORKS = """
import os, time
try:
    for _ in range(50):
        os.fork() or time.sleep(9)
except OSError:
    print("refused")
"""


def test_the_controllers_are_of_the_versions_that_the_machine_offers(box: Box) -> None:
    versions = box.sandbox.walls["cgroup"]
    assert {"memory", "pids", "cpu"} <= set(versions)
    for name in os.environ.get("SANDRUN_TEST_V1", "").split():
        assert versions[name] == "v1"


def test_each_limit_is_kept_and_seen(box: Box) -> None:
    ran = box.python(FORKS, tasks=8)
    assert "refused" in ran.text and ran.result.limits_hit == ("tasks",), ran
    ran = box.python("x = b'x' * (1 << 28)", memory_bytes=64 << 20)
    assert (ran.reason, ran.result.limits_hit) == ("memory", ("memory",)), ran
    assert ran.result.usage.memory_peak_bytes > 60 << 20
    ran = box.python("while True: pass", cpu_seconds=0.5)
    assert (ran.reason, ran.result.limits_hit) == ("cpu", ("cpu",)), ran
    assert 0.4e6 < ran.result.usage.cpu_usec < 3e6
    assert "Killed" not in ran.text
    assert box.sh("cat /proc/self/cgroup").text.count(":/\n") >= 1, "the root is our own cgroup"
