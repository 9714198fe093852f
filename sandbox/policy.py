"""Policy: which system calls a job may make, as data. Every call is in exactly one group, each with
the reason why. Whatever is in none, as all that future kernels bring, answers ENOSYS, as an older
kernel would, and programs fall back.

The list was validated with CPython, Node, bash, gcc, perl, Java, Go, Ruby, Rust, PHP, R and Lua
(tests/languages). /usr is the machine's own and other jobs have it too, so calls that would change
what the machine does with those files, or tell who else uses them, are cut off by their arguments.
"""

import errno
import os
from typing import Final, NamedTuple


class Group(NamedTuple):
    """Calls that share a reason, one line long; `answer` is the errno that they give, 0:
    success without being done, None: they are done."""

    reason: str
    calls: tuple[str, ...]
    answer: int | None = None


class Argument(NamedTuple):
    """A condition: these bits of this argument are equal to the value."""

    position: int
    bits: int
    value: int


class Case(NamedTuple):
    """When all conditions hold: done, or answered with an errno. No case fits: ENOSYS."""

    conditions: tuple[Argument, ...]
    answer: int | None = None


class Filter(NamedTuple):
    """A call that is allowed for some arguments only. No two of its cases contradict each
    other."""

    reason: str
    cases: tuple[Case, ...]


def _done(reason: str, calls: str) -> Group:
    return Group(reason, tuple(calls.split()))


def _answered(answer: int, reason: str, calls: str) -> Group:
    return Group(reason, tuple(calls.split()), answer)


# --- what is done, whatever the arguments --------------------------------------------------------

ALLOWED_GROUPS: Final = {
    "contents of files": _done(
        "Reads, writes and copies what is open; permissions and mounts decided when it was opened.",
        """read write pread64 pwrite64 readv writev preadv pwritev pwritev2 lseek sendfile
        copy_file_range ftruncate truncate fallocate readahead flock""",
    ),
    "names of files": _done(
        "The root holds the job's own tmpfs and a read-only /usr; the kernel checks each name.",
        """open openat creat close close_range access faccessat faccessat2 chdir fchdir getcwd mkdir
        mkdirat rmdir link linkat symlink symlinkat unlink unlinkat rename renameat renameat2
        readlink readlinkat mknod mknodat getdents getdents64""",
    ),
    "attributes of files": _done(
        "Own files only; without a capability neither an owner nor a set-uid bit is worth much.",
        """stat fstat lstat newfstatat statx statfs fstatfs chmod fchmod fchmodat fchmodat2 chown
        fchown lchown fchownat umask utime utimes utimensat getxattr lgetxattr fgetxattr
        listxattr llistxattr flistxattr""",
    ),
    "descriptors and pipes": _done(
        "As many as RLIMIT_NOFILE says; buffers are charged to the job's memory.",
        "dup dup2 dup3 pipe pipe2 eventfd eventfd2",
    ),
    "waiting for events": _done(
        "Objects behind descriptors; inotify's are few, by a limit of the job's own namespace.",
        """poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
        epoll_pwait2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime
        inotify_init inotify_init1 inotify_rm_watch""",
    ),
    "memory": _done(
        "The job's own address space, charged to its cgroup; it may lock no more than 64 KiB.",
        """brk munmap mremap mprotect msync mincore mlock mlock2 mlockall munlock munlockall
        pkey_alloc pkey_free pkey_mprotect membarrier""",
    ),
    "processes": _done(
        "In its own pid namespace, as many as its cgroup allows; programs keep the same walls.",
        """fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid
        getpgrp setpgid getsid setsid set_tid_address set_robust_list rseq restart_syscall
        pidfd_open""",
    ),
    "locks of threads": _done(
        "The newer futexes, which have no priority inheritance; on the job's own memory.",
        "futex_wait futex_wake futex_waitv futex_requeue",
    ),
    "identity": _done(
        "One user is mapped and every capability set is empty: nothing else can be become.",
        """getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid
        setregid setresuid setresgid setgroups capget""",
    ),
    "signals": _done(
        "Reach its own pid namespace only, whose pid 1 the kernel shields from those inside.",
        """kill tkill tgkill pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask
        rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack
        pause""",
    ),
    "time": _done(
        "Reads clocks and waits for them; timers are few, being counted as pending signals.",
        """time gettimeofday times clock_gettime clock_getres clock_nanosleep nanosleep alarm
        getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime
        timer_settime""",
    ),
    "scheduling": _done(
        "Its own tasks, within a quota that no order among them changes.",
        """sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_getscheduler
        sched_get_priority_max sched_get_priority_min getpriority getcpu""",
    ),
    "limits and the machine": _done(
        "Its own limits and usage; name and size of the machine, which runtimes ask for.",
        "getrlimit setrlimit getrusage sysinfo uname getrandom",
    ),
    "sockets": _done(
        "What `socket` lets exist, in a namespace with nothing but a loopback that is down.",
        """bind listen connect accept accept4 getsockname getpeername getsockopt shutdown recvfrom
        recvmsg recvmmsg""",
    ),
}

