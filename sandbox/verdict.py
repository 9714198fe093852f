"""Verdict: why a run ended, from facts that the kernel and our own clocks gave. Pure."""

import os
from typing import NamedTuple

from sandbox import model
from sandbox.errors import SandboxError
from sandbox.model import Verdict


class Facts(NamedTuple):
    """What is known once a sandbox is empty."""

    cause: str | None  # why we killed it: timeout, memory, cpu, cancelled, cpu_quota, or None
    oom_kills: int  # processes that the kernel killed for want of memory
    refused_tasks: int  # forks refused at the limit
    full: tuple[str, ...]  # limits that the workspace stands at: disk, inodes
    status: int | None  # wait status of the program, None when it did not end by itself
    step: int = 0


def decide(facts: Facts) -> Verdict:
    """One verdict, always the same for the same facts.

    Out of memory comes first: whatever the kernel killed, the job is one thing and did not run as
    written. A program that ended by itself before our kill reached it has ended by itself.
    Raises SandboxError when nothing explains the end.
    """
    if facts.oom_kills:
        return Verdict(model.MEMORY, signal=9, step=facts.step)
    if facts.status is not None:
        if os.WIFSIGNALED(facts.status):
            return Verdict(model.SIGNAL, signal=os.WTERMSIG(facts.status), step=facts.step)
        return Verdict(model.EXIT, exit_code=os.WEXITSTATUS(facts.status), step=facts.step)
    if facts.cause in (model.TIMEOUT, model.MEMORY, model.CPU, model.CANCELLED, model.CPU_QUOTA):
        return Verdict(facts.cause, signal=9, step=facts.step)
    raise SandboxError("init", 0, f"the sandbox ended unexplained ({facts.cause or 'no cause'})")


def limits_hit(facts: Facts, verdict: Verdict) -> tuple[str, ...]:
    """The limits that were seen from outside to be reached, in a fixed order."""
    ended = {verdict.reason} & {model.MEMORY, model.CPU, model.TIMEOUT}
    tasks = {"tasks"} if facts.refused_tasks else set()
    hit = ended | tasks | set(facts.full)
    return tuple(
        name for name in ("memory", "cpu", "timeout", "tasks", "disk", "inodes") if name in hit
    )
