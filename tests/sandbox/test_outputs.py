"""What comes out of a job: the files it made or changed, and nothing else on this machine.

The folder is hostile: the job may have left links, pipes, locked doors and strange names. What
is listed are bytes of its own regular files, hashed as they were copied, sealed for ever.
"""

import asyncio
import errno
import hashlib
import os
import random
import time
from collections.abc import Sequence
from typing import Any

import pytest

from sandbox import channel
from sandbox.collect import MAX_DEPTH, MAX_FILES
from sandbox.errors import SandboxError
from sandbox.model import MIB, Limits
from sandbox.sandbox import _checked, _glance
from tests.sandbox.box import PYTHON, Box, Ran, loose

INPUT = {"in.txt": b"as it was", "data/in.bin": b"\0" * 100}
PRELUDE = "import os, socket, stat, sys, time\ndef put(p, b=b'mine'): open(p, 'wb').write(b)\n"


def left(box: Box, code: str, patterns: Sequence[str] = (), **options: Any) -> dict[str, bytes]:
    """The files that code leaves; every hash and size is right, and the run went well."""
    ran = box.python(PRELUDE + code, patterns=patterns, **options)
    assert (ran.stderr, ran.reason, ran.code) == (b"", "exit", 0), ran.stderr.decode()
    return whole(ran)


def whole(ran: Ran) -> dict[str, bytes]:
    """The files of a run that lost none."""
    assert not ran.result.outputs.truncated and ran.result.notes == ()
    check(ran)
    return ran.files


def check(ran: Ran) -> None:
    assert len(ran.files) == len(ran.result.outputs.files)
    for file in ran.result.outputs.files:
        assert len(ran.files[file.path]) == file.size
        assert hashlib.sha256(ran.files[file.path]).hexdigest() == file.sha256


# --- without patterns: what was made or changed ----------------------------------------------


def test_a_job_that_leaves_nothing_has_no_outputs(box: Box) -> None:
    ran = box.python("pass", files=INPUT)
    assert ran.result.outputs.fd == -1 and whole(ran) == {}


@pytest.mark.core
def test_new_files_come_out_and_untouched_inputs_do_not(box: Box) -> None:
    code = "put('a.txt'); os.makedirs('x/y'); put('x/y/b', b''); open('in.txt').read()"
    assert left(box, code, files=INPUT) == {"a.txt": b"mine", "x/y/b": b""}


def test_a_changed_input_comes_out(box: Box) -> None:
    code = "open('in.txt', 'a').write(' no more')"
    assert left(box, code, files=INPUT) == {"in.txt": b"as it was no more"}


def test_an_input_rewritten_with_the_same_bytes_counts_as_changed(box: Box) -> None:
    assert left(box, "put('in.txt', b'as it was')", files=INPUT) == {"in.txt": b"as it was"}


def test_an_input_that_was_moved_comes_out_under_its_new_name(box: Box) -> None:
    assert left(box, "os.rename('in.txt', 'z')", files=INPUT) == {"z": b"as it was"}


def test_an_input_that_was_deleted_is_no_output(box: Box) -> None:
    assert left(box, "os.unlink('in.txt')", files=INPUT) == {}


def test_files_outside_the_work_directory_are_no_outputs(box: Box) -> None:
    assert left(box, "put('/tmp/a'); put('/dev/shm/b'); put('c')") == {"c": b"mine"}


def test_hidden_files_are_outputs_like_others(box: Box) -> None:
    code = "put('.a'); os.mkdir('.d'); put('.d/.b')"
    assert left(box, code) == {".a": b"mine", ".d/.b": b"mine"}


def test_an_empty_file_has_the_hash_of_nothing(box: Box) -> None:
    ran = box.python("open('empty', 'w')")
    assert whole(ran) == {"empty": b""}
    assert ran.result.outputs.files[0].sha256 == hashlib.sha256().hexdigest()


def test_the_executable_bit_is_the_only_mode_that_comes_out(box: Box) -> None:
    code = "import os\nfor mode in (0o600, 0o4755, 0o777, 0o100, 0):\n"
    ran = box.python(code + " open(oct(mode), 'w'); os.chmod(oct(mode), mode)\n")
    assert {f.path: oct(f.mode) for f in ran.result.outputs.files} == {
        "0o600": "0o644", "0o4755": "0o755", "0o777": "0o755", "0o100": "0o755", "0o0": "0o644",
    }  # fmt: skip


