"""Worlds that a server may find itself in: without cgroups, without user namespaces, without root.
It refuses with one sentence that names the remedy, or runs without the wall that its operator named
and says so to everybody. Real servers, in mount namespaces from which the cgroups were taken.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import conf
from sandbox.errors import SandboxError
from sandrun_site.wiring import open_site
from tests.journeys.server import REPOSITORY, Server
from tests.nobody import as_nobody
from tests.sandbox.box import Box

SERVER = [str(REPOSITORY / "script" / "server"), "--port", "0"]
RUN = [sys.executable, "-m", "sandbox", "run", "--", "echo", "ran"]
KEEPER = [sys.executable, "-m", "sandbox.keeper", "--", "/bin/echo", "ran"]
EVERY_COMMAND = pytest.mark.parametrize(
    "command", [SERVER, RUN, KEEPER], ids=["server", "run", "keeper"]
)
# A guest of tests/uml: what is switched off for its whole kernel is nobody else's.
IN_A_GUEST = Path("/proc/exitcode").exists()
SLOW = 10 if IN_A_GUEST else 1
MAX_USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")

_EACH = "awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts | while read -r each; do "
HIDDEN = {
    "taken away": "umount -R -l /sys/fs/cgroup",
    "covered": _EACH + "mount -t tmpfs none $each; done",
    "read-only": _EACH + "mount -o remount,bind,ro $each; done",
}


def without_cgroups(how: str) -> list[str]:
    """A prefix: the command behind it finds no cgroup that it could use."""
    return ["unshare", "-m", "sh", "-ec", f'{HIDDEN[how]}\nexec "$@"', "sh"]


def refusal(command: list[str], **env: str) -> str:
    """What `command` says when it does not start; nothing of it may have run."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=REPOSITORY,
        stdin=subprocess.DEVNULL, env={**os.environ, **env},
    )  # fmt: skip
    assert done.returncode == 1, done
    assert "ran" not in done.stdout.split() and "ready" not in done.stdout, done
    assert "Traceback" not in done.stderr, done.stderr
    sentences = done.stderr.strip().splitlines()
    assert len(sentences) == 1, done.stderr
    return sentences[0]


# --- no cgroups ------------------------------------------------------------------------------


@EVERY_COMMAND
def test_without_cgroups_nothing_starts_and_the_remedy_is_named(command: list[str]) -> None:
    sentence = refusal([*without_cgroups("taken away"), *command])
    assert "offers no cgroups" in sentence
    assert "mount -t cgroup2" in sentence and "SANDRUN_ALLOW_MISSING=cgroups" in sentence


@pytest.mark.parametrize("how", HIDDEN)
def test_cgroups_that_cannot_be_used_are_no_cgroups(how: str) -> None:
    assert "offers no cgroups" in refusal([*without_cgroups(how), *RUN])


def test_a_name_that_is_no_wall_is_refused_and_the_names_are_told() -> None:
    sentence = refusal(RUN, SANDRUN_ALLOW_MISSING="cgroups,seccomp")
    assert "'seccomp' is not one of cgroups, cgroup-memory, cgroup-pids, cgroup-cpu" in sentence


def test_what_is_allowed_to_be_missing_must_be_named_one_by_one() -> None:
    command = [*without_cgroups("taken away"), *RUN]
    sentence = refusal(command, SANDRUN_ALLOW_MISSING="cgroup-memory,cgroup-cpu")
    assert "no pids controller" in sentence and "SANDRUN_ALLOW_MISSING=cgroup-pids" in sentence


@pytest.fixture(scope="module")
def bare() -> Iterator[Server]:
    server = Server(
        "--no-quotas",
        prefix=without_cgroups("taken away"),
        env={"SANDRUN_ALLOW_MISSING": "cgroups"},
    )
    try:
        yield server
    finally:
        assert server.end() == 0, server.banner


MISSING = ["cgroup-memory", "cgroup-pids", "cgroup-cpu"]


def test_what_is_missing_shows_in_health_and_in_every_status(bare: Server) -> None:
    health = bare.get("/health")
    assert health["status"] == "healthy" and health["degraded"] == MISSING
    assert health["sandbox"]["cgroup"] == {"memory": "none", "pids": "none", "cpu": "none"}
    status, logs = bare.run({"main.py": b"print(6 * 7)"})
    assert (status["status"], logs["stdout"]) == ("completed", "42\n")
    assert status["walls_missing"] == MISSING


