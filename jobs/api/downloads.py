"""What is left of a job that is over: its outputs, one or all, and its receipt."""

import re
from urllib.parse import quote

from django.http import HttpRequest, HttpResponse

from jobs import archives
from jobs.api import ranges, wire
from jobs.api.clients import rated
from jobs.api.errors import refuse
from jobs.api.parameters import asked_path, methods, own_job, switch
from jobs.api.pieces import Streamed, answer, nothing, read, read_out, then
from jobs.api.site import site_of
from jobs.errors import NotOver, Rejected, UnknownFile, Unsigned
from jobs.filetypes import served_type_of
from jobs.job import Job
from jobs.manifest import quoted
from jobs.names import raw_path, shown
from jobs.receipt import MEDIA_TYPE
from jobs.similar import did_you_mean, nearest


@methods("GET")
@rated("read_rate")
async def outputs(request: HttpRequest, job_id: str) -> HttpResponse:
    site = site_of(request)
    job = site.engine.store.find(job_id)
    return answer(site, job, wire.outputs(job))


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
    return answer(site, job, wire.receipt(job), MEDIA_TYPE, headers)


@methods("GET")
@rated("read_rate")
async def download(request: HttpRequest, job_id: str, name: str) -> HttpResponse:
    """One output, or a part of it. It is looked up in the list of what was collected; no file is
    opened by name.
    """
    site = site_of(request)
    job = site.engine.store.find(job_id)
    output = job.outputs.get(asked_path(request, name))
    if output is None:
        raise UnknownFile(_where_files_are(job, asked_path(request, name)))
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
    content = read_out(read(site, job), output.offset + start, output.offset + stop)
    if stop - start == output.size:
        content = then(content, lambda: site.engine.was_read(job, [output.path]))
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
    last = switch(request, "delete")
    if last:
        own_job(request, job_id)
    if not job.ended:
        raise NotOver("The job is not over, so it has no outputs yet", "Ask /status with ?wait=60.")
    headers = {
        "Content-Disposition": disposition(f"{job.id}.{form}".encode()),
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    kind = archives.FORMATS[form].content_type
    if request.method == "HEAD":  # streaming: nobody knows yet how long it would be
        return Streamed(nothing(), content_type=kind, headers=headers)
    found = list(job.outputs.values())
    content = archives.stream(form, read(site, job), found, int(job.ended.wall))
    content = then(content, lambda: site.engine.was_read(job, job.outputs))
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


def disposition(path: bytes) -> str:
    """Content-Disposition (RFC 6266): ASCII for all, UTF-8 for whoever understands it. Every byte
    that could end the header, or the quotes, is written as something else.
    """
    name = path.rsplit(b"/", 1)[-1]
    plain = re.sub(rb"[^A-Za-z0-9._ -]", b"_", name).decode()
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
