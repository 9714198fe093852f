"""Job: an accepted request and its life, queued -> running -> completed | failed. The only place
where a job's state changes. Time comes in as an argument.
"""

import asyncio
import os
import secrets
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Literal, NamedTuple
from weakref import WeakSet

import msgspec

from jobs.bell import Bell
from jobs.logs import JobLog
from jobs.manifest import Manifest
from jobs.memory import MemoryFile
from jobs.quota import Reservation
from jobs.receipt import Receipt
from jobs.terms import Terms
from sandbox.feed import Feed
from sandbox.model import EXIT, Bundle, Gauge, Glance, Output, Result, Usage

LOG = ""  # among what a job left: no output has such a path
FIRST_TICK_SECONDS = 0.002
GLANCE_SECONDS = 1.0  # between two looks at the files of a running job
LISTENER_TICK_SECONDS = 0.0002  # of every tick are for one listener: a thousand leave room

State = Literal["queued", "running", "completed", "failed"]


class Moment(msgspec.Struct, frozen=True):
    """One instant on both clocks: monotonic for durations, wall for what people read."""

    monotonic: float
    wall: float


class Ending(NamedTuple):
    """How a job ends: decided, and not yet told."""

    state: State
    reason: str | None  # None when completed
    error: str | None  # a sentence, when it failed by our fault or never ran
    result: Result | None  # when it ran
    usage: Usage
    at: Moment

    def without_result(self, reason: str, error: str) -> "Ending":
        """The end of a job that ran, when nobody gets what came of it: its memory is given back."""
        if self.result and self.result.outputs.fd >= 0:
            os.close(self.result.outputs.fd)
        return self._replace(state="failed", reason=reason, error=error, result=None)


