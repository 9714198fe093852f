"""BW: what runs before the last wall stands, and what runs as a compiler: names and members of an
upload that a program of ours, or one that we start, might take for its own configuration."""

import fcntl
import gzip
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import SandboxError
from sandbox.model import Command
from sandbox.runtimes import BASE_ENV
from tests.attacks.arena import Attacker
from tests.attacks.wire import (
    Entry,
    archive,
    packed,
    refused,
    sent,
    tar_of,
    zip_of,
)
from tests.journeys.server import REPOSITORY, Server, eventually
from tests.sandbox.box import Box

C_MAIN = b'#include <stdio.h>\nint main() { puts("mine"); }\n'
C = {"interpreter": "c", "entrypoint": "main.c"}
SEALS = 15  # no more seals, no shrinking, no growing, no writing

# In place of the compiler's own second half: who it is, and before which walls.
SPY = b"""#!/bin/sh
exec >&2
echo RAN
id -u
grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
cat /proc/self/uid_map
python3 -c 'import os; print(sorted(os.listdir("/proc/self/fd"))[:-1], os.getppid() > 1)'
sleep 100 >/dev/null 2>&1 &
exit 3
"""
WALLS = ["RAN", "1000"] + [
    f"Cap{name}:\t0000000000000000" for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")
] + ["NoNewPrivs:\t1", "Seccomp:\t2"]  # fmt: skip


def submitted(attacker: Attacker, *entries: Entry, **manifest: Any) -> dict[str, Any]:
    """The status of an archive's job, over."""
    answer = sent(attacker, archive("tar.gz", *entries, manifest=manifest))
    assert answer.status == 200, answer
    job: dict[str, Any] = answer.json
    assert job["status"] in ("completed", "failed") and job["reason"] != "sandbox_error", job
    return job


def gcc_folder() -> str:
    """Below a prefix, where gcc looks for its parts: x86_64-linux-gnu/12, say."""
    path = subprocess.check_output(["gcc", "-print-prog-name=cc1"], text=True).strip()
    return "/".join(Path(path).parts[-3:-1])


def test_a_compiler_that_the_upload_brings_stands_before_all_walls(attacker: Attacker) -> None:
    """BW-01. By COMPILER_PATH and by GCC_EXEC_PREFIX the client's own program runs in the step of
    the compiler: it is the client's code like any other, before the same walls, with the same three
    descriptors; the job ends in its first step, and what it started ends too (HI2)."""
    main = Entry("main.c", C_MAIN)
    for env, place in (
        ({"COMPILER_PATH": "/job/d"}, "d/cc1"),
        ({"GCC_EXEC_PREFIX": "/job/d/"}, f"d/{gcc_folder()}/cc1"),
    ):
        job = submitted(attacker, main, Entry(place, SPY, mode=0o755), **C, env=env)
        lines = job["logs"]["stderr"].splitlines()
        assert lines[: len(WALLS)] == WALLS, (env, job)
        assert lines[len(WALLS)].split()[::2] == ["1000", "1"], lines  # and outside: none of root's
        assert int(lines[len(WALLS)].split()[1]) >= 1_900_000_000, lines
        assert lines[len(WALLS) + 1] == "['0', '1', '2'] True", lines
        assert (job["reason"], job["stage"]) == ("exit", "compile"), job
        assert job["cpu_seconds"] > 0, job


