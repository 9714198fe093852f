"""CR-07, CR-13 and CR-20 to CR-29: the worker's key and the process that holds it. Each on a server
of its own with a key; the receipts themselves are tried elsewhere."""

import base64
import ctypes
import fcntl
import json
import mmap
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from sandbox import channel, key
from sandbox.model import MIB, SIGNER_UID, WEB_UID
from tests.attacks.arena import SESSION, Attacker
from tests.journeys.server import REPOSITORY, Server, cgroups_of, eventually
from tests.sandbox.signed import PAE, Signer, places, secret_of, status

SERVER = str(REPOSITORY / "script" / "server")
NEEDED = ("keeper", "launcher", "web", "signer")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a key lies: not below /tmp, of which web and jobs have their own."""
    path = Path(tempfile.mkdtemp(prefix=f"{SESSION}-key-", dir="/run"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "worker.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    return path


@contextmanager
def signing(file: Path, code: int = 0) -> Iterator[Server]:
    """A server that signs with `file`; it prints nothing meanwhile and ends with `code`."""
    server = Server("--worker-key", str(file))
    keeper, said = server.pids()["keeper"], server.banner
    try:
        yield server
    finally:
        assert server.end() == code, server.banner
    assert server.banner == said or code, "it printed something"
    assert not cgroups_of(keeper)  # and so no process of a job


def started(file: Path) -> "subprocess.CompletedProcess[str]":
    """What becomes of a server that must not start with `file`."""
    begun = time.monotonic()
    done = subprocess.run(
        [SERVER, "--port", "0", "--worker-key", str(file)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert time.monotonic() - begun < 20, "nothing is waited for"
    assert done.returncode == 1 and not done.stdout, done
    assert len(done.stderr.splitlines()) == 1 and str(file) in done.stderr, done
    return done


def is_signed(server: Server, status: dict[str, Any], by: str) -> bool:
    """Whether the receipt of a job that is over is good; a wrong signature is an error."""
    envelope = json.loads(server.request("GET", f"/receipt/{status['job_id']}")[1])
    payload = base64.b64decode(envelope["payload"])
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    VerifyKey(base64.b64decode(by)).verify(PAE % (len(payload), payload), signature)
    return json.loads(payload)["predicate"]["worker"] == by


def id_of(file: Path) -> str:
    der = ["openssl", "pkey", "-in", str(file), "-pubout", "-outform", "DER"]
    return base64.b64encode(
        subprocess.run(der, check=True, capture_output=True).stdout[-32:]
    ).decode()


# --- the file ----------------------------------------------------------------------------------


def test_a_key_is_made_for_its_owner_alone_and_over_nothing(folder: Path) -> None:
    """CR-07. A umask that forbids nothing, a file, a folder, links and a full disk in the way."""
    made = folder / "made"
    done = subprocess.run([SERVER, "--generate-key", made], umask=0, capture_output=True)
    assert done.returncode == 0 and id_of(made).encode() in done.stdout
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    before = made.read_bytes()
    (folder / "folder").mkdir()
    (folder / "link").symlink_to(made)
    (folder / "dangling").symlink_to(folder / "victim")
    for name in ("made", "folder", "link", "dangling", "none/key"):
        done = subprocess.run([SERVER, "--generate-key", folder / name], capture_output=True)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done
    assert made.read_bytes() == before and not (folder / "victim").exists()
    full = 'mount -t tmpfs -o size=4k full "$1" && head -c 4096 /dev/zero >"$1/x"; "$0" '
    full += '--generate-key "$1/key"; echo $?; ls "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", full, SERVER, folder], capture_output=True
    )
    assert done.stdout.split() == [b"1", b"x"], done


def spoiled() -> dict[str, Callable[[Path], object]]:
    def other(file: Path, do: Callable[[Path], object]) -> None:
        file.unlink()
        do(file)

    return {
        "readable by the group": lambda file: file.chmod(0o640),
        "readable by all": lambda file: file.chmod(0o604),
        "writable by others": lambda file: file.chmod(0o602),
        "another's": lambda file: os.chown(file, 65534, 65534),
        "web's own": lambda file: os.chown(file, WEB_UID, WEB_UID),
        "a FIFO": lambda file: other(file, lambda path: os.mkfifo(path, 0o600)),
        "a folder": lambda file: other(file, Path.mkdir),
        "a device": lambda file: other(
            file, lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
        ),
        "a link": lambda file: other(file, lambda path: path.symlink_to("/etc/hostname")),
        "nothing": lambda file: file.unlink(),
        "empty": lambda file: os.truncate(file, 0),
        "cut off": lambda file: os.truncate(file, 100),
        "endless": lambda file: os.truncate(file, 1 << 40),
        "a program's": lambda file: file.write_bytes(b"\x7fELF" + bytes(200)),
    }


@pytest.mark.parametrize("how", spoiled())
def test_with_a_file_that_is_no_safe_key_no_server_starts(file: Path, how: str) -> None:
    """CR-07, CR-20. Also what would be waited for, or never ends."""
    spoiled()[how](file)
    started(file)


def test_who_may_write_to_the_folder_of_the_key_can_put_no_key_there(file: Path) -> None:
    """CR-21. Their own, a link to root's other key, and a second name of it."""
    folder, other = file.parent, file.with_name("other.key")
    shutil.copy(file, other)
    folder.chmod(0o777)
    for steps in (
        "os.unlink(key); open(key, 'wb').write(sys.stdin.buffer.read()); os.chmod(key, 0o600)",
        "os.unlink(key); os.symlink(other, key)",
    ):
        code = f"import os, sys; key, other = {str(file)!r}, {str(other)!r}\n{steps}"
        become = {"user": 65534, "group": 65534, "extra_groups": []}
        subprocess.run(
            ["/usr/bin/python3", "-c", code], input=other.read_bytes(), check=True, **become
        )  # type: ignore[call-overload]
        started(file)
    file.unlink()
    os.link(other, file)  # as a kernel without fs.protected_hardlinks lets them
    started(file)