def test_hard_links_are_files(box: Box) -> None:
    code = "put('a'); os.link('a', 'b'); os.link('in.txt', 'c')"
    # in.txt itself is as it was; its second name is new.
    assert left(box, code, files=INPUT) == {"a": b"mine", "b": b"mine", "c": b"as it was"}


# --- with patterns ---------------------------------------------------------------------------

MAKE = """
os.makedirs('out/deep/er')
for p in ('a.png', 'a.txt', 'out/b.png', 'out/c.txt', 'out/deep/d.png', 'out/deep/er/e.csv'):
    put(p)
"""
ASKED: dict[tuple[str, ...], set[str]] = {
    ("*.png",): {"a.png", "out/b.png", "out/deep/d.png"},
    ("./*.png", "out/*.txt"): {"a.png", "out/b.png", "out/deep/d.png", "out/c.txt"},
    ("out/",): {"out/b.png", "out/c.txt", "out/deep/d.png", "out/deep/er/e.csv"},
    ("out/*",): {"out/b.png", "out/c.txt"},
    ("out/**",): {"out/b.png", "out/c.txt", "out/deep/d.png", "out/deep/er/e.csv"},
    ("**/e.csv",): {"out/deep/er/e.csv"},
    ("in.txt",): {"in.txt"},  # asked for by name: an input as well
    ("nothing-like-it", "out"): set(),
    ("..", "/", "/etc/passwd", "../**", "/proc/self/environ", "~/*", "/job/*"): set(),
}


@pytest.mark.parametrize("patterns", ASKED)
def test_patterns_take_what_they_name(box: Box, patterns: tuple[str, ...]) -> None:
    assert set(left(box, MAKE, patterns, files=INPUT)) == ASKED[patterns]


def test_two_stars_at_the_top_take_everything(box: Box) -> None:
    taken = left(box, MAKE, ["**"], files=INPUT)
    assert {"in.txt", "main.py", "data/in.bin", "out/deep/er/e.csv"} < set(taken)


# --- links -----------------------------------------------------------------------------------

LINKS = {
    "passwd": "/etc/passwd", "environ": "/proc/self/environ", "fd": "/proc/self/fd/3",
    "root": "/", "up": "../../../..", "dangling": "nowhere", "loop": "loop", "a": "b", "b": "a",
    "file": "real/mine.txt", "folder": "real", "device": "/dev/zero", "init": "/proc/1/root",
}  # fmt: skip


@pytest.mark.core
@pytest.mark.parametrize("patterns", [(), ("**",), ("**/passwd", "root/**", "folder/"), ("*",)])
def test_no_link_is_followed_or_listed(box: Box, patterns: tuple[str, ...]) -> None:
    code = "os.mkdir('real'); put('real/mine.txt')\n"
    code += f"for name, target in {LINKS!r}.items(): os.symlink(target, name)"
    found = set(left(box, code, patterns)) - {"main.py"}
    assert found == (set() if "root/**" in patterns else {"real/mine.txt"})


def test_an_input_replaced_by_a_link_is_gone(box: Box) -> None:
    code = "os.unlink('in.txt'); os.symlink('/etc/passwd', 'in.txt')"
    assert left(box, code, ["in.txt"], files=INPUT) == {}


def test_a_folder_on_the_way_replaced_by_a_link_leads_nowhere(box: Box) -> None:
    code = "os.rename('data', 'd'); os.symlink('/etc', 'data')"
    assert left(box, code, ["data/**"], files=INPUT) == {}


# --- what is no regular file -----------------------------------------------------------------

ODD = {
    "fifo": "os.mkfifo('out.txt')",
    "socket": "s = socket.socket(socket.AF_UNIX); s.bind('out.txt')",
    "folder": "os.mkdir('out.txt')",
    "whiteout": "try: os.mknod('out.txt', stat.S_IFCHR | 0o666, 0)\nexcept OSError: pass",
}


@pytest.mark.parametrize("patterns", [(), ("out.txt",), ("**",)])
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_skipped_without_waiting(
    box: Box, kind: str, patterns: tuple[str, ...]
) -> None:
    started = time.monotonic()
    assert set(left(box, ODD[kind] + "\nput('z')", patterns)) - {"main.py"} <= {"z"}
    assert time.monotonic() - started < 3


