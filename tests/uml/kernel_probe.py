"""Asks a kernel, by doing, for what the sandbox stands on: one JSON object, answer by question.

Bare standard library and ctypes, so that it runs on any python3. An answer that could not be had is
the error's text. Needs root and a cgroup v2 with memory, pids and cpu at /sys/fs/cgroup.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECCOMP, FSOPEN, FSCONFIG, FSMOUNT, MOVE_MOUNT, CLONE3 = 317, 430, 431, 432, 429, 435
NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
NAMESPACES = NEWNS | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
INTO_CGROUP = 0x200000000
PRIVATE = 0x44000  # MS_REC | MS_PRIVATE
SAFE = 14  # MS_NOSUID | MS_NODEV | MS_NOEXEC
CGROUPS = Path("/sys/fs/cgroup")
LIMIT = 32 << 20

libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int | bytes | None) -> int:
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = libc.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def mount(source: bytes, target: bytes, kind: bytes | None, flags: int, data: bytes = b"") -> None:
    if libc.mount(source, target, kind, flags, data):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def attempt(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def clone(flags: int, child: Callable[[], Any], cgroup: Path | None = None) -> tuple[Any, int]:
    """Run `child` in a clone, uids mapped if it has a user namespace; its answer and status."""
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY) if cgroup else 0
    flags |= INTO_CGROUP if cgroup else 0
    answers, answer = os.pipe()
    ready, go = os.pipe()
    pid = call(CLONE3, struct.pack("11Q", flags, 0, 0, 0, signal.SIGCHLD, *[0] * 5, directory), 88)
    if pid == 0:
        try:
            os.close(go)
            os.read(ready, 1)
            os.write(answer, json.dumps(attempt(child)).encode())
        finally:
            os._exit(0)
    os.close(answer)
    if flags & NEWUSER:
        for kind in ("uid", "gid"):
            Path(f"/proc/{pid}/{kind}_map").write_text("0 0 1\n1000 100000 1\n")
    os.close(go)
    with open(answers, "rb") as pipe:
        text = pipe.read()
    os.close(ready)
    if cgroup:
        os.close(directory)
    return (json.loads(text) if text else None), os.waitpid(pid, 0)[1]


def new_cgroup(name: str, **limits: str) -> Path:
    cgroup = CGROUPS / name
    cgroup.mkdir()
    for file, value in limits.items():
        (cgroup / file.replace("_", ".", 1)).write_text(value)
    return cgroup


def numbers(file: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in open(file))}


def detached_tmpfs(*options: tuple[bytes, bytes | None]) -> int:
    context = call(FSOPEN, b"tmpfs", 0)
    try:
        for name, value in options:
            call(FSCONFIG, context, 0 if value is None else 1, name, value, 0)
        call(FSCONFIG, context, 6, None, None, 0)
        return call(FSMOUNT, context, 0, 6)
    finally:
        os.close(context)


def controllers() -> list[str]:
    (CGROUPS / "cgroup.subtree_control").write_text("+memory +pids +cpu")
    return (CGROUPS / "cgroup.controllers").read_text().split()


def cgroup_files() -> list[str]:
    cgroup = new_cgroup("probe-files")
    names = sorted(os.listdir(cgroup))
    cgroup.rmdir()
    return names


def born_in_its_cgroup() -> dict[str, str]:
    cgroup = new_cgroup("probe-born")
    answers = {
        name: clone(flags, lambda: Path("/proc/self/cgroup").read_text().strip(), cgroup)[0]
        for name, flags in {"outside": 0, "inside": NEWCGROUP | NAMESPACES}.items()
    }
    cgroup.rmdir()
    return answers


def memory_kill() -> dict[str, Any]:
    cgroup = new_cgroup("probe-memory", memory_max=str(LIMIT), **{"memory_swap.max": "0"})
    _, status = clone(0, lambda: len(bytearray(b"x") * (2 * LIMIT)), cgroup)
    answer = {"status": status, **numbers(cgroup / "memory.events")}
    answer["peak"] = int((cgroup / "memory.peak").read_text())
    cgroup.rmdir()
    return answer


def files_count_as_memory() -> dict[str, Any]:
    cgroup = new_cgroup("probe-files-memory", memory_max=str(LIMIT), **{"memory_swap.max": "0"})
    tmpfs = detached_tmpfs((b"size", b"128m"))

    def fill() -> None:
        directory = f"/proc/self/fd/{tmpfs}"
        with open(f"{directory}/file", "wb") as file:
            for _ in range(2 * LIMIT >> 20):
                file.write(bytes(1 << 20))

    _, status = clone(0, fill, cgroup)
    answer = {"status": status, **numbers(cgroup / "memory.events")}
    held = int((cgroup / "memory.current").read_text())
    os.close(tmpfs)
    deadline = time.monotonic() + 5
    while int((cgroup / "memory.current").read_text()) > held // 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    answer.update(held=held, left=int((cgroup / "memory.current").read_text()))
    cgroup.rmdir()
    return answer


def task_limit() -> dict[str, Any]:
    cgroup = new_cgroup("probe-pids", pids_max="2")

    def fork_twice() -> str:
        for _ in range(2):
            if os.fork() == 0:
                time.sleep(0.5)
                os._exit(0)
        return "not limited"

    answer, _ = clone(0, fork_twice, cgroup)
    events = numbers(cgroup / "pids.events")
    wait_until_empty(cgroup)
    cgroup.rmdir()
    return {"fork": answer, **events}


def wait_until_empty(cgroup: Path) -> bool:
    deadline = time.monotonic() + 5
    while numbers(cgroup / "cgroup.events")["populated"]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def cpu_limit() -> dict[str, int]:
    cgroup = new_cgroup("probe-cpu", cpu_max="20000 100000")

    def spin() -> None:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            pass

    clone(0, spin, cgroup)
    answer = numbers(cgroup / "cpu.stat")
    cgroup.rmdir()
    return answer


def kill_all() -> dict[str, Any]:
    cgroup = new_cgroup("probe-kill")

    def kill_us() -> None:
        if os.fork() == 0:
            time.sleep(60)
        (cgroup / "cgroup.kill").write_text("1")
        time.sleep(60)

    _, status = clone(0, kill_us, cgroup)
    answer = {"status": status, "empty": wait_until_empty(cgroup)}
    cgroup.rmdir()
    return answer


def identity() -> list[int]:
    def become() -> list[int]:
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        return [os.getpid(), os.getuid(), os.getgid()]

    answer: list[int] = clone(NAMESPACES, become)[0]
    return answer


def no_more_user_namespaces() -> dict[str, Any]:
    """The limit is written through a descriptor of a full /proc/sys, and is the namespace's own."""
    file = Path("/proc/sys/user/max_user_namespaces")
    before = file.read_text()
    directory = os.open("/proc/sys/user", os.O_PATH | os.O_DIRECTORY)

    def forbid() -> Any:
        descriptor = os.open(file.name, os.O_WRONLY, dir_fd=directory)
        os.write(descriptor, b"0")
        return attempt(lambda: call(272, NEWUSER))

    answer = clone(NAMESPACES, forbid)[0]
    os.close(directory)
    return {"unshare": answer, "host_unchanged": file.read_text() == before}


