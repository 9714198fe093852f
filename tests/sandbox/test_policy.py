"""Both sides of the policy, from its own data: each call of each group is made by a real job. What
is denied gives the answer of its group, what is allowed reaches the kernel, and of calls that are
filtered by arguments every case is tried. What the data must be like is tested without a job."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyseccomp
import pytest

from sandbox import policy
from tests.sandbox.box import Box

# Younger than the libseccomp of some machines; their numbers are the same everywhere.
YOUNG = {
    "statmount": 457, "listmount": 458, "lsm_get_self_attr": 459, "lsm_set_self_attr": 460,
    "lsm_list_modules": 461, "mseal": 462, "setxattrat": 463, "getxattrat": 464,
    "listxattrat": 465, "removexattrat": 466, "open_tree_attr": 467, "file_getattr": 468,
    "file_setattr": 469, "listns": 470,
}  # fmt: skip
GROUPS = {**policy.ALLOWED_GROUPS, **policy.DENIED_GROUPS}
NAMES = [name for group in GROUPS.values() for name in group.calls] + list(policy.FILTERED)

# Answers to calls given as {name: [number, arguments...]}. Asked for children, each call is made by
# a child of its own, since some end or change their process; one that waits is interrupted.
PROBE = """
import ctypes, errno, json, os, signal, sys

libc = ctypes.CDLL(None, use_errno=True)

def named(result):
    return "ok" if result != -1 else errno.errorcode.get(ctypes.get_errno(), "?")

def answer(number, *args):
    return named(libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, args)))

def answer_of_a_child(*call):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        me = os.getpid()
        name = answer(*call)
        if os.getpid() == me:
            libc.write(write, name.encode(), len(name))
        libc._exit(0)
    os.close(write)
    name = os.read(read, 99).decode()
    os.close(read)
    status = os.waitpid(child, 0)[1]
    return name or f"ended with {os.waitstatus_to_exitcode(status)}"