def test_no_device_can_be_made(box: Box) -> None:
    code = (
        "for kind in (stat.S_IFCHR, stat.S_IFBLK):\n"
        "    try: os.mknod('dev', kind | 0o666, os.makedev(1, 5)); put('made')\n"
        "    except PermissionError: put('refused')\n"
    )
    assert left(box, code) == {"refused": b"mine"}


# --- locked doors ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o300, 0o400, 0o444, 0o500, 0o600])
def test_a_file_in_a_folder_of_any_mode_comes_out(box: Box, mode: int) -> None:
    code = f"os.mkdir('locked'); put('locked/f'); os.chmod('locked', {mode}); put('z')"
    assert left(box, code) == {"locked/f": b"mine", "z": b"mine"}


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o400, 0o444, 0o555])
def test_a_work_directory_of_any_mode_is_collected(box: Box, mode: int) -> None:
    assert left(box, f"put('f'); os.chmod('/job', {mode})") == {"f": b"mine"}


@pytest.mark.core
@pytest.mark.parametrize("mode", [0o000, 0o001, 0o200, 0o444])
def test_a_file_of_any_mode_comes_out(box: Box, mode: int) -> None:
    assert left(box, f"put('f'); os.chmod('f', {mode})") == {"f": b"mine"}


# --- names -----------------------------------------------------------------------------------

NAMES = [
    b'a"b', b"a'b", b"a\r\nSet-Cookie: x=1", "ü".encode(), b"\xff\xfe", "\u202egpj.exe".encode(),
    b"n" * 255, b" ", b"...", b"%2e%2e%2f", b"<img src=x onerror=alert(1)>", b"a;b", b"-rf", b"\\",
    b"\x1b[31mred", b"\x7f", b"\xed\xa0\x80", b"C:", b"\x01", "e\u0301".encode(), "\u00e9".encode(),
    b"*", b"[a]", b"con.txt", b"stdout", b"stderr", b"job.json", b"__proto__",
]  # fmt: skip


def test_hostile_names_come_back_byte_for_byte(box: Box) -> None:
    taken = left(box, f"for name in {NAMES!r}: put(name, name)")
    assert {os.fsencode(path): data for path, data in taken.items()} == {n: n for n in NAMES}


def test_hostile_names_can_be_asked_for(box: Box) -> None:
    taken = left(box, f"for name in {NAMES!r}: put(name, name)", ["a\r\n*", "\udcff*", "[*]", "ü"])
    assert set(map(os.fsencode, taken)) == {NAMES[2], b"\xff\xfe", b"*", "ü".encode()}


def test_very_long_paths_come_out_or_are_counted_out(box: Box) -> None:
    # 300 paths of 15,000 bytes that JSON writes with six characters a byte: 27 MB of listing.
    code = (
        "fd = os.open('.', os.O_RDONLY)\n"
        "for _ in range(60):\n"
        "    os.mkdir(b'\\xff' * 250, dir_fd=fd)\n"
        "    fd = os.open(b'\\xff' * 250, os.O_RDONLY, dir_fd=fd)\n"
        "for number in range(300): os.close(os.open(str(number), os.O_CREAT, dir_fd=fd))\n"
    )
    ran = box.python(PRELUDE + code)
    assert (ran.reason, ran.code) == ("exit", 0)
    check(ran)
    assert len(ran.files) == 300 or ran.result.outputs.truncated


# --- caps ------------------------------------------------------------------------------------


def test_twenty_thousand_files_are_cut_off_in_time(box: Box) -> None:
    ran = box.python("for n in range(20_000): open(f'{n:05}', 'w')")
    started = ran.result.usage.wall_usec
    assert ran.result.outputs.truncated and started
    assert [f.path for f in ran.result.outputs.files] == [f"{n:05}" for n in range(MAX_FILES)]


def test_as_many_files_as_allowed_are_whole(box: Box) -> None:
    assert len(left(box, f"for n in range({MAX_FILES}): put(str(n), b'')")) == MAX_FILES


