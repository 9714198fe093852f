"""The sandbox on a kernel that has cgroup v2 only, whatever this machine has."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.uml import boot

REPOSITORY = Path(__file__).resolve().parents[2]
SUITE = "-m pytest -q -p no:cacheprovider"

pytestmark = pytest.mark.skipif(
    not boot.installed(), reason="needs linux.uml (Debian package user-mode-linux)"
)


def test_the_guest_has_a_real_cgroup_v2() -> None:
    code, output = boot.run(
        ["/usr/bin/python3", "-I", Path(__file__).with_name("kernel_probe.py")],
        cwd=REPOSITORY,
        timeout=180,
    )
    assert code == 0, output
    kernel = json.loads(output)

    assert {"cpu", "memory", "pids"} <= set(kernel["controllers"])
    assert {"cgroup.kill", "memory.peak", "memory.oom.group", "memory.swap.max"} <= set(
        kernel["cgroup_files"]
    )
    assert kernel["born_in_its_cgroup"] == {"outside": "0::/probe-born", "inside": "0::/"}
    killed = kernel["memory_kill"]
    assert (killed["status"], killed["oom_kill"]) == (signal.SIGKILL, 1)
    filled = kernel["files_count_as_memory"]
    assert (filled["status"], filled["oom_kill"]) == (signal.SIGKILL, 1)
    assert filled["left"] < filled["held"] / 4
    assert kernel["task_limit"] == {"fork": "EAGAIN", "max": 1}
    assert kernel["cpu_limit"]["nr_throttled"] > 0
    assert kernel["kill_all"] == {"status": signal.SIGKILL, "empty": True}
    assert kernel["identity"] == [1, 1000, 1000]
    assert kernel["no_more_user_namespaces"] == {"unshare": "ENOSPC", "host_unchanged": True}
    assert kernel["seccomp_filter"] == {"getppid": "ENOSYS", "getpgrp": signal.SIGSYS}
    assert kernel["tmpfs_handed_over"] == {"owner": 1000, "bytes": "ENOSPC", "inodes": "ENOSPC"}
    assert kernel["tmpfs_noswap"] in ("known", "EINVAL")  # EINVAL before Linux 6.4
    assert kernel["proc_of_its_own"]["names"] == ["1", "self", "thread-self"]
    assert "subset=pid" in kernel["proc_of_its_own"]["options"]


def tried(*words: str, timeout: float, **options: Any) -> str:
    """What pytest with these words printed in the guest, when tests passed and none failed."""
    code, output = boot.run(
        [sys.executable, *SUITE.split(), *words],
        cwd=REPOSITORY, readable=[Path(sys.prefix)], timeout=timeout, **options,
    )  # fmt: skip
    assert code == 0, output
    assert re.search(r"[1-9]\d* passed", output), output
    return output


def test_the_sandbox_suite_passes_on_cgroup_v2() -> None:
    output = tried("-m", "core and not heavy", "tests/sandbox", memory="1024M", timeout=1200)
    assert "skipped" not in output.strip().splitlines()[-1], output


@pytest.mark.parametrize("v1", [("memory",), ("pids",), ("memory", "pids")], ids="+".join)
def test_the_limits_hold_on_a_mixture_of_versions(v1: tuple[str, ...]) -> None:
    asked = {"SANDRUN_TEST_V1": " ".join(v1)}
    tried("tests/sandbox/test_mixture.py", environment=asked, timeout=300, v1=v1)


def test_a_delegated_scope_is_used_as_systemd_gives_it() -> None:
    scope = "/sys/fs/cgroup/system.slice/sandrun.scope"
    delegate = f"import os; os.setxattr({scope!r}, 'trusted.delegate', b'1')"
    script = (
        f'"$0" -c "{delegate}" && "$0" -m sandbox run -- true && '
        f"find {scope} -name 'sandrun-*' -path '*jobs*'"
    )
    code, output = boot.run(
        ["sh", "-c", script, sys.executable],
        cwd=REPOSITORY,
        readable=[Path(sys.prefix)],
        cgroup=scope.removeprefix("/sys/fs/cgroup/"),
    )
    assert code == 0, output
    answer = json.loads(output[: output.rindex("}") + 1])
    assert answer["reason"] == "exit" and answer["walls"]["cgroup"]["memory"] == "v2"
    assert "jobs" not in output[output.rindex("}") :], "cgroups are left"


def test_a_kernel_without_user_namespaces_is_refused_by_all_that_starts() -> None:
    words = ("tests/journeys/test_worlds.py", "-k", "user_namespaces")
    output = tried(*words, memory="1024M", timeout=600)
    assert "skipped" not in output, output


def test_a_line_is_heard_while_the_guest_runs(tmp_path: Path) -> None:
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        (tmp_path / "heard").touch()

    wait = f"echo begun; until [ -e {tmp_path}/heard ]; do sleep 0.1; done; printf end"
    code, output = boot.run(["sh", "-c", wait], writable=[tmp_path], timeout=30, on_line=hear)
    assert (code, output) == (0, "begun\nend")
    assert heard[0] == "begun"


SOME = {
    "test_holds.py": "def test_holds() -> None:\n    pass\n",
    "test_breaks.py": "def test_breaks() -> None:\n    raise AssertionError('on purpose')\n",
}


def test_the_named_run_fails_when_one_file_fails_and_when_nothing_ran(tmp_path: Path) -> None:
    for name, text in SOME.items():
        (tmp_path / name).write_text(text)

    def suite(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.uml.suite", *words],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    done = suite(tmp_path)
    assert done.returncode == 1, done
    assert "on purpose" in done.stdout
    assert re.search(r"FAILED .*test_breaks\.py: 1 failed", done.stdout), done.stdout
    assert re.search(r"ok .*test_holds\.py: 1 passed", done.stdout), done.stdout
    assert suite(tmp_path, "-k", "holds").returncode == 0
    assert suite(tmp_path, "-k", "nothing_of_that_name").returncode == 1


def test_a_guest_that_hangs_is_ended_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mark = "321M"  # on the command line of each of the guest's processes, and of no other guest's
    with pytest.raises(boot.GuestError, match="no end after"):
        boot.run(["sh", "-c", "echo begun; sleep 300 & sleep 300"], timeout=10, memory=mark)
    deadline = time.monotonic() + 5
    while (left := _processes(f"mem={mark}")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    assert not list(tmp_path.iterdir())


def _processes(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            pass
    return found
