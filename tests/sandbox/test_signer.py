"""The signer: each of its walls as the machine shows it, each of its steps failing, and everything
that a web which was taken over could send it. The real process and the real kernel."""

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nacl import bindings

from sandbox import channel, key, signer
from sandbox.model import MIB, SIGNER_UID, WEB_UID
from tests.sandbox.faulty_signer import CALLS
from tests.sandbox.signed import (
    MAPPING,
    PAE,
    SIGNER,
    Signer,
    memfd_with,
    name_of,
    places,
    secret_of,
    status,
)

FAULTY = [sys.executable, "-m", "tests.sandbox.faulty_signer"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "worker.key"
    key.make(str(path))
    return path


def as_uid(uid: int, code: str) -> "subprocess.CompletedProcess[str]":
    become = f"import os; os.setgroups([]); os.setresgid({uid},{uid},{uid}); " + (
        f"os.setresuid({uid},{uid},{uid})\n"
    )
    return subprocess.run(["/usr/bin/python3", "-c", become + code], capture_output=True, text=True)


# --- what it signs -----------------------------------------------------------------------------


@pytest.mark.core  # a kernel without a clock in user space needs a call more
@pytest.mark.parametrize("statement", [b"{}", b"", b"\0" * 70_000, b"x" * MIB])
def test_what_it_signs_is_the_pae_of_an_in_toto_statement(file: Path, statement: bytes) -> None:
    with Signer(file) as one:
        assert one.signs(statement)


def test_openssl_verifies_its_signature(file: Path, tmp_path: Path) -> None:
    with Signer(file) as one:
        (tmp_path / "signature").write_bytes(one.signature(b"{}"))
    (tmp_path / "signed").write_bytes(PAE % (2, b"{}"))
    done = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-inkey", str(file), "-rawin",
         "-in", "signed", "-sigfile", "signature"], cwd=tmp_path, capture_output=True,
    )  # fmt: skip
    assert b"Verified Successfully" in done.stdout, done


def test_no_statement_makes_it_sign_anything_else(file: Path) -> None:
    """What is signed begins with the type whatever is sent: also for a statement that is a PAE."""
    with Signer(file) as one:
        for statement in (PAE % (2, b"{}"), b"challenge", b"DSSEv1 4 text 2 {}"):
            signature = one.signature(statement)
            with pytest.raises(Exception, match="[Ff]orged"):
                bindings.crypto_sign_open(signature + statement, one.public)


def test_a_statement_of_the_largest_size_is_signed_and_a_byte_more_refused(file: Path) -> None:
    with Signer(file) as one:
        fd = memfd_with(signer.MOST_BYTES)
        assert one.ask(fd)["op"] == "signed"
        os.close(fd)
        fd = memfd_with(signer.MOST_BYTES + 1)
        assert one.ask(fd) == {
            "op": "refused", "id": 1, "why": "The statement is larger than 67108864 bytes."
        }  # fmt: skip
        os.close(fd)
        assert one.signs(b"{}")


@pytest.mark.parametrize("seals", [0, 1, 2, 4, 8, 7, 11, 13, 14])
def test_a_memfd_that_could_still_change_is_refused(file: Path, seals: int) -> None:
    with Signer(file) as one:
        fd = memfd_with(10, seals)
        answer = one.ask(fd, 7)
        os.close(fd)
        assert (answer["op"], answer["id"]) == ("refused", 7) and "not sealed" in answer["why"]
        assert one.signs(b"{}")


def test_what_is_no_memfd_is_refused_and_not_read(file: Path) -> None:
    ends = socket.socketpair()
    read, write = os.pipe()
    plain = os.open(file, os.O_RDONLY)
    with Signer(file) as one:
        for fd in (read, write, plain, ends[0].fileno(), os.open("/", os.O_PATH)):
            answer = one.ask(fd)
            assert answer["op"] == "refused" and "memfd" in answer["why"]
            os.close(fd) if fd != ends[0].fileno() else ends[0].close()
        assert one.signs(b"{}")
    ends[1].close()


BAD_PACKETS = {
    "no JSON": b"sign",
    "no object": b"[]",
    "nothing": b"{}",
    "deep": b"[" * 60_000,
    "too long": b'{"op": "sign", "id": 1, "more": "' + b"x" * 70_000 + b'"}',
    "another op": b'{"op": "raw", "id": 1}',
    "no op": b'{"id": 1}',
    "no id": b'{"op": "sign"}',
    "a field more": b'{"op": "sign", "id": 1, "type": "text/plain"}',
    "an id that is true": b'{"op": "sign", "id": true}',
    "an id that is a text": b'{"op": "sign", "id": "1"}',
    "an id that is a fraction": b'{"op": "sign", "id": 1.0}',
    "an id below 0": b'{"op": "sign", "id": -1}',
    "an id that no JSON reader has": b'{"op": "sign", "id": 9007199254740992}',
    "an id of many digits": b'{"op": "sign", "id": ' + b"9" * 5000 + b"}",
    "no UTF-8": b'\xff\xfe{"op": "sign", "id": 1}',
}