FORK_BOMB = b"""
import os, time
try:
    while True:
        os.fork() or time.sleep(60)
except OSError as error:
    print("refused", error.errno, flush=True)
time.sleep(60)
"""
EATER = b"""
import mmap, os, time
blocks = []
for _ in range(4):
    if os.fork() == 0:
        break
for _ in range(3):
    block = mmap.mmap(-1, 16 << 20)
    block.write(bytes(16 << 20))
    blocks.append(block)
    time.sleep(0.3)
time.sleep(60)
"""


def test_a_fork_bomb_ends_and_the_server_lives_on_without_cgroups(bare: Server) -> None:
    job = bare.start({"main.py": FORK_BOMB}, timeout=3 * SLOW)
    bare.wait_for_log(job, "refused 11", 3 * SLOW)
    started = time.monotonic()
    assert bare.get("/health")["status"] == "healthy"
    assert time.monotonic() - started < SLOW
    status = bare.finish(job)
    assert (status["status"], status["reason"]) == ("failed", "timeout")
    assert bare.run({"main.py": b"print(1)"})[1]["stdout"] == "1\n"


def test_a_memory_eater_ends_and_the_server_lives_on_without_cgroups(bare: Server) -> None:
    started = time.monotonic()
    status = bare.finish(bare.start({"main.py": EATER}, timeout=30, memory_mb=64))
    assert (status["status"], status["reason"]) == ("failed", "memory")
    assert status["limits_hit"] == ["memory"]
    assert time.monotonic() - started < 20 * SLOW
    assert bare.run({"main.py": b"print(1)"})[1]["stdout"] == "1\n"


def test_web_refuses_what_it_was_not_told_to_do_without() -> None:
    box = Box(without=("pids",))
    try:
        settings = conf.read({"allow_missing": ["cgroup-memory"]})
        with pytest.raises(SandboxError, match="cgroup-pids cannot be had"):
            box.wait(open_site(box.sandbox._launcher, settings, ()))
    finally:
        box.close()


def test_where_all_stands_the_setting_changes_nothing() -> None:
    server = Server("--no-quotas", env={"SANDRUN_ALLOW_MISSING": "cgroups"})
    try:
        health = server.get("/health")
        assert health["degraded"] == [] and "missing" not in health["sandbox"]
        assert set(health["sandbox"]["cgroup"].values()) <= {"v1", "v2"}
        assert "walls_missing" not in server.run({"main.py": b"print(1)"})[0]
    finally:
        assert server.end() == 0, server.banner


# --- no root ---------------------------------------------------------------------------------


@EVERY_COMMAND
def test_without_root_nothing_starts_and_the_remedy_is_named(command: list[str]) -> None:
    sentence = refusal([*as_nobody(), *command])
    assert "root" in sentence and "sudo" in sentence


@EVERY_COMMAND
def test_root_of_a_user_namespace_alone_is_not_enough(command: list[str]) -> None:
    sentence = refusal(["unshare", "--user", "--map-root-user", *command])
    assert "root" in sentence and "user namespace" in sentence


# --- no user namespaces ----------------------------------------------------------------------


@pytest.fixture
def no_user_namespaces() -> Iterator[None]:
    if not IN_A_GUEST:
        pytest.skip("switches them off for the whole machine: only on a guest kernel (tests/uml)")
    before = MAX_USER_NAMESPACES.read_text()
    MAX_USER_NAMESPACES.write_text("0")
    try:
        yield
    finally:
        MAX_USER_NAMESPACES.write_text(before)


def test_without_user_namespaces_no_server_starts(no_user_namespaces: None) -> None:
    sentence = refusal(SERVER)
    assert "clone" in sentence and "sysctl user.max_user_namespaces" in sentence


def test_without_user_namespaces_nothing_runs_alone(no_user_namespaces: None) -> None:
    done = subprocess.run(RUN, capture_output=True, text=True, timeout=120, cwd=REPOSITORY)
    assert done.returncode == 1 and '"step": "clone"' in done.stdout, done
    assert "sysctl user.max_user_namespaces" in done.stdout


@pytest.mark.skipif(not IN_A_GUEST, reason="switches them off for the whole machine")
def test_user_namespaces_that_go_while_a_server_runs_are_named_and_come_back(
    server: Server,
) -> None:
    before = MAX_USER_NAMESPACES.read_text()
    MAX_USER_NAMESPACES.write_text("0")
    try:
        status, _ = server.run({"main.py": b"print(1)"})
    finally:
        MAX_USER_NAMESPACES.write_text(before)
    assert (status["status"], status["reason"]) == ("failed", "sandbox_error")
    assert "step clone" in status["error"] and "user.max_user_namespaces" in status["error"]
    assert server.run({"main.py": b"print(1)"})[1]["stdout"] == "1\n"