def test_no_variable_for_compilers_reaches_beyond_the_job(attacker: Attacker) -> None:
    """BW-01. All the other variables that gcc heeds: the program is compiled and runs, or gcc
    fails; whatever it writes because of them stays in the job."""
    names = {
        "TMPDIR": "/job/none", "GCC_COMPARE_DEBUG": "-gtoggle", "LIBRARY_PATH": "/job/d:/job",
        "CPATH": "/job/d", "C_INCLUDE_PATH": "/proc/1", "DEPENDENCIES_OUTPUT": "/usr/x",
        "SUNPRO_DEPENDENCIES": "/etc/x y", "GCC_COLORS": "error=01;31", "COLLECT_GCC": "/job/d/gcc",
        "COLLECT_LTO_WRAPPER": "/job/d/lto", "SOURCE_DATE_EPOCH": "-1", "GCC_URLS": "bel",
        "COLLECT_GCC_OPTIONS": "-fplugin=/job/x.so", "LANG": "/../../etc/passwd",
    }  # fmt: skip
    before = {path: os.path.exists(path) for path in ("/usr/x", "/etc/x")}
    faults = []
    for name, value in names.items():
        entries = (Entry("main.c", C_MAIN), Entry("d/stdio.h", b"int puts(const char *);\n"))
        job = submitted(attacker, *entries, **C, env={name: value}, timeout=10)
        fine = job["reason"] is None and job["logs"]["stdout"] == "mine\n"
        fine = fine or (job["reason"], job["stage"]) == ("exit", "compile")
        if not fine:
            faults.append((name, job["reason"], job["stage"], job["logs"]))
    assert not faults, faults
    assert before == {path: os.path.exists(path) for path in before} == dict.fromkeys(before, False)


# Runtimes, and entrypoints whose names are options, words or commands to somebody.
NAMES = {
    "c": ["@args.c", "-fplugin=x.c", "-x c -.c", "-wrapper,sh.c", "-o.c", "-.c", "{file}.c",
          "$(touch CANARY).c", "a;touch CANARY;.c", "{folder}/{folders}.c", "%s.c", "a b.c"],
    "python3": ["-c.py", " .py", "-m.py", "{heap_mb}.py", "{file}.py", "x'y.py", 'x"y.py',
                "--help.py", "-.py", "`touch CANARY`.py", "{}.py", "{0}.py", "$HOME.py", "*.py"],
    "sh": ["--help.sh", "-c.sh", "a;touch CANARY;.sh", "$(touch CANARY).sh", "-s.sh", "|id.sh"],
    "bash": ["--rcfile.sh", "-c.sh", "--posix.sh", "&touch CANARY&.sh"],
    "perl": ["=x.pl", "-e.pl", "|id.pl", "-i.bak.pl", "<CANARY.pl", ">CANARY.pl"],
}  # fmt: skip
SAYS = {
    "c": C_MAIN, "python3": b"print('mine')\n", "sh": b"echo mine\n", "bash": b"echo mine\n",
    "perl": b'print "mine\n";\n',
}  # fmt: skip


def test_an_entrypoint_is_a_file_whatever_its_name_says(attacker: Attacker) -> None:
    """BW-04. Names that are options, placeholders, redirections or commands: the file of this name
    runs, nothing else does, and nothing is made. A line break in one: refused, or the same."""
    faults = []
    for runtime, names in NAMES.items():
        for name in names:
            entries = (Entry(name, SAYS[runtime]), Entry("args.c", b"-version"))
            job = submitted(attacker, *entries, interpreter=runtime, entrypoint=name, timeout=20)
            made = [output for output in job["output_files"] if "CANARY" in output]
            if job["reason"] or job["logs"]["stdout"] != "mine\n" or made:
                faults.append((runtime, name, job["reason"], job["logs"], made))
    assert not faults, faults
    odd = {"interpreter": "sh", "entrypoint": "a\ntouch CANARY\n.sh"}
    raw = archive("tar.gz", Entry("a\ntouch CANARY\n.sh", SAYS["sh"]), manifest=odd)
    answer = sent(attacker, raw)
    if answer.status == 200:
        assert (answer.json["reason"], answer.json["logs"]["stdout"]) == (None, "mine\n"), answer
        assert not answer.json["output_files"], answer
    else:
        assert answer.status == 400, answer