def test_what_becomes_of_the_file_later_changes_nothing_for_the_server_that_runs(
    file: Path,
) -> None:
    """CR-22. Opened to others, replaced, emptied and removed."""
    id = id_of(file)
    with signing(file) as server:
        for change in (
            lambda: file.chmod(0o666),
            lambda: file.write_bytes(b"other"),
            lambda: file.unlink(),
            lambda: key.make(str(file)),
        ):
            change()
            status, _ = server.run({"main.py": b"print(1)"})
            assert is_signed(server, status, id)
            assert server.get("/health")["worker_id"] == id
    assert id_of(file) != id
    with signing(file) as server:
        assert server.get("/health")["worker_id"] == id_of(file)


# --- where the key is --------------------------------------------------------------------------


def test_the_key_is_in_the_memory_of_the_signer_and_of_nobody_else(file: Path) -> None:
    """CR-13. Memory, environment, arguments and descriptors of every process, running jobs too, and
    what the server printed: at once, after jobs, after a failure to sign, and after a crash."""
    secret = secret_of(file)
    with signing(file, code=1) as server:
        pids = server.pids()
        assert set(pids) == set(NEEDED)
        attacker = Attacker(server)
        _look(server, pids, secret)
        attacker.sh("echo out > out; exit 3")
        attacker.sh("sleep 9", timeout=1)
        with attacker.held() as held:
            _look(server, pids | {f"job {pid}": pid for pid in held.pids()}, secret)
        os.kill(pids["signer"], signal.SIGSTOP)
        assert attacker.sh("true").reason == "sandbox_error"
        os.kill(pids["signer"], signal.SIGCONT)
        attacker.sh("true")
        _look(server, pids, secret)
        cores = set(os.listdir("/"))
        os.kill(pids["signer"], signal.SIGABRT)
        assert server.process.wait(20) == 1
    assert "the signer ended" in server.banner and "Traceback" not in server.banner
    assert set(os.listdir("/")) == cores, "a core, in the folder that the server was started in"
    assert not any(shape in server.banner.encode() for shape in secret.shapes())


def _look(server: Server, pids: dict[str, int], secret: Any) -> None:
    for name, pid in pids.items():
        found = places(pid, secret)
        assert bool(found) == (name == "signer"), (name, found)
        proc = Path(f"/proc/{pid}")
        shown = b"".join((proc / part).read_bytes() for part in ("environ", "cmdline", "stat"))
        for fd in os.listdir(proc / "fd"):
            link = os.readlink(proc / "fd" / fd)
            if "memfd:" in link:
                shown += (proc / "fd" / fd).read_bytes()
            assert name == "signer" or "worker.key" not in link
        assert not any(shape in shown for shape in secret.shapes()), name


