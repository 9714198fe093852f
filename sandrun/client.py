"""AsyncClient and Client: jobs on a server. Both are the same code over another kind of connection
(streams.py): what one can, the other can.
"""

import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Self, TypedDict, Unpack
from urllib.parse import quote

from sandrun.api import FOLLOWS, Api, Json, OnPause, pause
from sandrun.errors import ConnectionFailed, JobFailed, JobNotFound, Refused, SandrunError
from sandrun.http import Progress
from sandrun.lines import STREAMS, Lines, data_of
from sandrun.project import Project
from sandrun.result import LogLine, Result, StreamName, path_of, result_of
from sandrun.streams import Aside, BlockingNetwork, Network, each, now
from sandrun.upload import Content, upload

SERVER = "http://localhost:8443"
TIMEOUT = 30.0  # seconds without a sign of life; a server that lives gives one every 15
_FEED_BYTES = 32 << 10
_FEED_PAUSE = 0.02
_SINGLY = 4  # outputs that are fetched one by one; more come as one archive

OnOutput = Callable[[StreamName, bytes], None]
OnEvent = Callable[[Json], None]  # a Frame of docs/api.md


class Manifest(TypedDict, total=False):
    """How a job is to run; the server has a default for what is not said. timeout, cpu_seconds and
    ttl are seconds."""

    interpreter: str | None
    entrypoint: str | None
    environment: str | None
    args: Sequence[str] | None
    env: Mapping[str, str] | None
    outputs: Sequence[str] | None
    timeout: int | None
    memory_mb: int | None
    cpu_seconds: float | None
    ttl: int | None
    burn_after_read: bool | None
    nonce: str | None