# --- what is done for some arguments -------------------------------------------------------------

_INT: Final = 0xFFFFFFFF  # what the kernel reads of an int; upper bits neither help nor hurt


def _one_of(position: int, values: tuple[int, ...], ignoring: int = 0) -> tuple[Case, ...]:
    return tuple(Case((Argument(position, _INT & ~ignoring, value),)) for value in values)


def _without(position: int, bits: tuple[int, ...], answer: int) -> tuple[Case, ...]:
    """One case a bit: a single "none of these bits" that denies would be overridden by
    libseccomp in favour of the one that allows."""
    denied = tuple(Case((Argument(position, bit, bit),), answer) for bit in bits)
    return (*denied, Case((Argument(position, sum(bits), 0),)))


# New namespaces by clone; clone3 hides its flags behind a pointer: ENOSYS.
CLONE_NAMESPACES = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip

# A process that shares its descriptors and is no thread: what it locks outlives it, and the kernel
# names a dead process as the holder. Threads have both bits, the children of every libc neither.
_CLONE_FILES, _CLONE_THREAD = 0x400, 0x10000
_SHARES: Final = _CLONE_FILES | _CLONE_THREAD
_CLONES: Final = (
    *(Case((Argument(0, bit, bit),), errno.EPERM) for bit in CLONE_NAMESPACES),
    Case((Argument(0, _SHARES, _CLONE_FILES),), errno.EPERM),
    *(
        Case((Argument(0, sum(CLONE_NAMESPACES) | _SHARES, shared),))
        for shared in (0, _CLONE_THREAD, _SHARES)
    ),
)

SOCKETPAIR_FAMILIES = (1,)

IOCTLS = (
    0x5401, 0x5402, 0x5403, 0x5404,  # TCGETS, TCSETS, TCSETSW, TCSETSF
    0x540F, 0x5413, 0x541B, 0x5421,  # TIOCGPGRP, TIOCGWINSZ, FIONREAD, FIONBIO
    0x5450, 0x5451, 0x802C542A,  # FIONCLEX, FIOCLEX, TCGETS2
    0x8912, 0x8913, 0x8927, 0x8933,  # SIOCGIFCONF, SIOCGIFFLAGS, SIOCGIFHWADDR, SIOCGIFINDEX
)  # fmt: skip

PRLIMIT_PIDS = (0,)

PRCTLS = (
    1, 2, 3, 4,  # PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE
    15, 16, 21, 23,  # PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ
    29, 30, 36, 37,  # PR_SET_TIMERSLACK, PR_GET_TIMERSLACK, PR_SET/GET_CHILD_SUBREAPER
    38, 39, 41, 42,  # PR_SET/GET_NO_NEW_PRIVS, PR_SET/GET_THP_DISABLE
    0x53564D41,  # PR_SET_VMA
)  # fmt: skip

ARCH_PRCTLS = (
    0x1001, 0x1002, 0x1003, 0x1004,  # ARCH_SET_GS, ARCH_SET_FS, ARCH_GET_FS, ARCH_GET_GS
    0x1021, 0x1022, 0x1023,  # ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM, ARCH_REQ_XCOMP_PERM
)  # fmt: skip

FCNTLS = (
    0, 1030, 1, 2, 3,  # F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL
    5, 6, 7,  # F_GETLK, F_SETLK, F_SETLKW
    8, 9, 10, 11, 15, 16,  # F_SETOWN, F_GETOWN, F_SETSIG, F_GETSIG, F_SETOWN_EX, F_GETOWN_EX
    1031, 1032, 1033, 1034,  # F_SETPIPE_SZ, F_GETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS
)  # fmt: skip

