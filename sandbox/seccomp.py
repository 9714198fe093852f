"""Policy to filter bytes: built once with pyseccomp when the launcher starts, loaded raw by
every sandbox (building it there would cost 5 ms a job).
"""

import errno
import os

import pyseccomp

from sandbox import policy

_OPTIMIZE_BINARY_TREE = 2  # the kernel emulates the filter once per call number: log, not linear


def build() -> bytes:
    """The BPF program that stands before a job: default ENOSYS, other architectures ENOSYS."""
    tree = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.ENOSYS))
    tree.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ERRNO(errno.ENOSYS))
    tree.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, _OPTIMIZE_BINARY_TREE)
    for name in policy.ALLOWED:
        _rule(tree, pyseccomp.ALLOW, name)
    for number, names in policy.DENIED.items():
        for name in names:
            _rule(tree, pyseccomp.ERRNO(number), name)
    _clone(tree)
    _choices(tree, "socket", 0, policy.SOCKET_FAMILIES)
    _choices(tree, "socketpair", 0, policy.SOCKETPAIR_FAMILIES)
    _choices(tree, "ioctl", 1, policy.IOCTLS)
    _choices(tree, "prctl", 0, policy.PRCTLS)
    _choices(tree, "prlimit64", 0, policy.PRLIMIT_PIDS)
    with os.fdopen(os.memfd_create("filter"), "w+b") as file:
        tree.export_bpf(file)
        file.seek(0)
        return file.read()


def _rule(tree: pyseccomp.SyscallFilter, action: int, name: str, *args: pyseccomp.Arg) -> None:
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    if number < 0:
        # An older libseccomp or another architecture does not know the name: the default,
        # ENOSYS, holds for it, which is what its users' programs expect of an older kernel.
        return
    tree.add_rule(action, number, *args)


def _clone(tree: pyseccomp.SyscallFilter) -> None:
    """Threads and processes: yes; a new namespace: EPERM, whichever bit asks for it."""
    for bit in policy.CLONE_NAMESPACES:
        arg = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, bit, bit)
        _rule(tree, pyseccomp.ERRNO(errno.EPERM), "clone", arg)
    every = 0
    for bit in policy.CLONE_NAMESPACES:
        every |= bit
    _rule(tree, pyseccomp.ALLOW, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, every, 0))


def _choices(tree: pyseccomp.SyscallFilter, name: str, index: int, values: tuple[int, ...]) -> None:
    """Allow `name` when its argument is one of `values`, in the 32 bits that the kernel reads.

    Comparing all 64 would let a set upper bit slip past a rule that denies, and would deny a
    harmless call whose upper half holds rubbish.
    """
    for value in values:
        arg = pyseccomp.Arg(index, pyseccomp.MASKED_EQ, 0xFFFFFFFF, value)
        _rule(tree, pyseccomp.ALLOW, name, arg)