# Members that some interpreter, shell or tool reads by itself. Whatever reads one says so.
PYTHON_SAYS = b"""
import os
with open("/job/CANARY-%d" % os.getpid(), "a") as file:
    file.write(__file__ + "\\n")
"""
SHELL_SAYS = b'echo "$0 $$" >>/job/CANARY-$$\n'
PYTHON_FILES = """sitecustomize.py usercustomize.py encodings/__init__.py encodings/idna.py
encodings/utf_8.py codecs.py traceback.py linecache.py tokenize.py json.py json/__init__.py errno.py
sandbox/__init__.py sandbox/inside.py sandbox/unzip.py hashlib.py zlib.py lzma.py bz2.py tarfile.py
gzip.py struct.py socket.py array.py __main__.py __init__.py conftest.py .pythonrc.py x.pth
lib/python3.11/site-packages/traceback.py .venv/lib/python3.11/site-packages/traceback.py
python311._pth python3._pth""".split()
SHELL_FILES = """.bashrc .bash_profile .bash_login .profile .bash_logout .shinit .kshrc .zshenv
bin/sh sh python3 ls grep .perlrc .perldb .inputrc""".split()
OTHER_FILES = {
    "pyvenv.cfg": b"home = /job\ninclude-system-site-packages = true\n",
    "ld.so.preload": b"/job/_socket.so\n", "_socket.so": b"\x7fELF", "zlib.so": b"\x7fELF",
    "package.json": b'{"type": "module"}', "node_modules/fs/index.js": b"throw 1",
    ".npmrc": b"prefix=/job\n", ".noderc": b"", ".node_repl_history": b"",
    ".Rprofile": b"stop()", ".Renviron": b"PATH=/job", ".irbrc": b"exit 1", "init.lua": b"x(",
    "php.ini": b"auto_prepend_file=/job/x.php", ".user.ini": b"auto_prepend_file=/job/x.php",
    "specs": b"*cc1:\n+ -fplugin=/job/x.so\n", "a.out": b"\x7fELF", "Makefile": b"all:\n\tfalse\n",
    "GNUmakefile": b"all:\n\tfalse\n", ".gdbinit": b"shell touch /job/CANARY\n",
    ".gitconfig": b"[core]\npager = false\n", "gconv-modules": b"module A B /job/x 1\n",
}  # fmt: skip
BAIT = [
    *(Entry(name, PYTHON_SAYS) for name in PYTHON_FILES if "json/" not in name),
    *(Entry(name, SHELL_SAYS, mode=0o755) for name in SHELL_FILES if "bin/" not in name),
    *(Entry(name, content) for name, content in OTHER_FILES.items()),
]
ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"PYTHONPATH": "/job", "PYTHONSTARTUP": "/job/.pythonrc.py", "PYTHONUSERBASE": "/job",
     "PYTHONWARNINGS": "error", "PYTHONBREAKPOINT": "codecs.x", "PYTHONPLATLIBDIR": "job",
     "BASH_ENV": "/job/.bashrc", "ENV": "/job/.shinit", "SHELLOPTS": "xtrace",
     "NODE_OPTIONS": "--require /job/x", "RUBYOPT": "-r/job/x", "PERL5LIB": "/job",
     "GCONV_PATH": "/job", "LOCPATH": "/job", "NLSPATH": "/job/%N", "TZ": ":/job/x",
     "TMPDIR": "/job", "HOME": "/job", "IFS": "/", "PS4": "$(touch /job/CANARY-ps4)"},
]  # fmt: skip


def test_no_program_of_ours_reads_what_the_upload_brings(attacker: Attacker) -> None:
    """BW-05. Dozens of members that interpreters and tools take for their own: pid 1, which is
    Python and imports after it has unpacked, reads none, with and without variables that point to
    them. A shell's script says what was read until then; the program's own are its business."""
    listing = b"cat /job/CANARY-* 2>/dev/null\ntrue\n"
    main = Entry("run.sh", listing)
    for env in ENVIRONMENTS:
        given = {"interpreter": "sh", "entrypoint": "run.sh", "env": env}
        job = submitted(attacker, main, *BAIT, **given)
        assert (job["reason"], job["logs"]["stdout"]) == (None, ""), (env, job)
        assert not [path for path in job["output_files"] if "CANARY" in path], job["output_files"]
    # The bait is alive: a Python of the program's own takes it, and says under which pid.
    own = Entry("main.py", b"import os, traceback; print(os.getpid())")
    given = {"interpreter": "python3", "entrypoint": "main.py", "outputs": ["CANARY-*"]}
    job = submitted(attacker, own, *BAIT, **given)
    assert [*job["output_files"]] == [f"CANARY-{job['logs']['stdout'].strip()}"], job
    assert "CANARY-1" not in job["output_files"], job


