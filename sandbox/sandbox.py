"""Sandbox: the launcher's client, the one class that other rooms use.

    sandbox = Sandbox(socket.socket(fileno=fd))
    await sandbox.start()
    inspection = await sandbox.inspect(fd)
    result = await sandbox.run(command, bundle, limits, on_output=log.append)

Web trusts neither side: the launcher's packets and those from inside are bounded, and what
collect reports is checked against the sealed store before it is believed.
"""

import asyncio
import contextlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from sandbox import cgroups, channel
from sandbox.collect import MAX_FILES
from sandbox.errors import BundleRefused, SandboxError
from sandbox.feed import Feed
from sandbox.glance import FILES
from sandbox.model import (
    MIB,
    Bundle,
    Command,
    Gauge,
    Glance,
    Inspection,
    Limits,
    Member,
    Output,
    Outputs,
    Result,
    Usage,
)
from sandbox.verdict import Facts, decide, limits_hit

OnOutput = Callable[[str, memoryview], None]
OnGauge = Callable[[Callable[[], Gauge]], None]
OnGlance = Callable[[Glance], None]
OnLook = Callable[[Callable[[OnGlance], None]], None]

_MAX_LISTING = 16 * MIB  # JSON of inspect and collect: 10,000 members with long names
_ARCHIVE_DISK_BYTES = 100 * MIB
_MAX_WORDS = 16  # messages from inside in one life: it says four at most
_LAST_READS = 16  # after the end: a pipe holds 1 MiB, and a read brings half of one
_PACKET = 4096  # bytes: the kernel gives one packet a read when the writer asked for packets
_LITTLE = 4096  # bytes: after so few, more of them may come together before we look again,
_PAUSE_SECONDS = 0.001  # so long: in half of what a job waits before it tells, a pipe takes 64 KiB