class AsyncJob:
    """A job on the server. `async with` it, and it is deleted at the end, whatever it was doing."""

    def __init__(self, api: Api, job_id: str, owner_token: str | None, submitted: Json) -> None:
        self.id = job_id
        self.owner_token = owner_token  # None: it is another's, to read
        self.submitted = submitted  # what the server answered: job_hash, warnings, ...
        self._api = api
        self._feed: Aside | None = None

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 (also where there is no asyncio)
        *,
        check: bool = False,
        download: bool = True,
        log: bool = True,
        since: int = 0,
        on_output: OnOutput | None = None,
        on_event: OnEvent | None = None,
    ) -> Result:
        """Its Result, once it is over; with all outputs, if `download`. Without `log` what it
        prints goes to the callbacks alone, those of what follows the seq `since`. Raises
        WaitTimeout after `timeout` seconds (the job goes on), and with `check` JobFailed.
        """
        printed: dict[str, list[bytes]] = {stream: [] for stream in STREAMS}
        last: Json = {}
        until = None if timeout is None else time.monotonic() + timeout
        async with aclosing(self._api.frames(self.id, since, until)) as frames:
            async for last in frames:
                if last["type"] in printed:
                    data = data_of(last)
                    if log:
                        printed[last["type"]].append(data)
                    if on_output:
                        on_output(last["type"], data)
                if on_event:
                    on_event(last)
        if self._feed:
            await self._feed.stop()  # it is over, and reads no more
        stdout, stderr = (b"".join(printed[stream]) for stream in STREAMS)
        result = await self._result(self._end(last), stdout, stderr, log, download)
        if check and not result.ok:
            raise JobFailed(result)
        return result

    async def events(self, since: int = 0) -> AsyncGenerator[Json, None]:
        """All that happens to it up to its end, as the server tells it (docs/api.md, Frame)."""
        async with aclosing(self._api.frames(self.id, since)) as frames:
            async for frame in frames:
                yield frame

    async def logs(self, since: int = 0) -> AsyncGenerator[LogLine, None]:
        """Its lines as it prints them, up to its end; `since` the seq of one, those after it."""
        lines, moment = Lines(), 0.0
        async with aclosing(self._api.frames(self.id, since)) as frames:
            async for frame in frames:
                if frame["type"] in STREAMS:
                    moment = frame["t"]
                    for line in lines.put(frame):
                        yield line
                elif frame["type"] == "gap":
                    for line in lines.end(frame["seq"], moment, frame["stream"]):
                        yield line
                elif frame["type"] in ("end", "gone"):
                    for line in lines.end(frame["seq"], moment):
                        yield line
                    self._end(frame)

    async def status(self) -> Json:
        return await self._api.status(self.id)

    async def log(self, stream: StreamName) -> bytes:
        """What it has printed to `stream` by now, as much as is kept of it."""
        return await self._api.log(self.id, stream)

    async def outputs(self) -> list[Json]:
        """What is known of each file that it made: path, size_bytes, sha256, mime_type and more."""
        listed: list[Json] = (await self._api.outputs(self.id))["outputs"]
        return listed

    async def download(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """One output; of it `size` bytes, from `offset` on, which lies within it."""
        name = quote(path.encode("utf-8", "surrogateescape"), safe="/")
        return await self._api.download(f"/download/{quote(self.id, safe='')}/{name}", offset, size)

    async def receipt(self) -> Json:
        return await self._api.receipt(self.id)

    async def cancel(self) -> Json:
        """Ends it, unless it is over. Its status then."""
        return await self._api.cancel(self.id, self._token())

    async def delete(self) -> None:
        """Ends it and has it forgotten, with its logs and outputs."""
        await self._api.delete(self.id, self._token())

    async def fed(self) -> None:
        """Waits until all of its stdin was sent, or it will read no more."""
        if self._feed:
            await self._feed.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(JobNotFound):
            await self.delete()

    def _token(self) -> str:
        return self.owner_token or ""

    def _end(self, frame: Json) -> Json:
        """The result in the last frame of its log."""
        if frame.get("type") == "end":
            found: Json = frame["result"]
            return found
        gone = "The job was deleted, or has been forgotten"
        raise JobNotFound(404, {"error": gone, "reason": "unknown_job"})

    async def _result(
        self, end: Json, stdout: bytes, stderr: bytes, log: bool, download: bool
    ) -> Result:
        try:
            return await self._read(end, stdout, stderr, log, download)
        except (LookupError, TypeError):
            raise SandrunError("The server's result cannot be read: is it Sandrun?") from None

    async def _read(
        self, end: Json, stdout: bytes, stderr: bytes, log: bool, download: bool
    ) -> Result:
        status, listed = end, end["outputs"]
        unsaid = end["receipt"] is None and end["worker_metadata"]["signature"] is not None
        if unsaid or not end["outputs_complete"]:  # too much for one frame
            status, listed = await self._api.status(self.id), await self.outputs()
        if log and "log" in end["limits_hit"]:  # we have seen more than the server keeps, and signs
            with suppress(JobNotFound):  # burn_after_read: it was read
                stdout, stderr = [await self._api.log(self.id, stream) for stream in STREAMS]
        contents = await self._contents(listed) if download else {}
        return result_of(status, stdout, stderr, listed, contents)

    async def _contents(self, listed: Sequence[Json]) -> dict[str, bytes]:
        """The outputs by their URL."""
        urls = [row["download_url"] for row in listed]
        if len(urls) <= _SINGLY:
            return {url: await self._api.download(url) for url in urls}
        import io
        import tarfile

        found = {}
        with tarfile.open(fileobj=io.BytesIO(await self._api.archive(self.id))) as archive:
            for member in archive:
                if file := archive.extractfile(member):
                    found[member.name.encode("utf-8", "surrogateescape")] = file.read()
        return {url: found[path_of(url)] for url in urls if path_of(url) in found}

    def _begin_feed(self, api: Api, data: bytes) -> None:
        self._feed = api.network.aside(partial(self._send_stdin, api, data))

    async def _send_stdin(self, api: Api, data: bytes) -> None:
        at = failures = 0
        try:
            while True:
                piece = data[at : at + _FEED_BYTES]
                is_last = at + len(piece) == len(data)
                try:
                    await api.stdin(self.id, self._token(), piece, at, is_last)
                except Refused as error:
                    if error.reason == "stdin_full":
                        await api.network.sleep(_FEED_PAUSE)
                        continue
                    if error.retry_after:  # 429, 503
                        await api.network.sleep(error.retry_after)
                        continue
                    if error.status in (502, 504) and not error.reason and failures < FOLLOWS - 1:
                        failures += 1
                        await api.network.sleep(pause(failures))
                        continue
                    if error.reason != "stdin_position" or not failures:
                        return  # it reads no more, or is over: its result says so
                    # The piece had come, and the answer was lost.
                except ConnectionFailed:
                    failures += 1
                    if failures == FOLLOWS:
                        return  # whoever waits for the job hears it too
                    await api.network.sleep(pause(failures))
                    continue
                at, failures = at + len(piece), 0
                if is_last:
                    return
        finally:
            api.close()


class AsyncClient:
    """Runs jobs on the server at `server` (or $SANDRUN_SERVER, or this machine's). `timeout`:
    seconds without a sign of life from it; `patience`: seconds to wait where it is at its limit,
    before RateLimited is raised; `on_pause` hears every second how many are left.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        timeout: float = TIMEOUT,
        patience: float = 0,
        on_pause: OnPause | None = None,
    ) -> None:
        url = server or os.environ.get("SANDRUN_SERVER") or SERVER
        self._network = self._open_network()
        self._connect = partial(Api, self._network, url, timeout, patience, on_pause)
        self._api = self._connect()

    @property
    def server(self) -> str:
        return self._api.url

    async def run(
        self,
        code: str | bytes | None = None,
        *,
        files: Mapping[str, Content] | None = None,
        path: str | os.PathLike[str] | Project | None = None,
        stdin: str | bytes | None = None,
        check: bool = False,
        download: bool = True,
        on_output: OnOutput | None = None,
        on_upload: Progress | None = None,
        **manifest: Unpack[Manifest],
    ) -> Result:
        """Runs `code`, or what is at `path` (a folder, a file, an archive), and gives its Result
        with all outputs. Once the server has taken the job, whoever interrupts this cancels it.
        Other arguments: see `submit`.
        """
        job = await self.submit(
            code, files=files, path=path, stdin=stdin, on_upload=on_upload, **manifest
        )
        try:
            return await job.wait(check=check, download=download, on_output=on_output)
        except SandrunError:
            raise
        except BaseException:  # Ctrl-C, the task was cancelled, or on_output has failed
            with suppress(Exception):
                await job.cancel()
            raise

    async def submit(
        self,
        code: str | bytes | None = None,
        *,
        files: Mapping[str, Content] | None = None,
        path: str | os.PathLike[str] | Project | None = None,
        stdin: str | bytes | None = None,
        on_upload: Progress | None = None,
        **manifest: Unpack[Manifest],
    ) -> AsyncJob:
        """The job, which waits for its turn or runs. `files`: text, bytes or paths of files, by the
        path that the job sees them at. A stdin of more than 32 KiB is sent while the job runs:
        `wait` or `fed` sees it to its end. Raises Refused, ConnectionFailed or SandrunError.
        """
        made = upload(code, files, path, stdin, manifest)
        submitted = await self._api.submit(made.body, os.urandom(16).hex(), on_upload)
        job = AsyncJob(self._api, submitted["job_id"], submitted["owner_token"], submitted)
        if made.stdin is not None:
            job._begin_feed(self._connect(), made.stdin)
        return job

    def job(self, job_id: str, owner_token: str | None = None) -> AsyncJob:
        """One that was submitted before. Without its owner_token it can be read, not ended."""
        return AsyncJob(self._api, job_id, owner_token, {})

    async def info(self) -> Json:
        """What the server is: its limits, quotas and interpreters."""
        return await self._api.get("/")

    async def stats(self) -> Json:
        """What is left of this client's quotas, and how busy the server is."""
        return await self._api.get("/stats")

    async def environments(self) -> Json:
        return await self._api.get("/environments")

    async def health(self) -> Json:
        return await self._api.get("/health")

    def close(self) -> None:
        """No `await`: nothing is waited for."""
        self._api.close()

    def _open_network(self) -> Network:
        from sandrun.awaiting import AsyncioNetwork

        return AsyncioNetwork()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self._network.sleep(0)  # the event loop closes them only in its next round


class Job:
    """A job on the server. `with` it, and it is deleted at the end, whatever it was doing."""

    def __init__(self, job: AsyncJob) -> None:
        self._job = job
        self.id = job.id
        self.owner_token = job.owner_token
        self.submitted = job.submitted

    def wait(
        self,
        timeout: float | None = None,
        *,
        check: bool = False,
        download: bool = True,
        log: bool = True,
        since: int = 0,
        on_output: OnOutput | None = None,
        on_event: OnEvent | None = None,
    ) -> Result:
        """See AsyncJob.wait."""
        return now(
            self._job.wait(
                timeout, check=check, download=download, log=log, since=since,
                on_output=on_output, on_event=on_event,
            )
        )  # fmt: skip

    def events(self, since: int = 0) -> Iterator[Json]:
        """See AsyncJob.events."""
        return each(self._job.events(since))

    def logs(self, since: int = 0) -> Iterator[LogLine]:
        """See AsyncJob.logs."""
        return each(self._job.logs(since))

    def status(self) -> Json:
        return now(self._job.status())

    def log(self, stream: StreamName) -> bytes:
        """See AsyncJob.log."""
        return now(self._job.log(stream))

    def outputs(self) -> list[Json]:
        """See AsyncJob.outputs."""
        return now(self._job.outputs())

    def download(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """See AsyncJob.download."""
        return now(self._job.download(path, offset, size))

    def receipt(self) -> Json:
        return now(self._job.receipt())

    def cancel(self) -> Json:
        """Ends it, unless it is over. Its status then."""
        return now(self._job.cancel())

    def delete(self) -> None:
        """Ends it and has it forgotten, with its logs and outputs."""
        now(self._job.delete())

    def fed(self) -> None:
        """Waits until all of its stdin was sent, or it will read no more."""
        now(self._job.fed())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        now(self._job.__aexit__())


class _Blocking(AsyncClient):
    def _open_network(self) -> Network:
        return BlockingNetwork()


class Client:
    """See AsyncClient, whose words these are without `await`. For one thread at a time."""

    def __init__(
        self,
        server: str | None = None,
        *,
        timeout: float = TIMEOUT,
        patience: float = 0,
        on_pause: OnPause | None = None,
    ) -> None:
        self._client = _Blocking(server, timeout=timeout, patience=patience, on_pause=on_pause)

    @property
    def server(self) -> str:
        return self._client.server

    def run(
        self,
        code: str | bytes | None = None,
        *,
        files: Mapping[str, Content] | None = None,
        path: str | os.PathLike[str] | Project | None = None,
        stdin: str | bytes | None = None,
        check: bool = False,
        download: bool = True,
        on_output: OnOutput | None = None,
        on_upload: Progress | None = None,
        **manifest: Unpack[Manifest],
    ) -> Result:
        """See AsyncClient.run."""
        return now(
            self._client.run(
                code, files=files, path=path, stdin=stdin, check=check, download=download,
                on_output=on_output, on_upload=on_upload, **manifest,
            )
        )  # fmt: skip

    def submit(
        self,
        code: str | bytes | None = None,
        *,
        files: Mapping[str, Content] | None = None,
        path: str | os.PathLike[str] | Project | None = None,
        stdin: str | bytes | None = None,
        on_upload: Progress | None = None,
        **manifest: Unpack[Manifest],
    ) -> Job:
        """See AsyncClient.submit."""
        submitted = self._client.submit(
            code, files=files, path=path, stdin=stdin, on_upload=on_upload, **manifest
        )
        return Job(now(submitted))

    def job(self, job_id: str, owner_token: str | None = None) -> Job:
        """One that was submitted before. Without its owner_token it can be read, not ended."""
        return Job(self._client.job(job_id, owner_token))

    def info(self) -> Json:
        """What the server is: its limits, quotas and interpreters."""
        return now(self._client.info())

    def stats(self) -> Json:
        """What is left of this client's quotas, and how busy the server is."""
        return now(self._client.stats())

    def environments(self) -> Json:
        return now(self._client.environments())

    def health(self) -> Json:
        return now(self._client.health())

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run(
    code: str | bytes | None = None,
    *,
    server: str | None = None,
    files: Mapping[str, Content] | None = None,
    path: str | os.PathLike[str] | Project | None = None,
    stdin: str | bytes | None = None,
    check: bool = False,
    on_output: OnOutput | None = None,
    **manifest: Unpack[Manifest],
) -> Result:
    """Runs something once, on `server` (or $SANDRUN_SERVER, or this machine's)."""
    with Client(server) as client:
        return client.run(
            code, files=files, path=path, stdin=stdin, check=check, on_output=on_output, **manifest
        )
