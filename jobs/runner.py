"""Runner: the seam between the Engine and what runs a job. A SandboxRunner runs it on this machine;
tests put a fake here, a pool will put other machines here.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from jobs.job import Job
from jobs.manifest import Manifest
from jobs.terms import Terms
from sandbox.model import MIB, Inspection, Limits, Result
from sandbox.runtimes import Runtime
from sandbox.sandbox import Sandbox


class Runner(Protocol):
    """What the Engine and the doors need of whatever runs jobs."""

    @property
    def alive(self) -> bool:
        """False when no job can run any more."""

    @property
    def walls(self) -> Mapping[str, object]:
        """What stands around a job, for /health."""

    def terms(self, manifest: Manifest) -> Terms:
        """What a job of this manifest will be run with."""

    async def inspect(self, archive: int, on_cpu: Callable[[float], None]) -> Inspection:
        """What is in the archive; `on_cpu` hears how many CPU-seconds it took to know.

        Raises BundleRefused or SandboxError.
        """

    async def run(self, job: Job) -> Result:
        """Run `job` over its bundle, its output into its log, until it ends or `job.stop` is set.

        Raises SandboxError or BundleRefused when nothing ran.
        """

    async def close(self) -> None:
        """Kill what runs."""


class SandboxRunner:
    """Runs jobs through the launcher of this machine."""

    def __init__(
        self,
        sandbox: Sandbox,
        runtimes: Mapping[str, Runtime],
        versions: Mapping[str, str],
        log_bytes: int,
    ) -> None:
        """`versions`: what each runtime says it is; `log_bytes`: kept of each log."""
        self._sandbox = sandbox
        self._runtimes = runtimes
        self._versions = versions
        self._log_bytes = log_bytes

    @property
    def alive(self) -> bool:
        return self._sandbox.alive

    @property
    def walls(self) -> Mapping[str, object]:
        return self._sandbox.walls

    async def inspect(self, archive: int, on_cpu: Callable[[float], None]) -> Inspection:
        return await self._sandbox.inspect(archive, on_cpu)

    def terms(self, manifest: Manifest) -> Terms:
        limits = Limits(
            memory_bytes=manifest.memory_mb * MIB,
            cpu_seconds=manifest.cpu_seconds,
            wall_seconds=manifest.timeout,
        )
        version = self._versions[manifest.interpreter]
        return Terms(manifest.interpreter, version, limits, self._log_bytes)

    async def run(self, job: Job) -> Result:
        manifest, limits = job.manifest, job.terms.limits
        runtime = self._runtimes[manifest.interpreter]
        return await self._sandbox.run(
            runtime.command(manifest.entrypoint, manifest.args, manifest.env, limits),
            job.bundle,
            limits,
            stdin=job.feed or manifest.stdin.encode(),
            patterns=manifest.outputs,
            on_output=job.take_output,
            on_gauge=job.set_gauge,
            on_look=job.set_look,
            stop=job.stop,
        )

    async def close(self) -> None:
        await self._sandbox.close()