def bulky(count: int, size: int, below: str = "") -> Iterator[Entry]:
    """Many files, of nothing: small as an archive."""
    for n in range(count):
        yield Entry(f"{n}/{below}x", bytes(size))


def test_an_upload_that_does_not_unpack_starts_nothing(attacker: Attacker) -> None:
    """BW-07, BW-05. Damage in the last member, more files and more bytes than the disk takes, one
    name as a file and a folder: refused in a sentence, or a job that fails with one before anything
    ran; none of the bait beside it is read, no slot is lost (HI7), and nothing comes out."""
    main = Entry("main.py", b"import os; print('RAN'); open('CANARY', 'w')")
    bait = [entry for entry in BAIT if entry.name.endswith(".py")]
    broken = bytearray(zip_of([main, *bait, Entry("last", os.urandom(5000))]))
    at = broken.rindex(b"last", 0, broken.rindex(b"PK\x01\x02")) + 100
    broken[at] ^= 0xFF
    cut = gzip.compress(tar_of([main, *bait, Entry("last", os.urandom(9000))]))[:-3000]
    both = zip_of([main, Entry("x", b"1"), Entry("x/", kind="folder"), Entry("x/y", b"2")])
    for form, content in (("zip", bytes(broken)), ("tar.gz", cut), ("zip", both)):
        refused(attacker.exchange(packed(form, content)), 400)
    manifest = {"interpreter": "python3", "entrypoint": "main.py"}
    for entries in (
        [main, *bait, *bulky(1000, 104_500)],  # 104.5 MB, in 106.5 MB of pages
        [main, *bait, *bulky(1150, 1, "a/" * 30)],  # 36,800 files and folders
    ):
        answer = sent(attacker, archive("tar.gz", *entries, manifest=manifest))
        assert answer.status == 200, (answer.status, answer.body)
        job = answer.json
        assert (job["status"], job["reason"]) == ("failed", "sandbox_error"), job
        assert "could not be unpacked" in json.dumps(job), job
        assert (job["logs"]["stdout"], job["output_files"]) == ("", {}), job
    assert attacker.python("say(1)").said == 1


def memory_files(pid: int, content: bytes) -> Iterator[Path]:
    """Its memfds that hold this."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if os.readlink(fd).startswith("/memfd:") and content in fd.read_bytes():
                yield fd
        except OSError:
            continue  # closed meanwhile


def test_what_was_inspected_cannot_change_any_more(attacker: Attacker, server: Server) -> None:
    """BW-08. The memory that an upload lies in, once it is a job's: sealed, so that neither web nor
    anybody who has it can write to it; what runs is what was inspected and hashed."""
    mark = f"{attacker.canary}-bundle".encode()
    seen = 0
    with attacker.held(files={"data": mark}):
        for path in memory_files(server.pids()["web"], mark):
            fd = os.open(path, os.O_RDWR)
            try:
                assert fcntl.fcntl(fd, 1034) & SEALS == SEALS, path
                with pytest.raises(PermissionError):
                    os.pwrite(fd, b"other", 0)
                with pytest.raises(PermissionError):
                    os.ftruncate(fd, 1)
                seen += 1
            finally:
                os.close(fd)
    assert seen == 1, seen


def test_an_archive_is_sealed_before_it_is_inspected() -> None:
    """BW-08. The same at the moment of the inspection: the very descriptor that is run later."""
    import asyncio

    from jobs.bundle import Part, receive
    from jobs.memory import MemoryFile
    from sandbox.model import Inspection, Member

    content = gzip.compress(tar_of([Entry("main.py", b"1")]))
    seen = []

    async def inspect(fd: int) -> Inspection:
        seen.append((fd, fcntl.fcntl(fd, 1034) & SEALS, os.pread(fd, 1 << 20, 0)))
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"other", 0)
        return Inspection((Member("main.py", 1, 0, 0o644, ""),), None)

    body = MemoryFile()
    body.write(content)
    upload = asyncio.run(receive([Part("job.tar.gz", body, 0, len(content))], inspect))
    try:
        assert seen == [(upload.bundle.fd, SEALS, content)], seen
    finally:
        upload.memory.close()
        body.close()


INCLUDES = [
    '#include "/proc/self/environ"',
    '#include "/proc/self/fd/0"',
    '#include "/proc/self/mountinfo"',
    '#include "/proc/1/environ"',
    '#include "/proc/self/maps"',
    '#include "/dev/stdin"',
    '#include "/etc/shadow"',
    '#include "/root/.ssh/id_rsa"',
    '#include "/proc/self/cgroup"',
    '#pragma GCC dependency "/job/.."',
    '__asm__(".incbin \\"/etc/shadow\\"");',
    '__asm__(".incbin \\"/proc/1/mem\\"");',
    '__asm__(".include \\"/proc/self/mountinfo\\"");',
]


def test_a_compiler_tells_of_the_sandbox_and_not_of_the_machine(attacker: Attacker) -> None:
    """BW-09. Files of /proc, /dev and /etc as source: what the compiler says holds no name and no
    path of the machine and nothing of the server's environment."""
    words = (
        str(REPOSITORY), "sandrun-", "SERVER_CANARY", "SANDRUN_", "-server", os.uname().nodename,
        "root:", "DJANGO_", "sandbox.launcher",
    )  # fmt: skip
    told = re.compile("|".join(map(re.escape, words)))
    for line in INCLUDES:
        source = f"{line}\nint main() {{}}\n".encode()
        job = submitted(attacker, Entry("main.c", source), **C, stdin="int x;", timeout=20)
        said = job["logs"]["stdout"] + job["logs"]["stderr"]
        assert job["reason"] in (None, "exit"), (line, job)
        assert not told.search(said), (line, told.search(said), said)
        if "shadow" in line or "/proc/1" in line or "id_rsa" in line:
            assert re.search("No such file|can't open|cannot open|not found", said), (line, said)


