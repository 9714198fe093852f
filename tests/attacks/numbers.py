"""The numbers of system calls here, by name: what is tried must be what was meant."""

import json
from collections.abc import Iterable

import pyseccomp

# Younger than the libseccomp of some machines; their numbers are the same everywhere.
_YOUNG = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435,
    "openat2": 437, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442,
    "quotactl_fd": 443, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
    "landlock_restrict_self": 446, "memfd_secret": 447, "process_mrelease": 448, "cachestat": 451,
    "map_shadow_stack": 453, "statmount": 457, "listmount": 458, "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460, "lsm_list_modules": 461, "mseal": 462, "open_tree_attr": 467,
}  # fmt: skip


def number(name: str) -> int:
    """Negative when this machine has no such call."""
    if name in _YOUNG:
        return _YOUNG[name]
    found: int = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    return found


def numbered(names: Iterable[str]) -> str:
    """The numbers by name as JSON: an argument for code that runs inside."""
    return json.dumps({name: number(name) for name in names})
