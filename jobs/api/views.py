"""One coroutine for each endpoint, but for what a job left (downloads.py): read the request, ask
the engine, write the answer. What a job may be is decided in manifest.py and bundle.py, how it
looks in wire.py, what an error looks like in errors.py.
"""

import asyncio
import functools
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Mapping,
)
from contextlib import aclosing, suppress

from django.http import HttpRequest, HttpResponse

from jobs import bundle, manifest
from jobs.api import live, paths, wire
from jobs.api.clients import client_of, quota_headers, rated
from jobs.api.errors import refuse
from jobs.api.parameters import WAIT_SECONDS, accepts, methods, own_job, switch, wait_seconds
from jobs.api.pieces import Streamed, answer, nothing
from jobs.api.site import Site, site_of
from jobs.api.uploads import STDIN_BYTES, Form, body_of, key_of, read_form, read_run
from jobs.api.wire import reply
from jobs.errors import Rejected
from jobs.job import LOG, Job
from jobs.logs import STREAMS
from jobs.memory import MemoryFile, in_thread
from jobs.stdin import send as send_stdin
from jobs.terms import input_bytes, input_hash

TRAILERS_KEY = "sandrun.trailers"  # of the scope: headers that our server sends behind the body
END_SECONDS = 5  # for a cancelled job to be dead

ReadForm = Callable[[MemoryFile, HttpRequest, Site], Form]


# ---- the server


@methods("GET")
async def health(request: HttpRequest) -> HttpResponse:
    site = site_of(request)
    return reply(wire.health(site), 200 if site.engine.alive else 503)


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
    seconds = wait_seconds(request)
    job = await take(request, site, _read_submit)
    if seconds:
        await wait_with_client(site, job, seconds)
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
    seconds = wait_seconds(request) if "wait" in request.GET else WAIT_SECONDS
    job = await take(request, site, _read_run)
    headers = {
        "Location": f"/status/{job.id}",
        **quota_headers(site, job.client),
        "X-Sandrun-Job": job.id,
        "X-Sandrun-Owner-Token": job.owner_token,
    }
    if not accepts(request, wire.JSON) and "wait" not in request.GET:
        headers["Trailer"] = ", ".join(wire.END_HEADERS)
        form = _live_format(request)
        content = live.follow(form, site.engine, job)
        trailers = request.scope.setdefault(TRAILERS_KEY, {})
        return _following(form, _with_client(site, job, content, trailers), headers)
    await wait_with_client(site, job, seconds)
    response = _whole(site, job, headers, {"owner_token": job.owner_token})
    if not job.is_over:
        response.status_code = 202
    return response


async def take(request: HttpRequest, site: Site, read: ReadForm) -> Job:
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
            terms, members = engine.runner.terms(settled), upload.bundle.members
            size = input_bytes(settled, members)
            hash = await in_thread(size, input_hash, settled, members, terms)
            job = engine.submit(settled, upload, terms, hash, reservation)
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
    if not (seconds := wait_seconds(request)):
        return answer(site, job, wire.status(site.engine, job))
    await wait_for(job, seconds)
    return _whole(site, job, reads=_log_for(request))


@methods("POST")
@rated("submit_rate")
async def cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    """End the job; the answer is its status then. One that is over stays as it is."""
    site = site_of(request)
    job = own_job(request, job_id)
    site.engine.cancel(job)
    await wait_for(job, END_SECONDS)
    return answer(site, job, wire.status(site.engine, job))


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
    job = own_job(request, job_id)
    taken = send_stdin(job, data, end == "1", None if at is None else int(at))
    return reply({"job_id": job.id, **taken})


@methods("DELETE")
@rated("submit_rate")
async def delete(request: HttpRequest, job_id: str) -> HttpResponse:
    """End the job and forget it, now: whoever still reads it is cut off."""
    job = own_job(request, job_id)
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
    if switch(request, "follow"):
        if request.method == "HEAD":
            return _following(form, nothing())
        return _following(form, live.follow(form, site.engine, job, position, stream))
    wants_text = accepts(request, "text/plain") and not accepts(request, wire.JSON)
    if stream is None and not wants_text:
        return answer(site, job, wire.log_json(job.log), reads=_log_for(request))
    pieces = wire.log_raw(job.log, (stream,) if stream else STREAMS)
    truncated = {"X-Sandrun-Truncated": "true" if job.log.truncated else "false"}
    return answer(site, job, pieces, wire.TEXT, truncated, () if stream else _log_for(request))


def _live_format(request: HttpRequest) -> live.Format:
    """What ?format= names, or Accept; text for everybody else."""
    name = request.GET.get("format") if request.method != "POST" else None
    if name is None:
        accepted = (n for n, form in live.FORMATS.items() if accepts(request, form.content_type))
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


async def wait_for(job: Job, seconds: float) -> None:
    """Until the job is over, or so long."""
    if not job.is_over:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(job.over.wait(), seconds)


async def wait_with_client(site: Site, job: Job, seconds: float) -> None:
    """The same; but when the client leaves, the job goes too: nobody knows its id yet."""
    try:
        await wait_for(job, seconds)
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
    return answer(site, job, whole, wire.JSON, headers, reads)


def _log_for(request: HttpRequest) -> Collection[str]:
    """What is read by an answer with the log: of HEAD's nobody sees the body."""
    return () if request.method == "HEAD" else (LOG,)
