"""Capabilities and prctl bits: the one module that imports python-prctl (GPL-3, see LICENSE)."""

import signal
from pathlib import Path

import _prctl
import prctl

# The job can regain nothing by becoming uid 0 or by executing a file with capabilities, and
# cannot take these bits back. KEEP_CAPS stays off, locked.
_SECUREBITS = (
    prctl.SECBIT_NOROOT
    | prctl.SECBIT_NOROOT_LOCKED
    | prctl.SECBIT_NO_SETUID_FIXUP
    | prctl.SECBIT_NO_SETUID_FIXUP_LOCKED
    | prctl.SECBIT_KEEP_CAPS_LOCKED
)
_EVERY = list(prctl.ALL_CAPS)


def check() -> None:
    """python-prctl knows the capabilities of the headers it was built with: it must know ours."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    if last > max(prctl.ALL_CAPS):
        raise OSError(0, f"python-prctl was built for older headers: capability {last} is unknown")


def keep_capabilities_over_uid_change() -> None:
    """Bits first: becoming the job's uid must not take what the remaining steps need."""
    prctl.set_securebits(_SECUREBITS)


def drop_capabilities() -> None:
    """Empty every set: bounding, then effective, permitted and inheritable (and so ambient)."""
    prctl.capbset.limit()
    # What prctl.set_caps() calls, without working out the same lists anew for every sandbox.
    _prctl.set_caps([], [], [], _EVERY, _EVERY, _EVERY)


def no_new_privileges() -> None:
    """No executed file can give more than we have; the condition for an unprivileged filter."""
    prctl.set_no_new_privs(1)


def hide_memory() -> None:
    """No core dump, no tracing and no /proc/self/mem for others of our uid. After the uid change,
    which would reset it."""
    prctl.set_dumpable(0)


def die_with_parent() -> None:
    """SIGKILL when the launcher goes. After the uid change, which would reset it."""
    prctl.set_pdeathsig(signal.SIGKILL)


def name_process(name: str) -> None:
    """What ps shows on the machine."""
    prctl.set_name(name)


def adopt_orphans() -> None:
    """Become the parent of whatever outlives its own below us, so that we can wait for it."""
    prctl.set_child_subreaper(1)
