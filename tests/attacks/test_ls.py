"""LS: launch, namespaces, root file system."""

import hashlib
import json
import os
import re
import socket
import stat
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from sandbox import inside
from sandbox.launcher import FIRST_UID, UIDS
from sandbox.model import Limits
from sandbox.runtimes import BASE_ENV, load
from tests.attacks.arena import HAS_IPV6, NAMESPACES, PROBE, Attacker, compiled, look
from tests.attacks.checkout import REPOSITORY, checkout
from tests.attacks.conftest import BAIT
from tests.attacks.numbers import number
from tests.journeys.server import Server, targz
from tests.sandbox.faulty import AT_START, OUTSIDE

PRIVILEGES = {
    "CapInh": "0" * 16, "CapPrm": "0" * 16, "CapEff": "0" * 16, "CapBnd": "0" * 16,
    "CapAmb": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2",
}  # fmt: skip
INSIDE = [name for name, _ in inside.STEPS]


def given_up(status: dict[str, str]) -> dict[str, str]:
    return {name: status[name] for name in PRIVILEGES}


# --- launch ----------------------------------------------------------------------------------


@contextmanager
def faulty() -> Iterator[Path]:
    """A checkout whose launcher fails where its file `fault` says."""
    with checkout() as path:
        keeper = path / "sandbox/keeper.py"
        text = keeper.read_text()
        assert text.count('"sandbox.launcher"') == 1
        keeper.write_text(text.replace('"sandbox.launcher"', '"tests.attacks.faults"'))
        (path / "fault").touch()
        yield path


RAN = "echo ran; echo ran >&2; for d in /job /tmp /dev/shm .; do echo ran > $d/ran; done"


def test_a_fault_at_any_step_means_that_nothing_ran_and_is_told_by_the_steps_name() -> None:
    """LS-01. Every step of a launch, outside and inside, fails once under a real job, and once
    while its archive is read. Between and after them the same job runs."""
    wrong: list[Any] = []
    with faulty() as path:
        fault = path / "fault"
        server = Server(repository=path)
        try:
            attacker = Attacker(server, "LS-01")

            def run() -> tuple[Any, ...]:
                seen = attacker.sh(RAN)
                return (
                    seen.reason, seen.status.get("error", ""), seen.stdout + seen.stderr,
                    [output["name"] for output in seen.status["outputs"]],
                )  # fmt: skip

            good = run()
            assert good[0] is None and good[2] == b"ran\nran\n" and "ran" in good[3], good
            for step in [*OUTSIDE, *INSIDE]:
                fault.write_text(f"run {step}")
                reason, sentence, logs, outputs = run()
                told = f"at the step {step}" in sentence and "injected" in sentence
                if (reason, told, logs, outputs) != ("sandbox_error", True, b"", []):
                    wrong.append((step, reason, sentence, logs, outputs))
            for step in {*OUTSIDE, *INSIDE} - {"tmpfs"}:  # which this kind has not
                fault.write_text(f"inspect {step}")
                prefix = "inspect: " if step in INSIDE else ""
                job = {"run.sh": RAN.encode()}
                answer = attacker.submit({"job.tar.gz": targz(job)}, interpreter="sh")
                said = answer.json
                if (answer.status, said.get("reason")) != (503, "sandbox_error") or (
                    f"step {prefix}{step};" not in said["error"] or "job_id" in said
                ):
                    wrong.append((step, answer))
            fault.write_text("")
            assert run() == good
            attacker.leave()
        finally:
            assert server.end() == 0, server.banner
    assert not wrong


def test_a_server_that_cannot_make_sandboxes_refuses_to_start_and_says_why() -> None:
    """LS-01. What is done once fails: the filter cannot be built, the root not be mounted, the
    cgroups not be made."""
    wrong = []
    with faulty() as path:
        for step in AT_START:
            (path / "fault").write_text(f"start {step}")
            code, said = _start(path)
            if not code or f"the step that failed: {step}: " not in said or "is ready" in said:
                wrong.append((step, code, said))
        keeper = path / "sandbox/keeper.py"
        text = keeper.read_text()
        calls = re.findall(r"cgroups\.prepare\(.*\)\n", text)
        assert len(calls) == 1
        broken = "(_ for _ in ()).throw(SandboxError('cgroup', 30))\n"
        keeper.write_text(text.replace(calls[0], broken))
        code, said = _start(path)
        if not code or "cannot start: cgroup: " not in said or "is ready" in said:
            wrong.append(("cgroup", code, said))
    assert not wrong


