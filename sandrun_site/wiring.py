"""Builds a Site from settings, the launcher's socket and who we are: Sandbox, runtimes, Engine."""

import asyncio
import socket
from collections.abc import Mapping

from jobs.api.site import Interpreter, Site
from jobs.conf import Config
from jobs.engine import Engine
from jobs.identity import Identity
from jobs.memory import MemoryFile
from jobs.runner import SandboxRunner
from sandbox import runtimes
from sandbox.cgroups import MISSABLE
from sandbox.errors import SandboxError
from sandbox.model import EXIT, MIB, Bundle, Limits
from sandbox.runtimes import Runtime
from sandbox.sandbox import Sandbox

PROBE_LIMITS = Limits(memory_bytes=512 * MIB, wall_seconds=20)
VERSION_LETTERS = 100


async def open_site(
    channel: socket.socket,
    config: Config,
    hosts: tuple[str, ...],
    identity: Identity | None = None,
) -> Site:
    """A Site whose engine runs jobs through the launcher behind `channel`, and whose receipts
    `identity` signs; without one they are not signed.

    Raises SandboxError when the launcher, or every single sandbox, cannot be had, or a wall is
    missing that the settings do not name.
    """
    sandbox = Sandbox(channel)
    await sandbox.start()
    allowed = {f"cgroup-{name}" for wall in config.allow_missing for name in MISSABLE[wall]}
    if missing := sorted(set(sandbox.missing) - allowed):
        raise SandboxError("walls", 0, f"{', '.join(missing)} cannot be had")
    interpreters = await probe(sandbox, runtimes.load())
    usable = {name: known.runtime for name, known in interpreters.items()}
    versions = {name: known.version for name, known in interpreters.items()}
    runner = SandboxRunner(sandbox, usable, versions, config.log_bytes)
    engine = Engine(runner, config, identity=identity)
    engine.start()
    return Site(config, engine, interpreters, hosts)


async def probe(sandbox: Sandbox, candidates: Mapping[str, Runtime]) -> dict[str, Interpreter]:
    """The runtimes that work inside a sandbox. One that does not is simply not there."""
    found = await asyncio.gather(
        *(_version(sandbox, runtime) for runtime in candidates.values()), return_exceptions=True
    )
    interpreters = {
        runtime.name: Interpreter(runtime, version)
        for runtime, version in zip(candidates.values(), found, strict=True)
        if isinstance(version, str)
    }
    errors = [error for error in found if isinstance(error, BaseException)]
    if errors and not interpreters:
        raise errors[0]
    return interpreters


async def _version(sandbox: Sandbox, runtime: Runtime) -> str | None:
    """The first line that the runtime's probe prints; None when it fails. Raises SandboxError."""
    printed = bytearray()
    nothing = MemoryFile().seal()
    try:
        result = await sandbox.run(
            runtime.version_command(PROBE_LIMITS),
            Bundle("loose", nothing.fd, ()),
            PROBE_LIMITS,
            on_output=lambda stream, data: printed.extend(data[: 4096 - len(printed)]),
        )
    finally:
        nothing.close()
    if result.outputs.fd >= 0:
        MemoryFile(result.outputs.fd).close()
    if result.verdict.reason != EXIT or result.verdict.exit_code != 0:
        return None
    lines = printed.decode("utf-8", "replace").splitlines() or [""]
    return "".join(char for char in lines[0][:VERSION_LETTERS] if char.isprintable())
