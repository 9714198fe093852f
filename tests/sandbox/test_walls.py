"""The walls, one test each, as the launcher makes them without a server: what must stand on every
kernel, and so runs on the guest's too. And what a server cannot show: the launcher's descriptors,
pid 1's control socket, how exactly a program ends. All that can be tried on a wall is in
tests/attacks; how much a job may use in test_limits.py.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sandbox.model import FIRST_UID, UIDS, Command, Limits
from sandbox.runtimes import BASE_ENV, load
from tests.attacks.arena import NAMESPACES, PROBE, Process, descriptors, look
from tests.attacks.numbers import number
from tests.sandbox.box import LAUNCHER, PYTHON, Box, Ran, launcher_descriptors, wait_until

pytestmark = pytest.mark.core


def said(ran: Ran) -> Any:
    """The JSON that a job said; it must have come to its end."""
    assert (ran.reason, ran.code) == ("exit", 0), (ran.result.verdict, ran.stderr.decode())
    return json.loads(ran.stdout)


def inside(box: Box, code: str, *args: str, **options: Any) -> Any:
    """What Python code inside says."""
    return said(box.wait(ainside(box, code, *args, **options)))


async def ainside(box: Box, code: str, *args: str, **options: Any) -> Ran:
    files = {"probe.py": PROBE.encode(), **options.pop("files", {})}
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


class Job(NamedTuple):
    """A running job from outside: our pid 1 and the program."""

    init: Process
    program: Process


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


# --- the walls -------------------------------------------------------------------------------


def test_every_namespace_is_a_jobs_own(box: Box, two: list[Job]) -> None:
    """Not the machine's, not the launcher's, not another job's; and pid 1 is in the same."""
    others = [look(pid).namespaces for pid in (os.getpid(), box.process.pid)]
    for kind in NAMESPACES:
        found = {job.program.namespaces[kind] for job in two}
        assert len(found) == 2, kind
        assert found == {job.init.namespaces[kind] for job in two}, kind
        assert not found & {namespaces[kind] for namespaces in others}, kind


def test_a_job_is_one_user_that_nobody_else_is_and_in_no_group(box: Box, two: list[Job]) -> None:
    for kind in ("Uid", "Gid"):
        for job in two:
            ids = {int(id) for id in job.program.status[kind].split()}
            assert len(ids) == 1
            assert FIRST_UID <= ids.pop() < FIRST_UID + UIDS
            assert job.init.status[kind] == job.program.status[kind]
        assert len({job.program.status[kind] for job in two}) == 2
    assert {p.status["Groups"] for job in two for p in job} == {""}
    code = "say([os.getresuid(), tried(os.setresuid, 0, 0, 0), tried(os.setgroups, [])])"
    assert inside(box, code) == [[1000] * 3, "EINVAL", "EPERM"]


PRIVILEGES = {
    "CapInh": "0" * 16, "CapPrm": "0" * 16, "CapEff": "0" * 16, "CapBnd": "0" * 16,
    "CapAmb": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2",
}  # fmt: skip


def test_neither_program_nor_pid_1_has_a_privilege(two: list[Job]) -> None:
    for process in (process for job in two for process in job):
        assert {name: process.status[name] for name in PRIVILEGES} == PRIVILEGES


def test_the_filter_answers(box: Box) -> None:
    """Each answer that it has, and calls that it lets through; all of it is in test_policy.py."""
    calls = [number(name) for name in ("unshare", "keyctl", "setxattr", "getppid")]
    code = "say([call(int(n), 0, 0, 0, 0, 0, 0) for n in sys.argv[1:]])"
    assert inside(box, code, *map(str, calls)) == ["EPERM", "ENOSYS", "ENOTSUP", "ok"]


