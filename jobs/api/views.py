"""One coroutine for each endpoint: read the request, ask the engine, write the answer. What a job
may be is decided in manifest.py and bundle.py, how it looks in wire.py, what an error looks like in
errors.py.
"""

import asyncio
import functools
import os
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
)
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from jobs import archives, bundle, manifest
from jobs.api import live, paths, ranges, wire
from jobs.api.clients import View, client_of, quota_headers, rated
from jobs.api.errors import refuse
from jobs.api.site import Site, site_of
from jobs.api.uploads import STDIN_BYTES, Form, body_of, key_of, read_form, read_run
from jobs.api.wire import reply
from jobs.errors import NotOver, Rejected, UnknownFile, Unsigned
from jobs.filetypes import served_type_of
from jobs.job import LOG, Job, Reading
from jobs.logs import STREAMS
from jobs.manifest import quoted
from jobs.memory import MemoryFile, in_thread
from jobs.names import raw_path, shown
from jobs.receipt import MEDIA_TYPE
from jobs.similar import did_you_mean, nearest
from jobs.stdin import send as send_stdin

TRAILERS_KEY = "sandrun.trailers"  # of the scope: headers that our server sends behind the body
WAIT_SECONDS = 60  # the longest ?wait=
END_SECONDS = 5  # for a cancelled job to be dead
CHUNK = 64 * 1024
WHOLE_BYTES = 64 * 1024  # answers about so much log go out in one piece
WHOLE_OUTPUTS = 200  # and about so many outputs

ReadForm = Callable[[MemoryFile, HttpRequest, Site], Form]
Page = Callable[[HttpRequest], Awaitable[HttpResponse]]