MADVICE = (
    0, 1, 2, 3, 4,  # MADV_NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED
    8, 9, 10, 11, 13, 14, 15,  # FREE, REMOVE, DONTFORK, DOFORK, UNMERGEABLE, HUGEPAGE, NOHUGEPAGE
    16, 17, 18, 19, 20,  # DONTDUMP, DODUMP, WIPEONFORK, KEEPONFORK, COLD
    22, 23, 25, 102, 103,  # POPULATE_READ, POPULATE_WRITE, COLLAPSE, GUARD_INSTALL, GUARD_REMOVE
)  # fmt: skip

FADVICE = (0, 1, 2, 3, 5)  # POSIX_FADV_NORMAL, RANDOM, SEQUENTIAL, WILLNEED, NOREUSE

FUTEX_FLAGS = 0x180  # FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME
FUTEXES = (0, 1, 3, 4, 9, 10)  # WAIT, WAKE, REQUEUE, CMP_REQUEUE, *_BITSET

SOCKET_FLAGS = 0x80800  # SOCK_CLOEXEC, SOCK_NONBLOCK
SOCKET_OPTIONS = {  # level: options
    # SOL_SOCKET: REUSEADDR, BROADCAST, SNDBUF, RCVBUF, KEEPALIVE, LINGER, REUSEPORT, PASSCRED,
    # RCVLOWAT, RCVTIMEO, SNDTIMEO, TIMESTAMP
    1: (2, 6, 7, 8, 9, 13, 15, 16, 18, 20, 21, 29),
    # IPPROTO_IP: TOS, TTL, MTU_DISCOVER, RECVERR, MULTICAST_TTL, _LOOP, _ALL
    0: (1, 2, 10, 11, 33, 34, 49),
    # IPPROTO_TCP: NODELAY, CORK, KEEPIDLE, KEEPINTVL, KEEPCNT, USER_TIMEOUT
    6: (1, 3, 4, 5, 6, 18),
    # IPPROTO_IPV6: UNICAST_HOPS, MULTICAST_HOPS, _LOOP, MTU_DISCOVER, RECVERR, V6ONLY,
    # MULTICAST_ALL, TCLASS
    41: (16, 18, 19, 23, 25, 26, 29, 67),
}

_LOCAL: Final = Argument(0, _INT, 1)
_INTERNET: Final = Argument(0, _INT & ~8, 2)  # AF_INET is 2, AF_INET6 is 10
_STREAM, _DATAGRAM, _PACKETS = (Argument(1, _INT & ~SOCKET_FLAGS, kind) for kind in (1, 2, 5))
_SOCKETS: Final = (
    *(Case((_LOCAL, kind, Argument(2, _INT & ~1, 0))) for kind in (_STREAM, _DATAGRAM, _PACKETS)),
    *(Case((_INTERNET, _STREAM, Argument(2, _INT, protocol))) for protocol in (0, 6)),
    *(Case((_INTERNET, _DATAGRAM, Argument(2, _INT, protocol))) for protocol in (0, 17)),
    Case((_INTERNET, Argument(1, 0xF, 3)), errno.EPERM),  # SOCK_RAW, as the kernel answers
)
_NOT_URGENT: Final = (0x1,)  # MSG_OOB