@pytest.mark.parametrize("packet", BAD_PACKETS.values(), ids=BAD_PACKETS)
def test_nonsense_ends_it_without_a_word(file: Path, packet: bytes) -> None:
    with Signer(file) as one:
        fd = memfd_with(2)
        one.end.sendmsg(
            [packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, "little"))]
        )
        os.close(fd)
        assert one.is_ended()
        assert one.close() == (0, "")


@pytest.mark.parametrize("count", [0, 2, 6, 7, 200])
def test_a_question_with_another_number_of_descriptors_ends_it(file: Path, count: int) -> None:
    with Signer(file) as one:
        fd = memfd_with(2)
        socket.send_fds(one.end, [b'{"op": "sign", "id": 1}'], [fd] * count)
        os.close(fd)
        assert one.is_ended()
        assert one.close() == (0, "")


def test_after_a_hundred_thousand_questions_it_is_as_small_as_before(file: Path) -> None:
    with Signer(file) as one:
        fd = memfd_with(100)
        for _ in range(100):
            one.ask(fd)
        before = status(one.pid)
        for id in range(100_000):
            assert one.ask(fd, id)["id"] == id
        after = status(one.pid)
        assert len(os.listdir(f"/proc/{one.pid}/fd")) == 2
        assert int(after["VmRSS"].split()[0]) <= int(before["VmRSS"].split()[0]) + 512
        assert int(after["Threads"]) == 1
        os.close(fd)


# --- its walls ---------------------------------------------------------------------------------