def test_a_job_neither_sees_nor_reaches_the_signer_nor_reads_its_file(file: Path) -> None:
    """CR-23. By its pid, its uid, its file, its socket, and by what a job may become."""
    with signing(file) as server:
        signer = server.pids()["signer"]
        seen = Attacker(server).python(
            f"""
PID, FILE = {signer}, {str(file)!r}
found = [name for name in os.listdir("/proc") if name.isdigit() and int(name) == PID]
found += [] if tried(os.kill, PID, 0) == "ESRCH" else ["kill"]
found += [] if tried(os.pidfd_open, PID) != "ok" else ["pidfd"]
found += [] if call(101, 16, PID, 0, 0) != "ok" else ["ptrace"]
found += [] if call(310, PID, 0, 0, 0, 0, 0) != "ok" else ["process_vm_readv"]
found += [] if call(312, os.getpid(), PID, 0, 0, 0) != "ok" else ["kcmp"]
found += [] if tried(os.setresuid, {SIGNER_UID}, {SIGNER_UID}, {SIGNER_UID}) != "ok" else ["uid"]
for path in (FILE, "/proc/1/root" + FILE, f"/proc/{{PID}}/mem", "../" * 20 + FILE):
    found += [] if tried(open, path, "rb") != "ok" else [path]
say(found)
"""
        )
        assert seen.said == []
        assert is_signed(server, seen.status, id_of(file))


def test_web_may_talk_to_the_signer_and_nothing_else(file: Path) -> None:
    """CR-24. As web's uid, as which everything that breaks out of web would run: its memory, its
    descriptors, tracing, signals, and the file. And from web's own place."""
    with signing(file) as server:
        pids = server.pids()
        code = f"""
import ctypes, os
libc, PID, found = ctypes.CDLL(None, use_errno=True), {pids["signer"]}, []
for name in ("mem", "maps", "environ", "syscall", "stack", "fd", "root", "cwd", "exe", "ns/net"):
    try:
        path = f"/proc/{{PID}}/{{name}}"
        os.readlink(path) if name not in ("mem", "maps", "environ") else open(path, "rb").read(1)
        found.append(name)
    except OSError: pass
for number in (0, 9, 15, 19):
    try: os.kill(PID, number); found.append(f"kill {{number}}")
    except OSError: pass
if libc.ptrace(16, PID, 0, 0) == 0: found.append("ptrace")
for fd in range(10):
    if libc.syscall(438, os.pidfd_open(PID), fd, 0) >= 0: found.append("pidfd_getfd")
for path in ({str(file)!r},):
    try: open(path); found.append(path)
    except OSError: pass
print(found)
"""
        where = ["nsenter", "--target", str(pids["web"]), "--mount"]
        # setpriv comes from outside: web's uid, no capabilities, as web is.
        become = ["setpriv", "--reuid", str(WEB_UID), "--regid", str(WEB_UID), "--clear-groups",
                  "--inh-caps", "-all", "--bounding-set", "-all"]  # fmt: skip
        for prefix in ([], where):
            done = subprocess.run(
                [*prefix, *become, "/usr/bin/python3", "-c", code], capture_output=True, text=True
            )
            assert done.stdout == "[]\n", done
        assert status(pids["signer"])["State"].startswith("S")
        assert is_signed(server, server.run({"main.py": b"1"})[0], id_of(file))


# --- the process -------------------------------------------------------------------------------


def test_while_the_signer_stands_still_no_job_ends_unsigned(file: Path) -> None:
    """CR-25. They fail as ours, /health answers at once, and later ones are signed again."""
    with signing(file) as server:
        signer = server.pids()["signer"]
        attacker = Attacker(server)
        os.kill(signer, signal.SIGSTOP)
        for job in [attacker.start({"run.sh": b"echo 1 > out"}) for _ in range(2)]:
            begun = time.monotonic()
            assert server.get("/health")["worker_id"] == id_of(file)
            assert time.monotonic() - begun < 1
            over = attacker.finish(job).status
            assert (over["status"], over["reason"]) == ("failed", "sandbox_error")
            assert over["worker_metadata"] is None or not over["worker_metadata"]["signature"]
            assert not over["output_files"]
            assert server.request("GET", f"/receipt/{job}")[0] == 404
        os.kill(signer, signal.SIGCONT)
        assert is_signed(server, attacker.sh("true").status, id_of(file))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_without_its_signer_a_server_stops_with_all_jobs(file: Path, number: int) -> None:
    """CR-26. Nothing is served unsigned, nothing is left, and it says why."""
    with signing(file, code=1) as server:
        server.wait_for_log(server.start({"run.sh": b"echo up; sleep 50"}), "up")
        os.kill(server.pids()["signer"], number)
        assert server.process.wait(20) == 1
    assert server.banner.endswith("sandrun: the signer ended; stopping\n")