class _Child:
    """One sandbox as web holds it: its control socket, its two pipes, and its end to come."""

    def __init__(self, id: int, fds: list[int], ended: "asyncio.Future[channel.Message]") -> None:
        self.id = id
        self.control = socket.socket(fileno=fds[0])
        self.control.setblocking(False)
        self.stdout, self.stderr = fds[1:3]
        self._gauges = fds[3:]  # of a run
        self._used = Gauge()
        self._asking: OnGlance | None = None  # who waits for a Glance
        self._is_odd = False  # what it told once made no sense
        self.ended = ended

    def gauge(self) -> Gauge:
        """What it uses now; from its end on, what it did the last time we asked."""
        if self._gauges:
            with contextlib.suppress(OSError):  # its cgroup is gone already
                self._used = cgroups.read_gauges(self._gauges)
        return self._used

    def look(self, on_glance: OnGlance) -> None:
        """Ask what files there are; `on_glance` hears it, if ever. One question at a time."""
        if self._asking is None and not self._is_odd and not self.ended.done():
            self._asking = on_glance
            with contextlib.suppress(channel.ProtocolError):  # it has ended
                channel.send(self.control, {"look": True})

    def told(self, message: channel.Message) -> bool:
        """Whether this is the answer to a question of ours; if so, who asked hears it."""
        if self._asking is None or "files" not in message:
            return False
        on_glance, self._asking = self._asking, None
        try:
            glance = _glance(message)
        except (KeyError, TypeError, ValueError):
            self._is_odd = True  # and nobody asks again
        else:
            on_glance(glance)
        return True

    async def hear(self) -> channel.Message | None:
        """The next message from inside; None at its end, or when it speaks nonsense."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return channel.receive(self.control)[0]
            except BlockingIOError:
                readable = loop.create_future()
                loop.add_reader(self.control, _wake, readable)
                try:
                    await readable
                finally:
                    loop.remove_reader(self.control)
            except channel.ProtocolError:
                return None

    def order(self, orders: dict[str, Any], descriptors: tuple[int, ...]) -> None:
        """Say what to do. A sandbox that has died says so by its end, not here."""
        fd = channel.memfd("orders", json.dumps(orders).encode())
        try:
            with contextlib.suppress(channel.ProtocolError):
                channel.send(self.control, {"orders": True}, (fd, *descriptors))
        finally:
            os.close(fd)

    def close(self) -> None:
        self.control.close()
        gauges, self._gauges = self._gauges, []
        for fd in (self.stdout, self.stderr, *gauges):
            os.close(fd)


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


class Sandbox:
    """Runs commands through one launcher. All methods belong to one event loop."""

    def __init__(self, channel: socket.socket) -> None:
        """`channel`: our end of the SOCK_SEQPACKET pair that the keeper made."""
        channel.setblocking(False)
        self._launcher = channel
        self._walls: dict[str, Any] = {}
        self._next_id = 1
        self._launched: dict[int, asyncio.Future[list[int]]] = {}
        self._ended: dict[int, asyncio.Future[Any]] = {}
        self._alive = False
        self._hello: asyncio.Future[None]
        self._buffer = memoryview(bytearray(MIB))  # one for all pipes: filled and read in one call

    async def start(self) -> None:
        """Wait for the launcher's greeting. Raises SandboxError when it could not get ready."""
        loop = asyncio.get_running_loop()
        self._hello = loop.create_future()
        self._alive = True
        loop.add_reader(self._launcher, self._hear)
        await self._hello

    @property
    def walls(self) -> dict[str, Any]:
        """What stands, for /health: {"cgroup": {"memory": "v1"...}, "kernel": "6.18"...}."""
        return self._walls

    @property
    def missing(self) -> tuple[str, ...]:
        """Walls that this machine lacks and its operator does without, by name."""
        return tuple(self._walls.get("missing", ()))

    @property
    def alive(self) -> bool:
        """False once the launcher has gone; every later call raises SandboxError."""
        return self._alive

    async def inspect(
        self, archive: int, on_cpu: Callable[[float], None] = lambda seconds: None
    ) -> Inspection:
        """Read the archive in memfd `archive` inside a sandbox of its own (64 MB, 2 CPU-seconds);
        `on_cpu` hears what that took, whatever comes of it.

        Raises BundleRefused (the caller's fault) or SandboxError (ours).
        """
        orders = {"disk_bytes": _ARCHIVE_DISK_BYTES}
        async with self._task("inspect", Limits(), orders, (archive,), on_cpu) as (listing, facts):
            if facts["oom_kills"] or facts["cause"] in ("memory", "cpu"):
                raise BundleRefused("The archive cannot be read within 64 MB of memory and 2 s.")
            if facts["cause"] == "timeout":
                raise SandboxError("inspect", 0, "it took too long: the machine is too busy")
            if listing is None:
                raise SandboxError("inspect", 0, "ended without a word")
            job_json = listing["job_json"]
            return Inspection(
                members=tuple(Member(*row) for row in listing["members"]),
                job_json=None if job_json is None else job_json.encode("latin-1"),
            )

    async def run(
        self,
        command: Command,
        bundle: Bundle,
        limits: Limits,
        *,
        stdin: bytes | Feed = b"",
        patterns: Sequence[str] = (),
        on_output: OnOutput,
        on_gauge: OnGauge = lambda gauge: None,
        on_look: OnLook = lambda look: None,
        stop: "asyncio.Future[str] | None" = None,
    ) -> Result:
        """Run `command` over `bundle` and collect what it leaves.

        `stdin` is what the program reads; or a Feed, which is closed when the program has ended.
        `on_output("stdout" | "stderr", bytes)` is called on the loop with every piece of output;
        the view is only valid during the call. `patterns` are the manifest's outputs; empty means
        every file that the job made or changed. `on_gauge` is called once, with a function that
        tells what the job uses; `on_look` when the program begins, with one that asks which
        files there are. Setting `stop` to a reason ("cancelled",
        "cpu_quota") kills the job, and the verdict has that reason; cancelling the task kills it
        too. Raises SandboxError when a wall could not be put up (nothing ran), BundleRefused when
        the bundle does not unpack (nothing ran).
        """
        async with self._launch("run", limits) as child:
            on_gauge(child.gauge)
            with self._stopped_by(stop, child):
                on_start = partial(on_look, child.look)
                facts, usage = await self._program(
                    child, command, bundle, stdin, patterns, on_output, on_start
                )
            verdict = decide(facts)
            outputs, notes = await self._collect(child, bundle, limits, patterns)
            return Result(verdict, usage, limits_hit(facts, verdict), outputs, notes)

    async def close(self) -> None:
        """Kill what runs and let go of the launcher."""
        if self._alive:
            self._gone("the sandbox was closed")
        self._launcher.close()

    # --- a run's parts -----------------------------------------------------------------------

    async def _program(
        self,
        child: _Child,
        command: Command,
        bundle: Bundle,
        stdin: bytes | Feed,
        patterns: Sequence[str],
        on_output: OnOutput,
        on_start: Callable[[], None],
    ) -> tuple[Facts, Usage]:
        """Give the orders and see it through to its end, every byte of output included."""
        drains = [
            asyncio.ensure_future(self._drain(child, child.stdout, partial(on_output, "stdout"))),
            asyncio.ensure_future(self._drain(child, child.stderr, partial(on_output, "stderr"))),
        ]
        try:
            members = bundle.members if bundle.form == "loose" else ()
            orders: dict[str, Any] = {"form": bundle.form, "members": members}
            orders |= {"steps": command.steps, "env": dict(command.env)}
            orders["patterns"] = list(patterns)
            inner = stdin.open() if isinstance(stdin, Feed) else channel.memfd("stdin", stdin)
            try:
                child.order(orders, (bundle.fd, inner))
            finally:
                os.close(inner)
            status, step = await self._follow(child, len(command.steps), on_start)
            end = await child.ended
            await asyncio.gather(*drains)
        finally:
            if isinstance(stdin, Feed):
                stdin.close()
            await _end(*drains)
        facts = Facts(
            cause=end["cause"], oom_kills=end["oom_kills"], refused_tasks=end["refused_tasks"],
            full=tuple(end["full"]), status=status, step=step,
        )  # fmt: skip
        return facts, Usage(*end["usage"])

    async def _follow(
        self, child: _Child, steps: int = 1, on_start: Callable[[], None] = lambda: None
    ) -> tuple[int | None, int]:
        """What inside says up to its end: the program's wait status, and in which step it ended.

        Raises SandboxError for a step of the walls, BundleRefused for the bundle.
        """
        status, step, started, words = None, 0, False, 0
        while (message := await child.hear()) is not None:
            if child.told(message):
                continue
            words += 1
            if words > _MAX_WORDS:
                raise SandboxError("inside", 0, "it does not stop talking")
            if "refused" in message:
                raise BundleRefused(str(message["refused"]))
            if "failed" in message:
                raise _failure(message)
            if "started" in message and not started:
                started = True
                on_start()
            if "exit" in message:
                status = _number(message["exit"], 0xFFFF)  # a wait status
                step = _number(message.get("step"), steps - 1)
        if not started and self._alive:
            end = await child.ended
            if end["cause"] is None and not end["oom_kills"]:
                raise SandboxError("start", 0, "the sandbox ended before the program began")
        return status, step

    async def _collect(
        self, child: _Child, bundle: Bundle, limits: Limits, patterns: Sequence[str]
    ) -> tuple[Outputs, tuple[str, ...]]:
        """The outputs of the ended `child`; what could not be had is said, and the run stands."""
        store = channel.new_memfd("outputs")
        try:
            orders = {
                "patterns": list(patterns),
                "members": [(m.path, m.size, m.mtime_ns) for m in bundle.members],
                "max_bytes": limits.disk_bytes,
            }
            task = self._task("collect", limits, orders, (store,), of=child.id)
            async with task as (listing, facts):
                if listing is None:
                    cause = "memory" if facts["oom_kills"] else facts["cause"] or "ended early"
                    return Outputs(-1, (), True), (f"outputs could not be collected: {cause}",)
            outputs = await asyncio.to_thread(_checked, store, listing)
            if outputs.files:
                store = -1
            return outputs, ()
        finally:
            if store >= 0:
                os.close(store)

    @contextlib.asynccontextmanager
    async def _task(
        self,
        kind: str,
        limits: Limits,
        orders: dict[str, Any],
        fds: tuple[int, ...],
        on_cpu: Callable[[float], None] = lambda seconds: None,
        of: int = 0,
    ) -> Any:
        """One of our own tasks in a sandbox: (its JSON or None, the facts of its end)."""
        async with self._launch(kind, limits, of) as child:
            said = bytearray()

            def keep(view: memoryview) -> None:
                if len(said) + len(view) <= _MAX_LISTING:
                    said.extend(view)

            drain = asyncio.ensure_future(self._drain(child, child.stdout, keep))
            try:
                child.order(orders, fds)
                try:
                    await self._follow(child)
                except BundleRefused:  # that may have taken long as well
                    on_cpu((await child.ended)["usage"][0] / 1e6)
                    raise
                facts = await child.ended
                on_cpu(facts["usage"][0] / 1e6)
                await drain
            except SandboxError as error:
                raise SandboxError(f"{kind}: {error.step}", error.errno, error.detail) from error
            finally:
                await _end(drain)
            listing = None
            if said and facts["cause"] is None and not facts["oom_kills"]:
                listing = await asyncio.to_thread(_listing, bytes(said))
            yield listing, facts

    @contextlib.contextmanager
    def _stopped_by(self, stop: "asyncio.Future[str] | None", child: _Child) -> Iterator[None]:
        if stop is None:
            yield
            return

        def kill(future: "asyncio.Future[str]") -> None:
            if not future.cancelled():
                self._say(op="kill", id=child.id, cause=future.result())

        stop.add_done_callback(kill)
        try:
            yield
        finally:
            stop.remove_done_callback(kill)

    async def _drain(self, child: _Child, fd: int, take: Callable[[memoryview], None]) -> None:
        """Read a pipe to its end, or until it is empty after the end of `child`: then nobody can
        write any more, but a descriptor that the job sent to itself may hold it open for ever.
        """
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        pause: asyncio.TimerHandle | None = None
        os.set_blocking(fd, False)

        def read() -> int:
            """One turn of the loop, so that nobody else waits; how much there was."""
            filled = self._fill(fd)
            if filled:
                take(self._buffer[:filled])
            elif filled == 0:
                _wake(over)
            return filled or 0

        def look() -> None:
            """Where the processors are busy, whoever writes a byte is interrupted for us to read
            it: a turn of the loop for each, which costs us more than it costs the job."""
            nonlocal pause
            if 0 < read() < _LITTLE:
                loop.remove_reader(fd)
                pause = loop.call_later(_PAUSE_SECONDS, look_again)  # noqa: F821 (deleted last)

        def look_again() -> None:
            loop.add_reader(fd, look)
            look()

        loop.add_reader(fd, look)
        try:
            ends: list[asyncio.Future[Any]] = [over, child.ended]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if pause:
                pause.cancel()
            loop.remove_reader(fd)
            del look_again  # it and `look` hold each other, and `take`
        for _ in range(_LAST_READS):
            if over.done() or not read():
                return
            await asyncio.sleep(0)

    def _fill(self, fd: int) -> int | None:
        """Bytes of a pipe that are in our buffer now: 0 at its end, None when there are none yet.

        Many small packets come at once: each read gives one, whatever room there is, and a turn of
        the loop for each would cost us more than it costs the job.
        """
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                size = os.readv(fd, [self._buffer[filled : filled + MIB // 2]])
                filled += size
                if size > _PACKET or not size or filled > MIB // 2:
                    return filled
        return filled or None

    # --- the launcher ------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _launch(self, kind: str, limits: Limits, of: int = 0) -> Any:
        """A sandbox that waits for its orders; on the way out it is dead and let go."""
        loop = asyncio.get_running_loop()
        id, self._next_id = self._next_id, self._next_id + 1
        launched: asyncio.Future[list[int]] = loop.create_future()
        ended: asyncio.Future[Any] = loop.create_future()
        self._launched[id], self._ended[id] = launched, ended
        try:
            self._say(op="launch", id=id, kind=kind, limits=limits._asdict(), of=of)
            try:
                fds = await launched
            except asyncio.CancelledError:
                if launched.done() and not launched.cancelled() and not launched.exception():
                    self._discard(id, launched.result())
                raise  # else _hear discards what is still on its way
            child = _Child(id, fds, ended)
            try:
                yield child
            finally:
                if not ended.done():
                    self._say(op="kill", id=id, cause="cancelled", quietly=True)
                child.close()
                try:
                    await asyncio.shield(asyncio.wait([ended], timeout=5))
                finally:  # whoever cancels us a second time waits for nothing
                    self._say(op="release", id=id, quietly=True)
        finally:
            self._launched.pop(id, None)
            self._ended.pop(id, None)
            ended.cancel()

    def _discard(self, id: int, fds: list[int]) -> None:
        """Whoever asked for this sandbox is gone: it goes too."""
        for fd in fds:
            os.close(fd)
        self._say(op="release", id=id, quietly=True)

    def _say(self, *, quietly: bool = False, **message: Any) -> None:
        try:
            if not self._alive:
                raise channel.ProtocolError("it has gone")
            channel.send(self._launcher, message)
        except channel.ProtocolError as error:
            if not quietly:
                raise SandboxError("launcher", 0, str(error)) from error

    def _hear(self) -> None:
        """One packet of the launcher to whoever waits for it."""
        try:
            message, fds = channel.receive(self._launcher, channel.MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except channel.ProtocolError as error:
            self._gone(str(error))
            return
        op, id = message.get("op"), message.get("id", 0)
        waiting: asyncio.Future[Any] | None = None
        if op == "launched":
            waiting = self._launched.get(id)
            if waiting is None or waiting.done():
                self._discard(id, fds)
            else:
                waiting.set_result(fds)
        elif op == "failed":
            waiting = self._hello if id == 0 else self._launched.get(id)
            if waiting is not None and not waiting.done():
                waiting.set_exception(_failure({**message, "failed": message.get("step")}))
        elif op == "ended":
            waiting = self._ended.get(id)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
        elif op == "hello":
            self._walls = message["walls"]
            _wake(self._hello)

    def _gone(self, why: str) -> None:
        """The launcher has gone: whoever waits hears so."""
        self._alive = False
        with contextlib.suppress(RuntimeError):  # the loop may be closed already
            asyncio.get_running_loop().remove_reader(self._launcher)
        everybody: list[asyncio.Future[Any]] = [self._hello]
        everybody += [*self._launched.values(), *self._ended.values()]
        for waiting in everybody:
            if not waiting.done():
                waiting.set_exception(SandboxError("launcher", 0, why))
                waiting.exception()  # nobody may be waiting: that is no fault


async def _end(*tasks: "asyncio.Future[None]") -> None:
    """Cancel and see them ended: a reader that outlives its descriptor would read, or silence,
    whatever gets the same number next."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _failure(message: channel.Message) -> SandboxError:
    number = message.get("errno")
    return SandboxError(
        str(message.get("failed")),
        number if isinstance(number, int) else 0,
        str(message.get("detail", "")),
    )


def _glance(message: channel.Message) -> Glance:
    """What pid 1 has seen. Raises ValueError, KeyError or TypeError for nonsense."""
    files = tuple((path, size) for path, size in message["files"])
    numbers = (message["more"], *(size for _, size in files))
    if len(files) > FILES or not all(type(n) is int and 0 <= n < 1 << 53 for n in numbers):
        raise ValueError
    if not all(_is_path(path) for path, _ in files):
        raise ValueError
    return Glance(files, message["more"])


def _number(value: object, most: int) -> int:
    """A number from inside, 0 to `most`. Raises SandboxError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise SandboxError("inside", 0, "it spoke nonsense")
    return value


def _listing(said: bytes) -> dict[str, Any]:
    """What inspect or collect printed. Raises SandboxError unless it is a JSON object."""
    try:
        listing = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise SandboxError("listing", 0, "it is no JSON") from error
    if not isinstance(listing, dict):
        raise SandboxError("listing", 0, "it is no JSON object")
    return listing


def _checked(store: int, listing: dict[str, Any]) -> Outputs:
    """What collect reports, held against the store: immutable, every file within it, and every
    path one below the work directory."""
    size = os.fstat(store).st_size
    try:
        files = tuple(Output(*row) for row in listing["files"])
        is_right = (
            channel.sealed(store)
            and len(files) <= MAX_FILES
            and all(_is_right(file, size) for file in files)
            and not _overlap(sorted(file.path.split("/") for file in files))
        )
        truncated = bool(listing["truncated"])
    except (KeyError, TypeError) as error:
        raise SandboxError("collect", 0, "it reported nonsense") from error
    if not is_right:
        raise SandboxError("collect", 0, "the store does not hold what was reported")
    return Outputs(store if files else -1, files, truncated)


def _overlap(places: list[list[str]]) -> bool:
    """Whether one of these sorted paths is another one, or a folder of it."""
    return any(later[: len(path)] == path for path, later in pairwise(places))


def _is_right(file: Output, size: int) -> bool:
    """Whether the row of a listing can be true of a store of `size` bytes."""
    numbers = (file.offset, file.size, file.mode)
    return (
        all(type(number) is int and number >= 0 for number in numbers)
        and file.offset + file.size <= size
        and file.mode <= 0o777
        and re.fullmatch(r"[0-9a-f]{64}", file.sha256) is not None
        and _is_path(file.path)
    )


def _is_path(path: object) -> bool:
    """Whether it stands for the bytes of a name that leads below the work directory."""
    if not isinstance(path, str):
        return False
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))