def seccomp_filter() -> dict[str, Any]:
    """getppid answers ENOSYS when the architecture is right, getpgrp kills the process."""
    code = [(0x20, 0, 0, 4), (0x15, 0, 5, 0xC000003E), (0x20, 0, 0, 0)]
    code += [(0x15, 0, 1, 110), (6, 0, 0, 0x50000 | errno.ENOSYS)]
    code += [(0x15, 0, 1, 111), (6, 0, 0, 0x80000000), (6, 0, 0, 0x7FFF0000)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))

    def load() -> Any:
        libc.prctl(38, 1, 0, 0, 0)
        call(SECCOMP, 1, 0, struct.pack("HxxxxxxQ", len(code), ctypes.addressof(program)))
        return attempt(lambda: call(110))

    def die() -> None:
        load()
        call(111)

    return {"getppid": clone(0, load)[0], "getpgrp": clone(0, die)[1] & 0x7F}


def tmpfs_handed_over() -> dict[str, Any]:
    """Made outside with the job's uid, attached in the child's mount namespace; limits hold."""
    tmpfs = detached_tmpfs((b"size", b"8m"), (b"nr_inodes", b"10"), (b"uid", b"100000"))
    os.makedirs("/tmp/probe-tmpfs", exist_ok=True)

    def attach() -> dict[str, Any]:
        mount(b"none", b"/", None, PRIVATE)
        call(MOVE_MOUNT, tmpfs, b"", -100, b"/tmp/probe-tmpfs", 4)
        os.setresuid(1000, 1000, 1000)
        place = Path("/tmp/probe-tmpfs")
        return {
            "owner": place.stat().st_uid,
            "bytes": attempt(lambda: (place / "file").write_bytes(bytes(9 << 20))),
            "inodes": attempt(lambda: [(place / str(n)).write_bytes(b"") for n in range(10)]),
        }

    answer: dict[str, Any] = clone(NAMESPACES, attach)[0]
    os.close(tmpfs)
    return answer


def tmpfs_noswap() -> Any:
    return attempt(lambda: detached_tmpfs((b"noswap", None)) and "known")


def proc_of_its_own() -> dict[str, Any]:
    os.makedirs("/tmp/probe-proc", exist_ok=True)

    def look() -> dict[str, Any]:
        mount(b"none", b"/", None, PRIVATE)
        mount(b"proc", b"/tmp/probe-proc", b"proc", SAFE, b"subset=pid,hidepid=2")
        with open("/proc/thread-self/mountinfo") as lines:
            options = next(line for line in lines if "/tmp/probe-proc" in line).split()[-1]
        return {"names": sorted(os.listdir("/tmp/probe-proc")), "options": options}

    answer: dict[str, Any] = clone(NAMESPACES, look)[0]
    return answer


QUESTIONS: list[Callable[[], Any]] = [
    *(controllers, cgroup_files, born_in_its_cgroup, memory_kill, files_count_as_memory),
    *(task_limit, cpu_limit, kill_all, identity, no_more_user_namespaces, seccomp_filter),
    *(tmpfs_handed_over, tmpfs_noswap, proc_of_its_own),
]


def main() -> None:
    answers: dict[str, Any] = {"kernel": os.uname().release}
    for question in QUESTIONS:
        try:
            answers[question.__name__] = question()
        except Exception as error:
            answers[question.__name__] = repr(error)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
