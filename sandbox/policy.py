"""Policy: which system calls a job may make, as data; and what each denied group answers.

The list was validated with CPython, Node, bash, gcc, perl, Java, Go, Ruby and Rust programs.
Everything that is not named answers ENOSYS, as an older kernel would: programs fall back.
"""

import errno

ALLOWED = """
accept accept4 access alarm arch_prctl bind brk capget chdir chmod chown clock_getres
clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3
epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve
execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2
fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fstat fstatfs fsync ftruncate futex
futex_waitv futex_wait futex_wake futex_requeue getcpu getcwd getdents getdents64 getegid geteuid
getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid
getxattr inotify_add_watch inotify_init1 inotify_init inotify_rm_watch kill lchown lgetxattr link
linkat listen listxattr llistxattr lseek lstat madvise membarrier memfd_create mincore mkdir mkdirat
mknod mknodat mlock mlock2 mlockall mmap mprotect mremap msync munlock munlockall munmap nanosleep
newfstatat open openat pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
pkey_mprotect poll ppoll pread64 preadv preadv2 pselect6 pwrite64 pwritev pwritev2 read
readahead readlink readlinkat readv recvfrom recvmmsg recvmsg rename renameat renameat2
restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getparam sched_getscheduler sched_setaffinity sched_yield select sendfile
sendmmsg sendmsg sendto set_robust_list get_robust_list set_tid_address setgid setgroups setitimer
setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid
shutdown sigaltstack signalfd signalfd4 stat statfs statx symlink symlinkat sync_file_range
sysinfo tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime
timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat
utime utimensat utimes vfork wait4 waitid write writev
""".split()

# Denied with an answer that programs expect, rather than ENOSYS.
DENIED = {
    errno.EPERM: (
        "ptrace mount umount2 pivot_root chroot unshare setns bpf reboot swapon swapoff "
        "init_module finit_module delete_module kexec_load perf_event_open settimeofday "
        "clock_settime adjtimex sethostname setdomainname acct process_vm_readv process_vm_writev"
    ).split(),
    errno.EOPNOTSUPP: "setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr".split(),
}

# New namespaces by clone: one rule a bit. (A single rule "none of these bits" would be
# overridden by libseccomp in favour of the other.) clone3 hides its flags behind a pointer: ENOSYS.
CLONE_NAMESPACES = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip

SOCKET_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6: the namespace has no network at all
SOCKETPAIR_FAMILIES = (1,)

IOCTLS = (
    0x5401, 0x5402, 0x5403, 0x5404,  # TCGETS, TCSETS, TCSETSW, TCSETSF
    0x540F, 0x5413, 0x541B, 0x5421,  # TIOCGPGRP, TIOCGWINSZ, FIONREAD, FIONBIO
    0x5450, 0x5451, 0x802C542A,  # FIONCLEX, FIOCLEX, TCGETS2
    0x8912, 0x8913, 0x8927, 0x8933,  # SIOCGIFCONF, SIOCGIFFLAGS, SIOCGIFHWADDR, SIOCGIFINDEX
)  # fmt: skip

# Whose limits prlimit64 may touch: the caller's own. The kernel asks for the same uid only, so a
# job could take the memory or CPU time of its pid 1, and its end would look like a fault of ours.
PRLIMIT_PIDS = (0,)

PRCTLS = (
    1, 2, 3, 4,  # PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE
    15, 16, 21, 23,  # PR_SET_NAME, PR_GET_NAME, PR_GET_SECCOMP, PR_CAPBSET_READ
    29, 30, 36, 37,  # PR_SET_TIMERSLACK, PR_GET_TIMERSLACK, PR_SET/GET_CHILD_SUBREAPER
    38, 39, 41, 42,  # PR_SET/GET_NO_NEW_PRIVS, PR_SET/GET_THP_DISABLE
    0x53564D41,  # PR_SET_VMA
)  # fmt: skip
