"""One coroutine for each endpoint: read the request, ask the engine, write the answer. What a job
may be is decided in manifest.py and bundle.py, how it looks in wire.py, what an error looks like in
errors.py.
"""

import asyncio
import functools
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from jobs import bundle, manifest
from jobs.api import wire
from jobs.api.clients import View, rated
from jobs.api.filetypes import served_type_of
from jobs.api.site import Site, site_of
from jobs.api.uploads import Form, body_of, read_form
from jobs.api.wire import reply
from jobs.errors import Rejected, UnknownFile
from jobs.job import Job
from jobs.logs import STREAMS
from jobs.memory import MemoryFile
from sandbox.model import Output

WAIT_SECONDS = 60  # the longest ?wait=
CHUNK = 64 * 1024
WHOLE_BYTES = 64 * 1024  # answers up to here go out in one piece

Page = Callable[[HttpRequest], Awaitable[HttpResponse]]


def methods(*allowed: str) -> Callable[[View], View]:
    """Answer 405 to other methods. HEAD comes with GET; our server sends no body for it."""
    if "GET" in allowed:
        allowed = (*allowed, "HEAD")

    def decorate(view: View) -> View:
        @functools.wraps(view)
        async def check_first(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method not in allowed:
                body = {"error": "Method not allowed", "reason": "method_not_allowed"}
                return reply(body, 405, {"Allow": ", ".join(allowed)})
            return await view(request, *args, **kwargs)

        return check_first

    return decorate


# ---- the server


def front_door(page: Page) -> View:
    """GET /: `page` for a browser, the server's JSON for everybody else."""

    @methods("GET")
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


async def not_found(request: HttpRequest) -> HttpResponse:
    """Every other path. A view, since Django's own 404 goes through a thread and into the log."""
    return reply({"error": "Not found", "reason": "unknown_path"}, 404)


# ---- one job


@methods("POST")
@rated
async def submit(request: HttpRequest) -> HttpResponse:
    site = site_of(request)
    with body_of(request, site.config.upload_bytes) as body:
        site.engine.admit(body.size)
        form = await asyncio.to_thread(read_form, body, request.META.get("CONTENT_TYPE", ""))
        job = await _take(site, form)
    return reply(wire.submitted(site.engine, job), 200, {"Location": f"/status/{job.id}"})


async def _take(site: Site, form: Form) -> Job:
    """The Job that `form` asks for. The manifest is read first: its faults are cheap to find."""
    asked = manifest.read(form.manifest) if form.manifest is not None else None
    upload = await bundle.receive(form.files, site.engine.runner.inspect)
    with upload.memory.closed_on_error():
        if asked is None:
            asked = manifest.read(upload.job_json or b"{}")
        bounds = manifest.Bounds(site.config.timeout_seconds, site.config.memory_mb)
        return site.engine.submit(asked.settle(upload.paths, site.runtimes, bounds), upload)


@methods("GET")
async def status(request: HttpRequest, job_id: str) -> HttpResponse:
    """Where the job is; with ?wait=SECONDS, as soon as it is over."""
    engine = site_of(request).engine
    job = engine.store.find(job_id)
    if seconds := _wait_seconds(request):
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(job.over.wait(), seconds)
    return reply(wire.status(engine, job))


@methods("GET")
async def logs(request: HttpRequest, job_id: str) -> HttpResponse:
    """Both streams as JSON; for Accept: text/plain, or with ?stream=, the bytes as printed."""
    log = site_of(request).engine.store.find(job_id).log
    stream = request.GET.get("stream")
    if stream is not None and stream not in STREAMS:
        raise Rejected("stream must be stdout or stderr")
    if stream is None and not _accepts(request, "text/plain"):
        return _pieces(wire.log_json(log), wire.JSON, small=log.kept_bytes <= WHOLE_BYTES)
    pieces = wire.log_raw(log, (stream,) if stream else STREAMS)
    response = _pieces(pieces, "text/plain; charset=utf-8", small=log.kept_bytes <= WHOLE_BYTES)
    response["X-Sandrun-Truncated"] = "true" if log.truncated else "false"
    return response


@methods("GET")
async def outputs(request: HttpRequest, job_id: str) -> HttpResponse:
    return reply(wire.outputs(site_of(request).engine.store.find(job_id)))


@methods("GET")
async def download(request: HttpRequest, job_id: str, name: str) -> HttpResponse:
    """One output. It is looked up in the list of what was collected; no file is opened by name."""
    job = site_of(request).engine.store.find(job_id)
    output = job.outputs.get(_asked_path(request, name))
    if output is None:
        raise UnknownFile
    headers = {
        "Content-Length": str(output.size),
        "Content-Disposition": disposition(wire.raw_path(output.path)),
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    kind = served_type_of(output.path)
    if request.method == "HEAD":
        return HttpResponse(content_type=kind, headers=headers)
    content = _read_out(job.open_outputs(), output)
    return StreamingHttpResponse(content, content_type=kind, headers=headers)


async def _read_out(memory: MemoryFile, output: Output) -> AsyncIterator[bytes]:
    """The bytes of `output`. `memory` is the download's own: the job may be forgotten meanwhile."""
    try:
        for start in range(0, output.size, CHUNK):
            yield memory.read(output.offset + start, min(CHUNK, output.size - start))
    finally:
        memory.close()


def _pieces(pieces: Iterator[bytes], kind: str, small: bool) -> HttpResponse:
    if small:
        return HttpResponse(b"".join(pieces), content_type=kind)

    async def one_by_one() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return StreamingHttpResponse(one_by_one(), content_type=kind)


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


def _accepts(request: HttpRequest, kind: str) -> bool:
    """True when `kind` is asked for by name, and not with q=0, which asks for anything else; */* is
    everybody's and means nothing.
    """
    for item in request.META.get("HTTP_ACCEPT", "").lower().split(","):
        name, *parameters = (word.strip() for word in item.split(";"))
        if name == kind:
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False