def test_an_endless_source_ends_by_the_jobs_own_limits(attacker: Attacker) -> None:
    """BW-09. /dev/zero as source, as a file to be included in the object, and as a response file:
    the job's memory or time ends it, in the compiler's step."""
    for line in ('#include "/dev/zero"', '__asm__(".incbin \\"/dev/zero\\"");'):
        source = f"{line}\nint main() {{}}\n".encode()
        limits = {"memory_mb": 64, "timeout": 15}
        job = submitted(attacker, Entry("main.c", source), **C, **limits)
        assert job["reason"] in ("memory", "timeout", "exit"), (line, job)
        assert job["reason"] != "exit" or job["stage"] == "compile", job
        assert job["memory_bytes"] <= 64 << 20, job


# --- with a launcher of our own -----------------------------------------------------------------

_FILTERED_BY = """
import sys
from sandbox import launcher
program = bytes.fromhex(sys.argv.pop(1)) * int(sys.argv.pop(1))
launcher.build_filter = lambda: program
launcher.main()
"""


@contextmanager
def box(instruction: bytes, count: int) -> Iterator[Box]:
    """A launcher that has this instruction so many times as its filter."""
    made = Box([sys.executable, "-I", "-c", _FILTERED_BY, instruction.hex(), str(count)])
    try:
        yield made.start()
    finally:
        made.close()


@pytest.mark.parametrize("count", [0, 4097, 10_000])
def test_a_filter_that_cannot_be_loaded_lets_nothing_run(count: int) -> None:
    """BW-11. None, and more instructions than the kernel takes: an error that names the step, and
    not a byte of output; one is loaded, as a control."""
    allow = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)  # return SECCOMP_RET_ALLOW
    said = []
    command = Command((("sh", "-c", "echo RAN"),), BASE_ENV)
    with box(allow, count) as ours:
        with pytest.raises(SandboxError) as raised:
            ours.wait(ours.arun(command, on_output=lambda *piece: said.append(piece)))
        assert raised.value.step == "seccomp", raised.value
        assert not said, said
        assert eventually(lambda: not ours.pids(), 2)
    if not count:
        with box(allow, 1) as ours:
            assert ours.sh("echo RAN").text == "RAN\n"