def test_it_is_nobody_without_any_right(file: Path) -> None:
    with Signer(file) as one:
        shown = status(one.pid)
        assert set(shown["Uid"].split()) == {str(SIGNER_UID)} == set(shown["Gid"].split())
        assert not shown["Groups"]
        assert [shown[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")] == [
            "0" * 16
        ] * 5
        assert (shown["NoNewPrivs"], shown["Seccomp"], shown["Seccomp_filters"]) == ("1", "2", "1")
        assert os.getsid(one.pid) == one.pid
    assert SIGNER_UID not in (0, WEB_UID)


def test_it_holds_nothing_but_its_end_and_stderr_in_an_empty_root_without_a_network(
    file: Path,
) -> None:
    with Signer(file) as one:
        proc = Path(f"/proc/{one.pid}")
        held = sorted(os.readlink(proc / "fd" / fd) for fd in os.listdir(proc / "fd"))
        assert [name.split(":")[0] for name in held] == ["pipe", "socket"]
        assert os.listdir(proc / "root") == [] and os.readlink(proc / "cwd") == "/"
        mounts = (proc / "mountinfo").read_text().splitlines()
        assert len(mounts) == 1 and " ro," in mounts[0]
        interfaces = (proc / "net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
        for kind in ("mnt", "net", "ipc", "uts"):
            assert os.readlink(proc / "ns" / kind) != os.readlink(f"/proc/self/ns/{kind}")


def test_it_can_dump_no_core_and_has_small_limits(file: Path, tmp_path: Path) -> None:
    with Signer(file) as one:
        limits = Path(f"/proc/{one.pid}/limits").read_text()
        rows = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
        assert rows["Max core file size"] == ["1", "1"]
        assert rows["Max open files"] == ["16", "16"]
        assert rows["Max processes"] == ["0", "0"]
        os.kill(one.pid, signal.SIGABRT)
        _, code = os.waitpid(one.pid, 0)
        assert os.WTERMSIG(code) == signal.SIGABRT and not os.WCOREDUMP(code)
        one.process.returncode = -signal.SIGABRT  # collected here


def test_wherever_the_key_is_in_its_memory_that_memory_is_locked(file: Path) -> None:
    secret = secret_of(file)
    with Signer(file) as one:
        assert one.signs(b"{}")
        found = places(one.pid, secret)
        assert found, "the search finds what is there"
        flags = _flags(one.pid)
        assert all("lo" in flags[place] for place in found), found


def _flags(pid: int) -> dict[str, list[str]]:
    """VmFlags of every mapping, by its name as `places` has it."""
    found, place = {}, ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line.startswith("VmFlags:"):
            found[place] = line.split()[1:]
        elif row := MAPPING.match(line):
            place = name_of(row)
    return found


@pytest.mark.parametrize("program", [SIGNER, [*FAULTY, "machine", "dumpable"]])
@pytest.mark.parametrize("uid", [SIGNER_UID, WEB_UID, 65534])
def test_nobody_but_root_can_look_into_it_not_even_its_own_uid(
    file: Path, uid: int, program: list[str]
) -> None:
    look = """
import ctypes
for name in ("mem", "maps", "environ", "fd", "root", "syscall", "stack"):
    try:
        path = f"/proc/PID/{name}"
        os.listdir(path) if name in ("fd", "root") else open(path, "rb").read(1)
        print(name)
    except OSError: pass
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(16, PID, 0, 0) == 0: print("ptrace")
one = ctypes.create_string_buffer(8)
class IO(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
here, there = IO(ctypes.addressof(one), 8), IO(0x400000, 8)
if libc.process_vm_readv(PID, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) > 0: print("vm")
fd = os.pidfd_open(PID)
if libc.syscall(438, fd, 0, 0) >= 0: print("pidfd_getfd")
print("done")
"""
    with Signer(file, program) as one:
        done = as_uid(uid, look.replace("PID", str(one.pid)))
        assert done.stdout.split() == ["done"], done
        assert one.signs(b"{}")


@pytest.mark.parametrize("call", [name for name in CALLS if name != "nothing"])
def test_a_call_that_signing_does_not_need_ends_it_at_once(file: Path, call: str) -> None:
    with Signer(file, [*FAULTY, "try", call]) as one:
        channel.send(one.end, {"op": "sign", "id": 1}, (fd := memfd_with(2),))
        os.close(fd)
        assert one.process.wait(30) == -signal.SIGSYS
        assert one.close()[1] == ""


def test_the_probe_itself_does_not_end_it(file: Path) -> None:
    with Signer(file, [*FAULTY, "try", "nothing"]) as one:
        assert one.signs(b"{}")


# --- how it starts and ends --------------------------------------------------------------------


@pytest.mark.parametrize("step", [name for name, _ in signer.STEPS])
def test_a_fault_at_a_step_means_that_it_says_no_word_and_names_the_step(
    file: Path, step: str
) -> None:
    one = Signer(file, [*FAULTY, "fault", step])
    assert one.end.recv(100) == b""
    code, said = one.close()
    assert code == 1 and len(said.splitlines()) == 1
    assert f"step '{step}' did not succeed" in said and "injected" in said


def test_where_memory_cannot_be_locked_it_says_what_to_lift(file: Path) -> None:
    without = ["setpriv", "--bounding-set", "-ipc_lock,-sys_resource", "--inh-caps", "-all"]
    one = Signer(file, prefix=["prlimit", "--memlock=65536:65536", *without])
    assert one.end.recv(100) == b""
    code, said = one.close()
    assert code == 1 and "LimitMEMLOCK=infinity" in said and "--ulimit memlock=-1" in said


@pytest.mark.parametrize("fault", ["none", "a folder", "readable", "garbage", "an RSA key"])
def test_a_bad_key_is_told_in_one_sentence_with_its_name(file: Path, fault: str) -> None:
    if fault == "none":
        file.unlink()
    elif fault == "a folder":
        file.unlink()
        file.mkdir()
    elif fault == "readable":
        file.chmod(0o644)
    elif fault == "garbage":
        file.write_bytes(b"garbage")
    else:
        file.unlink()
        subprocess.run(["openssl", "genpkey", "-algorithm", "rsa", "-out", file], check=True,
                       capture_output=True)  # fmt: skip
    one = Signer(file)
    assert one.end.recv(100) == b""
    code, said = one.close()
    assert code == 1 and len(said.splitlines()) == 1
    assert said.startswith(f"sandrun: the worker key {file} "), said


def test_it_ends_with_web(file: Path) -> None:
    with Signer(file) as one:
        assert one.signs(b"{}")
        assert one.close() == (0, "")


def test_it_dies_with_the_keeper_also_while_web_holds_on(file: Path) -> None:
    ours, theirs = channel.pair()
    start = (
        "import subprocess, sys, time; "
        f"p = subprocess.Popen({SIGNER!r} + [{str(theirs.fileno())!r}, {str(file)!r}], "
        f"pass_fds=[{theirs.fileno()}]); print(p.pid, flush=True); time.sleep(60)"
    )
    keeper = subprocess.Popen(
        [sys.executable, "-c", start], pass_fds=[theirs.fileno()], stdout=subprocess.PIPE
    )
    theirs.close()
    assert keeper.stdout
    end = os.pidfd_open(int(keeper.stdout.readline()))
    ours.settimeout(30)
    assert channel.receive(ours)[0]["op"] == "hello"
    keeper.kill()
    keeper.communicate()
    assert ours.recv(100) == b""
    os.close(end)
    ours.close()


def test_a_signature_adds_less_than_a_millisecond(file: Path) -> None:
    with Signer(file) as one:
        times = []
        for _ in range(200):
            started = time.perf_counter()
            one.signature(b"x" * 4000)
            times.append(time.perf_counter() - started)
        assert sorted(times)[100] < 0.001


def test_its_hello_is_its_public_key(file: Path) -> None:
    with Signer(file) as one:
        assert base64.b64encode(one.public).decode() == key.worker_id(one.public)
        der = subprocess.run(
            ["openssl", "pkey", "-in", file, "-pubout", "-outform", "DER"],
            capture_output=True, check=True,
        ).stdout  # fmt: skip
        assert one.public == der[-32:]