def test_everything_writable_is_the_jobs_own_tmpfs(two: list[Job]) -> None:
    for job in two:
        writable = {}
        for mount in job.program.mounts:
            options, kind = mount[5].split(","), mount[mount.index("-") + 1]
            assert "nosuid" in options and ("nodev" in options or mount[4] == "/")
            if "rw" in options and kind != "proc":
                writable[mount[4]] = (kind, mount[2])
            if mount[4] == "/":
                assert mount[-1].split(",")[0] == "ro"  # the file system itself
        assert set(writable) == {"/job", "/tmp", "/dev/shm"}
        assert {kind for kind, _ in writable.values()} == {"tmpfs"}
        assert len({device for _, device in writable.values()}) == 1  # one limit for all
    devices = [{m[2] for m in job.program.mounts if m[4] == "/job"} for job in two]
    assert devices[0] != devices[1]


def test_mountinfo_names_no_directory_of_the_machine(two: list[Job]) -> None:
    system = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
    of_workspace = {("/", "/job"), ("/job", "/job"), ("/tmp", "/tmp"), ("/shm", "/dev/shm")}
    for job in two:
        places = {(mount[3], mount[4]) for mount in job.program.mounts}
        assert of_workspace <= places
        for source, target in places - of_workspace - {("/", "/"), ("/", "/proc")}:
            assert target in system
            assert source in {"/", target}


def test_the_root_has_exactly_what_it_needs(box: Box) -> None:
    names, devices = inside(box, "say([os.listdir('/'), os.listdir('/dev')])")
    linked = {name for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
              if Path("/", name).exists()}  # fmt: skip
    assert set(names) == {"dev", "etc", "proc", "usr", "var", "tmp", "job"} | linked
    links = {"fd", "stdin", "stdout", "stderr", "shm"}
    assert set(devices) == {"null", "zero", "full", "random", "urandom"} | links


def test_proc_shows_the_jobs_own_processes_and_nothing_of_the_machine(box: Box) -> None:
    seen = inside(box, "say([os.getpid(), os.getppid(), sorted(os.listdir('/proc'))])")
    assert seen == [2, 1, ["2", "self", "thread-self"]]
    lines = inside(box, "say(Path('/proc/self/cgroup').read_text().split())")
    assert lines and all(line.endswith(":/") for line in lines)


def test_there_is_no_network(box: Box, two: list[Job]) -> None:
    idle = {"tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0",
            "ip6gre0"}  # fmt: skip
    for job in two:
        assert {"lo"} <= set(job.program.interfaces) <= {"lo"} | idle
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = "say(tried(socket.create_connection, ('127.0.0.1', int(sys.argv[1])), 5))"
        assert inside(box, code, str(server.getsockname()[1])) == "ENETUNREACH"


def test_the_host_name_is_neutral(box: Box) -> None:
    assert inside(box, "say([os.uname().nodename, tried(socket.sethostname, 'x')])") == [
        "sandrun", "EPERM",
    ]  # fmt: skip


def test_the_jobs_user_namespace_can_have_no_other(box: Box) -> None:
    """Seen from outside, past its filter: the kernel itself refuses."""

    async def enter() -> tuple[int, bytes]:
        async with held(box):
            (job,) = jobs(box)
            entered = await asyncio.create_subprocess_exec(
                *("nsenter", "-t", str(job.init.pid), "-U", "--preserve-credentials"),
                *("unshare", "--user", "true"), stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            _, stderr = await entered.communicate()
            return entered.returncode or 0, stderr

    machine = Path("/proc/sys/user/max_user_namespaces").read_text()
    code, stderr = box.wait(enter())
    assert code and b"No space left on device" in stderr
    assert Path("/proc/sys/user/max_user_namespaces").read_text() == machine != "0\n"


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
    assert {fd for fd, closed in closed_on_exec.items() if not closed} == {1, 2}
    assert len(closed_on_exec) == 3, "and the control socket, wherever it is"


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


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_a_program_that_does_not_compile_ends_in_its_first_step(box: Box) -> None:
    ran = box.wait(box.arun(load()["c"].command("main.c"), files={"main.c": b"int main( {"}))
    assert (ran.reason, ran.code, ran.result.verdict.step) == ("exit", 1, 0)
    assert b"error" in ran.stderr
