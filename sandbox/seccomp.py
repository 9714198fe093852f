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
    for group in (*policy.ALLOWED_GROUPS.values(), *policy.DENIED_GROUPS.values()):
        for name in group.calls:
            _rule(tree, name, group.answer)
    for name, call in policy.FILTERED.items():
        for case in call.cases:
            _rule(tree, name, case.answer, *map(_argument, case.conditions))
    return exported(tree)


def exported(tree: pyseccomp.SyscallFilter) -> bytes:
    """Its instructions, for linux.load_filter()."""
    with os.fdopen(os.memfd_create("filter"), "w+b") as file:
        tree.export_bpf(file)
        file.seek(0)
        return file.read()


def _rule(
    tree: pyseccomp.SyscallFilter, name: str, answer: int | None, *args: pyseccomp.Arg
) -> None:
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    # An older libseccomp or another architecture does not know the name: the default, ENOSYS,
    # holds for it, which is what its users' programs expect of an older kernel.
    if number >= 0 and answer != errno.ENOSYS:
        action = pyseccomp.ALLOW if answer is None else pyseccomp.ERRNO(answer)
        tree.add_rule(action, number, *args)


def _argument(argument: policy.Argument) -> pyseccomp.Arg:
    return pyseccomp.Arg(argument.position, pyseccomp.MASKED_EQ, argument.bits, argument.value)
