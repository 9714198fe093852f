"""What a Job looks like on the wire: the JSON of the reference in jobs/README.md. The names are
those that clients of the earlier system read; ours stand beside them.
"""

import codecs
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec
from django.http import HttpResponse

from jobs.api.filetypes import mime_type_of, type_of
from jobs.api.site import Site
from jobs.engine import Engine
from jobs.job import Job, Moment
from jobs.logs import STREAMS, JobLog
from sandbox.model import MIB, Output

JSON = "application/json"


def reply(
    body: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """A JSON response."""
    return HttpResponse(encode(body), status=status, content_type=JSON, headers=headers)


def encode(body: object) -> bytes:
    return msgspec.json.encode(body)


# ---- the server


def server(site: Site) -> dict[str, object]:
    config = site.config
    return {
        "service": "sandrun",
        "status": "running",
        "description": "Batch job execution with directory upload",
        "privacy": f"No accounts, no logs; a job is deleted {config.ttl_seconds} s after its end",
        "limits": f"{config.memory_mb}MB RAM, {config.timeout_seconds:g} s timeout",
        "api": 1,
        "quotas": "none",
        "interpreters": {
            name: {
                "version": known.version,
                "extensions": list(known.runtime.extensions),
                "aliases": list(known.runtime.aliases),
                "entrypoint": known.runtime.entrypoint,
            }
            for name, known in site.interpreters.items()
        },
        "limits_detail": {
            "timeout_seconds": config.timeout_seconds,
            "memory_mb": config.memory_mb,
            "upload_bytes": config.upload_bytes,
            "log_bytes": config.log_bytes,
            "ttl_seconds": config.ttl_seconds,
            "slots": config.slots,
            "submit_rate": config.submit_rate if config.quotas else None,
        },
    }


def health(site: Site) -> dict[str, object]:
    runner = site.engine.runner
    return {
        "status": "healthy" if runner.alive else "unhealthy",
        "worker_id": None,
        "sandbox": runner.walls if runner.alive else {},
        "degraded": [],
    }


# ---- a job


def submitted(engine: Engine, job: Job) -> dict[str, object]:
    return {
        "job_id": job.id,
        "status": "queued",  # always this word: some clients compare it
        "owner_token": job.owner_token,
        "queue_position": engine.position(job),
        "job_hash": job.hash,
        "warnings": list(job.manifest.warnings),
    }


def status(engine: Engine, job: Job) -> dict[str, object]:
    now = engine.clock()
    result = job.result
    expires = engine.store.expires_at(job)
    return {
        "job_id": job.id,
        "status": job.state,
        "queue_position": engine.position(job),
        "execution_metadata": _execution(job, now),
        "job_hash": job.hash,
        "output_files": {
            shown(output.path): {
                "size_bytes": output.size,
                "sha256": output.sha256,
                "type": type_of(output.path),
            }
            for output in job.outputs.values()
        },
        "worker_metadata": {"worker_id": None, "signature": None},
        **_usage(job, now),
        "reason": job.reason,
        "signal": result.verdict.signal if result else None,
        "stage": _stage(job),
        "limits_hit": list(job.limits_hit),
        "error": job.error,
        "warnings": [*job.manifest.warnings, *(result.notes if result else ())],
        "created_at": instant(job.created.wall),
        "expires_at": instant(expires) if expires is not None else None,
    }


def _execution(job: Job, now: Moment) -> dict[str, object]:
    verdict = job.result.verdict if job.result else None
    peak = job.result.usage.memory_peak_bytes if job.result else 0
    code = verdict.exit_code if verdict else None
    return {
        "cpu_seconds": _cpu_seconds(job),
        "memory_peak_bytes": peak,
        "memory_peak_mb": peak // MIB,
        "wall_time_ms": round(_wall_seconds(job, now) * 1000),
        # 0 before the end and -1 without an exit code: what the earlier system says
        "exit_code": code if code is not None else (-1 if job.is_over else 0),
        "environment": "",
        "interpreter": job.manifest.interpreter,
    }


def _usage(job: Job, now: Moment) -> dict[str, object]:
    """The same figures under the names by which various clients look for them."""
    peak = job.result.usage.memory_peak_bytes if job.result else 0
    cpu, wall = _cpu_seconds(job), round(_wall_seconds(job, now), 6)
    return {
        "metrics": {"cpu_seconds": cpu, "memory_mb": peak // MIB, "wall_seconds": wall},
        "cpu_seconds": cpu,
        "memory_bytes": peak,
        "wall_time": wall,
    }


def _cpu_seconds(job: Job) -> float:
    return job.result.usage.cpu_usec / 1e6 if job.result else 0.0


def _wall_seconds(job: Job, now: Moment) -> float:
    return job.result.usage.wall_usec / 1e6 if job.result else job.wall_seconds(now)


def _stage(job: Job) -> str | None:
    """Which part of the command ended it: a compiler, or the program itself."""
    if not job.result:
        return None
    return "compile" if job.result.verdict.step < job.manifest.steps - 1 else "run"


# ---- its outputs


def outputs(job: Job) -> dict[str, object]:
    return {
        "job_id": job.id,
        "status": job.state,
        "total_files": len(job.outputs),
        "files": [shown(path) for path in job.outputs],
        "outputs": [_output(job, output) for output in job.outputs.values()],
        "truncated": bool(job.result and job.result.outputs.truncated),
    }


def _output(job: Job, output: Output) -> dict[str, object]:
    return {
        "name": shown(output.path),
        "path": shown(output.path),
        "size": output.size,
        "size_bytes": output.size,
        "size_formatted": size_formatted(output.size),
        "type": type_of(output.path),
        "mime_type": mime_type_of(output.path),
        "sha256": output.sha256,
        "download_url": f"/download/{job.id}/{quote(raw_path(output.path))}",
    }


def raw_path(path: str) -> bytes:
    """The bytes that the job named its file with, which need not be text."""
    return path.encode("utf-8", "surrogateescape")


def shown(path: str) -> str:
    """`path` as text; what is no text is written as an escape."""
    return path.encode("utf-8", "backslashreplace").decode()


def size_formatted(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"


# ---- its log


def log_json(log: JobLog) -> Iterator[bytes]:
    """{"stdout", "stderr", ...} in pieces: escaped, 20 MB of control characters become 120."""
    for stream in STREAMS:
        yield b'{"stdout":"' if stream == "stdout" else b'","stderr":"'
        for text in _texts(log, stream):
            yield encode(text)[1:-1]
    dropped = {stream: log.dropped(stream) for stream in STREAMS}
    tail = {
        "truncated": log.truncated,
        "stdout_bytes": log.total("stdout"),
        "stderr_bytes": log.total("stderr"),
        "stdout_dropped_bytes": dropped["stdout"],
        "stderr_dropped_bytes": dropped["stderr"],
    }
    yield b'",' + encode(tail)[1:]


def log_raw(log: JobLog, streams: tuple[str, ...]) -> Iterator[bytes]:
    """The bytes as they were printed, one stream after the other."""
    for stream in streams:
        yield from _pieces(log, stream)


def _texts(log: JobLog, stream: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in _pieces(log, stream):
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


def _pieces(log: JobLog, stream: str) -> Iterator[bytes]:
    """What is kept now; a job that goes on printing does not prolong the answer."""
    offset, end = 0, log.total(stream)
    while offset < end:
        piece = log.read(stream, offset, 64 * 1024)
        data = piece.data[: max(0, end - piece.offset)]
        if not data:
            return
        yield data
        offset = piece.offset + len(data)


def instant(wall: float) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
