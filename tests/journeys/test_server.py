"""The server as a thing that is started, stopped and killed."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.journeys.server import REPOSITORY, Server, eventually
from tests.sandbox.box import job_processes

SLEEPER = {"main.py": b"import time; print('up', flush=True); time.sleep(1000)"}


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _cgroups(keeper: int) -> list[str]:
    return [p for p, _, _ in os.walk("/sys/fs/cgroup") if f"/sandrun-{keeper}-" in p + "/"]


def _with_a_job() -> tuple[Server, dict[str, int]]:
    server = Server("--no-quotas")
    server.wait_for_log(server.start(SLEEPER, entrypoint="main.py"), "up")
    return server, server.pids()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_within_five_seconds(number: int) -> None:
    server, pids = _with_a_job()
    started = time.monotonic()
    assert server.end(number) == 0, server.banner
    assert time.monotonic() - started < 5
    assert not job_processes()
    assert not _cgroups(pids["keeper"])
    assert all(map(_gone, pids.values()))


@pytest.mark.parametrize("victim", ["web", "launcher", "keeper"])
def test_kill_9_leaves_nothing_running(victim: str) -> None:
    server, pids = _with_a_job()
    mounts = Path("/proc/self/mountinfo").read_text()
    os.kill(pids[victim], signal.SIGKILL)
    assert eventually(lambda: not job_processes(), 2.0)
    assert eventually(lambda: all(map(_gone, pids.values())), 2.0), pids
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert server.end() != 0
    if victim == "keeper":
        assert Server("--no-quotas").end() == 0  # removes what only root can
    assert not _cgroups(pids["keeper"])


def test_started_again_it_is_up_in_three_seconds_without_a_network() -> None:
    inner = 'ip link set lo up 2>/dev/null; exec "$0" "$@"'
    started = time.monotonic()
    server = Server(prefix=["unshare", "--net", "sh", "-c", inner])
    took = time.monotonic() - started
    assert server.end() == 0, server.banner
    assert took < 3, f"took {took:.2f} s"


def test_it_says_what_to_try_next() -> None:
    server = Server()
    server.end()
    assert "curl" in server.banner and "/submit" in server.banner
    assert len(server.banner.splitlines()) < 15


def test_a_taken_port_is_a_sentence() -> None:
    server = Server()
    try:
        again = subprocess.run(
            [str(REPOSITORY / "script" / "server"), "--port", str(server.port)],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        assert again.returncode == 1
        assert "Traceback" not in again.stderr + again.stdout
        assert str(server.port) in again.stderr + again.stdout
    finally:
        server.end()


def test_it_works_below_a_folder_that_only_its_owner_may_enter(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    copy = closed / "sandrun"
    skipped = shutil.ignore_patterns(
        ".git", "__pycache__", ".mypy_cache", ".ruff_cache", ".*_cache"
    )
    shutil.copytree(REPOSITORY, copy, ignore=skipped, symlinks=True)
    # The copied environment names the old place; only the packages in it are of use.
    (copy / ".venv" / "made-for").write_text(f"{copy} {os.path.realpath('/usr/bin/python3')}\n")
    for site in (copy / ".venv").glob("lib/python3*/site-packages"):
        (site / "sandrun.pth").write_text(f"{copy}\n")
    server = Server("--no-quotas", repository=copy)
    try:
        status, logs = server.run(
            {"main.py": b"print('from a closed place')"}, entrypoint="main.py"
        )
        assert (status["status"], logs["stdout"]) == ("completed", "from a closed place\n"), status
        web = server.pids()["web"]
        assert str(copy) in Path(f"/proc/{web}/mountinfo").read_text()
    finally:
        assert server.end() == 0, server.banner


def test_web_and_launcher_hold_what_they_need_and_no_more() -> None:
    server = Server()
    try:
        pids = server.pids()
        web = Path(f"/proc/{pids['web']}/status").read_text()
        assert "NoNewPrivs:\t1" in web and "CapEff:\t0000000000000000" in web
        assert "Uid:\t0" not in web
        root = sorted(os.listdir(f"/proc/{pids['launcher']}/root/"))
        assert set(root) <= {"bin", "dev", "etc", "job", "lib", "lib32", "lib64", "libx32", "proc",
                             "sbin", "tmp", "usr", "var"}  # fmt: skip
        launcher = Path(f"/proc/{pids['launcher']}/maps").read_text()
        assert "django" not in launcher and "twisted" not in launcher
    finally:
        server.end()


def test_options_are_what_help_says_and_nothing_else_is_taken() -> None:
    for options, word in (
        (["--prot", "1"], "unknown option '--prot'"),
        (["--trust-proxy"], "needs a value"),
        (["--trust-proxy", "10.0.0.0/8 --host 0.0.0.0"], "is neither a network nor an origin"),
        (["--allow-origin=https://x;id"], "is neither a network nor an origin"),
    ):
        done = subprocess.run(
            [str(REPOSITORY / "script" / "server"), *options],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        assert (done.returncode, word in done.stderr) == (2, True), done.stderr


def test_a_trusted_proxy_speaks_for_its_clients_and_an_invited_site_is_let_in() -> None:
    options = ["--trust-proxy", "127.0.0.0/8", "--allow-origin=https://play.example"]
    server = Server(*options)
    try:
        busy = "/run?wait=0"
        for client, status in (("a", 202), ("a", 202), ("a", 429), ("b", 202)):
            address = {"a": "203.0.113.1", "b": "203.0.113.2"}[client]
            headers = {"X-Forwarded-For": f"6.6.6.6, {address}", "Origin": "https://play.example"}
            answer = server.request("POST", busy, b"import time; time.sleep(9)", **headers)
            assert answer[0] == status, (client, answer)
            assert answer[2]["access-control-allow-origin"] == "https://play.example"
        refused, _, _ = server.request("POST", busy, b"1", Origin="https://evil.example")
        assert refused == 403
    finally:
        assert server.end() == 0, server.banner