def test_web_can_make_the_signer_neither_grow_nor_sign_what_still_changes(file: Path) -> None:
    """CR-27. Writable behind its back, grown meanwhile, too large, two at once, a hundred thousand
    messages; whatever ends the signer ends it alone, and quickly."""
    with Signer(file) as one:
        before = int(status(one.pid)["VmRSS"].split()[0])
        fd = channel.new_memfd("statement")
        os.write(fd, b"{}")
        shared = mmap.mmap(fd, 2)  # we can still write: the kernel refuses the seal,
        with pytest.raises(OSError):
            fcntl.fcntl(fd, 1033, channel.SEALS)
        fcntl.fcntl(fd, 1033, 0x1 | 0x2 | 0x4 | 0x10)  # but not that against later writers
        assert "not sealed" in one.ask(fd)["why"]
        shared.close()
        os.close(fd)
        fd = channel.new_memfd("statement")
        over = threading.Event()
        grower = threading.Thread(target=_grow, args=(fd, over))
        grower.start()
        for _ in range(100):
            assert one.ask(fd)["op"] == "refused"
        over.set()
        grower.join()
        os.close(fd)
        fd = channel.new_memfd("statement")
        os.ftruncate(fd, 1 << 40)  # takes no memory, here
        channel.seal(fd)
        assert "larger" in one.ask(fd)["why"]
        os.close(fd)
        fd = channel.memfd("statement", b"{}")
        for id in range(100_000):
            assert one.ask(fd, id)["id"] == id
        assert int(status(one.pid)["VmRSS"].split()[0]) <= before + 1024
        assert len(os.listdir(f"/proc/{one.pid}/fd")) == 2
        channel.send(one.end, {"op": "sign", "id": 1}, (fd, fd))
        os.close(fd)
        assert one.is_ended()


def _grow(fd: int, over: threading.Event) -> None:
    while not over.is_set():
        os.ftruncate(fd, 2 * MIB)
        os.ftruncate(fd, 2)


def test_whatever_is_sent_to_the_signer_it_signs_receipts_only(file: Path) -> None:
    """CR-28. A challenge, another type, a PAE and a receipt of another version as the statement:
    none of it can be taken for what it is not."""
    challenges: list[bytes] = [
        os.urandom(32),
        b"DSSEv1 4 text 2 {}",
        PAE % (2, b"{}"),
        b"sandrun-health-v1\0" + bytes(32),
    ]
    with Signer(file) as one:
        public = VerifyKey(one.public)
        for raw in challenges:
            signature = one.signature(raw)
            with pytest.raises(BadSignatureError):
                public.verify(raw, signature)
            for kind in (b"text/plain", b"application/json", b"application/vnd.in-toto+jso"):
                other = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(raw), raw)
                with pytest.raises(BadSignatureError):
                    public.verify(other, signature)
        for field in ({"type": "text/plain"}, {"raw": True}, {"public": "x"}):
            with Signer(file) as asked:
                fd = channel.memfd("statement", b"{}")
                channel.send(asked.end, {"op": "sign", "id": 1, **field}, (fd,))
                os.close(fd)
                assert asked.is_ended()


def test_the_keepers_death_leaves_no_signer_that_somebody_could_still_ask(file: Path) -> None:
    """CR-29. Killed with -9, while somebody else holds web's end of the socket."""
    server = Server("--worker-key", str(file))
    pids = server.pids()
    libc = ctypes.CDLL(None, use_errno=True)
    web = os.pidfd_open(pids["web"])
    ends = [
        libc.syscall(438, web, int(fd), 0)
        for fd in os.listdir(f"/proc/{pids['web']}/fd")
        if os.readlink(f"/proc/{pids['web']}/fd/{fd}").startswith("socket:")
    ]
    assert len(ends) >= 2 and min(ends) > 2
    server.process.kill()
    try:
        assert eventually(lambda: not Path(f"/proc/{pids['signer']}").exists(), 10)
        assert eventually(lambda: not Path(f"/proc/{pids['web']}").exists(), 10)
    finally:
        for fd in (web, *ends):
            os.close(fd)
        server.process.communicate(timeout=10)
        # What a keeper killed so has left is removed by the next one.
        again = [sys.executable, "-I", "-m", "sandbox", "run", "--", "true"]
        subprocess.run(again, check=True, capture_output=True)
    assert not cgroups_of(pids["keeper"])