def methods(*allowed: str) -> Callable[[View], View]:
    """Answer 405 to other methods. HEAD comes with GET; our server sends no body for it."""
    if "GET" in allowed:
        allowed = (*allowed, "HEAD")

    def decorate(view: View) -> View:
        @functools.wraps(view)
        async def check_first(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method not in allowed:
                allow = {"Allow": ", ".join(allowed)}
                takes = f"This path takes {allow['Allow']}."
                return refuse(405, "Method not allowed", "method_not_allowed", takes, allow)
            return await view(request, *args, **kwargs)

        return check_first

    return decorate


# ---- the server


def front_door(page: Page) -> View:
    """GET /: `page` for a browser, the server's JSON for everybody else."""

    @methods("GET")
    @rated("read_rate")
    async def index(request: HttpRequest) -> HttpResponse:
        if _accepts(request, "text/html"):
            response = await page(request)
        else:
            response = reply(wire.server(site_of(request)))
        response["Vary"] = "Accept"
        return response

    return index


@methods("GET")
async def health(request: HttpRequest) -> HttpResponse:
    site = site_of(request)
    return reply(wire.health(site), 200 if site.engine.runner.alive else 503)


@methods("GET")
@rated("read_rate")
async def stats(request: HttpRequest) -> HttpResponse:
    site, client = site_of(request), client_of(request)
    return reply(wire.stats(site, client), 200, quota_headers(site, client))


@methods("GET")
@rated("read_rate")
async def environments(request: HttpRequest) -> HttpResponse:
    return reply(wire.environments(site_of(request)))


async def not_found(request: HttpRequest) -> HttpResponse:
    """Every other path. A view, since Django's own 404 goes through a thread and into the log."""
    return refuse(404, "Not found", "unknown_path", paths.meant(request.path))


# ---- a job's beginning


@methods("POST")
@rated("submit_rate")
async def submit(request: HttpRequest) -> HttpResponse:
    """Take a job: the answer is its id; with ?wait=SECONDS, how it went as well."""
    site = site_of(request)
    seconds = _wait_seconds(request)
    job = await _take(request, site, _read_submit)
    if seconds:
        await _wait_with_client(site, job, seconds)
    headers = {"Location": f"/status/{job.id}", **quota_headers(site, job.client)}
    if not seconds:
        return reply(wire.submitted(site.engine, job), 200, headers)
    return _whole(site, job, headers, {"owner_token": job.owner_token})


@methods("POST")
@rated("submit_rate")
async def run(request: HttpRequest) -> HttpResponse:
    """The body is code: answer with what it prints, as it prints it, and how it ended in the
    trailers; or with everything as JSON, after the end, if that is asked or ?wait= is there.
    """
    site = site_of(request)
    seconds = _wait_seconds(request) if "wait" in request.GET else WAIT_SECONDS
    job = await _take(request, site, _read_run)
    headers = {
        "Location": f"/status/{job.id}",
        **quota_headers(site, job.client),
        "X-Sandrun-Job": job.id,
        "X-Sandrun-Owner-Token": job.owner_token,
    }
    if not _accepts(request, wire.JSON) and "wait" not in request.GET:
        headers["Trailer"] = ", ".join(wire.END_HEADERS)
        form = _live_format(request)
        content = live.follow(form, site.engine, job)
        trailers = request.scope.setdefault(TRAILERS_KEY, {})
        return _following(form, _with_client(site, job, content, trailers), headers)
    await _wait_with_client(site, job, seconds)
    response = _whole(site, job, headers, {"owner_token": job.owner_token})
    if not job.is_over:
        response.status_code = 202
    return response


async def _take(request: HttpRequest, site: Site, read: ReadForm) -> Job:
    """The Job that `request` asks for, in line. What is refused on the way is no job of the
    client's; only what its inspection took is drawn from its CPU time.
    """
    with body_of(request, site.config.upload_bytes) as body:
        if (key := key_of(request)) is None:
            return await _take_new(request, site, read, body)
        client, keys = client_of(request), site.engine.store.keys
        with keys.claimed(client, key):
            if not keys.knows(client, key):
                return await _take_new(request, site, read, body, key)
            form = await in_thread(body.size, read, body, request, site)
            digest = await in_thread(body.size, form.digest)
            if job := keys.find(client, key, digest):
                return job
            return await _take_new(request, site, read, body, key)


async def _take_new(
    request: HttpRequest, site: Site, read: ReadForm, body: MemoryFile, key: str | None = None
) -> Job:
    """The same, of a request that did not come before."""
    engine = site.engine
    engine.admit()
    with engine.quota.reserve(client_of(request)) as reservation:
        form = await in_thread(body.size, read, body, request, site)
        digest = await in_thread(body.size, form.digest) if key else b""
        asked = manifest.read(form.manifest)  # first: its faults are cheap to find
        inspect = functools.partial(engine.inspect, reservation)
        upload = await bundle.receive(form.files, inspect)
        with upload.memory.closed_on_error():
            body.close()  # its bytes are the upload's now
            if not asked.entrypoint and upload.job_json is not None:
                asked = manifest.read(form.manifest, upload.job_json)
            settled = asked.settle(upload.paths, site.runtimes, site.bounds)
            job = engine.submit(settled, upload, reservation)
    if key:
        engine.store.keys.keep(key, digest, job)
    return job


def _read_submit(body: MemoryFile, request: HttpRequest, site: Site) -> Form:
    return read_form(body, request.META.get("CONTENT_TYPE", ""))


def _read_run(body: MemoryFile, request: HttpRequest, site: Site) -> Form:
    return read_run(body, request.GET, site.runtimes)


# ---- one job


@methods("GET")
@rated("read_rate")
async def status(request: HttpRequest, job_id: str) -> HttpResponse:
    """Where the job is; with ?wait=SECONDS, as soon as it is over, with its logs and outputs."""
    site = site_of(request)
    job = site.engine.store.find(job_id)
    if not (seconds := _wait_seconds(request)):
        return _answer(site, job, wire.status(site.engine, job))
    await _wait_for(job, seconds)
    return _whole(site, job, reads=_log_for(request))


@methods("POST")
@rated("submit_rate")
async def cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    """End the job; the answer is its status then. One that is over stays as it is."""
    site = site_of(request)
    job = _own_job(request, job_id)
    site.engine.cancel(job)
    await _wait_for(job, END_SECONDS)
    return _answer(site, job, wire.status(site.engine, job))


@methods("POST")
@rated("read_rate")
async def stdin(request: HttpRequest, job_id: str) -> HttpResponse:
    """Send the body to the job's stdin; with ?end=1 nothing follows."""
    with body_of(request, STDIN_BYTES) as body:
        data = body.read(0, body.size)
    end, at = request.GET.get("end", "0"), request.GET.get("at")
    if end not in ("0", "1"):
        raise Rejected("end must be 1, when nothing follows, or 0")
    if at is not None and not re.fullmatch(r"[0-9]{1,18}", at):
        raise Rejected("at must be how many bytes have come before: a whole number")
    job = _own_job(request, job_id)
    taken = send_stdin(job, data, end == "1", None if at is None else int(at))
    return reply({"job_id": job.id, **taken})


@methods("DELETE")
@rated("submit_rate")
async def delete(request: HttpRequest, job_id: str) -> HttpResponse:
    """End the job and forget it, now: whoever still reads it is cut off."""
    job = _own_job(request, job_id)
    site_of(request).engine.delete(job, cut=True)
    return reply({"job_id": job.id, "deleted": True})


@methods("GET")
@rated("read_rate")
async def logs(request: HttpRequest, job_id: str) -> HttpResponse:
    """Both streams as JSON; the bytes as printed with ?stream=, or for whoever takes text only.
    With ?follow=1 in the order of time, while they come.
    """
    site = site_of(request)
    job = site.engine.store.find(job_id)
    stream = request.GET.get("stream")
    if stream is not None and stream not in STREAMS:
        raise Rejected("stream must be stdout or stderr")
    position = live.position_of(job, request.GET.get("since"))
    if last := request.META.get("HTTP_LAST_EVENT_ID"):  # a browser that has come back
        position = live.position_of(job, last)
    form = _live_format(request)
    if _switch(request, "follow"):
        if request.method == "HEAD":
            return _following(form, _nothing())
        return _following(form, live.follow(form, site.engine, job, position, stream))
    wants_text = _accepts(request, "text/plain") and not _accepts(request, wire.JSON)
    if stream is None and not wants_text:
        return _answer(site, job, wire.log_json(job.log), reads=_log_for(request))
    pieces = wire.log_raw(job.log, (stream,) if stream else STREAMS)
    truncated = {"X-Sandrun-Truncated": "true" if job.log.truncated else "false"}
    return _answer(site, job, pieces, wire.TEXT, truncated, () if stream else _log_for(request))


def _live_format(request: HttpRequest) -> live.Format:
    """What ?format= names, or Accept; text for everybody else."""
    name = request.GET.get("format") if request.method != "POST" else None
    if name is None:
        accepted = (n for n, form in live.FORMATS.items() if _accepts(request, form.content_type))
        name = next(accepted, "text")
    if name not in live.FORMATS:
        raise Rejected(f"format must be {', '.join(live.FORMATS)}")
    return live.FORMATS[name]


def _following(
    form: live.Format, content: AsyncIterator[bytes], headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """`content`, as it comes."""
    return Streamed(
        content,
        content_type=form.content_type,
        headers={"X-Accel-Buffering": "no", **(headers or {})},  # nginx would wait for more
    )


@methods("GET")
@rated("read_rate")
async def outputs(request: HttpRequest, job_id: str) -> HttpResponse:
    site = site_of(request)
    job = site.engine.store.find(job_id)
    return _answer(site, job, wire.outputs(job))


@methods("GET")
@rated("read_rate")
async def receipt(request: HttpRequest, job_id: str) -> HttpResponse:
    """What this server signed about the job."""
    site = site_of(request)
    job = site.engine.store.find(job_id)
    if not site.engine.identity:
        raise Unsigned("This server signs nothing", "It was started without --worker-key.")
    if not job.is_over:
        raise NotOver("The job is not over, so there is no receipt", "Ask /status with ?wait=60.")
    if not job.receipt:
        raise Unsigned("This job has no receipt", f"{job.error}.")
    headers = {"Content-Disposition": disposition(f"{job.id}.receipt.json".encode())}
    return HttpResponse(job.receipt.envelope, content_type=MEDIA_TYPE, headers=headers)


@methods("GET")
@rated("read_rate")
async def download(request: HttpRequest, job_id: str, name: str) -> HttpResponse:
    """One output, or a part of it. It is looked up in the list of what was collected; no file is
    opened by name.
    """
    site = site_of(request)
    job = site.engine.store.find(job_id)
    output = job.outputs.get(_asked_path(request, name))
    if output is None:
        raise UnknownFile(_where_files_are(job, _asked_path(request, name)))
    etag = f'"{output.sha256}"'
    if ranges.has_it(request, etag):
        return HttpResponse(status=304, headers={"ETag": etag})
    part = ranges.asked(request, output.size, etag)
    start, stop = part or (0, output.size)
    if part and start >= stop:
        whole = {"Content-Range": f"bytes */{output.size}"}
        sentence = f"The Range begins behind the end: the file has {output.size} bytes"
        return refuse(416, sentence, "invalid_range", headers=whole)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Content-Length": str(stop - start),
        "Content-Disposition": disposition(raw_path(output.path)),
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    if part:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{output.size}"
    kind, status = served_type_of(output.path), 206 if part else 200
    if request.method == "HEAD":
        return HttpResponse(content_type=kind, headers=headers)
    content = _read_out(_read(site, job), output.offset + start, output.offset + stop)
    if stop - start == output.size:
        content = _then(content, lambda: site.engine.was_read(job, [output.path]))
    return Streamed(content, status=status, content_type=kind, headers=headers)


@methods("GET")
@rated("read_rate")
async def download_all(request: HttpRequest, job_id: str) -> HttpResponse:
    """All outputs as one archive: tar.gz, or with ?format=zip; with ?delete=1 and the owner_token
    the job is forgotten with it.
    """
    site = site_of(request)
    job = site.engine.store.find(job_id)
    form = request.GET.get("format", "tar.gz")
    if form not in archives.FORMATS:
        raise Rejected(f"format must be {' or '.join(archives.FORMATS)}")
    last = _switch(request, "delete")
    if last:
        _own_job(request, job_id)
    if not job.ended:
        raise NotOver("The job is not over, so it has no outputs yet", "Ask /status with ?wait=60.")
    headers = {
        "Content-Disposition": disposition(f"{job.id}.{form}".encode()),
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    kind = archives.FORMATS[form].content_type
    if request.method == "HEAD":  # streaming: nobody knows yet how long it would be
        return Streamed(_nothing(), content_type=kind, headers=headers)
    found = list(job.outputs.values())
    content = archives.stream(form, _read(site, job), found, int(job.ended.wall))
    content = _then(content, lambda: site.engine.was_read(job, job.outputs))
    if last:
        site.engine.delete(job)
    return Streamed(content, content_type=kind, headers=headers)


def _where_files_are(job: Job, asked: str) -> str:
    """For whoever asks for a file that is not there. Names are the job's: shown, not repeated."""
    if not job.is_over:
        return f"The job is not over, so it has none yet: ask /status/{job.id}?wait=60 first."
    if not job.outputs:
        return "The job left no files: none that it made, or none that 'outputs' asks for."
    close = [quoted(shown(path)) for path in nearest(asked, job.outputs)]
    return f"{did_you_mean(close)} All are in /outputs/{job.id}.".lstrip()


def _own_job(request: HttpRequest, job_id: str) -> Job:
    """The job, for whoever has its owner_token. Raises UnknownJob or NotOwner."""
    engine = site_of(request).engine
    job = engine.store.find(job_id)
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    engine.check_owner(job, token.strip() if scheme.lower() == "bearer" else None)
    return job


async def _wait_for(job: Job, seconds: float) -> None:
    """Until the job is over, or so long."""
    if not job.is_over:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(job.over.wait(), seconds)


async def _wait_with_client(site: Site, job: Job, seconds: float) -> None:
    """The same; but when the client leaves, the job goes too: nobody knows its id yet."""
    try:
        await _wait_for(job, seconds)
    except asyncio.CancelledError:
        _leave(site, job)
        raise


async def _with_client(
    site: Site, job: Job, content: AsyncGenerator[bytes, None], trailers: dict[str, str]
) -> AsyncIterator[bytes]:
    """`content`, and how the job ended; when the client leaves, the job goes too."""
    try:
        async with aclosing(content):
            async for piece in content:
                yield piece
    finally:
        if not job.is_over:
            _leave(site, job)
    trailers |= wire.end_headers(job)


def _leave(site: Site, job: Job) -> None:
    """Its client has gone, and has nothing to come back with but an Idempotency-Key."""
    if not site.engine.store.keys.has(job):
        site.engine.delete(job)


def _whole(
    site: Site,
    job: Job,
    headers: dict[str, str] | None = None,
    more: dict[str, object] | None = None,
    reads: Collection[str] = (LOG,),
) -> HttpResponse:
    """Everything about the job but the bytes of its outputs."""
    whole = wire.whole(site.engine, job, more or {})
    return _answer(site, job, whole, wire.JSON, headers, reads)


class Streamed(StreamingHttpResponse):
    """An answer in pieces. When its client leaves, what makes the pieces is closed there and then:
    Django's leaves that to the garbage collector, and with it what a generator holds.
    """

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with aclosing(self._iterator) as pieces:
            async for piece in pieces:
                yield piece


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


def _log_for(request: HttpRequest) -> Collection[str]:
    """What is read by an answer with the log: of HEAD's nobody sees the body."""
    return () if request.method == "HEAD" else (LOG,)


async def _then(
    content: AsyncGenerator[bytes, None], act: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    """`content`; and `act`, when all of it was taken."""
    async with aclosing(content):
        async for piece in content:
            yield piece
    act()


async def _read_out(memory: MemoryFile, start: int, stop: int) -> AsyncGenerator[bytes, None]:
    """Bytes [start, stop). `memory` is the download's own: the job may be forgotten meanwhile."""
    try:
        for at in range(start, stop, CHUNK):
            yield memory.read(at, min(CHUNK, stop - at))
    finally:
        memory.close()


def _answer(
    site: Site,
    job: Job,
    pieces: Iterator[bytes],
    kind: str = wire.JSON,
    headers: dict[str, str] | None = None,
    reads: Collection[str] = (),
) -> HttpResponse:
    """What `pieces` make of the job: whole when it is little, else as it is read. Whoever has taken
    it, has read those of LOG and the outputs.
    """
    if job.log.kept_bytes <= WHOLE_BYTES and len(job.outputs) <= WHOLE_OUTPUTS:
        content = b"".join(pieces)
        site.engine.was_read(job, reads)
        return HttpResponse(content, content_type=kind, headers=headers)
    reading = _read(site, job)

    async def one_by_one() -> AsyncIterator[bytes]:
        with reading:
            for piece in pieces:
                yield piece
                await asyncio.sleep(0)  # others are served between two pieces
                reading.ensure_open()
            site.engine.was_read(job, reads)

    return Streamed(one_by_one(), content_type=kind, headers=headers)


def _read(site: Site, job: Job) -> Reading:
    """What the job holds stays, and counts, until it is read."""
    return job.read(lambda: site.engine.store.weigh(job))


def disposition(path: bytes) -> str:
    """Content-Disposition (RFC 6266): ASCII for all, UTF-8 for whoever understands it. Every byte
    that could end the header, or the quotes, is written as something else.
    """
    name = path.rsplit(b"/", 1)[-1]
    plain = re.sub(rb"[^A-Za-z0-9._ -]", b"_", name).decode()
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _asked_path(request: Any, name: str) -> str:
    """The path in the URL, with bytes that are not UTF-8 as the job's file names have them."""
    raw = request.scope.get("raw_path")
    if raw is None:
        return name
    return os.fsdecode(unquote_to_bytes(raw.split(b"?", 1)[0]).split(b"/", 3)[3])


def _wait_seconds(request: HttpRequest) -> int:
    text = request.GET.get("wait", "0")
    if not re.fullmatch(r"[0-9]+", text):
        raise Rejected("wait must be a whole number of seconds")
    return min(int(text.lstrip("0")[:9] or "0"), WAIT_SECONDS)  # the first 9 digits say enough


def _switch(request: HttpRequest, name: str) -> bool:
    """Whether ?name=1 is asked. Whoever writes "true" means it, and must not be taken for a no."""
    text: str = request.GET.get(name, "0")
    if text not in ("0", "1"):
        raise Rejected(f"{name} must be 1 or 0")
    return text == "1"


def _accepts(request: HttpRequest, kind: str) -> bool:
    """True when `kind` is asked for by name, and not with q=0, which asks for anything else; */* is
    everybody's and means nothing.
    """
    for item in request.META.get("HTTP_ACCEPT", "").lower().split(","):
        name, *parameters = (word.strip() for word in item.split(";"))
        if name == kind:
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False
