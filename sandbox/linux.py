"""The kernel calls that Python's standard library lacks: the only ctypes in the sandbox.

Each function raises OSError with the call's name, and does nothing else. `PyDLL` keeps the
interpreter lock over the call: the launcher has one thread, and the child of clone3 must find
the lock as its parent held it.
"""

import ctypes
import os
from collections.abc import Mapping
from typing import Final

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
CLONE_PIDFD: Final = 0x00001000
CLONE_INTO_CGROUP: Final = 0x200000000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MNT_DETACH: Final = 0x2

_SIGCHLD = 17
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_FSOPEN_CLOEXEC = 0x1
_FSMOUNT_CLOEXEC = 0x1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_FALLOC_FL_KEEP_SIZE = 0x1
_FALLOC_FL_PUNCH_HOLE = 0x2

# Numbers of x86-64 and of the generic table (arm64), where they differ.
_X86 = os.uname().machine == "x86_64"
_NR_PIVOT_ROOT = 155 if _X86 else 41
_NR_SECCOMP = 317 if _X86 else 277
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_CLONE3 = 435
_NR_MOUNT_SETATTR = 442


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack",
            "stack_size", "tls", "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


class _MountAttr(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")
    ]


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def clone3(flags: int, cgroup: int = -1) -> tuple[int, int]:
    """Fork into new namespaces: (pid, pidfd) in the parent, (0, -1) in the child.

    With `cgroup`, a directory descriptor of cgroup v2, the child is born in it: no write to
    cgroup.procs, so no wait for the grace period that such a write costs.
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(
        flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=_SIGCHLD
    )
    if cgroup >= 0:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup
    # As os.fork() does: newer interpreters hold locks over a fork, which the child then owns.
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _syscall(_NR_CLONE3, ctypes.byref(args), ctypes.sizeof(args))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    error = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(error, f"clone3: {os.strerror(error)}")
    return pid, pidfd.value


def unshare(flags: int) -> None:
    """Leave shared namespaces (os.unshare came with Python 3.12)."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Enter a namespace (os.setns came with Python 3.12)."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
        ),
        f"mount {target}",
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _check(_syscall(_NR_PIVOT_ROOT, new_root.encode(), put_old.encode()), "pivot_root")


def read_only(path: str) -> None:
    """Make the mount at `path` and all below it read-only, without setuid and devices."""
    attr = _MountAttr(attr_set=_MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    _check(
        _syscall(
            _NR_MOUNT_SETATTR, _AT_FDCWD, path.encode(), _AT_RECURSIVE,
            ctypes.byref(attr), ctypes.sizeof(attr),
        ),
        f"mount_setattr {path}",
    )  # fmt: skip


def detached_tmpfs(options: dict[str, str | None], attributes: int) -> int:
    """A tmpfs that is mounted nowhere: a descriptor of its root. None as value: a plain flag.

    The kernel frees it with its last descriptor, even when everybody was killed.
    """
    context = _check(_syscall(_NR_FSOPEN, b"tmpfs", _FSOPEN_CLOEXEC), "fsopen")
    try:
        for key, value in options.items():
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            text = None if value is None else value.encode()
            _check(
                _syscall(_NR_FSCONFIG, context, command, key.encode(), text, 0), f"fsconfig {key}"
            )
        _check(_syscall(_NR_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0), "fsconfig")
        return _check(_syscall(_NR_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes), "fsmount")
    finally:
        os.close(context)


_noswap: list[bool] = []


def noswap_is_known() -> bool:
    """Whether this kernel's tmpfs has `noswap` (Linux 6.4); asked once, by trying."""
    if not _noswap:
        try:
            os.close(detached_tmpfs({"noswap": None}, 0))
            _noswap.append(True)
        except OSError:
            _noswap.append(False)
    return _noswap[0]


def memory_tmpfs(options: Mapping[str, str]) -> int:
    """A detached tmpfs that never goes to a swap device, where the kernel can promise that."""
    noswap: dict[str, str | None] = {"noswap": None} if noswap_is_known() else {}
    return detached_tmpfs({**options, **noswap}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)


def attach(mount_fd: int, target: str) -> None:
    """Put a detached mount at `target` of our own mount namespace."""
    _check(
        _syscall(
            _NR_MOVE_MOUNT, mount_fd, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH
        ),
        f"move_mount {target}",
    )


def punch(fd: int, offset: int, size: int) -> None:
    """fallocate(2): give back the memory of these bytes, which then read as zeros."""
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    _check(
        _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(size)),
        "fallocate",
    )


def trim_heap() -> None:
    """malloc_trim(3): give back what was freed, of which the allocator keeps much for later."""
    _libc.malloc_trim(ctypes.c_size_t(0))


def lock_memory(and_later: bool) -> None:
    """mlockall(2): what is in memory now, and what comes until the next call if `and_later`, never
    goes to a swap device."""
    current, future, on_fault = 1, 2, 4  # on fault: what is only mapped takes no memory
    flags = current | on_fault | (future if and_later else 0)
    _check(_libc.mlockall(flags), "mlockall")


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    _check(_libc.setdomainname(name.encode(), len(name)), "setdomainname")


def load_filter(program: bytes) -> None:
    """Put the calling process behind a seccomp filter: raw BPF instructions of 8 bytes each."""
    buffer = ctypes.create_string_buffer(program, len(program))
    prog = _Filter(length=len(program) // 8, instructions=ctypes.addressof(buffer))
    _check(_syscall(_NR_SECCOMP, 1, 0, ctypes.byref(prog)), "seccomp")
