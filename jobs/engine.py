"""Engine: takes jobs in, lets them wait in line, gives them slots, stops and forgets them."""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable

from jobs import statement
from jobs.bundle import Upload
from jobs.conf import MIB, Config
from jobs.errors import Full, NotOwner, OverQuota, Unready
from jobs.figures import Figures
from jobs.identity import Identity
from jobs.job import Ending, Job, Moment
from jobs.line import Line
from jobs.manifest import Manifest
from jobs.memory import in_thread
from jobs.quota import Quota, Reservation
from jobs.receipt import Receipt, seal
from jobs.runner import Runner
from jobs.store import Store
from jobs.terms import Terms
from sandbox import linux
from sandbox.errors import BundleRefused, SandboxError
from sandbox.model import CANCELLED, CPU_QUOTA, SANDBOX_ERROR, Inspection

log = logging.getLogger(__name__)

CLOSE_SECONDS = 2.0  # for the running jobs to be killed
DRAW_SECONDS = 0.25  # between two looks at what running jobs have used


def now() -> Moment:
    return Moment(time.monotonic(), time.time())


class Engine:
    """Serves its clients in turn, `config.slots` jobs at once, as long as their memory is there.
    Belongs to one event loop.
    """

    def __init__(
        self,
        runner: Runner,
        config: Config,
        clock: Callable[[], Moment] = now,
        identity: Identity | None = None,
    ) -> None:
        """With an `identity` every end of a job is signed."""
        self.runner = runner
        self.config = config
        self.identity = identity
        self.clock = clock
        self.store = Store()
        self.figures = Figures()
        self.quota = Quota(config, lambda: clock().monotonic)
        self._line = Line()
        self._running: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        self._given_up: set[asyncio.Task[None]] = set()  # left the line, and are being signed
        self._receiving: Counter[str] = Counter()  # bytes of uploads on their way, by client
        self._inspections = asyncio.Semaphore(config.slots)
        self._timers: list[asyncio.Task[None]] = []
        self._closed = False

    def start(self) -> None:
        """Begin to forget, and to count what running jobs use."""
        self._timers = [
            asyncio.create_task(_every(self.config.sweep_seconds, self.sweep)),
            asyncio.create_task(_every(DRAW_SECONDS, self.draw)),
        ]

    # ---- taking jobs in

    def receive(self, client: str, size: int) -> bool:
        """Count `size` more bytes of an upload, unless too much would be held by them."""
        if size > self.room(client):
            return False
        self._receiving[client] += size
        return True

    def let_go(self, client: str, size: int) -> None:
        """So many bytes that were received are gone, or have become a job's."""
        self._receiving[client] -= size
        if not self._receiving[client]:
            del self._receiving[client]

    def room(self, client: str) -> int:
        """Bytes that may still be held for `client`."""
        own = self.config.client_held_bytes - self._held_by(client)
        return min(self.free, own) if self.config.quotas else self.free

    @property
    def free(self) -> int:
        """Bytes that may still be held, whoever sends them."""
        return self.config.held_bytes - self.store.held_bytes - self.receiving

    @property
    def receiving(self) -> int:
        """Bytes of uploads on their way."""
        return self._receiving.total()

    def _held_by(self, client: str) -> int:
        return self.store.held_by[client] + self._receiving[client]

    async def inspect(self, reservation: Reservation, archive: int) -> Inspection:
        """What is in the archive. Not more of them at once than there are slots: the others wait.
        What it takes is drawn from the client's CPU time, whole when nothing comes of it.

        Raises BundleRefused or SandboxError.
        """
        async with self._inspections:
            started = self.clock().monotonic
            try:
                return await self.runner.inspect(archive, reservation.draw_inspection)
            except asyncio.CancelledError:  # its client has gone, maybe before it was known
                reservation.draw_inspection(self.clock().monotonic - started)
                raise

    @property
    def alive(self) -> bool:
        """False when no job can run, or none be signed, any more."""
        return self.runner.alive and (self.identity is None or self.identity.alive)

    def admit(self) -> None:
        """Raises Wait when no job can be taken now, whoever sends it. Promises nothing."""
        if self._closed:
            raise Unready("The server is shutting down", retry_after=10)
        if not self.runner.alive:
            raise Unready("The sandbox is gone, so nothing can run", retry_after=10)
        if not self.alive:
            raise Unready("The signer is gone, so no result could be signed", retry_after=10)
        if len(self._line) >= self.config.queue_length:
            raise Full(f"The queue is full ({self.config.queue_length} jobs wait)", retry_after=10)

    def submit(
        self,
        manifest: Manifest,
        upload: Upload,
        terms: Terms,
        hash: str,
        reservation: Reservation,
    ) -> Job:
        """The new Job, in line or running already; it has the reservation. Raises Wait."""
        self.admit()
        size = upload.memory.size + manifest.held_bytes
        if size > self.free:
            raise Full(
                "The memory for jobs is full; it is freed as jobs are forgotten", retry_after=30
            )
        if size > self.room(reservation.client):
            raise OverQuota(
                f"Your jobs hold more than {self.config.client_held_bytes // MIB} MB",
                "held_bytes",
                30,
                "Delete those that you do not need any more, or wait until they are forgotten.",
            )
        job = Job(
            manifest,
            upload.bundle,
            upload.memory,
            terms,
            hash,
            reservation,
            ttl_seconds=min(manifest.ttl or self.config.ttl_seconds, self.config.ttl_seconds),
            now=self.clock(),
        )
        reservation.keep()
        self.store.add(job)
        self._line.add(job)
        self._fill_slots()
        return job

    def position(self, job: Job) -> int:
        """Its place in line from 1 on, 0 when it does not wait."""
        return self._line.position(job)

    @property
    def waiting(self) -> int:
        """Jobs in line."""
        return len(self._line)

    @property
    def running(self) -> int:
        """Jobs in slots."""
        return len(self._running)

    def expires_at(self, job: Job) -> float:
        """Wall clock time by which `job` is forgotten; while it is not over, at the latest."""
        if job.ended:
            return job.ended.wall + job.ttl_seconds
        if job.started:
            return job.started.wall + job.manifest.timeout + job.ttl_seconds
        most = self.config.queue_seconds + job.manifest.timeout
        return job.created.wall + most + job.ttl_seconds

    # ---- running them

    def _fill_slots(self) -> None:
        while len(self._line) and len(self._running) < self.config.slots and not self._closed:
            job = self._line.first()
            reserved_mb = sum(other.manifest.memory_mb for other, _ in self._running.values())
            if reserved_mb + job.manifest.memory_mb > self.config.running_memory_mb:
                return  # nobody overtakes it: it would wait for ever
            if self._running and self.free <= 0:
                return  # what it makes could not be held; with nothing running, it has to go on
            self._line.take_first()
            job.start(self.clock())
            self._running[job.id] = (job, asyncio.create_task(self._occupy_slot(job)))

    async def _occupy_slot(self, job: Job) -> None:
        """Run `job`. Whatever happens, it ends in one final state and the slot is free again."""
        try:
            await self._end(job, await self._run(job))
        finally:
            del self._running[job.id]
            self._count(job)

    async def _run(self, job: Job) -> Ending:
        try:
            return job.ran(await self.runner.run(job), self.clock())
        except SandboxError as error:
            job.reservation.give_back()
            why = f"The sandbox failed at the step {error}; this is not your code's fault"
        except BundleRefused as refusal:
            why = f"The upload could not be unpacked: {refusal}"
        except asyncio.CancelledError:
            job.end(job.failed(CANCELLED, "The server shut down", self.clock()))
            raise
        except Exception as error:
            # A broad catch: one broken job must not take the slot, or the others, with it.
            job.reservation.give_back()
            why = f"The server failed while it ran the job ({_told(error)})"
        return job.failed(SANDBOX_ERROR, why, self.clock())

    async def _end(self, job: Job, ending: Ending) -> None:
        """End `job` so, with a receipt if we sign: without it, it is our failure and no result."""
        receipt = None
        try:
            if self.identity:
                receipt = await self._sign(job, ending, self.identity)
        except asyncio.CancelledError:
            job.end(ending.without_result(CANCELLED, "The server shut down"))
            raise
        except Exception as error:  # as above
            job.reservation.give_back()
            step = str(error) if isinstance(error, SandboxError) else _told(error)
            why = f"The result could not be signed ({step}), so there is none"
            ending = ending.without_result(SANDBOX_ERROR, why)
        job.end(ending, receipt)

    async def _sign(self, job: Job, ending: Ending, identity: Identity) -> Receipt:
        """Raises SandboxError."""
        if job.feed:
            job.feed.close()  # what came later would be sent, and not signed
        facts = (job, ending, identity.worker_id, self.runner.walls)
        said = await in_thread(statement.work(job, ending), statement.write, *facts)
        signature = await identity.sign(said)
        return await in_thread(len(said), seal, said, identity.worker_id, signature)

    def _count(self, job: Job) -> None:
        """It is over: settle what it used, and let others have its place."""
        job.reservation.end(job.cpu_seconds)
        self.figures.count(job)
        self.store.weigh(job)
        self._fill_slots()

    def draw(self) -> None:
        """Charge what running jobs have used; end all jobs of a client that has nothing left."""
        if not self.config.quotas:
            return
        jobs = [job for job, _ in self._running.values()]
        empty = {job.client for job in jobs if not job.reservation.draw(job.cpu_seconds)}
        for job in jobs:
            if job.client in empty:
                self.cancel(job, CPU_QUOTA)

    # ---- ending and forgetting them

    def cancel(self, job: Job, reason: str = CANCELLED, why: str = "Cancelled") -> None:
        """Take `job` out of the line, or have it killed; nothing when it is over."""
        if self.position(job):
            self._line.leave(job)
            ending = job.failed(reason, f"{why} before it ran", self.clock())
            if self.identity:
                task = asyncio.create_task(self._give_up(job, ending))
                self._given_up.add(task)
                task.add_done_callback(self._given_up.discard)
            else:
                job.end(ending)
                self._count(job)  # it may have kept others waiting
        elif job.state == "running" and not job.stop.done():
            job.stop.set_result(reason)

    async def _give_up(self, job: Job, ending: Ending) -> None:
        try:
            await self._end(job, ending)
        finally:
            self._count(job)

    def delete(self, job: Job, cut: bool = False) -> None:
        """Forget `job` now; a running one is killed, and frees what it has as it ends. Whoever
        reads what it left may read on, unless `cut` off.
        """
        self.cancel(job)
        self.store.forget([job], cut)

    def was_read(self, job: Job, names: Iterable[str]) -> None:
        """Somebody has those of LOG and the outputs, whole: whoever asked for it, has it burned."""
        if job.was_read(names):
            self.delete(job)

    def check_owner(self, job: Job, token: str | None) -> None:
        """Raises NotOwner unless `token` is the one that the submission was answered with."""
        if not secrets.compare_digest((token or "").encode(), job.owner_token.encode()):
            raise NotOwner(has_token=token is not None)

    def sweep(self) -> None:
        """Forget what is due, and give up what has waited too long."""
        moment = self.clock()
        self.store.sweep(moment.monotonic)
        late = [
            job
            for job in self._line
            if moment.monotonic - job.created.monotonic >= self.config.queue_seconds
        ]
        for job in reversed(late):  # or the first to go would give its place to the next
            self.cancel(job, why=f"Given up after {self.config.queue_seconds} s in line,")
        self._fill_slots()  # there may be room again
        if not self._running:
            self._line.forget_clients()
        self.quota.sweep()
        if self.store.has_forgotten:
            self.store.has_forgotten = False
            linux.trim_heap()

    async def close(self) -> None:
        """End and forget everything; no job is taken from here on."""
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        for job in self._line:
            self.cancel(job)  # no slot is filled any more
        ending = [*(task for _, task in self._running.values()), *self._given_up]
        for job, _ in list(self._running.values()):
            self.cancel(job)
        if ending:
            _, late = await asyncio.wait(ending, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
        await self.runner.close()
        await asyncio.gather(*ending, return_exceptions=True)
        self.store.forget_all()


async def _every(seconds: float, act: Callable[[], None]) -> None:
    """Until cancelled. A fault of one time is told and does not end the others."""
    while True:
        await asyncio.sleep(seconds)
        try:
            act()
        except Exception as error:
            log.error("a timer failed by a fault of ours", exc_info=_without_message(error))


def _told(error: Exception) -> str:
    """Its kind; the log has where it was."""
    log.error("a job failed by a fault of ours", exc_info=_without_message(error))
    return type(error).__name__


def _without_message(error: Exception) -> BaseException:
    """The same frames; the message may quote what the job was, and is left out."""
    return Exception(type(error).__name__).with_traceback(error.__traceback__)