FILTERED: Final = {
    "clone": Filter(
        "Threads and processes: yes; new namespaces, or processes with one table of files: no.",
        _CLONES,
    ),
    "socket": Filter(
        "Local, TCP and UDP; other protocols are code, or modules, that the kernel would load.",
        _SOCKETS,
    ),
    "socketpair": Filter("Local ones.", _one_of(0, SOCKETPAIR_FAMILIES)),
    "setsockopt": Filter(
        "Options that programs set; no filters (BPF in the kernel), groups, ciphers, or zero-copy.",
        tuple(
            Case((Argument(1, _INT, level), Argument(2, _INT, option)))
            for level, options in SOCKET_OPTIONS.items()
            for option in options
        ),
    ),
    **{
        name: Filter(
            "No urgent data: on local sockets its bookkeeping let a browser's sandbox be left.",
            _without(index, _NOT_URGENT, errno.EOPNOTSUPP),
        )
        for name, index in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3))
    },
    "ioctl": Filter("Asks and sets what is the descriptor's own.", _one_of(1, IOCTLS)),
    "fcntl": Filter(
        "Not who reads in /usr (F_NOTIFY), no leases, and no locks that name no process (OFD).",
        (
            *_one_of(1, FCNTLS),
            # F_SETFL, but for O_DIRECT: in packets, reading a log costs us more than writing it
            Case((Argument(1, _INT, 4), Argument(2, os.O_DIRECT, 0))),
        ),
    ),
    "prctl": Filter("Grants nothing and stops nothing that is counted.", _one_of(0, PRCTLS)),
    "arch_prctl": Filter("Thread pointers and wide registers.", _one_of(0, ARCH_PRCTLS)),
    "prlimit64": Filter(
        "Its own limits: with pid 1's, of the same user, its end would look like a fault of ours.",
        _one_of(0, PRLIMIT_PIDS),
    ),
    "setpriority": Filter(
        "Its own: as a group, a user or by its number it could be pid 1, which must stay quick.",
        (Case((Argument(0, _INT, 0), Argument(1, _INT, 0))),),
    ),
    "mmap": Filter(
        "No huge pages: the machine has one pool of them, and no limit of the job's counts them.",
        _without(3, (0x40000,), errno.ENOMEM),  # MAP_HUGETLB
    ),
    "memfd_create": Filter(
        "As for mmap: no huge pages.",
        _without(1, (0x4,), errno.ENOMEM),  # MFD_HUGETLB
    ),
    "madvise": Filter(
        "No MERGEABLE (equal pages of two jobs would tell), PAGEOUT, HWPOISON or SOFT_OFFLINE.",
        _one_of(2, MADVICE),
    ),
    "fadvise64": Filter(
        "No DONTNEED: it throws files of /usr out of the memory that all jobs share.",
        _one_of(3, FADVICE),
    ),
    "preadv2": Filter(
        "No NOWAIT, which tells what others have read of /usr; no DONTCACHE, which forgets it.",
        _without(5, (0x8, 0x80), errno.EOPNOTSUPP),
    ),
    "inotify_add_watch": Filter(
        "Changes only: ACCESS, OPEN and CLOSE_NOWRITE tell which files of /usr other jobs use.",
        _without(2, (0x1, 0x20, 0x10), errno.ENOSYS),
    ),
    "futex": Filter(
        "No priority inheritance: without real-time tasks it serves attacks only.",
        (
            *_one_of(1, FUTEXES, ignoring=FUTEX_FLAGS),
            # WAKE_OP, but for shifts: for wrong ones the kernel logs the program's name
            Case((Argument(1, _INT & ~FUTEX_FLAGS, 5), Argument(5, 0x80000000, 0))),
        ),
    ),
}

# --- what is not done ----------------------------------------------------------------------------

_EPERM, _ENOSYS = errno.EPERM, errno.ENOSYS

