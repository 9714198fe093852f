"""Memory: whether what is in it stays there, and stays one job's."""

from pathlib import Path

from sandbox.doctor.cgroups import controllers
from sandbox.doctor.files import text_of
from sandbox.doctor.words import BAD, WARNING, Check, Seen, good


def _swaps(root: Path) -> list[str]:
    return [line.split()[0] for line in (text_of(root, "proc/swaps") or "").splitlines()[1:]]


def _swap(root: Path) -> Seen:
    swaps = _swaps(root)
    if not swaps:
        return good("none")
    remedy = "sudo swapoff -a, and take the lines with swap out of /etc/fstab"
    if controllers(root).get("memory", (0,))[0] != 2:
        return Seen(
            BAD, ", ".join(swaps),
            "Sandrun does not start: only cgroup version 2 keeps uploads and outputs out of swap.",
            remedy,
        )  # fmt: skip
    if all(_in_memory(root, name) for name in swaps):
        return good(f"{', '.join(swaps)}: compressed memory, and Sandrun's limit of swap is 0")
    return Seen(
        WARNING, ", ".join(swaps),
        "Sandrun and its jobs have a swap limit of 0, but a proxy in front of it has not: what "
        "clients send and get may reach a disk.", remedy,
    )  # fmt: skip


def _in_memory(root: Path, swap: str) -> bool:
    """zram that nothing spills from."""
    return text_of(root, f"sys/block/{Path(swap).name}/backing_dev") == "none"


def _hibernation(root: Path) -> Seen:
    possible = "disk" in (text_of(root, "sys/power/state") or "").split()
    place = (text_of(root, "sys/power/resume") or "0:0") != "0:0" or bool(_swaps(root))
    if possible and place:
        return Seen(
            WARNING, "this machine can hibernate",
            "That writes all memory to a disk: code, logs and outputs of jobs.",
            "sudo systemctl mask hibernate.target hybrid-sleep.target "
            "suspend-then-hibernate.target",
        )  # fmt: skip
    return good("memory is never written to a disk")


def _shared_pages(root: Path) -> Seen:
    if text_of(root, "sys/kernel/mm/ksm/run") == "1":
        return Seen(
            WARNING, "KSM is on",
            "Equal pages of programs that asked for it are merged, and who writes one can tell by "
            "the time that another has it.", "echo 2 | sudo tee /sys/kernel/mm/ksm/run",
        )  # fmt: skip
    return good("KSM is off")


CHECKS = (
    Check(109, "swap", _swap),
    Check(110, "hibernation", _hibernation),
    Check(111, "shared pages", _shared_pages),
)