def test_twenty_thousand_files_take_the_collector_seconds_at_most(box: Box) -> None:
    code = "import os\nfor n in range(20_000): os.close(os.open(f'{n:05}', os.O_CREAT))"
    started = time.monotonic()
    ran = box.python(code, patterns=["no-such-name"])
    took = time.monotonic() - started - ran.result.usage.wall_usec / 1e6
    assert ran.files == {} and took < 5


DEEP = """
fd = os.open('.', os.O_RDONLY)
for _ in range(DEPTH):
    os.mkdir('d', dir_fd=fd)
    inner = os.open('d', os.O_RDONLY, dir_fd=fd)
    os.close(fd)
    fd = inner
os.close(os.open('f', os.O_CREAT | os.O_WRONLY, dir_fd=fd))
put('a')
"""


def test_as_deep_as_allowed_comes_out(box: Box) -> None:
    code = DEEP.replace("DEPTH", str(MAX_DEPTH))
    assert left(box, code) == {"a": b"mine", "d/" * MAX_DEPTH + "f": b""}


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 2000])
def test_too_deep_is_left_out_and_said_and_the_rest_comes_out(box: Box, depth: int) -> None:
    code = DEEP.replace("DEPTH", str(depth)) + "put('d/e'); put('z')"
    ran = box.python(PRELUDE + code)
    assert ran.files == {"a": b"mine", "d/e": b"mine", "z": b"mine"}
    assert ran.result.outputs.truncated and ran.result.notes == ()


def test_a_petabyte_of_holes_cannot_be_made(box: Box) -> None:
    code = (
        "f = open('sparse', 'wb')\n"
        "try: f.truncate(1 << 50)\n"
        "except OSError as error: print(error.errno)\n"
    )
    ran = box.python(code)
    assert ran.text == f"{errno.EFBIG}\n" and whole(ran) == {"sparse": b""}


def test_holes_that_are_more_than_the_disk_are_cut_off(box: Box) -> None:
    code = PRELUDE + "for n in range(5): put(str(n)); os.truncate(str(n), 4 << 20)"
    ran = box.python(code, disk_bytes=10 * MIB)
    check(ran)
    assert ran.result.outputs.truncated and ran.result.notes == ()
    assert list(ran.files) == ["0", "1"] and len(ran.files["1"]) == 4 * MIB


# --- large outputs and the store -------------------------------------------------------------


def test_a_full_disk_comes_out_byte_for_byte(box: Box) -> None:
    code = (
        "import random\n"
        "data = random.Random(9).randbytes(1 << 20)\n"
        "f = open('full', 'wb', 0)\n"
        "size = 0\n"
        "try:\n"
        "    while size < 1 << 28: size += f.write(data)\n"
        "except OSError as error: print(error.errno)\n"
    )
    ran = box.python(code)
    assert ran.text in (f"{errno.ENOSPC}\n", f"{errno.EFBIG}\n")
    data = random.Random(9).randbytes(MIB)
    full = whole(ran)["full"]
    assert 99 * MIB < len(full) <= 100 * MIB and full == (data * 100)[: len(full)]
    assert "disk" in ran.result.limits_hit


@pytest.mark.core
def test_the_store_is_sealed(box: Box) -> None:
    async def outputs() -> int:
        # Not box.python: it closes the store.
        bundle = loose({"main.py": b"open('a', 'w').write('1')"})
        try:
            result = await box.sandbox.run(
                PYTHON.command("main.py"), bundle, Limits(), on_output=lambda stream, view: None
            )
        finally:
            os.close(bundle.fd)
        return result.outputs.fd

    fd = box.wait(outputs())
    try:
        assert channel.sealed(fd)
        for change in (lambda: os.pwrite(fd, b"2", 0), lambda: os.ftruncate(fd, 0),
                       lambda: os.ftruncate(fd, 10)):  # fmt: skip
            with pytest.raises(PermissionError):
                change()
        assert os.pread(fd, 10, 0) == b"1"
    finally:
        os.close(fd)


# --- however it ends -------------------------------------------------------------------------


def test_a_failed_job_has_outputs(box: Box) -> None:
    ran = box.python("open('a', 'w').write('1'); raise SystemExit(3)")
    assert ran.code == 3 and whole(ran) == {"a": b"1"}


def test_a_crashed_job_has_outputs(box: Box) -> None:
    ran = box.sh("echo 1 > a; kill -SEGV $$")
    assert (ran.reason, ran.result.verdict.signal) == ("signal", 11) and whole(ran) == {"a": b"1\n"}


