"""Every wall stands: what a job sees, may call and may reach, looked at from inside and from
outside while it runs. How much it may use is in test_limits.py.
"""

import asyncio
import contextlib
import errno
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyseccomp
import pytest

from sandbox import policy
from sandbox.launcher import FIRST_UID, UIDS
from sandbox.model import Command, Limits
from sandbox.runtimes import BASE_ENV, load
from tests.sandbox.box import LAUNCHER, PYTHON, Box, Ran, launcher_descriptors, wait_until

pytestmark = pytest.mark.core

UML = "user mode" in Path("/proc/cpuinfo").read_text().lower()
NAMESPACES = ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup")
WRITABLE = ("/job", "/tmp", "/dev/shm")

# Beside main.py in every job of this file.
PROBE = b'''
import ctypes, errno, json, os, signal, socket, subprocess, sys, threading
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)

def call(number, *args):
    """What a raw system call answers: "ok", or the name of its errno."""
    answer = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, args))
    if number == CLONE and answer == 0:
        os._exit(0)
    return "ok" if answer >= 0 else errno.errorcode[ctypes.get_errno()]

def tried(do, *args, **options):
    """ "ok", or the name of the errno that it raised."""
    try:
        do(*args, **options)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"

def status(path="/proc/self/status"):
    lines = (line.split(":", 1) for line in Path(path).read_text().splitlines())
    return {name: value.strip() for name, value in lines}

def say(value):
    print(json.dumps(value), flush=True)

CLONE = %d
''' % pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, "clone")


def said(ran: Ran) -> Any:
    """The JSON that a job said; it must have come to its end."""
    assert (ran.reason, ran.code) == ("exit", 0), (ran.result.verdict, ran.stderr.decode())
    return json.loads(ran.stdout)


def inside(box: Box, code: str, *args: str, **options: Any) -> Any:
    """What Python code inside says."""
    return said(box.wait(ainside(box, code, *args, **options)))


async def ainside(box: Box, code: str, *args: str, **options: Any) -> Ran:
    files = {"probe.py": PROBE, **options.pop("files", {})}
    return await box.apython("from probe import *\n" + code, *args, files=files, **options)


@contextlib.asynccontextmanager
async def held(box: Box, code: str = "", **options: Any) -> AsyncIterator[Any]:
    """A job that has said something (its own pid, if nothing else) and then waits to be ended."""
    loop = asyncio.get_running_loop()
    spoken: asyncio.Future[Any] = loop.create_future()
    stop: asyncio.Future[str] = loop.create_future()
    heard = bytearray()

    def hear(stream: str, data: bytes) -> None:
        if stream == "stdout":
            heard.extend(data)
            if b"\n" in heard and not spoken.done():
                spoken.set_result(json.loads(heard))

    code = (code or "say(os.getpid())") + "\nsignal.pause()"
    job = asyncio.ensure_future(ainside(box, code, on_output=hear, stop=stop, **options))
    await asyncio.wait([spoken, job], return_when=asyncio.FIRST_COMPLETED)
    assert spoken.done(), (await job).stderr.decode()
    try:
        yield spoken.result()
    finally:
        stop.set_result("cancelled")
        ended = await job
    assert ended.reason == "cancelled", ended.result  # nobody else ended it


class Process(NamedTuple):
    """A process of a job as the machine shows it."""

    pid: int
    status: dict[str, str]
    namespaces: dict[str, str]
    descriptors: dict[int, str]
    mounts: list[list[str]]
    interfaces: list[str]


class Job(NamedTuple):
    """A running job from outside: our pid 1 and the program."""

    init: Process
    program: Process