class Job:
    """Everything known about one job; forgotten as a whole."""

    def __init__(
        self,
        manifest: Manifest,
        bundle: Bundle,
        memory: MemoryFile,
        terms: Terms,
        hash: str,
        reservation: Reservation,
        *,
        ttl_seconds: float,
        now: Moment,
    ) -> None:
        self.id = "job-" + secrets.token_hex(16)  # 128 random bits: it is the permission to read
        self.owner_token = secrets.token_urlsafe(24)  # and this the one to cancel and delete
        self.manifest = manifest
        self.bundle = bundle
        self.bundle_bytes = memory.size
        self.terms = terms
        self.hash = hash  # of all that decides what runs: terms.input_hash
        self.reservation = reservation
        self.client = reservation.client
        self.ttl_seconds = ttl_seconds  # from its end on
        self.log = JobLog(terms.log_bytes)
        self.frames: dict[object, object] = {}  # made of the log for all who watch (api/live.py)
        self.bell = Bell()  # rings when there is more of the log, and at every turn of its life
        self.state: State = "queued"
        self.created = now
        self.started: Moment | None = None
        self.ended: Moment | None = None
        self.result: Result | None = None
        self.reason: str | None = None  # why it ended; None while it runs and when completed
        self.error: str | None = None  # a sentence, when it failed by our fault
        self.receipt: Receipt | None = None  # of its end, where we sign
        self.outputs: dict[str, Output] = {}
        # Its stdin, where that goes on while it runs.
        self.feed = Feed(manifest.stdin.encode()) if manifest.stdin_live else None
        self.gauge: Callable[[], Gauge] = Gauge  # what it uses now, as soon as somebody counts
        self.launch_seconds: float | None = None
        self.glance = Glance()  # its files while it runs, as told from inside
        self._look: Callable[[Callable[[Glance], None]], None] | None = None
        self._looked = 0.0
        self._usage = Usage()  # in all, since its end
        self.over = asyncio.Event()
        self.stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._bundle_memory: MemoryFile | None = memory
        self._output_memory: MemoryFile | None = None
        self._output_bytes = 0
        self._names_bytes = sum(_name_bytes(member.path) for member in bundle.members)
        self._asked_bytes = manifest.held_bytes
        self._readers = 0
        self._readings: WeakSet[Reading] = WeakSet()
        self._unread: set[str] = set()  # of what it left, since its end
        self._tick: asyncio.TimerHandle | None = None  # until then nobody is told of output
        self.is_forgotten = False

    # ---- its life

    def start(self, now: Moment) -> None:
        self._expect("queued")
        self.state, self.started = "running", now
        self._zero = asyncio.get_running_loop().time()
        self.bell.ring()

    def take_output(self, stream: str, data: memoryview) -> None:
        """What the runner calls with every piece of output. The first is told soon, since a line is
        often written in pieces; what comes after it, together.
        """
        self.log.append(stream, data)
        if self._tick is None:
            loop = asyncio.get_running_loop()
            self._tick = loop.call_later(FIRST_TICK_SECONDS, self._settle)

    def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        self._tick = None
        if self.log.settle(round((loop.time() - self._zero) * 1000)):
            self.bell.ring()
            wait = max(self.log.tick_seconds, self.bell.listeners * LISTENER_TICK_SECONDS)
            self._tick = loop.call_later(wait, self._settle)

    def set_gauge(self, gauge: Callable[[], Gauge]) -> None:
        """What the runner calls as soon as somebody counts: when the sandbox stands."""
        self.gauge = gauge
        self.launch_seconds = asyncio.get_running_loop().time() - self._zero

    def set_look(self, look: Callable[[Callable[[Glance], None]], None]) -> None:
        """What the runner calls when somebody inside could say which files there are."""
        self._look = look

    def look_at_files(self) -> None:
        """Called again and again by all who want to know; asks not more often than it may."""
        now = asyncio.get_running_loop().time()
        if self._look and now - self._looked >= GLANCE_SECONDS:
            self._looked = now
            self._look(self._take_glance)

    def _take_glance(self, glance: Glance) -> None:
        if glance != self.glance and not self.is_over:
            self.glance = glance
            self.bell.ring()

    def ran(self, result: Result, now: Moment) -> Ending:
        """Its end, when `result` says how it went."""
        verdict = result.verdict
        if verdict.reason == EXIT and verdict.exit_code == 0:
            return Ending("completed", None, None, result, result.usage, now)
        return Ending("failed", verdict.reason, None, result, result.usage, now)

    def failed(self, reason: str, error: str, now: Moment) -> Ending:
        """Its end, when it did not run, or nothing is known about its run."""
        usage = Usage(round(self.gauge().cpu_seconds * 1e6), 0, self.wall_usec(now))
        return Ending("failed", reason, error, None, usage, now)

    def end(self, ending: Ending, receipt: Receipt | None = None) -> None:
        """This is how it went. The outputs are the job's from here on."""
        self._expect("queued", "running")
        self.state, self.reason, self.error, self.result, self._usage, self.ended = ending
        self.receipt = receipt
        if self.result and self.result.outputs.fd >= 0:
            outputs = self.result.outputs
            self._output_memory = MemoryFile(outputs.fd)
            self.outputs = {output.path: output for output in outputs.files}
            self._output_bytes = self._output_memory.size
        self._let_go_of_what_came_in()
        self._names_bytes = sum(map(_name_bytes, self.outputs))
        self._unread = {LOG, *self.outputs} if self.manifest.burn_after_read else set()
        if self.started:
            self._settle()
        self._end_ticks()
        self.over.set()
        self.bell.ring()
        if self.is_forgotten:
            self.forget()

    def forget(self, cut: bool = False) -> None:
        """Give every byte back: at its end, when it runs; when the last one has read it, if
        somebody does, unless those are `cut` off.
        """
        self.is_forgotten = True
        self.bell.ring()
        if cut:
            for reading in list(self._readings):
                reading.close()
        if self.state == "running":
            return  # the sandbox still reads the upload
        if self._readers:
            return
        self.log.clear()
        self.frames = {}
        for memory in (self._bundle_memory, self._output_memory):
            if memory:
                memory.close()
        self._bundle_memory = self._output_memory = None
        self.outputs = {}
        self.receipt = None
        self._names_bytes = self._output_bytes = 0

    def _let_go_of_what_came_in(self) -> None:
        if self._bundle_memory:
            self._bundle_memory.close()
            self._bundle_memory = None
        self.bundle = self.bundle._replace(members=())
        self.manifest = self.manifest.after_the_end()
        self.glance, self._look = Glance(), None
        if self.feed:
            self.feed.close()
        self._asked_bytes = 0

    def _end_ticks(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def _expect(self, *states: State) -> None:
        if self.state not in states:
            raise RuntimeError(f"a {self.state} job cannot do this")

    # ---- what can be seen

    @property
    def is_over(self) -> bool:
        return self.state in ("completed", "failed")

    # These tell of a job that ran and ended with `result`; None: it has not, or not yet.

    def limits_hit(self, result: Result | None) -> tuple[str, ...]:
        hit = result.limits_hit if result else ()
        return (*hit, "log") if self.log.truncated else hit

    def stage(self, result: Result | None) -> str | None:
        """Which part of the command ended it: a compiler, or the program itself."""
        if not result:
            return None
        return "compile" if result.verdict.step < self.manifest.steps - 1 else "run"

    def warnings(self, result: Result | None) -> tuple[str, ...]:
        """What was asked and left out, and what went wrong after the program."""
        return (*self.manifest.warnings, *(result.notes if result else ()))

    @property
    def held_bytes(self) -> int:
        """Memory that is held for this job, also once it is forgotten."""
        upload = self.bundle_bytes if self._bundle_memory else 0
        known = self._names_bytes + self._asked_bytes
        signed = len(self.receipt.envelope) if self.receipt else 0
        return self.log.kept_bytes + self._output_bytes + known + upload + signed

    @property
    def cpu_seconds(self) -> float:
        """CPU time used so far, or in all."""
        return self._usage.cpu_usec / 1e6 if self.is_over else self.gauge().cpu_seconds

    @property
    def memory_peak_bytes(self) -> int:
        """Of all its processes and files together; known at its end."""
        return self._usage.memory_peak_bytes

    def read(self, on_end: Callable[[], None]) -> "Reading":
        """Keep log and outputs until somebody has read them, also when the job is forgotten.

        `on_end` is called on the loop once nobody reads any more.
        """
        own = self._output_memory
        fd = os.dup(own.fd) if own else None
        reading = Reading(fd, self.stop.get_loop(), lambda: self._end_reading(on_end))
        self._readers += 1
        self._readings.add(reading)
        return reading

    def _end_reading(self, on_end: Callable[[], None]) -> None:
        self._readers -= 1
        if self.is_forgotten:
            self.forget()
        on_end()

    def was_read(self, names: Iterable[str]) -> bool:
        """Those of LOG and the outputs were read, whole; whether it is to be forgotten for that."""
        if not self._unread:
            return False
        self._unread.difference_update(names)
        return not self._unread

    def wall_usec(self, now: Moment) -> int:
        """How long it ran, or has been running."""
        if self.is_over:
            return self._usage.wall_usec
        return round((now.monotonic - self.started.monotonic) * 1e6) if self.started else 0


class Forgotten(Exception):
    """What somebody was reading is no more: an answer must not end as if that were all."""


class Reading(MemoryFile):
    """The bytes of all outputs, for somebody who reads them, or the log, as slowly as they like; or
    until they are cut off: then `read` and `ensure_open` raise Forgotten.
    """

    def __init__(
        self, fd: int | None, loop: asyncio.AbstractEventLoop, on_end: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._on_end: Callable[[], None] | None = None
        self._lock = threading.RLock()  # an archive is made in a thread, and closed under it
        super().__init__(fd)
        self._on_end = on_end

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self.ensure_open()
            return super().read(offset, size)

    def ensure_open(self) -> None:
        """For whoever reads the log, before each piece."""
        if self.is_closed:
            raise Forgotten

    def close(self) -> None:
        with self._lock:
            super().close()
        on_end, self._on_end = self._on_end, None
        if on_end:
            with suppress(RuntimeError):  # the loop has ended, and we with it
                self._loop.call_soon_threadsafe(on_end)  # whatever thread drops the last one


def _name_bytes(path: str) -> int:
    """About what a file costs that we only know of."""
    return 300 + len(path)