def test_a_job_that_ran_out_of_time_has_outputs(box: Box) -> None:
    ran = box.sh("echo 1 > a; sleep 60", wall_seconds=0.5)
    assert ran.reason == "timeout" and whole(ran) == {"a": b"1\n"}


def test_a_job_that_was_cancelled_has_outputs(box: Box) -> None:
    async def cancelled() -> Ran:
        stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await box.apython(
            "import time; open('a', 'w').write('1'); print('go'); time.sleep(60)",
            on_output=lambda stream, data: stop.done() or stop.set_result("cancelled"), stop=stop,
        )  # fmt: skip

    ran = box.wait(cancelled())
    assert ran.reason == "cancelled" and whole(ran) == {"a": b"1"}


@pytest.mark.core
def test_a_job_that_ran_out_of_memory_has_outputs(box: Box) -> None:
    code = "open('a', 'wb').write(b'1' * 1000); x = bytearray(b'x') * (1 << 28)"
    ran = box.python(code, memory_bytes=64 * MIB)
    assert ran.reason == "memory" and whole(ran) == {"a": b"1" * 1000}


def test_a_job_whose_files_filled_its_memory_has_outputs(box: Box) -> None:
    code = "f = open('a', 'wb', 0)\nwhile True: f.write(b'12345678' * 8192)"
    ran = box.python(code, memory_bytes=48 * MIB)
    assert ran.reason == "memory" and ran.result.notes == ()
    check(ran)
    assert len(ran.files["a"]) > 16 * MIB and set(ran.files["a"]) == set(b"12345678")


def test_a_job_that_ends_while_memory_is_full_has_outputs(box: Box) -> None:
    ran = box.sh("head -c 40000000 /dev/zero > a; echo ok", memory_bytes=44 * MIB)
    assert ran.text == "ok\n" and ran.result.usage.memory_peak_bytes > 40_000_000
    assert len(whole(ran)["a"]) == 40_000_000


@pytest.mark.core
def test_files_that_a_daemon_still_writes_stay_as_they_were_at_the_end(box: Box) -> None:
    code = (
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        f, n = open('held', 'wb', 0), 0\n"
        "        os.close(0), os.close(1), os.close(2)\n"
        "        while True:\n"
        "            n += 1; f.write(b'x'); put('z%d' % (n % 3), b'%d' % n)\n"
        "    os._exit(0)\n"
        "while not os.path.exists('z2'): time.sleep(0.001)\n"
    )
    ran = box.python(PRELUDE + code)
    files = whole(ran)
    assert ran.code == 0 and set(files) == {"held", "z0", "z1", "z2"} and files["held"]


def test_files_and_links_exchanged_to_the_last_moment_leak_nothing(box: Box) -> None:
    code = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None)\n"
        "put('a'); os.symlink('/etc/passwd', 'b')\n"
        "os.mkdir('d'); put('d/passwd'); os.symlink('/etc', 'e')\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        while True:\n"
        "            libc.renameat2(-100, b'a', -100, b'b', 2)\n"
        "            libc.renameat2(-100, b'd', -100, b'e', 2)\n"
        "put('ready')\n"
    )
    for _ in range(5):
        ran = box.python(PRELUDE + code)
        files = whole(ran)
        assert set(files.values()) == {b"mine"}, files
        assert len(files) == 3  # a or b, d/passwd or e/passwd, ready


@pytest.mark.parametrize("path", ["\ud800", "a\udc2fb", "/etc/passwd", "..", "a//b", "a\0b", ""])
def test_a_name_that_stands_for_no_place_below_the_work_directory_is_refused(path: str) -> None:
    """What inside reports is a claim: a name of half a character would have no bytes to be signed
    or to be asked for with."""
    store = channel.memfd("store", b"x")
    row = [path, 0, 1, "00" * 32, 0o644]
    try:
        _checked(store, {"files": [["fine", *row[1:]]], "truncated": False})
        with pytest.raises(SandboxError):
            _checked(store, {"files": [row], "truncated": False})
    finally:
        os.close(store)
    _glance({"files": [["fine", 1]], "more": 0})
    with pytest.raises(ValueError):
        _glance({"files": [[path, 1]], "more": 0})