def look(pid: int) -> Process:
    proc = Path(f"/proc/{pid}")
    lines = (line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    return Process(
        pid,
        {name: value.strip() for name, value in lines},
        {kind: os.readlink(proc / "ns" / kind) for kind in NAMESPACES},
        descriptors(pid),
        [line.split() for line in (proc / "mountinfo").read_text().splitlines()],
        [line.split(":")[0].strip() for line in _net_dev(proc)],
    )


def _net_dev(proc: Path) -> list[str]:
    return (proc / "net/dev").read_text().splitlines()[2:]


def descriptors(pid: int) -> dict[int, str]:
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def jobs(box: Box) -> list[Job]:
    """The jobs that run, each with one program."""
    by_uid: dict[str, list[Process]] = {}
    for process in map(look, box.pids()):
        by_uid.setdefault(process.status["Uid"], []).append(process)
    return [Job(*sorted(pair, key=lambda p: inner_pid(p))) for pair in by_uid.values()]


def inner_pid(process: Process) -> int:
    return int(process.status["NSpid"].split()[-1])


@contextlib.contextmanager
def settled(box: Box) -> Iterator[None]:
    """For jobs before a test: the launcher lets go of a run a moment after its result."""
    before = launcher_descriptors(box.process.pid)
    yield
    assert wait_until(lambda: launcher_descriptors(box.process.pid) == before)


@pytest.fixture(scope="module")
def two(box: Box) -> list[Job]:
    """Two jobs that ran at once, as they looked."""

    async def both() -> list[Job]:
        async with held(box), held(box):
            return jobs(box)

    with settled(box):
        found = box.wait(both())
    assert len(found) == 2
    return found


@pytest.fixture(scope="module")
def ours() -> Process:
    return look(os.getpid())


# --- namespaces ------------------------------------------------------------------------------


def test_a_job_is_pid_2_and_sees_no_process_but_its_own(box: Box) -> None:
    seen = inside(box, "say([os.getpid(), os.getppid(), os.listdir('/proc')])")
    assert seen[:2] == [2, 1]
    assert sorted(seen[2]) == ["2", "self", "thread-self"]


@pytest.mark.parametrize("kind", NAMESPACES)
def test_a_namespace_is_not_the_machines(two: list[Job], ours: Process, kind: str) -> None:
    for job in two:
        assert job.program.namespaces[kind] != ours.namespaces[kind]
        assert job.program.namespaces[kind] == job.init.namespaces[kind]


@pytest.mark.parametrize("kind", NAMESPACES)
def test_a_namespace_is_not_the_launchers(box: Box, two: list[Job], kind: str) -> None:
    launcher = look(box.process.pid)
    assert launcher.namespaces[kind] not in {job.program.namespaces[kind] for job in two}


@pytest.mark.parametrize("kind", NAMESPACES)
def test_a_namespace_is_not_a_concurrent_jobs(two: list[Job], kind: str) -> None:
    assert len({job.program.namespaces[kind] for job in two}) == 2


NEW_NAMESPACE_BITS = {
    "time": 0x80, "mnt": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000,
    "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip


def test_no_namespace_can_be_made_by_unshare_or_clone(box: Box) -> None:
    answers = inside(
        box,
        "bits, unshare = json.loads(sys.argv[1]), int(sys.argv[2])\n"
        "say([{call(unshare, bit) for bit in bits.values()} == {'EPERM'},\n"
        "     [call(CLONE, bit | signal.SIGCHLD, 0, 0, 0, 0)\n"
        "      for name, bit in bits.items() if name != 'time']])",
        json.dumps(NEW_NAMESPACE_BITS), str(number("unshare")),
    )  # fmt: skip
    assert answers == [True, ["EPERM"] * 7]


def test_a_job_without_its_filter_could_make_no_namespace_either(box: Box) -> None:
    """Into the job's user namespace from outside, past its filter."""

    async def enter() -> list[tuple[str, str]]:
        async with held(box):
            (job,) = jobs(box)
            into = ["nsenter", "-t", str(job.init.pid), "-U", "--preserve-credentials"]
            return [await output([*into, *tried]) for tried in (
                ["cat", "/proc/sys/user/max_user_namespaces"],
                ["unshare", "--user", "true"],
            )]  # fmt: skip

    machine = Path("/proc/sys/user/max_user_namespaces").read_text()
    shown, user = box.wait(enter())
    assert shown[0] == "0\n"
    assert "No space left on device" in user[1]
    assert Path("/proc/sys/user/max_user_namespaces").read_text() == machine != "0\n"


async def output(argv: list[str]) -> tuple[str, str]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    stdout, stderr = await process.communicate()
    return stdout.decode(), stderr.decode()


def test_the_host_name_is_neutral_and_cannot_be_changed(box: Box) -> None:
    seen = inside(
        box,
        "say([list(os.uname())[1], socket.gethostname(), Path('/etc/hostname').read_text(),\n"
        "     tried(socket.sethostname, 'x'), libc.setdomainname(b'x', 1)])",
    )
    assert seen == ["sandrun", "sandrun", "sandrun\n", "EPERM", -1]
    assert os.uname().nodename != "sandrun"


def test_the_cgroups_of_the_machine_are_not_named(box: Box) -> None:
    lines = inside(box, "say(Path('/proc/self/cgroup').read_text().split())")
    assert lines
    assert all(line.endswith(":/") for line in lines)


# --- identity and privileges -----------------------------------------------------------------

PRIVILEGES = {
    "CapInh": "0" * 16, "CapPrm": "0" * 16, "CapEff": "0" * 16, "CapBnd": "0" * 16,
    "CapAmb": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2",
}  # fmt: skip


def _given_up(status: dict[str, str]) -> dict[str, str]:
    return {name: status[name] for name in PRIVILEGES}


def test_the_main_thread_has_no_capability_and_stands_behind_the_filter(box: Box) -> None:
    assert _given_up(inside(box, "say(status())")) == PRIVILEGES


def test_a_thread_has_no_capability_and_stands_behind_the_filter(box: Box) -> None:
    code = (
        "look = lambda: say(status('/proc/thread-self/status'))\n"
        "thread = threading.Thread(target=look); thread.start(); thread.join()"
    )
    seen = inside(box, code)
    assert seen["Pid"] != seen["Tgid"]
    assert _given_up(seen) == PRIVILEGES


def test_a_chain_of_exec_and_fork_changes_no_privilege(box: Box) -> None:
    script = "exec env sh -c 'exec nice sh -c \"cat /proc/self/status; :\"'"
    ran = box.sh(script)
    lines = (line.split(":", 1) for line in ran.text.splitlines())
    assert _given_up({name: value.strip() for name, value in lines}) == PRIVILEGES


def test_a_program_in_a_memfd_has_no_more_privileges(box: Box) -> None:
    code = (
        "fd = os.memfd_create('program')\n"
        "os.write(fd, Path('/usr/bin/cat').read_bytes())\n"
        "seen = subprocess.run([f'/proc/self/fd/{fd}', '/proc/self/status'], pass_fds=[fd],\n"
        "                      capture_output=True, text=True, check=True).stdout\n"
        "say(dict(line.split(':', 1) for line in seen.splitlines()))"
    )
    seen = {name: value.strip() for name, value in inside(box, code).items()}
    assert seen["Name"] != "cat"
    assert _given_up(seen) == PRIVILEGES


def test_pid_1_has_given_up_as_much_as_the_program(two: list[Job]) -> None:
    for job in two:
        assert _given_up(job.init.status) == PRIVILEGES


@pytest.mark.parametrize("kind", ["Uid", "Gid"])
def test_all_four_ids_are_one_from_the_jobs_range(two: list[Job], kind: str) -> None:
    for job in two:
        ids = [int(id) for id in job.program.status[kind].split()]
        assert len(ids) == 4
        assert len(set(ids)) == 1
        assert FIRST_UID <= ids[0] < FIRST_UID + UIDS
        assert job.init.status[kind] == job.program.status[kind]


def test_concurrent_jobs_have_different_ids(two: list[Job]) -> None:
    for kind in ("Uid", "Gid"):
        assert len({job.program.status[kind] for job in two}) == 2


def test_a_job_is_in_no_group(two: list[Job]) -> None:
    assert [job.program.status["Groups"] for job in two] == ["", ""]
    assert [job.init.status["Groups"] for job in two] == ["", ""]


def test_a_job_can_become_nobody_else(box: Box) -> None:
    seen = inside(
        box,
        "say([os.getresuid(), os.getresgid(), os.getgroups(),\n"
        "     tried(os.setresuid, 0, 0, 0), tried(os.setresgid, 0, 0, 0),\n"
        "     tried(os.setuid, 65534), tried(os.setgroups, [])])",
    )
    assert seen == [[1000] * 3, [1000] * 3, [], "EINVAL", "EINVAL", "EINVAL", "EPERM"]


def test_a_setuid_program_gives_nothing(box: Box) -> None:
    """The dynamic linker says how the kernel started it, unless it was started with privileges."""
    assert os.stat("/usr/bin/su").st_mode & stat.S_ISUID
    ran = box.sh("LD_SHOW_AUXV=1 su --version")
    facts = dict(re.findall(r"(AT_\w+): +(\w+)", ran.text))
    assert {facts["AT_EUID"], facts["AT_UID"], facts["AT_EGID"]} == {"1000"}
    assert facts["AT_SECURE"] == "0"


def test_every_mount_refuses_setuid_and_only_the_root_has_devices(two: list[Job]) -> None:
    for job in two:
        for mount in job.program.mounts:
            options = mount[5].split(",")
            assert "nosuid" in options
            assert "nodev" in options or mount[4] == "/"


def test_no_core_is_dumped(box: Box) -> None:
    """A limit of 1, not 0: 0 would not keep it from the machine's core_pattern helper."""
    limit = inside(box, "import resource\nsay(resource.getrlimit(resource.RLIMIT_CORE))")
    assert limit == [1, 1]
    ran = box.sh("sh -c 'kill -SEGV $$'; echo $?; ls -A /job /tmp")
    assert ran.text.split() == ["139", "/job:", "/tmp:"]


def test_a_limit_cannot_be_raised(box: Box) -> None:
    code = (
        "import resource as r\n"
        "def raised(which):\n"
        "    hard = r.getrlimit(which)[1]\n"
        "    try: r.setrlimit(which, (hard, hard + 1))\n"
        "    except ValueError: return False\n"
        "    return True\n"
        "say([raised(w) for w in (r.RLIMIT_CORE, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_NPROC,\n"
        "     r.RLIMIT_STACK, r.RLIMIT_MEMLOCK, r.RLIMIT_SIGPENDING, r.RLIMIT_MSGQUEUE)])"
    )
    assert inside(box, code) == [False] * 8


# --- files -----------------------------------------------------------------------------------


@pytest.fixture
def canary() -> Iterator[Path]:
    """A file of the machine, as near to its root as can be written."""
    name = f"SANDRUN_CANARY_{uuid.uuid4().hex}"
    for folder in ("/", "/run"):
        path = Path(folder, name)
        try:
            path.touch(0o644)
        except OSError as error:
            assert error.errno == errno.EROFS
            continue
        break
    yield path
    path.unlink()


def test_no_path_leads_to_the_machines_files(box: Box, canary: Path) -> None:
    code = (
        "canary = sys.argv[1]\n"
        "ways = ['', '/job' + '/..' * 50, '/proc/1/root', '/proc/self/root',\n"
        "        '/proc/self/cwd/../..', '/.oldroot', '/oldroot', '/dev/shm/../..',\n"
        "        *('/..' * n for n in range(9))]\n"
        "found = [way for way in ways if os.path.lexists(way + canary)]\n"
        "for fd in range(64):\n"
        "    for up in ('', '/..', '/../..'):\n"
        "        if os.path.lexists(f'/proc/self/fd/{fd}{up}{canary}'): found.append(fd)\n"
        "os.chdir('/job'); os.mkdir('x')\n"
        "escaped = tried(os.chroot, 'x')\n"
        "for _ in range(50): os.chdir('..')\n"
        "names = set()\n"
        "for folder, folders, files in os.walk('/'):\n"
        "    names.update(files)\n"
        "    if folder == '/': folders.remove('usr'); folders.remove('proc')\n"
        "name = os.path.basename(canary)\n"
        "say([found, escaped, os.path.exists(name), name in names, len(names) > 10, os.getcwd()])"
    )
    assert os.path.exists(canary)
    assert inside(box, code, str(canary)) == [[], "EPERM", False, False, True, "/"]


def test_the_work_directory_is_named_and_reachable(box: Box) -> None:
    code = (
        "here = os.getcwd()\n"
        "say([here, os.path.samefile('.', here), sorted(os.listdir('/job')),\n"
        "     tried(os.chdir, '/proc/self/fd/9'), os.getcwd()])"
    )
    assert inside(box, code) == ["/job", True, ["main.py", "probe.py"], "ENOENT", "/job"]


def test_mountinfo_names_no_directory_of_the_machine(two: list[Job]) -> None:
    system = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
    of_workspace = {("/", "/job"), ("/job", "/job"), ("/tmp", "/tmp"), ("/shm", "/dev/shm")}
    for job in two:
        places = {(mount[3], mount[4]) for mount in job.program.mounts}
        assert of_workspace <= places
        for source, target in places - of_workspace - {("/", "/"), ("/", "/proc")}:
            assert target in system
            assert source in {"/", target}


def test_everything_writable_is_the_jobs_own_tmpfs(two: list[Job]) -> None:
    for job in two:
        writable = {}
        for mount in job.program.mounts:
            kind = mount[mount.index("-") + 1]
            if "rw" in mount[5].split(",") and kind != "proc":
                writable[mount[4]] = (kind, mount[2])
        assert set(writable) == set(WRITABLE)
        assert {kind for kind, _ in writable.values()} == {"tmpfs"}
        assert len({device for _, device in writable.values()}) == 1  # one limit for all
    devices = [{m[2] for m in job.program.mounts if m[4] == "/job"} for job in two]
    assert devices[0] != devices[1]


def test_the_roots_file_system_itself_is_read_only(two: list[Job]) -> None:
    for job in two:
        (root,) = [mount for mount in job.program.mounts if mount[4] == "/"]
        assert root[-1].split(",")[0] == "ro"


def test_nothing_of_the_system_can_be_changed(box: Box) -> None:
    code = (
        "def create(folder):\n"
        "    with open(folder + '/SANDRUN_NEW', 'w'): pass\n"
        "def change(path): os.close(os.open(path, os.O_WRONLY))\n"
        "folders = ['/', '/usr', '/usr/bin', '/usr/lib', '/usr/local', '/etc', '/bin', '/lib',\n"
        "           '/dev', '/var', '/proc', '/proc/sys', '/proc/self']\n"
        "files = ['/etc/passwd', '/etc/ld.so.cache', '/usr/bin/env', '/bin/sh', '/proc/self/exe']\n"
        "say({'create': {f: tried(create, f) for f in folders},\n"
        "     'change': {f: tried(change, f) for f in files},\n"
        "     'rename': tried(os.rename, '/etc/passwd', '/etc/x'),\n"
        "     'move in': tried(os.rename, '/job/main.py', '/usr/x'),\n"
        "     'link': tried(os.link, '/etc/passwd', '/etc/x'),\n"
        "     'link out': tried(os.link, '/usr/bin/env', '/job/env'),\n"
        "     'remove': tried(os.unlink, '/etc/passwd'),\n"
        "     'mode': tried(os.chmod, '/usr/bin/env', 0o777),\n"
        "     'owner': tried(os.chown, '/usr/bin/env', 1000, 1000),\n"
        "     'time': tried(os.utime, '/etc/passwd'),\n"
        "     'control': {f: tried(create, f) for f in ('/job', '/tmp', '/dev/shm', '/var/tmp')}})"
    )
    answers = inside(box, code)
    assert answers.pop("control") == dict.fromkeys(("/job", "/tmp", "/dev/shm", "/var/tmp"), "ok")
    for folder in ("/proc", "/proc/sys", "/proc/self"):
        assert answers["create"].pop(folder) in {"ENOENT", "EACCES"}
    assert set(answers.pop("create").values()) == {"EROFS"}
    changed = answers.pop("change")
    assert changed.pop("/proc/self/exe") in {"EROFS", "EACCES", "ETXTBSY"}
    assert set(changed.values()) <= {"EROFS", "EACCES"}
    assert answers.pop("link out") == answers.pop("move in") == "EXDEV"
    assert set(answers.values()) == {"EROFS"}


def test_the_root_has_exactly_what_it_needs(box: Box) -> None:
    names = set(inside(box, "say(os.listdir('/'))"))
    linked = {name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
              if Path("/", name).exists()}  # fmt: skip
    assert names == {"dev", "etc", "proc", "usr", "var", "tmp", "job"} | linked


def test_dev_holds_five_harmless_devices_and_nothing_else(box: Box) -> None:
    code = (
        "def device(name):\n"
        "    s = os.lstat('/dev/' + name)\n"
        "    return [os.major(s.st_rdev), os.minor(s.st_rdev)] if s.st_rdev else None\n"
        "say({name: device(name) for name in os.listdir('/dev')})"
    )
    assert inside(box, code) == {
        "null": [1, 3], "zero": [1, 5], "full": [1, 7], "random": [1, 8], "urandom": [1, 9],
        "fd": None, "stdin": None, "stdout": None, "stderr": None, "shm": None,
    }  # fmt: skip


def test_the_devices_work(box: Box) -> None:
    code = (
        "read = lambda name: open('/dev/' + name, 'rb', 0).read(16)\n"
        "write = lambda name: open('/dev/' + name, 'wb', 0).write(b'x')\n"
        "say([len(read('null')), read('zero') == bytes(16), len(set(read('urandom'))) > 3,\n"
        "     len(read('random')), tried(write, 'null'), tried(write, 'full')])"
    )
    assert inside(box, code) == [0, True, True, 16, "ok", "ENOSPC"]


def test_no_device_can_be_made(box: Box) -> None:
    code = (
        "import stat\n"
        "make = lambda kind, dev: tried(os.mknod, f'/tmp/{kind}{dev}', kind | 0o666, dev)\n"
        "say([make(stat.S_IFCHR, os.makedev(1, 1)), make(stat.S_IFBLK, os.makedev(254, 0)),\n"
        "     make(stat.S_IFCHR, os.makedev(1, 3)), make(stat.S_IFIFO, 0)])"
    )
    assert inside(box, code) == ["EPERM", "EPERM", "EPERM", "ok"]


def test_stdout_and_stderr_can_be_opened_by_name(box: Box) -> None:
    ran = box.sh("echo out >/dev/stdout; echo err >/dev/stderr; echo more >>/proc/self/fd/1")
    assert (ran.stdout, ran.stderr, ran.code) == (b"out\nmore\n", b"err\n", 0)


def test_etc_is_our_own(box: Box) -> None:
    code = (
        "import pwd, grp\n"
        "say([[p.pw_name for p in pwd.getpwall()], pwd.getpwuid(os.getuid()).pw_dir,\n"
        "     grp.getgrgid(os.getgid()).gr_name,\n"
        "     [n for n in ('shadow', 'gshadow', 'sudoers', 'ssh', 'ssl/private', 'resolv.conf',\n"
        "                  'machine-id', 'fstab') if os.path.lexists('/etc/' + n)]])"
    )
    assert inside(box, code) == [["root", "sandbox", "nobody"], "/tmp", "sandbox", []]


SECRETIVE = """sys sysrq-trigger kcore kallsyms kmsg keys modules interrupts iomem meminfo
loadavg stat cpuinfo config.gz timer_list bus irq fs driver net mounts 1/environ 1/mem 1/root 1/exe
1/fd 1/maps""".split()


def test_proc_and_sys_tell_nothing_of_the_machine(box: Box) -> None:
    paths = ["/sys", *(f"/proc/{name}" for name in SECRETIVE)]
    assert sum(map(os.path.lexists, paths)) > 20
    assert inside(box, "say([p for p in sys.argv[1:] if os.path.lexists(p)])", *paths) == []


def test_a_process_cannot_be_made_harder_to_kill_for_lack_of_memory(box: Box) -> None:
    code = "say(tried(Path('/proc/self/oom_score_adj').write_text, '-1000'))"
    assert inside(box, code) == "EACCES"


# --- environment and descriptors -------------------------------------------------------------


def test_the_environment_is_the_documented_one_and_nothing_more() -> None:
    box = Box(["env", "SANDRUN_CANARY=launcher", "VIRTUAL_ENV=/x", *LAUNCHER]).start()
    try:
        launcher = Path(f"/proc/{box.process.pid}/environ").read_bytes()
        ran = box.python("print(open('/proc/self/environ').read(), end='')")
        bare = box.wait(box.arun(Command((("env", "-0"),), {"A": "b", "EMPTY": "", "É": "ü ="})))
    finally:
        box.close()
    assert b"SANDRUN_CANARY" in launcher
    seen = dict(pair.split("=", 1) for pair in ran.text.split("\0")[:-1])
    assert seen == PYTHON.environment(Limits())
    assert seen.keys() == BASE_ENV.keys() | PYTHON.env.keys()
    assert set(BASE_ENV) == {"PATH", "HOME", "LANG"}
    assert bare.code == 127  # without PATH nothing is found; and nobody guesses one


def test_the_environment_arrives_byte_for_byte(box: Box) -> None:
    env = {"A": "b", "EMPTY": "", "É": "ü = \n", "PATH": "/usr/bin"}
    ran = box.wait(box.arun(Command((("env", "-0"),), env)))
    assert dict(pair.split("=", 1) for pair in ran.text.split("\0")[:-1]) == env


def test_the_launchers_environment_in_pid_1_is_unreadable(box: Box) -> None:
    """Pid 1 is a fork of the launcher: what the launcher's memory holds must be out of reach."""
    code = (
        "process_vm_readv = int(sys.argv[1])\n"
        "say([tried(Path('/proc/1/environ').read_bytes), tried(Path('/proc/1/mem').read_bytes),\n"
        "     call(process_vm_readv, 1, 0, 0, 0, 0, 0)])"
    )
    answers = inside(box, code, str(number("process_vm_readv")))
    assert answers == ["ENOENT", "ENOENT", "EPERM"]


def test_the_program_has_descriptors_0_to_2_only(box: Box, two: list[Job]) -> None:
    assert [set(job.program.descriptors) for job in two] == [{0, 1, 2}] * 2
    listed = inside(box, "say(sorted(map(int, os.listdir('/proc/self/fd'))))")
    assert listed == [0, 1, 2, 3]  # 3 reads the directory


def test_pid_1_holds_its_control_socket_close_on_exec_and_nothing_else(box: Box) -> None:
    async def flags() -> dict[int, int]:
        async with held(box):
            (job,) = jobs(box)
            return {fd: flags_of(job.init.pid, fd) for fd in job.init.descriptors}

    closed_on_exec = {fd: bool(flags & os.O_CLOEXEC) for fd, flags in box.wait(flags()).items()}
    assert {fd for fd, closed in closed_on_exec.items() if not closed} == {0, 1, 2}
    assert len(closed_on_exec) == 4, "and the control socket, wherever it is"


def flags_of(pid: int, fd: int) -> int:
    text = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
    return int(dict(line.split(":") for line in text.splitlines())["flags"], 8)


def test_pid_1_holds_no_descriptor_of_the_launcher(box: Box, two: list[Job]) -> None:
    launcher = set(descriptors(box.process.pid).values()) - {"/dev/null"}
    assert len(launcher) > 3
    for job in two:
        assert not launcher & set(job.init.descriptors.values())


def test_concurrent_jobs_share_no_descriptor(two: list[Job]) -> None:
    def pipes(job: Job) -> set[str]:
        return {d for d in job.init.descriptors.values() if d.startswith(("pipe:", "socket:"))}

    assert len(pipes(two[0])) == 3
    assert not pipes(two[0]) & pipes(two[1])


# --- network ---------------------------------------------------------------------------------


def test_there_is_no_interface_but_a_loopback_that_is_down(box: Box, two: list[Job]) -> None:
    idle = {"tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0",
            "ip6gre0"}  # fmt: skip
    for job in two:
        assert "lo" in job.program.interfaces
        assert set(job.program.interfaces) <= {"lo"} | idle
    code = (
        "import fcntl, struct\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "flags = fcntl.ioctl(s, 0x8913, struct.pack('16sh22x', b'lo', 0))\n"
        "say(struct.unpack_from('h', flags, 16)[0])"
    )
    assert inside(box, code) & 1 == 0  # IFF_UP


def test_a_listener_of_the_machine_is_out_of_reach(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()
        server.accept()[0].close()
        code = "say(tried(socket.create_connection, ('127.0.0.1', int(sys.argv[1])), 5))"
        assert inside(box, code, str(port)) == "ENETUNREACH"
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8", "0.0.0.0", "::1", "fe80::1"]
)
def test_no_address_can_be_reached(box: Box, address: str) -> None:
    code = (
        "family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET\n"
        "def send(kind):\n"
        "    with socket.socket(family, kind) as s:\n"
        "        s.settimeout(5); s.connect((sys.argv[1], 53)); s.send(b'x')\n"
        "say([tried(send, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)])"
    )
    unreachable = {"ENETUNREACH", "EADDRNOTAVAIL", "EINVAL", "EAFNOSUPPORT"}
    assert set(inside(box, code, address)) <= unreachable


def test_no_raw_socket_and_no_other_family(box: Box) -> None:
    code = (
        "socket_call = int(sys.argv[1])\n"
        "make = lambda family, kind: call(socket_call, family, kind, 0)\n"
        "say([[family for family in range(64) if make(family, socket.SOCK_DGRAM) != 'ENOSYS'],\n"
        "     [tried(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1),\n"
        "      tried(socket.socket, socket.AF_INET6, socket.SOCK_RAW, 58)],\n"
        "     [tried(socket.socketpair, f) for f in (1, 2, 10, 16, 30, 38, 40)]])"
    )
    families, raw, pairs = inside(box, code, str(number("socket")))
    assert families == [1, 2, 10]  # AF_UNIX, AF_INET, AF_INET6
    assert set(raw) <= {"EPERM", "EAFNOSUPPORT"}
    assert pairs == ["ok"] + ["ENOSYS"] * 6


def test_an_abstract_socket_of_the_machine_is_out_of_reach(box: Box) -> None:
    name = f"sandrun-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as control:
        server.bind("\0" + name)
        server.listen()
        control.connect("\0" + name)
        code = "say(tried(socket.socket(socket.AF_UNIX).connect, '\\0' + sys.argv[1]))"
        assert inside(box, code, name) == "ECONNREFUSED"


# --- system calls ----------------------------------------------------------------------------

# Younger than the libseccomp of some machines; their numbers are the same everywhere.
YOUNG = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435,
    "openat2": 437, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "quotactl_fd": 443, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
    "landlock_restrict_self": 446, "memfd_secret": 447, "process_mrelease": 448, "cachestat": 451,
    "map_shadow_stack": 453, "statmount": 457, "listmount": 458, "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460, "lsm_list_modules": 461, "mseal": 462, "open_tree_attr": 467,
}  # fmt: skip


def number(name: str) -> int:
    """The number of a system call here; negative when this machine has no such call."""
    if name in YOUNG:
        return YOUNG[name]
    found: int = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    return found


# What is denied and how, by what it would open. Called with zeros: without a filter nearly all
# of these answer something else.
SYSCALLS = {
    "namespaces": {"EPERM": "setns unshare", "ENOSYS": "clone3"},
    "mounts": {
        "EPERM": "mount umount2 pivot_root chroot",
        "ENOSYS": "open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr statmount "
        "listmount open_tree_attr",
    },
    "the kernel itself": {
        "EPERM": "bpf perf_event_open init_module finit_module delete_module kexec_load swapon "
        "swapoff reboot acct",
        "ENOSYS": "userfaultfd kexec_file_load iopl ioperm quotactl quotactl_fd lookup_dcookie "
        "vhangup nfsservctl sync syncfs syslog modify_ldt",
    },
    "clocks": {"EPERM": "settimeofday clock_settime adjtimex", "ENOSYS": "clock_adjtime"},
    "io_uring": {"ENOSYS": "io_uring_setup io_uring_enter io_uring_register"},
    "keys": {"ENOSYS": "keyctl add_key request_key"},
    "other processes": {
        "EPERM": "ptrace process_vm_readv process_vm_writev",
        "ENOSYS": "kcmp pidfd_getfd process_madvise process_mrelease",
    },
    "pages shared with pipes": {"ENOSYS": "splice tee vmsplice"},
    "files by handle": {"ENOSYS": "name_to_handle_at open_by_handle_at"},
    "personality": {"ENOSYS": "personality"},
    "filters of its own": {"ENOSYS": "seccomp"},
    "asynchronous I/O": {"ENOSYS": "io_setup io_submit io_getevents io_destroy io_cancel"},
    "System V and POSIX queues": {
        "ENOSYS": "mq_open mq_unlink mq_timedsend shmget shmat shmctl semget semop semctl msgget "
        "msgsnd msgctl",
    },
    "watching the file system": {"ENOSYS": "fanotify_init fanotify_mark"},
    "scheduling": {
        "ENOSYS": "sched_setscheduler sched_setparam sched_setattr ioprio_set migrate_pages "
        "move_pages mbind set_mempolicy",
    },
    "the young ones": {
        "ENOSYS": "memfd_secret landlock_create_ruleset landlock_add_rule landlock_restrict_self "
        "lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal cachestat map_shadow_stack "
        "openat2",
    },
    "names of the machine": {"EPERM": "sethostname setdomainname"},
    "extended attributes": {
        "ENOTSUP": "setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(box: Box) -> dict[int, str]:
    """What the calls of SYSCALLS answer inside, by number."""
    named = (names.split() for group in SYSCALLS.values() for names in group.values())
    numbers = sorted({number(name) for names in named for name in names})
    code = "say({n: call(n, 0, 0, 0, 0, 0, 0) for n in json.loads(sys.argv[1])})"
    with settled(box):
        found = inside(box, code, json.dumps(numbers))
    return {int(n): answer for n, answer in found.items()}


@pytest.mark.parametrize("group", SYSCALLS)
def test_system_calls_are_denied(answers: dict[int, str], group: str) -> None:
    expected = {
        name: error for error, names in SYSCALLS[group].items() for name in names.split()
        if number(name) >= 0
    }  # fmt: skip
    assert {name: answers[number(name)] for name in expected} == expected


def test_every_number_that_the_policy_does_not_name_is_enosys(box: Box) -> None:
    named = {*policy.ALLOWED, "clone", "socket", "socketpair", "ioctl", "prctl", "prlimit64"}
    named.update(name for names in policy.DENIED.values() for name in names)
    # Linux lets its own trampolines of uprobes pass every filter; elsewhere they end in SIGILL.
    trampolines = {335, 336}
    numbers = sorted(set(range(700)) - {number(name) for name in named} - trampolines)
    code = (
        "numbers = json.loads(Path('numbers').read_text())\n"
        "say([n for n in numbers if call(n, 0, 0, 0, 0, 0, 0) != 'ENOSYS'])"
    )
    assert len(numbers) > 350
    assert inside(box, code, files={"numbers": json.dumps(numbers).encode()}) == []


@pytest.mark.parametrize("where", ["a thread", "a fork", "an executed program"])
def test_the_filter_holds_in(box: Box, where: str) -> None:
    calls = [number("unshare"), number("splice"), number("keyctl")]
    code = (
        f"def look(): say([call(n, 0, 0, 0, 0, 0, 0) for n in {calls}])\n"
        + {
            "a thread": "t = threading.Thread(target=look); t.start(); t.join()",
            "a fork": "if os.fork() == 0: look()\nelse: os.wait()",
            "an executed program": "if len(sys.argv) > 1: look()\n"
            "else: os.execv(sys.executable, [sys.executable, 'main.py', 'again'])",
        }[where]
    )
    assert inside(box, code) == ["EPERM", "ENOSYS", "ENOSYS"]


TIOCSTI, TIOCLINUX, TIOCSCTTY, TIOCCONS, FIONREAD = 0x5412, 0x541C, 0x540E, 0x541D, 0x541B
SIOCSIFFLAGS, SIOCSIFADDR, FS_IOC_SETFLAGS = 0x8914, 0x8916, 0x40086602
UPPER = 1 << 32


def test_ioctls_that_do_more_than_ask_are_denied(box: Box) -> None:
    denied = [TIOCSTI, TIOCLINUX, TIOCSCTTY, TIOCCONS, SIOCSIFFLAGS, SIOCSIFADDR, FS_IOC_SETFLAGS]
    code = (
        "ioctl, *requests = map(int, sys.argv[1:])\n"
        "room = ctypes.addressof(ctypes.create_string_buffer(64))\n"
        "say([[call(ioctl, fd, r, room) for r in requests] for fd in (0, 1, 2)])"
    )
    answers = inside(box, code, *map(str, [number("ioctl"), *denied]))
    assert answers == [["ENOSYS"] * len(denied)] * 3


def test_ioctls_that_programs_need_are_allowed(box: Box) -> None:
    code = (
        "import array, fcntl, termios\n"
        "read, write = os.pipe(); os.write(write, b'12345')\n"
        "waiting = array.array('i', [0]); fcntl.ioctl(read, termios.FIONREAD, waiting)\n"
        "say([waiting[0], os.isatty(1), tried(fcntl.ioctl, 1, termios.TIOCGWINSZ, bytes(8)),\n"
        "     tried(os.set_inheritable, read, True), tried(os.set_blocking, read, False)])"
    )
    assert inside(box, code) == [5, False, "ENOTTY", "ok", "ok"]


def test_upper_bits_of_an_argument_do_not_slip_past_the_filter(box: Box) -> None:
    """The kernel reads 32 bits of these: 64 compared would let TIOCSTI | 1 << 32 through."""
    cases = {
        "ioctl": (number("ioctl"), 1, TIOCSTI | UPPER, 0),
        "socket": (number("socket"), 16 | UPPER, 3, 0),  # AF_NETLINK
        "socketpair": (number("socketpair"), 16 | UPPER, 3, 0, 0),
        "prctl": (number("prctl"), 22 | UPPER, 2, 0, 0, 0),  # PR_SET_SECCOMP
        "clone": (number("clone"), 0x10000000 | UPPER | signal.SIGCHLD, 0, 0, 0, 0),
        "unshare": (number("unshare"), 0x10000000 | UPPER),
    }
    code = "say({name: call(*args) for name, args in json.loads(sys.argv[1]).items()})"
    denied = dict.fromkeys(cases, "ENOSYS") | {"clone": "EPERM", "unshare": "EPERM"}
    assert inside(box, code, json.dumps(cases)) == denied


def test_upper_bits_of_an_allowed_argument_do_no_harm(box: Box) -> None:
    code = (
        "read, write = os.pipe(); os.write(write, b'x')\n"
        "room = ctypes.create_string_buffer(8)\n"
        "ioctl, request, socket_call, family = map(int, sys.argv[1:])\n"
        "say([call(ioctl, read, request, ctypes.addressof(room)), room.raw[0],\n"
        "     call(socket_call, family, socket.SOCK_STREAM, 0)])"
    )
    args = [number("ioctl"), FIONREAD | UPPER, number("socket"), socket.AF_INET | UPPER]
    assert inside(box, code, *map(str, args)) == ["ok", 1, "ok"]


def test_prctl_grants_nothing(box: Box) -> None:
    options = {"PR_SET_SECCOMP": 22, "PR_SET_MM": 35, "PR_SET_KEEPCAPS": 8, "PR_SET_SECUREBITS": 28,
               "PR_CAP_AMBIENT": 47, "PR_CAPBSET_DROP": 24, "PR_SET_PTRACER": 0x59616D61,
               "PR_SET_TSC": 26, "PR_TASK_PERF_EVENTS_DISABLE": 31}  # fmt: skip
    code = "prctl, *rest = map(int, sys.argv[1:])\nsay([call(prctl, o, 0, 0, 0, 0) for o in rest])"
    args = [number("prctl"), *options.values()]
    assert inside(box, code, *map(str, args)) == ["ENOSYS"] * len(options)


# Numbers are chosen so that, read as a native call, they are not allowed either: user-mode Linux
# takes a 32-bit call for a 64-bit one.
ABI = r"""
#include <stdio.h>
static long compat(long number) {
    long answer = number;
    __asm__ volatile("int $0x80" : "+a"(answer) : "b"(0), "c"(0), "d"(0), "S"(0), "D"(0)
                     : "r8", "r9", "r10", "r11", "memory");
    return answer;
}
static long native(long number) {
    long answer;
    __asm__ volatile("syscall" : "=a"(answer) : "a"(number), "D"(0), "S"(0), "d"(0)
                     : "rcx", "r11", "memory");
    return answer;
}
int main(void) {
    long x32 = 0x40000000;
    printf("[%ld, %ld, %ld, %ld, %ld]\n", native(110),        /* getppid */
           compat(64), native(x32 | 110),                     /* getppid */
           native(x32 | 272), native(x32 | 520));             /* unshare, execve of x32 */
    return 0;
}
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs the ABIs of x86-64")
def test_calls_of_other_architectures_are_enosys(box: Box) -> None:
    command = load()["c"].command("main.c")
    answers = said(box.wait(box.arun(command, files={"main.c": ABI.encode()})))
    assert answers == [1] + [-errno.ENOSYS] * 4


def test_files_are_copied_without_splice(box: Box) -> None:
    code = (
        "import shutil\n"
        "data = os.urandom(1 << 20); Path('a').write_bytes(data); shutil.copy('a', 'b')\n"
        "subprocess.run('cp a c; cat a > d; cat a | cat > e', shell=True, check=True)\n"
        "with open('a') as source, open('f', 'w') as target:\n"
        "    while os.sendfile(target.fileno(), source.fileno(), None, 1 << 20): pass\n"
        "say([Path(name).read_bytes() == data for name in 'bcdef'])"
    )
    assert inside(box, code) == [True] * 5


def test_inotify_is_granted_sparingly(box: Box) -> None:
    code = (
        "made = 0\n"
        "while (fd := libc.inotify_init1(0)) >= 0 and made < 100: made += 1\n"
        "say([made, errno.errorcode[ctypes.get_errno()]])"
    )
    assert inside(box, code) == [8, "EMFILE"]


def test_no_priority_and_no_locked_memory_can_be_taken(box: Box) -> None:
    code = (
        "room = ctypes.create_string_buffer(1 << 20)\n"
        "locked = libc.mlock(room, ctypes.c_size_t(len(room)))\n"
        "say([tried(os.nice, -20), tried(os.setpriority, os.PRIO_PROCESS, 0, -1), locked,\n"
        "     tried(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))])"
    )
    assert inside(box, code) == ["EPERM", "EACCES", -1, "ENOSYS"]


# --- pid 1 -----------------------------------------------------------------------------------


def test_pid_1_cannot_be_killed_from_inside(box: Box) -> None:
    code = (
        "sent = {tried(os.kill, 1, s) for s in range(1, 65)}\n"
        "signal.pidfd_send_signal(os.pidfd_open(1), signal.SIGKILL)\n"
        "child = subprocess.run(['true'])\n"
        "say([list(sent), os.getppid(), child.returncode])"
    )
    assert inside(box, code) == [["ok"], 1, 0]  # sent, and without effect


def test_pid_1_cannot_be_traced_from_inside(box: Box) -> None:
    code = (
        "PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206\n"
        "say([call(int(sys.argv[1]), how, 1, 0, 0) for how in (PTRACE_ATTACH, PTRACE_SEIZE)])"
    )
    assert inside(box, code, str(number("ptrace"))) == ["EPERM"] * 2


def test_pid_1_cannot_be_limited_from_inside(box: Box) -> None:
    """A pid 1 without memory would end in an error that looks like ours, not the job's."""
    code = (
        "import resource\n"
        "kinds = (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_CPU)\n"
        "answers = [tried(resource.prlimit, 1, kind, (0, 0)) for kind in kinds]\n"
        "for _ in range(50):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0: os._exit(0)\n"  # an orphan: work for pid 1
        "        os._exit(0)\n"
        "    os.wait()\n"
        "say(answers)"
    )
    assert set(inside(box, code)) <= {"EPERM", "ENOSYS"}


def test_a_job_cannot_trace_its_own_child(box: Box) -> None:
    code = (
        "ptrace = int(sys.argv[1])\n"
        "child = os.fork()\n"
        "if child == 0: signal.pause()\n"
        "say(call(ptrace, 16, child, 0, 0)); os.kill(child, signal.SIGKILL); os.wait()"
    )
    assert inside(box, code, str(number("ptrace"))) == "EPERM"


# --- between jobs ----------------------------------------------------------------------------


def test_a_job_neither_sees_nor_signals_another(box: Box) -> None:
    async def both() -> Any:
        async with held(box):  # it must outlive what the other does
            (job,) = jobs(box)
            pids = [str(job.init.pid), str(job.program.pid)]
            code = (
                "pids = list(map(int, sys.argv[1:]))\n"
                "seen = [[tried(os.kill, p, 0), os.path.exists(f'/proc/{p}')] for p in pids]\n"
                "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                "everybody = [tried(os.kill, -1, s) for s in (signal.SIGTERM, signal.SIGKILL)]\n"
                "say([seen, everybody])"
            )
            return said(await ainside(box, code, *pids))

    seen, everybody = box.wait(both())
    assert seen == [["ESRCH", False]] * 2
    assert everybody[0] in {"ok", "ESRCH"}


SHARED = (
    "places = ['/job', '/tmp', '/dev/shm', '/var/tmp', os.environ['HOME']]\n"
    "found = sorted(p + '/' + n for p in places for n in os.listdir(p) if n.startswith('canary'))\n"
    "for place in places: Path(place, 'canary').write_text('mine')\n"
    "server = socket.socket(socket.AF_UNIX)\n"
    "reached = tried(socket.socket(socket.AF_UNIX).connect, '\\0canary')\n"
    "bound = tried(server.bind, '\\0canary'); server.listen()\n"
    "tcp = tried(socket.socket().bind, ('0.0.0.0', 4242))\n"
    "own = tried(socket.socket(socket.AF_UNIX).connect, '\\0canary')\n"
    "say([found, reached, bound, tcp, own])"
)
ALONE = [[], "ECONNREFUSED", "ok", "ok", "ok"]


def test_files_and_sockets_of_a_running_job_are_invisible_to_another(box: Box) -> None:
    async def both() -> Any:
        async with held(box, SHARED) as first:
            return first, said(await ainside(box, SHARED))

    assert box.wait(both()) == (ALONE, ALONE)


def test_a_job_leaves_nothing_for_the_next_one(box: Box) -> None:
    assert inside(box, SHARED) == ALONE
    assert inside(box, SHARED) == ALONE


def test_the_layout_of_memory_differs_between_two_runs(box: Box) -> None:
    code = (
        "maps = Path('/proc/self/maps').read_text().splitlines()\n"
        "start = lambda word: next(m.split('-')[0] for m in maps if m.endswith(word))\n"
        "say([start('libc.so.6'), start('[stack]'), start('[heap]'), hash('sandrun')])"
    )
    first, second = inside(box, code), inside(box, code)
    same = [a == b for a, b in zip(first, second, strict=True)]
    # User-mode Linux moves the stack only.
    assert same == ([True, False, True, False] if UML else [False] * 4)


# --- how a program ends ----------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_an_exit_code_is_exact(box: Box, code: int) -> None:
    verdict = box.sh(f"exit {code}").result.verdict
    assert (verdict.reason, verdict.exit_code, verdict.signal) == ("exit", code, None)


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "SEGV", "PIPE", "ALRM", "USR1", "KILL"])
def test_a_signal_has_its_default_action_and_is_named(box: Box, name: str) -> None:
    verdict = box.sh(f"kill -{name} $$; exit 3").result.verdict
    number = signal.Signals[f"SIG{name}"]
    assert (verdict.reason, verdict.exit_code, verdict.signal) == ("signal", None, number)


def test_a_crash_ends_as_its_signal(box: Box) -> None:
    verdict = box.python("import ctypes; ctypes.string_at(0)").result.verdict
    assert (verdict.reason, verdict.signal) == ("signal", signal.SIGSEGV)


@pytest.mark.parametrize(
    "program, code, says",
    [
        ("no-such-program", 127, "not found"),
        ("/job/absent", 127, "not found"),
        ("/job/plain", 126, "Permission denied"),
        ("/job", 126, "Permission denied"),
    ],
)
def test_what_cannot_be_executed_ends_as_in_a_shell(
    box: Box, program: str, code: int, says: str
) -> None:
    ran = box.wait(box.arun(Command(((program,),), BASE_ENV), files={"plain": b"text"}))
    assert (ran.reason, ran.code) == ("exit", code)
    assert ran.stderr.decode() == f"{program}: {says}\n"


# --- languages -------------------------------------------------------------------------------


def test_python_has_threads_processes_and_databases(box: Box) -> None:
    code = (
        "import asyncio, concurrent.futures as f, mmap, multiprocessing as mp, sqlite3\n"
        "from multiprocessing import shared_memory\n"
        "def square(n): return n * n\n"
        "if __name__ == '__main__':\n"
        "    with f.ThreadPoolExecutor(4) as pool: threads = list(pool.map(square, range(4)))\n"
        "    with mp.Pool(2) as pool: processes = pool.map(square, range(4))\n"
        "    block = shared_memory.SharedMemory(create=True, size=64)\n"
        "    block.buf[0] = 7; byte = block.buf[0]; block.close(); block.unlink()\n"
        "    db = sqlite3.connect('x.db'); db.execute('create table t (n)')\n"
        "    db.execute('insert into t values (5)'); db.commit()\n"
        "    async def child():\n"
        "        p = await asyncio.create_subprocess_exec('echo', 'hi', stdout=-1)\n"
        "        return (await p.communicate())[0].decode()\n"
        "    say([threads, processes, byte, db.execute('select n from t').fetchone(),\n"
        "         subprocess.run(['true']).returncode, asyncio.run(child())])"
    )
    squares = [0, 1, 4, 9]
    assert inside(box, code) == [squares, squares, 7, [5], 0, "hi\n"]


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_node_has_workers_and_children(box: Box) -> None:
    code = b"""
    const { Worker } = require('worker_threads');
    const { execFileSync } = require('child_process');
    const crypto = require('crypto'), fs = require('fs');
    fs.writeFileSync('x', 'y');
    const worker = new Worker("require('worker_threads').parentPort.postMessage(6 * 7)",
                              { eval: true });
    worker.on('message', n => console.log(JSON.stringify([
        n, execFileSync('echo', ['hi']).toString(), crypto.randomBytes(8).length,
        fs.readFileSync('x', 'utf8')])));
    """
    ran = box.wait(box.arun(load()["node"].command("index.js"), files={"index.js": code}))
    assert said(ran) == [42, "hi\n", 8, "y"]


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_has_pipelines_substitution_and_coprocesses(box: Box) -> None:
    script = b"""
    set -euo pipefail
    seq 100 | sort -rn | head -n 3 | paste -sd, | cat || true
    diff <(echo same) <(echo same)
    mkfifo pipe; echo through >pipe & cat pipe; wait
    coproc double { read -r n; echo $((n * 2)); }
    echo 21 >&"${double[1]}"; read -r answer <&"${double[0]}"; echo "$answer"
    tar cf - pipe | tar tf -; find . -name '*.bash' | awk '{ print NR }'
    """
    ran = box.wait(box.arun(load()["bash"].command("x.bash"), files={"x.bash": script}))
    assert (ran.text.split(), ran.code) == (["100,99,98", "through", "42", "pipe", "1"], 0)


@pytest.mark.skipif(not shutil.which("perl"), reason="needs perl")
def test_perl_forks_and_reads_pipes(box: Box) -> None:
    script = b"""
    my $pid = open(my $child, '-|') // die; if (!$pid) { print "child\\n"; exit 0 }
    print <$child>; close $child; print `echo shell`; exit $? >> 8;
    """
    ran = box.wait(box.arun(load()["perl"].command("x.pl"), files={"x.pl": script}))
    assert (ran.text, ran.code) == ("child\nshell\n", 0)


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_gcc_compiles_and_the_program_runs(box: Box) -> None:
    program = b"""
    #include <pthread.h>
    #include <stdio.h>
    static void *work(void *n) { *(int *)n *= 2; return 0; }
    int main(void) {
        int n = 21; pthread_t thread;
        pthread_create(&thread, 0, work, &n); pthread_join(thread, 0);
        printf("%d\\n", n); return 7;
    }
    """
    ran = box.wait(box.arun(load()["c"].command("main.c"), files={"main.c": program}))
    assert (ran.text, ran.code, ran.result.verdict.step) == ("42\n", 7, 1), ran.stderr


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_a_program_that_does_not_compile_ends_in_its_first_step(box: Box) -> None:
    ran = box.wait(box.arun(load()["c"].command("main.c"), files={"main.c": b"int main( {"}))
    assert (ran.reason, ran.code, ran.result.verdict.step) == ("exit", 1, 0)
    assert b"error" in ran.stderr