def _start(repository: Path) -> tuple[int, str]:
    """The exit code of a server that must not start, and what it said."""
    ended = subprocess.run(
        [repository / "script/server", "--port", "0"], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=60, cwd="/", stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout


# --- namespaces and identity -----------------------------------------------------------------


def test_a_job_sees_and_signals_no_process_but_its_own(attacker: Attacker, server: Server) -> None:
    """LS-02, PR-05. It asks for its pid and its namespace, lists /proc, signals keeper, launcher,
    web and us by their pids on the machine, and everybody at once."""
    code = (
        "pids = list(map(int, sys.argv[1:]))\n"
        "known = [tried(os.kill, os.getpid(), 0), tried(os.kill, 1, 0)]\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "everybody = [tried(os.kill, -1, s) for s in (signal.SIGTERM, signal.SIGKILL)]\n"
        "owners = {os.stat('/proc/' + p).st_uid for p in os.listdir('/proc') if p.isdigit()}\n"
        "say([os.getpid(), os.getppid(), sorted(os.listdir('/proc')), list(owners),\n"
        "     os.readlink('/proc/self/ns/pid'), known, everybody[0],\n"
        "     [[tried(os.kill, p, 0), tried(os.kill, p, 9), os.path.exists(f'/proc/{p}'),\n"
        "       tried(os.pidfd_open, p)] for p in pids]])"
    )
    pids = [pid for pid in (*server.pids().values(), os.getpid(), os.getppid()) if pid > 2]
    assert len(pids) >= 4  # the job has a 1 and a 2 of its own
    pid, parent, names, owners, namespace, known, everybody, others = attacker.python(
        code, *map(str, pids)
    ).said
    assert (pid, parent, names) == (2, 1, ["2", "self", "thread-self"])
    assert owners == [1000]
    assert namespace != os.readlink("/proc/self/ns/pid")
    assert known == ["ok", "ok"]
    assert everybody in ("ok", "ESRCH")
    assert others == [["ESRCH", "ESRCH", False, "ESRCH"]] * len(pids)


def test_every_namespace_is_a_jobs_own(attacker: Attacker, server: Server) -> None:
    """LS-03. The seven namespaces of two jobs that run at once, of their pids 1, of the server's
    three processes and of ours are compared on the machine."""
    with attacker.held() as one, Attacker(server, "LS-03").held() as two:
        # Looked at when both are there: for a moment the launcher is in the network of a job that
        # it begins, and before, that could be a neighbour's which is one of these two's by now.
        ours = [look(pid) for pid in (os.getpid(), *server.pids().values())]
        for kind in NAMESPACES:
            machines = {process.namespaces[kind] for process in ours}
            jobs = [job.program.namespaces[kind] for job in (one, two)]
            assert len(set(jobs)) == 2, kind
            assert not machines & set(jobs), kind
            assert jobs == [job.init.namespaces[kind] for job in (one, two)], kind


def test_no_process_of_a_job_has_a_privilege(attacker: Attacker) -> None:
    """LS-04. The five capability sets, NoNewPrivs and Seccomp, as the job reads them in its main
    thread, another thread, a child and after a chain of execs; and as the machine shows them."""
    code = (
        "names, seen = sys.argv[1].split(), {}\n"
        "def look(where, path): seen[where] = {n: status(path)[n] for n in names}\n"
        "look('main', '/proc/self/status')\n"
        "t = threading.Thread(target=look, args=('thread', '/proc/thread-self/status'))\n"
        "t.start(); t.join()\n"
        "other = threading.Thread(target=time.sleep, args=(1,)); other.start()\n"
        "look('task', f'/proc/self/task/{other.native_id}/status')\n"
        "def output(*argv): return subprocess.run(argv, capture_output=True, check=True).stdout\n"
        "def parse(text): return dict(line.split(':\\t', 1) for line in text.splitlines())\n"
        "chain = 'exec env sh -c \"exec nice sh -c \\'cat /proc/self/status; :\\'\"'\n"
        "for where, argv in {'exec': ['cat', '/proc/self/status'], 'chain': ['sh', '-c', chain]\n"
        "                    }.items():\n"
        "    found = parse(output(*argv).decode())\n"
        "    seen[where] = {n: found[n].strip() for n in names}\n"
        "say(seen)"
    )
    with attacker.held(code, " ".join(PRIVILEGES)) as job:
        assert job.said == dict.fromkeys(["main", "thread", "task", "exec", "chain"], PRIVILEGES)
        assert given_up(job.program.status) == given_up(job.init.status) == PRIVILEGES
        tasks = [*Path("/proc").glob(f"{job.init.pid}/task/*/status")]
        assert len(tasks) == 1  # pid 1 has no thread that could have been forgotten


def test_a_job_is_one_unprivileged_user_in_no_group_and_can_be_nobody_else(
    attacker: Attacker, server: Server
) -> None:
    """LS-05. All eight ids of two jobs as the machine shows them; and the job tries to become
    root, somebody else, and a member of a group."""
    code = (
        "say([os.getresuid(), os.getresgid(), os.getgroups(),\n"
        "     [tried(os.setresuid, *ids) for ids in ((0, 0, 0), (65534,) * 3, (-1, 0, -1))],\n"
        "     [tried(os.setresgid, *ids) for ids in ((0, 0, 0), (65534,) * 3, (-1, 0, -1))],\n"
        "     [tried(f, 0) for f in (os.setuid, os.setgid, os.seteuid, os.setegid)],\n"
        "     [tried(os.setgroups, g) for g in ([], [0], [27])],\n"
        "     tried(os.setresuid, *[1000] * 3),\n"
        "     Path('/proc/self/setgroups').read_text(), Path('/proc/self/uid_map').read_text(),\n"
        "     [tried(Path('/proc/self/' + f).write_text, t)\n"
        "      for f, t in (('setgroups', 'allow'), ('uid_map', '0 0 1'), ('gid_map', '0 0 1'))]])"
    )
    with attacker.held(code) as one, Attacker(server, "LS-05").held() as two:
        for job in (one, two):
            for process in (job.program, job.init):
                ids = {*process.status["Uid"].split(), *process.status["Gid"].split()}
                assert len(ids) == 1
                assert FIRST_UID <= int(ids.pop()) < FIRST_UID + UIDS
                assert process.status["Groups"] == ""
        assert one.program.status["Uid"] != two.program.status["Uid"]
        users, groups, more, uids, gids, single, joined, control, deny, uid_map, maps = one.said
    assert (users, groups, more) == ([1000] * 3, [1000] * 3, [])
    assert (uids, gids, single) == (["EINVAL"] * 3, ["EINVAL"] * 3, ["EINVAL"] * 4)
    assert (joined, control) == (["EPERM"] * 3, "ok")
    assert deny == "deny\n"
    assert uid_map.split()[0::2] == ["1000", "1"]
    assert set(maps) <= {"EPERM", "EACCES"} and len(maps) == 3


# --- files -----------------------------------------------------------------------------------


def test_no_path_leads_to_the_machines_files(attacker: Attacker, marker: Path) -> None:
    """LS-06. A file of the machine is looked for upwards, through /proc, through every descriptor,
    in what a pivoted root may have left, after chroot and fchdir, and by a walk over everything."""
    code = (
        "marker = sys.argv[1]\n"
        "def reach(path):\n"
        "    try: return os.open(path, os.O_RDONLY) and 'reached'\n"
        "    except OSError as error: return errno.errorcode[error.errno]\n"
        "ways = ['', '/job' + '/..' * 50, '/../' * 50, '/proc/1/root', '/proc/self/root',\n"
        "        '/proc/1/cwd', '/proc/self/cwd/../..', '/proc/2/root/..', '/.oldroot',\n"
        "        '/oldroot', '/dev/shm/../..', '/tmp/../..', '/usr/..', '/proc/self/task/2/root',\n"
        "        '/proc/thread-self/root/proc/1/root']\n"
        "by_path = {way: reach(way + marker) for way in ways}\n"
        "by_fd = {reach(f'/proc/self/fd/{fd}{up}{marker}')\n"
        "         for fd in range(256) for up in ('', '/..', '/../..')}\n"
        "os.mkdir('x'); root = os.open('/', os.O_RDONLY); here = os.open('.', os.O_RDONLY)\n"
        "escape = [tried(os.chroot, 'x'), tried(os.fchdir, root)]\n"
        "for _ in range(50): os.chdir('..')\n"
        "escape += [tried(os.chroot, '.'), reach(marker[1:]), os.getcwd()]\n"
        "os.fchdir(here); names = set()\n"
        "for folder, folders, files in os.walk('/'):\n"
        "    names.update(files)\n"
        "    if folder == '/': folders.remove('usr'); folders.remove('proc')\n"
        "say([by_path, list(by_fd), escape, os.path.basename(marker) in names, len(names),\n"
        "     reach('/etc/passwd')])"
    )
    by_path, by_fd, escape, is_found, walked, control = attacker.python(code, str(marker)).said
    assert len(by_path) == 15 and set(by_path.values()) == {"ENOENT"}
    # What is open is a directory, a pipe, or not there.
    assert set(by_fd) <= {"ENOENT", "ENOTDIR", "EACCES"} and "ENOENT" in by_fd
    assert escape == ["EPERM", "ok", "EPERM", "ENOENT", "/"]
    assert (is_found, walked > 10, control) == (False, True, "reached")


def test_the_work_directory_is_named_and_no_descriptor_is_a_way_out_of_it(
    attacker: Attacker,
) -> None:
    """LS-08. It asks where it is, opens files above it, and changes into every descriptor."""
    code = (
        "here = os.getcwd()\n"
        "def create(path): os.close(os.open(path, os.O_CREAT | os.O_WRONLY))\n"
        "up = [tried(create, '../' * n + 'x') for n in range(5)]\n"
        "into = {tried(os.chdir, f'/proc/self/fd/{fd}') for fd in range(1024)}\n"
        "say([here, os.path.samefile('.', '/job'), sorted(os.listdir('/job'))[-3:], up,\n"
        "     sorted(into), os.getcwd(), os.readlink('/proc/self/cwd')])"
    )
    here, same, listed, up, into, after, link = attacker.python(code).said
    assert (here, same, after, link) == ("/job", True, "/job", "/job")
    assert listed == ["main.py", "probe.py", "x"]
    assert up == ["ok"] + ["EROFS"] * 4
    assert set(into) == {"ENOENT", "ENOTDIR"}  # ENOTDIR: 0, 1 and 2


def test_the_environment_is_the_documented_one_and_nothing_of_the_servers(
    attacker: Attacker, server: Server
) -> None:
    """LS-09. The server was started with BAIT and this test's own environment; the job prints
    what it has, and looks for more in pid 1."""
    for name, pid in server.pids().items():
        held = Path(f"/proc/{pid}/environ").read_bytes()
        assert (BAIT["SERVER_CANARY"].encode() in held) == (name == "keeper"), name
    code = (
        "say([Path('/proc/self/environ').read_text(), dict(os.environ),\n"
        "     [tried(Path('/proc/1/' + f).read_bytes) for f in ('environ', 'mem', 'maps')]])"
    )
    with attacker.held(code) as job:
        text, seen, of_pid_1 = job.said
        assert (
            BAIT["SERVER_CANARY"].encode() not in Path(f"/proc/{job.init.pid}/environ").read_bytes()
        )
    python = load()["python3"]
    expected = python.environment(Limits()) | {"CANARY": attacker.canary}
    assert dict(pair.split("=", 1) for pair in text.split("\0")[:-1]) == seen == expected
    assert set(BASE_ENV) == {"PATH", "HOME", "LANG"}
    assert seen.keys() == {*BASE_ENV, *python.env, "CANARY"}
    assert of_pid_1 == ["ENOENT"] * 3


def test_nothing_of_the_system_can_be_changed(attacker: Attacker) -> None:
    """LS-10. It writes, creates, renames, links and changes modes in every folder of the system,
    and mounts it writable."""
    folders = ["/", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/etc", "/bin", "/lib", "/opt",
               "/dev", "/var", "/proc", "/proc/sys", "/proc/self"]  # fmt: skip
    files = ["/etc/passwd", "/etc/ld.so.cache", "/usr/bin/env", "/bin/sh", "/dev/null",
             "/proc/self/exe"]  # fmt: skip
    code = (
        "folders, files = json.loads(sys.argv[1])\n"
        "MS_REMOUNT, MS_BIND, MNT_DETACH = 32, 4096, 2\n"
        "def create(folder):\n"
        "    with open(folder + '/SANDRUN_NEW', 'w'): pass\n"
        "def change(path): os.close(os.open(path, os.O_WRONLY))\n"
        "def cut(path): os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))\n"
        "def mount(path, flags):\n"
        "    done = libc.mount(b'none', path.encode(), b'tmpfs', ctypes.c_ulong(flags), None)\n"
        "    return 'ok' if done == 0 else errno.errorcode[ctypes.get_errno()]\n"
        "say([{f: tried(create, f) for f in folders}, {f: tried(change, f) for f in files},\n"
        "     {'cut': tried(cut, '/etc/passwd'), 'mode': tried(os.chmod, '/usr/bin/env', 0o777),\n"
        "      'device': tried(os.chmod, '/dev/null', 0o600),\n"
        "      'owner': tried(os.chown, '/usr/bin/env', 1000, 1000),\n"
        "      'time': tried(os.utime, '/etc/passwd'), 'folder': tried(os.mkdir, '/usr/x'),\n"
        "      'link': tried(os.link, '/etc/passwd', '/etc/x'),\n"
        "      'symlink': tried(os.symlink, '/etc/passwd', '/etc/x'),\n"
        "      'rename': tried(os.rename, '/etc/passwd', '/etc/x'),\n"
        "      'whole': tried(os.rename, '/usr', '/usr2'),\n"
        "      'remove': tried(os.unlink, '/etc/passwd'), 'empty': tried(os.rmdir, '/var')},\n"
        "     [tried(os.rename, 'main.py', '/usr/x'), tried(os.link, '/usr/bin/env', 'env')],\n"
        "     [mount(f, flags) for f in ('/', '/usr', '/proc', '/job')\n"
        "      for flags in (0, MS_REMOUNT, MS_REMOUNT | MS_BIND)],\n"
        "     {f: tried(create, f) for f in ('/job', '/tmp', '/dev/shm', '/var/tmp')}])"
    )
    before = [_facts(path) for path in (*files[:-1], *folders[:9])]
    created, changed, more, across, mounts, control = attacker.python(
        code, json.dumps([folders, files])
    ).said
    assert before == [_facts(path) for path in (*files[:-1], *folders[:9])]
    assert control == dict.fromkeys(("/job", "/tmp", "/dev/shm", "/var/tmp"), "ok")
    assert created.pop("/opt") == "ENOENT"  # jobs see none
    for folder in ("/proc", "/proc/sys", "/proc/self"):
        assert created.pop(folder) in {"ENOENT", "EACCES"}
    assert set(created.values()) == {"EROFS"}
    assert changed.pop("/dev/null") == "ok"  # a device, to be written to
    assert changed.pop("/proc/self/exe") in {"EROFS", "EACCES", "ETXTBSY"}
    assert set(changed.values()) <= {"EROFS", "EACCES"}
    assert more.pop("whole") in {"EROFS", "EBUSY", "EXDEV"}
    assert more.pop("empty") in {"EROFS", "EBUSY"}
    assert set(more.values()) == {"EROFS"}, more
    assert across == ["EXDEV", "EXDEV"]
    assert mounts == ["EPERM"] * 12


def _facts(path: str) -> tuple[object, ...]:
    """What would tell that somebody changed it: all but when it was read; and the bytes."""
    found = os.stat(path)
    facts = (found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_size)
    is_file = stat.S_ISREG(found.st_mode)
    return *facts, *((found.st_ctime_ns, Path(path).read_bytes()) if is_file else ())


# --- programs with more rights ---------------------------------------------------------------

# Prints what the kernel said when it started this program.
STARTED = r"""
#include <stdio.h>
#include <sys/auxv.h>
int main(void) {
    printf("%ld %ld %ld\n", getauxval(AT_EUID), getauxval(AT_EGID), getauxval(AT_SECURE));
    return 0;
}
"""


def test_a_setuid_program_gives_nothing(attacker: Attacker) -> None:
    """LS-13. Every setuid and setgid program of the machine is started in a way that makes the
    dynamic linker tell what the kernel gave it; so is one from the archive, marked again inside."""
    found = [
        path
        for folder in ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/local/bin")
        for path in map(str, Path(folder).rglob("*") if folder == "/usr/lib" else _entries(folder))
        if os.path.isfile(path) and os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID)
    ]
    assert {"/usr/bin/su", "/usr/bin/mount"} <= set(found)
    code = (
        "def facts(path):\n"
        "    try: ran = subprocess.Popen([path, '--version'], stdin=subprocess.DEVNULL,\n"
        "        env={'LD_SHOW_AUXV': '1'}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)\n"
        "    except PermissionError: return 'EACCES'\n"
        "    words = {}\n"
        "    for line in ran.stdout:\n"
        "        name, _, value = line.decode(errors='replace').partition(':')\n"
        "        words[name] = value.strip()\n"
        "        if {'AT_EUID', 'AT_EGID', 'AT_SECURE'} <= words.keys(): break\n"
        "    ran.kill(); ran.wait()\n"
        "    return [words.get(word) for word in ('AT_EUID', 'AT_EGID', 'AT_SECURE')]\n"
        "came = os.stat('own').st_mode & 0o7777\n"
        "os.chmod('own', 0o6755)\n"
        "own = subprocess.run(['./own'], capture_output=True, text=True).stdout.split()\n"
        "say([{p: facts(p) for p in sys.argv[1:]}, came, os.stat('own').st_mode & 0o7777, own])"
    )
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content, mode in (
            ("main.py", ("from probe import *\n" + code).encode(), 0o644),
            ("probe.py", PROBE.encode(), 0o644), ("own", compiled(STARTED), 0o6755),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid = len(content), mode, 0, 0
            tar.addfile(info, BytesIO(content))
    manifest = {"interpreter": "python3", "entrypoint": "main.py", "args": found}
    job = attacker.start({"job.tar.gz": buffer.getvalue()}, canary=False, **manifest)
    started, came, marked, own = attacker.finish(job).said
    plain = ["1000", "1000", "0"]
    assert started["/usr/bin/su"] == plain
    assert {
        path: answer for path, answer in started.items() if answer not in (plain, "EACCES")
    } == {}
    assert (came, marked, own) == (0o755, 0o6755, plain)
    with attacker.held() as held:
        for mount in held.program.mounts:
            options = mount[5].split(",")
            assert "nosuid" in options and ("nodev" in options or mount[4] == "/"), mount


def _entries(folder: str) -> list[Path]:
    return list(Path(folder).iterdir())


ABSENT_DEVICES = """mem kmem kmsg port sda sda1 vda vda1 nvme0n1 loop0 loop-control kvm fuse net/tun
vsock vhost-net vhost-vsock nvidia0 nvidiactl dri dri/card0 ptmx pts pts/0 console tty tty0 tty1
ttyS0 hpet rtc0 cpu/0/msr cpu_dma_latency mqueue hugepages log initctl btrfs-control mapper/control
uinput input/event0 snapshot userfaultfd""".split()


def test_there_are_five_harmless_devices_and_no_way_to_more(attacker: Attacker) -> None:
    """LS-14. /dev is listed, some forty devices are opened, nodes are made; what should be there
    works, and stays as it is."""
    code = (
        "def device(name):\n"
        "    s = os.lstat('/dev/' + name)\n"
        "    return [os.major(s.st_rdev), os.minor(s.st_rdev)] if s.st_rdev else None\n"
        "def open_(path): os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))\n"
        "def node(kind, ma, mi, where='/tmp'):\n"
        "    path = f'{where}/{kind}-{ma}-{mi}'\n"
        "    return tried(os.mknod, path, kind | 0o666, os.makedev(ma, mi))\n"
        "read = lambda name: open('/dev/' + name, 'rb', 0).read(16)\n"
        "write = lambda name: open('/dev/' + name, 'wb', 0).write(b'x')\n"
        "C, B = stat.S_IFCHR, stat.S_IFBLK\n"
        "say([{name: device(name) for name in os.listdir('/dev')},\n"
        "     {tried(open_, '/dev/' + name) for name in sys.argv[1:]} == {'ENOENT'},\n"
        "     [node(C, 1, 1), node(C, 1, 3), node(C, 5, 1), node(B, 8, 0), node(B, 254, 0),\n"
        "      node(C, 1, 1, '/job'), node(B, 8, 0, '/dev/shm')],\n"
        "     node(stat.S_IFIFO, 0, 0), node(C, 1, 3, '/dev'),\n"
        "     [tried(os.unlink, '/dev/null'), tried(os.rename, '/job/main.py', '/dev/null')],\n"
        "     [len(read('null')), read('zero') == bytes(16), len(set(read('urandom'))) > 3,\n"
        "      len(read('random')), tried(write, 'null'), tried(write, 'full')]])"
    )
    listed, absent, nodes, fifo, in_dev, replaced, work = attacker.python(
        code, *ABSENT_DEVICES
    ).said
    assert listed == {
        "null": [1, 3], "zero": [1, 5], "full": [1, 7], "random": [1, 8], "urandom": [1, 9],
        "fd": None, "stdin": None, "stdout": None, "stderr": None, "shm": None,
    }  # fmt: skip
    assert absent
    assert nodes == ["EPERM"] * 7
    assert (fifo, in_dev) == ("ok", "EROFS")
    assert replaced == ["EROFS", "EXDEV"]
    assert work == [0, True, True, 16, "ok", "ENOSPC"]
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    ran = attacker.sh("echo out >/dev/stdout; echo err >/dev/stderr; echo more >>/proc/self/fd/1")
    assert (ran.stdout, ran.stderr, ran.code) == (b"out\nmore\n", b"err\n", 0)


# --- network and names -----------------------------------------------------------------------

TUNNELS = {"tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0",
           "ip6gre0", "teql0"}  # fmt: skip


def _own_address() -> str:
    """The machine's address on its network, or a loopback one where it has none. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


def test_no_address_can_be_reached(attacker: Attacker, server: Server) -> None:
    """LS-16. It connects to the server's own port, to listeners of the machine on TCP and on an
    abstract name, and sends to loopback, LAN, metadata and name servers; it makes raw and packet
    sockets and all other families. What listens on the machine has heard nothing."""
    name = f"sandrun-{uuid.uuid4().hex}"
    lan = _own_address()
    with (
        socket.create_server(("0.0.0.0", 0)) as tcp, socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):  # fmt: skip
        udp.bind(("0.0.0.0", 0))
        local.bind("\0" + name)
        local.listen()
        port, udp_port = tcp.getsockname()[1], udp.getsockname()[1]
        for kind, address in ((socket.AF_INET, (lan, port)), (socket.AF_UNIX, "\0" + name)):
            with socket.socket(kind) as control:
                control.connect(address)
        tcp.accept()[0].close()
        local.accept()[0].close()
        targets = [
            *(("127.0.0.1", p) for p in (server.port, port, udp_port, 22, 53, 80)),
            *((lan, p) for p in (server.port, port, udp_port, 22, 53, 80)),
            *((a, 80) for a in ("10.0.0.1", "169.254.169.254", "192.168.0.1", "0.0.0.0",
                                "255.255.255.255", "224.0.0.1")),
            *((a, 53) for a in ("8.8.8.8", "1.1.1.1", "::1", "fe80::1", "ff02::1",
                                f"::ffff:{lan}", "2001:4860:4860::8888")),
            ("::1", server.port), ("::ffff:127.0.0.1", server.port), ("0.0.0.0", udp_port),
        ]  # fmt: skip
        code = (
            "import fcntl\n"
            "targets, name = json.loads(sys.argv[1])\n"
            "def send(address, port, kind):\n"
            "    family = socket.AF_INET6 if ':' in address else socket.AF_INET\n"
            "    with socket.socket(family, kind) as s:\n"
            "        s.settimeout(5)\n"
            "        if kind == socket.SOCK_STREAM: s.connect((address, port))\n"
            "        else: s.sendto(b'x', (address, port))\n"
            "answers = {t: tried(send, *t) for t in ((a, p, k) for a, p in targets\n"
            "           for k in (socket.SOCK_STREAM, socket.SOCK_DGRAM))}\n"
            "try: socket.getaddrinfo('example.org', 80); dns = 'ok'\n"
            "except socket.gaierror as error: dns = 'fails'\n"
            "I, I6, P, N = socket.AF_INET, socket.AF_INET6, socket.AF_PACKET, socket.AF_NETLINK\n"
            "with socket.socket(I, socket.SOCK_DGRAM) as s:\n"
            "    flags = fcntl.ioctl(s, 0x8913, struct.pack('16sh22x', b'lo', 0))\n"
            "up = struct.unpack_from('h', flags, 16)[0] & 1\n"
            "say([len(answers), [[t, a] for t, a in answers.items() if a != 'ENETUNREACH'],\n"
            "     dns, up,\n"
            "     tried(socket.socket(socket.AF_UNIX).connect, '\\0' + name),\n"
            "     [tried(socket.socket, I, socket.SOCK_RAW, 1),\n"
            "      tried(socket.socket, I6, socket.SOCK_RAW, 58)],\n"
            "     [tried(socket.socket, P, k, 3) for k in (socket.SOCK_RAW, socket.SOCK_DGRAM)],\n"
            "     [f for f in range(64) if tried(socket.socket, f, socket.SOCK_DGRAM) == 'ok'],\n"
            "     sorted(os.listdir('/proc/self')) and Path('/proc/self/net/dev').read_text()])"
        )
        tried, others, dns, up, abstract, raw, packet, families, dev = attacker.python(
            code, json.dumps([targets, name])
        ).said
        assert tried == 2 * len(set(targets)) > 40
        nowhere = {"EADDRNOTAVAIL", "EINVAL", "EAFNOSUPPORT", "EACCES"}
        # "This host" on UDP: sent, to a loopback that is down; nobody hears it.
        others = [[to, a] for to, a in others if (to[0], to[2], a) != ("0.0.0.0", 2, "ok")]
        assert len(others) < tried and {answer for _, answer in others} <= nowhere, others
        assert (dns, up, abstract) == ("fails", 0, "ECONNREFUSED")
        assert set(raw) <= {"EPERM", "EAFNOSUPPORT"}
        assert len(packet) == 2 and set(packet) <= {"ENOSYS", "EAFNOSUPPORT"}
        assert families == ([1, 2, 10] if HAS_IPV6 else [1, 2])  # AF_UNIX, AF_INET, AF_INET6
        found = {line.split(":")[0].strip() for line in dev.splitlines()[2:]}
        assert "lo" in found and found <= {"lo"} | TUNNELS
        for listener in (tcp, local):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
        udp.setblocking(False)
        with pytest.raises(BlockingIOError):
            udp.recv(1)
    with attacker.held() as job:
        assert "lo" in job.program.interfaces
        assert set(job.program.interfaces) <= {"lo"} | TUNNELS


def test_names_are_neutral_and_cannot_be_changed(attacker: Attacker) -> None:
    """LS-18. It asks for and sets the names of host and domain, and looks for the machine's own."""
    ours = os.uname().nodename
    # Short ones are parts of words, and everybody is localhost.
    names = {n for n in (ours, socket.getfqdn()) if len(n) > 6 and not n.startswith("localhost")}
    code = (
        "room = ctypes.create_string_buffer(65)\n"
        "libc.getdomainname(room, 64)\n"
        "domain = -libc.setdomainname(b'x', 1) and errno.errorcode[ctypes.get_errno()]\n"
        "files = [Path('/proc/self') / f for f in ('environ', 'mountinfo', 'cgroup', 'cmdline')]\n"
        "files += [f for f in Path('/etc').rglob('*') if f.is_file() and f.stat().st_size < 4096]\n"
        "names = sys.stdin.read().split()\n"
        "say([os.uname().nodename, socket.gethostname(), Path('/etc/hostname').read_text(),\n"
        "     room.value.decode(), tried(socket.sethostname, 'x'), domain, os.uname().nodename,\n"
        "     [str(f) for f in files for n in names if n.encode() in f.read_bytes()],\n"
        "     len(files) > 8, Path('/proc/self/cgroup').read_text().split()])"
    )
    node, host, file, domain, set_host, set_domain, after, told, looked, groups = attacker.python(
        code, stdin=" ".join(names)
    ).said
    assert (node, host, file, after) == ("sandrun", "sandrun", "sandrun\n", "sandrun")
    assert (domain, set_host, set_domain) == ("(none)", "EPERM", "EPERM")
    assert (told, looked) == ([], True)
    assert groups and all(line.endswith(":/") for line in groups)  # nor its cgroups
    assert os.uname().nodename == ours != "sandrun"


# --- what is shared with the machine ---------------------------------------------------------


def test_the_machines_programs_are_shared_read_only_and_that_is_documented(
    attacker: Attacker,
) -> None:
    """LS-21. Device, inode and bytes of interpreter, libc and shell, inside and on the machine; it
    writes to them in all ways that need no right; and the packages are as they were installed."""
    paths = ["/usr/bin/python3", "/usr/bin/env", "/bin/sh", *_libc()]
    code = (
        "import hashlib\n"
        "def look(path):\n"
        "    s = os.stat(path)\n"
        "    return [s.st_dev, s.st_ino, hashlib.sha256(Path(path).read_bytes()).hexdigest()]\n"
        "def poke(path):\n"
        "    fd = os.open(path, os.O_RDONLY)\n"
        "    private = mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)\n"
        "    private[:4] = b'evil'\n"
        "    try: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)\n"
        "    except OSError as error: shared = errno.errorcode[error.errno]\n"
        "    again = f'/proc/self/fd/{fd}'\n"
        "    return [shared, tried(os.write, fd, b'x'), tried(os.open, again, os.O_RDWR),\n"
        "            tried(os.ftruncate, fd, 0), tried(os.posix_fallocate, fd, 0, 1)]\n"
        "say([{p: look(p) for p in sys.argv[1:]}, {p: poke(p) for p in sys.argv[1:]},\n"
        "     {p: look(p) for p in sys.argv[1:]}])"
    )
    before, pokes, after = attacker.python(code, *paths).said
    assert before == after == {path: _look(path) for path in paths}
    for answers in pokes.values():
        assert answers[0] == "EACCES" and answers[1] == "EBADF", answers
        assert answers[2] in ("EROFS", "EACCES") and answers[3:] == ["EINVAL", "EBADF"], answers
    # The machine's own files: so it is said, for who has to decide whether that is good enough.
    readme = (REPOSITORY / "sandbox/README.md").read_text()
    assert "page cache is shared" in " ".join(readme.split())
    packages = [_package(path) for path in paths]
    checked = subprocess.run(["dpkg", "--verify", *filter(None, packages)], capture_output=True)
    assert any(packages) and checked.stdout == b"", checked.stdout


def _libc() -> list[str]:
    return [
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith("/libc.so.6")
    ][:1]  # fmt: skip


def _look(path: str) -> list[object]:
    found = os.stat(path)
    return [found.st_dev, found.st_ino, hashlib.sha256(Path(path).read_bytes()).hexdigest()]


def _package(path: str) -> str:
    """What the file belongs to; empty for one that no package brought."""
    found = subprocess.run(
        ["dpkg", "-S", os.path.realpath(path)], capture_output=True, text=True, check=False
    ).stdout
    return found.partition(": ")[0].split(",")[0]


# --- new namespaces --------------------------------------------------------------------------

BITS = {
    "time": 0x80, "mnt": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000,
    "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip


def test_no_namespace_can_be_made_by_any_call(attacker: Attacker) -> None:
    """LS-22, SC-01. unshare and clone with every bit and with user and another, clone3, setns into
    what is its own already, and the programs that do it. And from outside, past its filter, the
    kernel says that none is left."""
    code = (
        "bits, numbers = json.loads(sys.argv[1])\n"
        "def clone(flags):\n"
        "    if not (flags & 0xff): flags |= signal.SIGCHLD\n"
        "    flags, zeros = ctypes.c_ulong(flags), (0, 0, 0, 0)\n"
        "    answer = libc.syscall(ctypes.c_long(numbers['clone']), flags, *zeros)\n"
        "    if answer == 0: os._exit(0)\n"
        "    return 'ok' if answer > 0 else errno.errorcode[ctypes.get_errno()]\n"
        "user = bits['user']\n"
        "args = struct.pack('8Q', user, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)\n"
        "kinds = os.listdir('/proc/self/ns')\n"
        "own = [os.open(f'/proc/self/ns/{kind}', os.O_RDONLY) for kind in kinds]\n"
        "def output(*argv):\n"
        "    try: return subprocess.run(argv, capture_output=True).returncode\n"
        "    except FileNotFoundError: return 'absent'\n"
        "say({'unshare': {n: call(numbers['unshare'], b) for n, b in bits.items()},\n"
        "     'both': {n: call(numbers['unshare'], b | user) for n, b in bits.items()},\n"
        "     'clone': {n: clone(b) for n, b in bits.items() if n != 'time'},\n"
        "     'clone both': {n: clone(b | user) for n, b in bits.items()},\n"
        "     'clone3': call(435, args, 64), 'threads': clone(0),\n"
        "     'setns': [call(numbers['setns'], fd, how) for fd in own for how in (0, user)],\n"
        "     'pidfd': call(numbers['setns'], os.pidfd_open(os.getpid()), 0x7e020000),\n"
        "     'kinds': len(kinds),\n"
        "     'programs': [output('unshare', '-r', 'true'), output('unshare', '-m', 'true'),\n"
        "                  output('nsenter', '-t', '1', '-m', 'true'),\n"
        "                  output('bwrap', '--ro-bind', '/', '/', 'true')]})"
    )
    numbers = {name: number(name) for name in ("clone", "unshare", "setns")}
    into = []
    with attacker.held(code, json.dumps([BITS, numbers])) as job:
        said = job.said
        enter = ["nsenter", "-t", str(job.init.pid), "-U", "--preserve-credentials"]
        for argv in (["cat", "/proc/sys/user/max_user_namespaces"], ["unshare", "--user", "true"]):
            into.append(
                subprocess.run([*enter, *argv], capture_output=True, text=True, check=False)
            )
    for name in ("unshare", "both", "clone", "clone both"):
        assert set(said[name].values()) == {"EPERM"} and len(said[name]) >= 7, (name, said[name])
    assert (said["clone3"], said["threads"]) == ("ENOSYS", "ok")
    assert said["kinds"] >= 8 and said["setns"] == ["EPERM"] * 2 * said["kinds"]
    assert said["pidfd"] == "EPERM"
    *unshared, bwrap = said["programs"]
    assert 0 not in unshared and "absent" not in unshared and bwrap != 0
    shown, user = into
    assert shown.stdout == "0\n"
    assert user.returncode and "No space left on device" in user.stderr
    assert Path("/proc/sys/user/max_user_namespaces").read_text() != "0\n"


def test_a_program_started_anew_in_any_way_stands_behind_the_same_walls(
    attacker: Attacker,
) -> None:
    """LS-23. A copy of cat in a memfd by execveat and by its path, /proc/self/exe, the dynamic
    linker with a preload, and a chain of scripts: privileges and namespaces are the job's own."""
    code = (
        "names, kinds = json.loads(sys.argv[1])\n"
        "def facts(pid):\n"
        "    seen = status(f'/proc/{pid}/status')\n"
        "    return [{n: seen[n] for n in names},\n"
        "            [os.readlink(f'/proc/{pid}/ns/{kind}') for kind in kinds]]\n"
        "if sys.argv[2:] == ['again']: say(facts('self')); sys.exit()\n"
        "fd = os.memfd_create('program', 0)\n"
        "os.write(fd, Path('/usr/bin/cat').read_bytes())\n"
        "def start(do):\n"
        "    read, write = os.pipe()\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os.dup2(write, 1); os.close(read)\n"
        "        try: do()\n"
        "        finally: os._exit(1)\n"
        "    os.close(write)\n"
        "    text = open(read).read(); os.wait()\n"
        "    return text\n"
        "def parse(text):\n"
        "    found = dict(line.split(':\\t', 1) for line in text.splitlines())\n"
        "    return {n: found[n].strip() for n in names}\n"
        "cat = ['cat', '/proc/self/status']\n"
        "memfd = [parse(start(lambda: os.execve(fd, cat, {}))),\n"
        "         parse(start(lambda: os.execv(f'/proc/self/fd/{fd}', cat)))]\n"
        "me = ['python3', 'main.py', sys.argv[1], 'again']\n"
        "exe = json.loads(start(lambda: os.execv('/proc/self/exe', me)))\n"
        "import glob\n"
        "linker = glob.glob('/lib*/ld-linux-*.so.*')[0]\n"
        "library = next(l.split()[-1] for l in open('/proc/self/maps') if '/libc.so.6' in l)\n"
        "preload = parse(start(lambda: os.execv(linker, ['ld', '--preload', library,\n"
        "                                                '/usr/bin/cat', cat[1]])))\n"
        "for depth in range(1, 6):\n"
        "    above = f'/job/s{depth - 1}' if depth > 1 else '/bin/sh'\n"
        "    Path(f's{depth}').write_text(f'#!{above}\\ncat /proc/self/status\\n')\n"
        "    os.chmod(f's{depth}', 0o755)\n"
        "deep = [start(lambda: os.execv(f'/job/s{d}', [f's{d}'])) for d in (4, 5)]\n"
        "say([facts('self'), memfd, exe, preload, [parse(text) for text in deep if text]])"
    )
    own, memfd, exe, preload, scripts = attacker.python(
        code, json.dumps([list(PRIVILEGES), NAMESPACES])
    ).said
    assert own[0] == PRIVILEGES
    assert exe == own
    assert [*memfd, preload, *scripts] == [PRIVILEGES] * (4 + len(scripts) - 1)
    assert scripts, "a chain of four scripts runs"