calls, do = json.load(open(sys.argv[1])), answer_of_a_child if sys.argv[2:] else answer
json.dump({name: do(*call) for name, call in calls.items()}, sys.stdout)
"""


def number(name: str) -> int:
    """Negative when this architecture has no such call."""
    found: int = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    return YOUNG.get(name, found) if found < 0 else found


def answers(box: Box, calls: dict[str, list[int]], *how: str) -> dict[str, str]:
    files = {"calls": json.dumps(calls).encode()}
    ran = box.python(PROBE, "calls", *how, files=files, wall_seconds=120.0)
    assert (ran.reason, ran.code) == ("exit", 0), (ran.result.verdict, ran.stderr.decode())
    found: dict[str, str] = json.loads(ran.stdout)
    return found


def known_to_libseccomp() -> set[str]:
    names = set()
    for n in range(1024):
        try:
            names.add(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, n).decode())
        except ValueError:
            continue
    return names


# --- the data --------------------------------------------------------------------------------


def test_every_group_has_a_reason_of_one_line_and_calls() -> None:
    for name, group in {**GROUPS, **policy.FILTERED}.items():
        assert group.reason.endswith(".") and "\n" not in group.reason, name
    assert all(group.calls for group in GROUPS.values())
    assert all(group.answer is None for group in policy.ALLOWED_GROUPS.values())
    assert all(group.answer is not None for group in policy.DENIED_GROUPS.values())
    assert len(GROUPS) == len(policy.ALLOWED_GROUPS) + len(policy.DENIED_GROUPS)


def test_no_call_is_in_two_groups() -> None:
    assert [name for name, count in Counter(NAMES).items() if count > 1] == []


def test_every_call_that_libseccomp_knows_is_in_a_group() -> None:
    """Whoever sees this fail has a newer libseccomp: the call answers ENOSYS until it is named."""
    assert known_to_libseccomp() - set(NAMES) - set(policy.PAST_EVERY_FILTER) == set()


@pytest.mark.skipif(sys.platform != "linux" or number("iopl") < 0, reason="names of x86-64")
def test_no_name_is_misspelt() -> None:
    """It would be left out without a word, as one that an older libseccomp does not know."""
    assert set(NAMES) - known_to_libseccomp() <= set(YOUNG)


# What all those programs of tests/languages were seen to need, and what costs nothing beside it.
# Whoever allows or denies one more says so here too: a slip of the groups is not enough.
VALIDATED = """
accept accept4 access alarm arch_prctl bind brk capget chdir chmod chown clock_getres
clock_gettime clock_nanosleep clone close close_range connect copy_file_range creat dup dup2 dup3
epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve
execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2
fchown fchownat fcntl fgetxattr flistxattr flock fork fstat fstatfs ftruncate futex futex_requeue
futex_wait futex_waitv futex_wake getcpu getcwd getdents getdents64 getegid geteuid getgid
getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr
inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl kill lchown lgetxattr link
linkat listen listxattr llistxattr lseek lstat madvise membarrier memfd_create mincore mkdir
mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mremap msync munlock munlockall munmap
nanosleep newfstatat open openat pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 pselect6 pwrite64
pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg rename
renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getparam sched_getscheduler
sched_setaffinity sched_yield select sendfile sendmmsg sendmsg sendto set_robust_list
set_tid_address setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid
setreuid setrlimit setsid setsockopt setuid shutdown sigaltstack signalfd signalfd4 socket
socketpair stat statfs statx symlink symlinkat sysinfo tgkill time timer_create timer_delete
timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times
tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork wait4 waitid write writev
""".split()


def test_what_was_validated_is_allowed_and_nothing_else() -> None:
    assert set(policy.ALLOWED) == set(VALIDATED)
    assert len(policy.ALLOWED) == len(VALIDATED)


# --- what is denied --------------------------------------------------------------------------


@pytest.mark.core
@pytest.mark.parametrize("group", policy.DENIED_GROUPS)
def test_a_denied_group_gives_its_answer(box: Box, group: str) -> None:
    """To zeros, with which most of them would do no harm."""
    calls, wanted = policy.DENIED_GROUPS[group].calls, policy.DENIED_GROUPS[group].answer
    found = answers(box, {n: [number(n)] + [0] * 6 for n in calls if number(n) >= 0})
    assert found == dict.fromkeys(found, errno.errorcode[wanted] if wanted else "ok")


# --- what is allowed -------------------------------------------------------------------------

# To nonsense (-1 in every argument) the kernel answers something else than the filter, but for:
OWN_ANSWERS = {"setgroups": "EPERM"}  # without a capability
UNPROBED = {
    "vfork": "a child that returns breaks its parent; subprocess of the languages uses it",
    "rt_sigreturn": "crashes where there is no signal; every handler ends with it",
}


@pytest.mark.parametrize("group", policy.ALLOWED_GROUPS)
def test_an_allowed_group_reaches_the_kernel(box: Box, group: str, tmp_path: Path) -> None:
    names = set(policy.ALLOWED_GROUPS[group].calls) - set(UNPROBED)
    calls = {name: [number(name)] + [-1] * 6 for name in names if number(name) >= 0}
    found = answers(box, calls, "by children")
    stopped = {name for name in calls if found[name] in ("ENOSYS", "EPERM")}
    stopped -= {name for name in stopped if OWN_ANSWERS.get(name) == found[name]}
    assert stopped <= unknown_to_the_kernel(stopped, tmp_path)


def unknown_to_the_kernel(names: set[str], folder: Path) -> set[str]:
    """Which of these this kernel is too old for, asked without a filter."""
    if not names:
        return set()
    file = folder / "calls"
    file.write_text(json.dumps({name: [number(name)] + [-1] * 6 for name in names}))
    said = subprocess.run(
        [sys.executable, "-Ic", PROBE, str(file), "by children"], stdout=subprocess.PIPE, check=True
    ).stdout
    return {name for name, answer in json.loads(said).items() if answer == "ENOSYS"}


# --- what is filtered by arguments -----------------------------------------------------------

UPPER = 1 << 32
SET_FS = 0x1002  # takes the probe's own thread away; no program starts without it


def arguments(case: policy.Case) -> list[int]:
    args = [0] * 6
    for condition in case.conditions:
        args[condition.position] = condition.value
    return args


def test_every_case_of_a_filtered_call_has_its_answer(box: Box) -> None:
    cases = {
        f"{name}{arguments(case)}": (number(name), case)
        for name, filtered in policy.FILTERED.items()
        for case in filtered.cases
        if number(name) >= 0 and arguments(case)[0] != SET_FS
    }
    calls = {text: [n, *arguments(case)] for text, (n, case) in cases.items()}
    found = answers(box, calls, "by children")
    assert found.pop("fcntl[0, 1033, 0, 0, 0, 0]") == "EPERM"  # a pipe cannot be sealed
    for text, answer in found.items():
        wanted = cases[text][1].answer
        if wanted is None:
            assert answer not in ("ENOSYS", "EPERM"), text
        else:
            assert answer == errno.errorcode[wanted], text


# What an attacker would ask for, and what he gets. Every list of values is left by its neighbours.
REFUSED: dict[str, list[list[int]]] = {
    "socket": [
        [2, 10, 0],  # SOCK_PACKET of AF_INET: the kernel makes AF_PACKET of it
        [2, 2, 136], [2, 1, 262], [2, 1, 256],  # UDP-Lite, MPTCP, SMC
        [2, 1, 132], [10, 5, 132], [2, 6, 33],  # SCTP, DCCP: modules that would be loaded
        [2, 2, 1], [10, 2, 58],  # ping sockets
        [0, 1, 0], [3, 1, 0], [16, 3, 0], [17, 3, 0], [38, 5, 0], [40, 1, 0], [44, 3, 0],
        [2, 1 | 0x100, 0], [1, 1, 2], [1, 3, 0], [16 | UPPER, 3, 0],
    ],
    "socketpair": [[2, 1, 0], [16, 3, 0], [30, 1, 0]],
    "setsockopt": [
        [0, 1, 26], [0, 1, 27], [0, 1, 50], [0, 1, 51], [0, 1, 52],  # filters of BPF
        [0, 1, 60], [0, 1, 61], [0, 1, 25], [0, 1, 36],  # ZEROCOPY, TXTIME, BINDTODEVICE, MARK
        [0, 0, 35], [0, 0, 42], [0, 0, 64], [0, 41, 20], [0, 41, 64],  # groups, iptables
        [0, 6, 13], [0, 6, 14], [0, 6, 19], [0, 6, 31],  # CONGESTION, MD5SIG, REPAIR, ULP
        [0, 17, 100], [0, 17, 103], [0, 270, 1], [0, 1, 26 | UPPER],  # ENCAP, SEGMENT, SOL_NETLINK
    ],
    "fcntl": [
        *([0, 4, flags] for flags in (os.O_DIRECT, os.O_DIRECT | os.O_NONBLOCK)),
        *([0, command, 0] for command in (36, 37, 38, 1024, 1025, 1036)),
        [0, 1026, 1], [0, 1026 | UPPER, 1],
    ],
    "ioctl": [[0, 0x5412, 0], [0, 0x541C, 0], [0, 0x8914, 0], [0, 0xFF03, 0], [0, 0xB703, 0]],
    "prctl": [[8], [22, 2], [26, 1], [28], [35], [47], [59], [62], [64], [67, 1], [0x59616D61]],
    "arch_prctl": [[0x1011], [0x1012, 1], [0x2001], [0x3001], [0x5001]],
    "prlimit64": [[1, 7, 0, 0], [1 | UPPER, 7, 0, 0], [2, 7, 0, 0]],
    "setpriority": [[0, 1, 19], [1, 0, 19], [2, 0, 19], [0, 1 | UPPER, 19]],
    "madvise": [[0, 0, 12], [0, 0, 21], [0, 0, 24], [0, 0, 100], [0, 0, 101], [0, 0, 5]],
    "fadvise64": [[0, 0, 0, 4], [0, 0, 0, 4 | UPPER], [0, 0, 0, 6]],
    "inotify_add_watch": [[0, 0, 0x20], [0, 0, 0x1], [0, 0, 0x10], [0, 0, 0xFFF]],
    "futex": [
        *([0, op | flags] for op in (2, 6, 7, 8, 11, 12, 13) for flags in (0, 0x80, 0x180)),
        [0, 0x85, 0, 0, 0, 0x80000000],
    ],
}  # fmt: skip


@pytest.mark.core
def test_arguments_that_no_program_needs_are_enosys(box: Box) -> None:
    calls = {
        f"{name}{args}": [number(name), *args, *([0] * (6 - len(args)))]
        for name, several in REFUSED.items()
        for args in several
        if number(name) >= 0
    }
    found = answers(box, calls)
    assert {text: answer for text, answer in found.items() if answer != "ENOSYS"} == {}


def test_a_job_does_not_see_which_files_of_usr_others_use(box: Box) -> None:
    """Marks are on the file, not on the mount: a watch would see the opens of every other job."""
    code = (
        "import ctypes, errno, fcntl, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "watch = libc.inotify_init1(0)\n"
        "def add(mask):\n"
        "    done = libc.inotify_add_watch(watch, b'/usr/bin/env', mask) > 0\n"
        "    return 'ok' if done else errno.errorcode[ctypes.get_errno()]\n"
        "def tried(do, *args):\n"
        "    try: do(*args)\n"
        "    except OSError as error: return errno.errorcode[error.errno]\n"
        "    return 'ok'\n"
        "env = os.open('/usr/bin/env', os.O_RDONLY)\n"
        "print(add(0x2), add(0x20), add(0x22), tried(os.preadv, env, [bytearray(9)], 0, 8),\n"
        "      tried(fcntl.fcntl, os.open('/usr/bin', os.O_RDONLY), fcntl.F_NOTIFY, 1),\n"
        "      tried(os.posix_fadvise, env, 0, 0, os.POSIX_FADV_DONTNEED))"
    )
    assert box.python(code).text.split() == [
        "ok", "ENOSYS", "ENOSYS", "ENOTSUP", "ENOSYS", "ENOSYS",
    ]  # fmt: skip
