"""Engine: takes jobs in, lets them wait in line, gives them slots, stops and forgets them."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from jobs.bundle import Upload
from jobs.conf import Config
from jobs.errors import Full, Unready
from jobs.job import Job, Moment
from jobs.manifest import Manifest
from jobs.runner import Runner
from jobs.store import Store
from sandbox.errors import BundleRefused, SandboxError
from sandbox.model import CANCELLED, SANDBOX_ERROR

log = logging.getLogger(__name__)

CLOSE_SECONDS = 2.0  # for the running jobs to be killed


def now() -> Moment:
    return Moment(time.monotonic(), time.time())


class Engine:
    """First come, first served, `config.slots` at once. Belongs to one event loop."""

    def __init__(self, runner: Runner, config: Config, clock: Callable[[], Moment] = now) -> None:
        self.runner = runner
        self.config = config
        self.clock = clock
        self.store = Store(config.ttl_seconds)
        self._queue: deque[Job] = deque()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to forget."""
        self._sweeper = asyncio.create_task(self._sweep_for_ever())

    # ---- taking jobs in

    def admit(self, upload_bytes: int) -> None:
        """Raises Wait when a job with such an upload cannot be taken now. Promises nothing."""
        if self._closed:
            raise Unready("The server is shutting down", retry_after=10)
        if not self.runner.alive:
            raise Unready("The sandbox is gone, so nothing can run", retry_after=10)
        if len(self._queue) >= self.config.queue_length:
            raise Full(f"The queue is full ({self.config.queue_length} jobs wait)", retry_after=10)
        if self.store.held_bytes + upload_bytes > self.config.held_bytes:
            raise Full(
                "The memory for jobs is full; it is freed as jobs are forgotten", retry_after=30
            )

    def submit(self, manifest: Manifest, upload: Upload) -> Job:
        """The new Job, in line or running already. Raises Wait."""
        self.admit(upload.memory.size)
        job = Job(
            manifest,
            upload.bundle,
            upload.memory,
            log_bytes=self.config.log_bytes,
            now=self.clock(),
        )
        self.store.add(job)
        self._queue.append(job)
        self._fill_slots()
        return job

    def position(self, job: Job) -> int:
        """Its place in line from 1 on, 0 when it does not wait."""
        return self._queue.index(job) + 1 if job.state == "queued" else 0

    # ---- running them

    def _fill_slots(self) -> None:
        while self._queue and len(self._running) < self.config.slots and not self._closed:
            job = self._queue.popleft()
            job.start(self.clock())
            self._running[job.id] = asyncio.create_task(self._occupy_slot(job))

    async def _occupy_slot(self, job: Job) -> None:
        """Run `job`. Whatever happens, it ends in one final state and the slot is free again."""
        try:
            job.finish(await self.runner.run(job), self.clock())
        except SandboxError as error:
            self._fail(
                job, f"The sandbox failed at the step {error}; this is not your code's fault"
            )
        except BundleRefused as refusal:
            self._fail(job, f"The upload could not be unpacked: {refusal}")
        except asyncio.CancelledError:
            job.fail(CANCELLED, "The server shut down", self.clock())
            raise
        except Exception as error:
            # The one broad catch: one broken job must not take the slot, or the others, with it.
            log.error("a job failed by a fault of ours", exc_info=_without_message(error))
            self._fail(job, f"The server failed while it ran the job ({type(error).__name__})")
        finally:
            self._running.pop(job.id, None)
            self.store.weigh(job)
            self._fill_slots()

    def _fail(self, job: Job, sentence: str) -> None:
        if not job.is_over:
            job.fail(SANDBOX_ERROR, sentence, self.clock())

    # ---- ending and forgetting them

    def cancel(self, job: Job, reason: str = CANCELLED) -> None:
        """Take `job` out of the line, or have it killed; nothing when it is over."""
        if job.state == "queued":
            self._queue.remove(job)
            job.fail(reason, "Cancelled before it ran", self.clock())
            self.store.weigh(job)
        elif job.state == "running" and not job.stop.done():
            job.stop.set_result(reason)

    def sweep(self) -> None:
        """Forget what is due."""
        self.store.sweep(self.clock().monotonic)

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.config.sweep_seconds)
            self.sweep()

    async def close(self) -> None:
        """End and forget everything; no job is taken from here on."""
        self._closed = True
        if self._sweeper:
            self._sweeper.cancel()
        for job in list(self._queue):
            self.cancel(job)
        running = list(self._running.values())
        for job_id in list(self._running):
            self.cancel(self.store.find(job_id))
        if running:
            _, late = await asyncio.wait(running, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
        await self.runner.close()
        await asyncio.gather(*running, return_exceptions=True)
        self.store.forget_all()


def _without_message(error: Exception) -> BaseException:
    """The same frames; the message may quote what the job was, and is left out."""
    return Exception(type(error).__name__).with_traceback(error.__traceback__)