DENIED_GROUPS: Final = {
    "namespaces": _answered(
        _EPERM, "In a namespace of its own a job has every capability.", "setns unshare"
    ),
    "namespaces by structures": _answered(
        _ENOSYS, "A filter does not see what a pointer points to; libc falls back.", "clone3 listns"
    ),
    "mounts": _answered(
        _EPERM, "The view of files is made before the job.", "mount umount2 pivot_root chroot"
    ),
    "newer mounts": _answered(
        _ENOSYS,
        "The same by descriptors.",
        """open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr
        statmount listmount""",
    ),
    "kernel modules": _answered(
        _EPERM, "Code in the kernel.", "init_module finit_module delete_module"
    ),
    "tracing": _answered(
        _EPERM, "Programs in the kernel, and its counters of others.", "bpf perf_event_open"
    ),
    "page faults": _answered(
        _ENOSYS,
        "Holds the kernel up in the middle of a copy: half of many exploits.",
        "userfaultfd",
    ),
    "power": _answered(_EPERM, "Ends the machine or replaces its kernel.", "reboot kexec_load"),
    "swap and accounting": _answered(
        _EPERM, "Written by the kernel for the whole machine.", "swapon swapoff acct"
    ),
    "the whole machine": _answered(
        _ENOSYS,
        "Disks, quotas, consoles, log and kernel of the machine.",
        "sync syncfs quotactl quotactl_fd vhangup syslog kexec_file_load",
    ),
    "writing back": _answered(
        0,
        "All that a job can write is memory; of /usr each of these would make the disk flush.",
        "fsync fdatasync sync_file_range",
    ),
    "setting clocks": _answered(
        _EPERM, "There is one clock.", "settimeofday clock_settime adjtimex"
    ),
    "setting any clock": _answered(_ENOSYS, "The same by number.", "clock_adjtime"),
    "names of the machine": _answered(_EPERM, "They are neutral.", "sethostname setdomainname"),
    "tracing processes": _answered(
        _EPERM,
        "Into the memory of another process, say one with more rights.",
        "ptrace process_vm_readv process_vm_writev",
    ),
    "other processes": _answered(
        _ENOSYS,
        "Descriptors, memory, and addresses in kernel and user space of another process.",
        "kcmp pidfd_getfd process_madvise process_mrelease get_robust_list",
    ),
    "keyrings": _answered(
        _ENOSYS, "No namespace of their own, and a long record.", "keyctl add_key request_key"
    ),
    "io_uring": _answered(
        _ENOSYS,
        "System calls past the filter, and the longest record.",
        "io_uring_setup io_uring_enter io_uring_register",
    ),
    "asynchronous I/O": _answered(
        _ENOSYS,
        "Counted for the whole machine.",
        "io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents",
    ),
    "System V": _answered(
        _ENOSYS,
        "Lives on without its process; POSIX shared memory is there.",
        "shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl",
    ),
    "message queues": _answered(
        _ENOSYS,
        "As System V.",
        "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
    ),
    "watching file systems": _answered(
        _ENOSYS, "Sees all that is done on them.", "fanotify_init fanotify_mark"
    ),
    "files by handle": _answered(
        _ENOSYS, "Past all that mounts hide.", "name_to_handle_at open_by_handle_at"
    ),
    "pages shared with pipes": _answered(
        _ENOSYS, "Pages of files in pipes were written to twice.", "splice tee vmsplice"
    ),
    "what is in memory": _answered(_ENOSYS, "Tells what others have read of /usr.", "cachestat"),
    "structures of openat2": _answered(
        _ENOSYS, "Its flags are behind a pointer; libraries fall back.", "openat2"
    ),
    "extended attributes": _answered(
        errno.EOPNOTSUPP,
        "None are kept, as on file systems without; cp and tar expect this answer.",
        "setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr",
    ),
    "newer attributes": _answered(
        _ENOSYS,
        "The same by structures; libraries fall back.",
        "setxattrat getxattrat listxattrat removexattrat file_getattr file_setattr",
    ),
    "filters and policies": _answered(
        _ENOSYS,
        "Programs in the kernel, if only one's own; a listener would hold a call up.",
        """seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
        lsm_get_self_attr lsm_set_self_attr lsm_list_modules""",
    ),
    "priorities": _answered(
        _ENOSYS,
        "Real-time and I/O classes; and what shows them.",
        """sched_setscheduler sched_setparam sched_setattr sched_getattr sched_rr_get_interval
        ioprio_set ioprio_get""",
    ),
    "memory nodes": _answered(
        _ENOSYS,
        "Where in the machine memory lies.",
        "mbind set_mempolicy get_mempolicy set_mempolicy_home_node migrate_pages move_pages",
    ),
    "newer memory": _answered(
        _ENOSYS,
        "Hidden from the kernel, or shadowed; no runtime needs them.",
        "memfd_secret map_shadow_stack mseal",
    ),
    "capabilities": _answered(
        _ENOSYS, "There are none to set, nor a second user.", "capset setfsuid setfsgid"
    ),
    "ports and segments of x86": _answered(
        _ENOSYS,
        "Hardware, and segments that were bugs again and again.",
        "iopl ioperm modify_ldt set_thread_area get_thread_area",
    ),
    "personality": _answered(_ENOSYS, "Turns off the randomness of addresses.", "personality"),
    "what is out of use": _answered(
        _ENOSYS,
        "Old code that nobody looks at, and numbers that Linux never used or gave up.",
        """uselib ustat sysfs _sysctl futimesat remap_file_pages lookup_dcookie nfsservctl
        create_module get_kernel_syms query_module afs_syscall security tuxcall vserver getpmsg
        putpmsg epoll_ctl_old epoll_wait_old""",
    ),
}

# Linux lets its own trampolines of probes pass every filter; elsewhere they end in SIGILL.
PAST_EVERY_FILTER: Final = ("uretprobe", "uprobe")

# --- the same by name ----------------------------------------------------------------------------

# All that is done at all, for whatever arguments.
ALLOWED = [name for group in ALLOWED_GROUPS.values() for name in group.calls] + [*FILTERED]

# All that answers something other than the default.
DENIED: dict[int, list[str]] = {}
for _group in DENIED_GROUPS.values():
    if _group.answer is not None and _group.answer != errno.ENOSYS:
        DENIED.setdefault(_group.answer, []).extend(_group.calls)
