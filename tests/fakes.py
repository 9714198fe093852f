"""Stand-ins above the sandbox: a Runner that runs nothing, and a clock that a test moves."""

import asyncio
import base64
import hashlib
import os
from collections.abc import Callable, Mapping

from nacl.signing import SigningKey

from jobs.job import Job, Moment
from jobs.manifest import Manifest
from jobs.terms import Terms
from sandbox.model import (
    EXIT,
    MIB,
    Inspection,
    Limits,
    Member,
    Output,
    Outputs,
    Result,
    Usage,
    Verdict,
)


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.moment = Moment(1000.0, 1_800_000_000.0)

    def __call__(self) -> Moment:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment = Moment(self.moment.monotonic + seconds, self.moment.wall + seconds)


def outputs_of(files: Mapping[str, bytes]) -> Outputs:
    """Outputs as a collection makes them: one memfd with everything in it."""
    if not files:
        return Outputs(-1)
    fd = os.memfd_create("outputs", os.MFD_CLOEXEC)
    entries, offset = [], 0
    for path, data in files.items():
        os.write(fd, data)
        digest = hashlib.sha256(data).hexdigest()
        entries.append(Output(path, offset, len(data), digest, 0o644))
        offset += len(data)
    return Outputs(fd, tuple(entries))


def result(
    reason: str = EXIT,
    exit_code: int | None = 0,
    signal: int | None = None,
    *,
    step: int = 0,
    files: Mapping[str, bytes] | None = None,
    limits_hit: tuple[str, ...] = (),
    wall_usec: int = 50_000,
) -> Result:
    return Result(
        Verdict(reason, exit_code, signal, step),
        Usage(cpu_usec=12_345, memory_peak_bytes=7 * 1024 * 1024 + 1, wall_usec=wall_usec),
        limits_hit,
        outputs_of(files or {}),
    )


class InProcessIdentity:
    """Signs as the signer does, but here; with `hold`, not before `release` is called."""

    def __init__(self, hold: bool = False) -> None:
        self.key = SigningKey(b"a seed that everybody knows, 32.")
        self.worker_id = base64.b64encode(bytes(self.key.verify_key)).decode()
        self.alive = True
        self.signed: list[bytes] = []
        self.is_asked = asyncio.Event()
        self.error: Exception | None = None
        self._gate = asyncio.Event()
        if not hold:
            self._gate.set()

    def release(self) -> None:
        self._gate.set()

    async def sign(self, statement: bytes) -> bytes:
        self.signed.append(statement)
        self.is_asked.set()
        await self._gate.wait()
        if self.error:
            raise self.error
        kind = "application/vnd.in-toto+json"
        head = f"DSSEv1 {len(kind)} {kind} {len(statement)} ".encode()
        return self.key.sign(head + statement).signature


class FakeRunner:
    """Ends every job at once as its fields say; with `hold`, not before `release` is called."""

    def __init__(self, hold: bool = False, log_bytes: int = 10 * MIB) -> None:
        self.alive = True
        self.walls: dict[str, object] = {"cgroup": {"memory": "fake"}}
        self.ran: list[Job] = []
        self.closed = False
        self.version = "Fake 1.0"
        self.log_bytes = log_bytes
        self.stdout = b""
        self.stderr = b""
        self.verdict: dict[str, object] = {}
        self.files: dict[str, bytes] = {}
        self.error: BaseException | None = None
        self.inspection: Inspection | BaseException = Inspection(
            (Member("main.py", 8, 0, 0o644, "00" * 32),), None
        )
        self.inspected: list[bytes] = []
        self.inspection_seconds = 0.01  # of CPU time
        self._gate = asyncio.Event()
        if not hold:
            self._gate.set()

    def release(self) -> None:
        self._gate.set()

    def terms(self, manifest: Manifest) -> Terms:
        limits = Limits(
            memory_bytes=manifest.memory_mb * MIB,
            cpu_seconds=manifest.cpu_seconds,
            wall_seconds=manifest.timeout,
        )
        return Terms(manifest.interpreter, self.version, limits, self.log_bytes)

    async def inspect(self, archive: int, on_cpu: Callable[[float], None]) -> Inspection:
        on_cpu(self.inspection_seconds)
        self.inspected.append(os.pread(archive, 1 << 20, 0))
        if isinstance(self.inspection, BaseException):
            raise self.inspection
        return self.inspection

    async def run(self, job: Job) -> Result:
        self.ran.append(job)
        job.take_output("stdout", memoryview(self.stdout))
        job.take_output("stderr", memoryview(self.stderr))
        gate = asyncio.create_task(self._gate.wait())
        try:
            await asyncio.wait((gate, job.stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gate.cancel()
        if self.error:
            raise self.error
        if job.stop.done():
            return result(job.stop.result(), None, 9)
        return result(**{**self.verdict, "files": self.files})  # type: ignore[arg-type]

    async def close(self) -> None:
        self.closed = True
