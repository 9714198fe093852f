"""Keeper: whoever dies, in whatever way, nothing of a job is left; and web gets no more than it
needs. The real processes, started as script/server starts them."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sandbox import key
from sandbox.channel import LAUNCHER_FD, SIGNER_FD
from sandbox.keeper import WORKER_KEY
from sandbox.model import WEB_UID
from tests.sandbox.box import REPOSITORY, job_processes, wait_until

pytestmark = pytest.mark.core
RUN = [sys.executable, "-I", "-m", "sandbox", "run"]
KEEPER = [sys.executable, "-I", "-m", "sandbox.keeper", "--"]
SLOW = 10.0 if "um" in os.uname().machine or Path("/proc/exitcode").exists() else 1.0


@contextmanager
def running(script: str, **env: str) -> Iterator[dict[str, int]]:
    """A job in the middle of its run; the pids of keeper, launcher, web and what else there is."""
    keeper = subprocess.Popen(
        [*RUN, "--", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **env},
    )  # fmt: skip
    pids = {"keeper": keeper.pid}
    try:
        assert wait_until(lambda: len(job_processes()) >= 3, 10 * SLOW), "the job did not start"
        for pid in _children(keeper.pid):
            pids["launcher" if _is_launcher(pid) else "signer" if _is_signer(pid) else "web"] = pid
        yield pids
    finally:
        # Whoever outlived the keeper, which some test is about to report, holds its pipes open.
        for pid in {keeper.pid, *pids.values()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        keeper.communicate(timeout=10)


def _is_launcher(pid: int) -> bool:
    return "sandbox.launcher" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def _is_signer(pid: int) -> bool:
    return "sandbox.signer" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def _children(parent: int) -> list[int]:
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if _parent_of(path) == parent
    ]


def _parent_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _cgroups(keeper: int) -> list[str]:
    return [path for path, _, _ in os.walk("/sys/fs/cgroup") if f"/sandrun-{keeper}-" in path + "/"]


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("victim", ["web", "launcher"])
def test_kill_9_of_one_process_leaves_nothing_of_the_job(victim: str) -> None:
    with running("sleep 1000 & sleep 1000") as pids:
        assert _cgroups(pids["keeper"])
        os.kill(pids[victim], signal.SIGKILL)
        assert wait_until(lambda: not job_processes(), 2 * SLOW)
        assert wait_until(lambda: not _cgroups(pids["keeper"]), 2 * SLOW)
        assert wait_until(lambda: all(map(_gone, pids.values())), 2 * SLOW)


@pytest.mark.parametrize("how", ["nonsense", "fault"])
def test_a_launcher_that_ends_while_it_serves_is_not_waited_for(how: str) -> None:
    """It was told nonsense, or, in the middle of a job, it can open nothing any more. The web here
    does not notice and goes on."""
    launch = b"x" if how == "nonsense" else b'{"op": "launch", "id": 1, "kind": "run"}'
    code = (
        "import os, socket, time\n"
        f"launcher = socket.socket(fileno=int(os.environ[{LAUNCHER_FD!r}]))\n"
        f"launcher.recv(65536); launcher.send({launch!r})\n"
        "held = socket.recv_fds(launcher, 65536, 9)  # or the job would end at once\n"
        "print('said', flush=True); time.sleep(60)"
    )
    keeper = subprocess.Popen(
        [*KEEPER, sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert keeper.stdout and keeper.stdout.readline() == b"said\n"
        if how == "fault":
            [launcher] = (pid for pid in _children(keeper.pid) if _is_launcher(pid))
            resource.prlimit(launcher, resource.RLIMIT_NOFILE, (3, 3))
        _, said = keeper.communicate(timeout=4 * SLOW)
        assert keeper.returncode == 1 and b"the launcher ended" in said
        assert not job_processes() and not _cgroups(keeper.pid)
    finally:
        keeper.kill()
        keeper.wait()


def test_web_has_time_to_say_why_the_launcher_could_not_start_until_a_signal_comes(
    tmp_path: Path,
) -> None:
    capability = tmp_path / "cap_last_cap"  # more than anybody knows: the launcher refuses
    capability.write_text("99\n")
    code = (
        "import os, socket, time; launcher = socket.socket(fileno=int(os.environ"
        f"[{LAUNCHER_FD!r}])); print(launcher.recv(65536).decode(), flush=True); time.sleep(60)"
    )
    mount = f"mount --bind {capability} /proc/sys/kernel/cap_last_cap"
    keeper = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "-",
         *KEEPER, sys.executable, "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert keeper.stdout
        assert json.loads(keeper.stdout.readline())["step"] == "privileges"
        with pytest.raises(subprocess.TimeoutExpired):
            keeper.wait(2 * SLOW)
        keeper.send_signal(signal.SIGTERM)
        keeper.communicate(timeout=4 * SLOW)
        assert keeper.returncode == 1
    finally:
        keeper.kill()
        keeper.wait()


def test_kill_9_of_the_keeper_leaves_what_the_next_start_removes() -> None:
    with running("sleep 1000 & sleep 1000") as pids:
        os.kill(pids["keeper"], signal.SIGKILL)
        assert wait_until(lambda: not job_processes(), 2 * SLOW)
        assert wait_until(lambda: all(map(_gone, pids.values())), 2 * SLOW)
        assert _cgroups(pids["keeper"]), "only root could have removed them, and root is dead"
    subprocess.run([*RUN, "--", "true"], check=True, capture_output=True)
    assert not _cgroups(pids["keeper"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_keeper_ends_everything_within_five_seconds(number: int) -> None:
    with running("trap '' TERM INT; sleep 1000 & sleep 1000; sleep 1000") as pids:
        started = time.monotonic()
        os.kill(pids["keeper"], number)
        assert wait_until(lambda: all(map(_gone, pids.values())), 5 * SLOW)
        assert time.monotonic() - started < 5 * SLOW
        assert not job_processes()
        assert not _cgroups(pids["keeper"])


def test_run_alone_prints_the_result_as_json() -> None:
    done = subprocess.run(
        [*RUN, "--memory-mb", "64", "--", "sh", "-c", "echo out; echo err >&2; echo f > f; exit 3"],
        capture_output=True, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert (answer["reason"], answer["exit_code"]) == ("exit", 3)
    assert (answer["stdout"], answer["stderr"]) == ("out\n", "err\n")
    assert answer["outputs"]["f"]["size"] == 2


def test_web_has_no_rights_and_its_own_tmp() -> None:
    show = (
        "import os; s = open('/proc/self/status').read(); print(s); print(os.listdir('/tmp'));"
        "print(os.statvfs('/tmp').f_blocks); print(sorted(os.environ)); print(os.getsid(0))"
    )
    env = {**os.environ, "SECRET_CANARY": "1"}
    done = subprocess.run(
        [*KEEPER, sys.executable, "-c", show], capture_output=True, check=True, env=env, text=True
    )
    lines = done.stdout.splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert set(fields["Uid"].split()) == {str(WEB_UID)} == set(fields["Gid"].split())
    assert not fields["Groups"].strip()
    sets = [fields[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
    assert sets == ["0" * 16] * 5
    assert fields["NoNewPrivs"] == "1"
    assert "SECRET_CANARY" not in done.stdout
    assert lines[-1] != str(os.getsid(0)), "Ctrl-C is the keeper's to pass on"


def test_a_repository_below_a_closed_folder_can_be_read_by_web(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    copy = closed / "deeper" / "repository with space"
    copy.mkdir(parents=True)
    subprocess.run(["cp", "-r", str(REPOSITORY / "sandbox"), str(copy)], check=True)
    (closed / "secret").write_text("secret")
    closed.chmod(0o700)
    start = (
        f"import sys; sys.path.insert(0, {str(copy)!r}); sys.argv[0] = 'keeper';"
        "from sandbox.keeper import main; main()"
    )
    show = (
        f"import os; print(len(open({str(copy / 'sandbox' / 'keeper.py')!r}).read()) > 1000);"
        f"print(os.listdir({str(closed)!r}), os.access({str(copy)!r}, os.W_OK))"
    )
    done = subprocess.run(
        [sys.executable, "-c", start, "--", sys.executable, "-c", show],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split("\n")[:2] == ["True", "['deeper'] False"], done


def test_the_exit_code_of_the_command_is_the_keepers() -> None:
    assert subprocess.run([*KEEPER, "/bin/sh", "-c", "exit 7"]).returncode == 7


def test_without_root_the_keeper_says_so() -> None:
    start = (
        "import os, sys; sys.argv[1:] = ['--', '/bin/true']; from sandbox import keeper;"
        f"os.setresuid({WEB_UID}, {WEB_UID}, {WEB_UID}); keeper.main()"
    )
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True)
    assert done.returncode == 1 and "sudo" in done.stderr


# --- with a worker key -------------------------------------------------------------------------


@pytest.fixture
def worker_key(tmp_path: Path) -> Path:
    path = tmp_path / "a folder" / "worker key.pem"
    path.parent.mkdir()
    key.make(str(path))
    return path


@pytest.mark.parametrize("victim", ["web", "launcher", "signer", "keeper"])
def test_with_a_key_too_the_end_of_one_is_the_end_of_all(victim: str, worker_key: Path) -> None:
    with running("sleep 1000 & sleep 1000", **{WORKER_KEY: str(worker_key)}) as pids:
        assert set(pids) == {"keeper", "launcher", "web", "signer"}
        os.kill(pids[victim], signal.SIGKILL)
        assert wait_until(lambda: not job_processes(), 4 * SLOW)
        assert wait_until(lambda: all(map(_gone, pids.values())), 4 * SLOW)
        if victim != "keeper":
            assert not _cgroups(pids["keeper"])
    subprocess.run([*RUN, "--", "true"], check=True, capture_output=True)  # removes a dead one's


def test_without_a_key_there_is_no_signer_and_nothing_that_names_one() -> None:
    with running("sleep 1000 & sleep 1000", **{SIGNER_FD: "9", WORKER_KEY: ""}) as pids:
        assert set(pids) == {"keeper", "launcher", "web"}
        environ = Path(f"/proc/{pids['web']}/environ").read_text()
        assert SIGNER_FD not in environ and WORKER_KEY not in environ


def test_the_keeper_that_loses_its_signer_says_so(worker_key: Path) -> None:
    code = (
        "import os, socket, time\n"
        f"launcher = socket.socket(fileno=int(os.environ[{LAUNCHER_FD!r}]))\n"
        "launcher.recv(65536); print('up', flush=True); time.sleep(60)"
    )
    keeper = subprocess.Popen(
        [*KEEPER, sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, WORKER_KEY: str(worker_key)},
    )  # fmt: skip
    try:
        assert keeper.stdout and keeper.stdout.readline() == b"up\n"
        [signer] = filter(_is_signer, _children(keeper.pid))
        os.kill(signer, signal.SIGKILL)
        _, said = keeper.communicate(timeout=10 * SLOW)
        assert keeper.returncode == 1
        assert said.endswith(b"sandrun: the signer ended; stopping\n")
    finally:
        keeper.kill()
        keeper.wait()


def test_with_a_bad_key_nothing_is_started_and_one_sentence_says_why(worker_key: Path) -> None:
    worker_key.chmod(0o640)
    code = f"open({str(worker_key.with_name('started'))!r}, 'w')"
    for path in (str(worker_key), f"{worker_key}.none"):
        done = subprocess.run(
            [*KEEPER, sys.executable, "-c", code], capture_output=True, text=True,
            env={**os.environ, WORKER_KEY: path},
        )  # fmt: skip
        assert done.returncode == 1 and not done.stdout
        assert done.stderr.startswith(f"sandrun: the worker key {path} ")
        assert len(done.stderr.splitlines()) == 1
    assert os.listdir(worker_key.parent) == [worker_key.name]


@pytest.mark.heavy
def test_neither_keeper_nor_web_nor_launcher_opens_the_key(worker_key: Path) -> None:
    """The path is told to nobody but the signer; it may be relative, and have spaces."""
    show = "import os; print(sorted(n for n in os.environ if n.startswith('SANDRUN')))"
    log = worker_key.with_name("calls")
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", log, "-e", "trace=%file",
         *KEEPER, sys.executable, "-c", show],
        capture_output=True, text=True, cwd=worker_key.parent,
        env={**os.environ, WORKER_KEY: worker_key.name},
    )  # fmt: skip
    assert done.stdout == f"['{LAUNCHER_FD}', '{SIGNER_FD}']\n", done
    calls = [line.split(None, 1) for line in log.read_text().splitlines()]
    [opened] = {pid for pid, call in calls if worker_key.name in call and "execve" not in call}
    [signer] = {pid for pid, call in calls if "sandbox.signer" in call}
    assert opened == signer


def _signers(keeper: int) -> list[int]:
    found = []
    for pid in _children(keeper):
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"sandbox.signer" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def test_a_signal_while_the_signer_starts_ends_the_keeper(worker_key: Path) -> None:
    """The signer stands still here from its first call on."""
    keeper = subprocess.Popen(
        [*KEEPER, "/bin/true"], env={**os.environ, WORKER_KEY: str(worker_key)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        # Not before its exec: until then the keeper stands still with it.
        assert wait_until(lambda: bool(_signers(keeper.pid)), 10 * SLOW)
        with suppress(ProcessLookupError):
            for pid in _signers(keeper.pid):
                os.kill(pid, signal.SIGSTOP)
        keeper.send_signal(signal.SIGTERM)
        keeper.communicate(timeout=10 * SLOW)
        assert not _children(keeper.pid)
    finally:
        keeper.kill()
        keeper.wait()
