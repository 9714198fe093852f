"""What a Job looks like on the wire: the JSON of docs/api.md. The names are those that
clients of the earlier system read; ours stand beside them.
"""

import codecs
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice

import msgspec
from django.http import HttpResponse

from jobs.api.site import Site
from jobs.conf import Config
from jobs.engine import Engine
from jobs.errors import Reason, in_full
from jobs.filetypes import mime_type_of, type_of
from jobs.job import Job, Moment
from jobs.logs import STREAMS, JobLog
from jobs.names import encoded, shown
from jobs.runner import Runner
from sandbox.model import MIB, Output

JSON = "application/json"
PROBLEM = "application/problem+json"
TEXT = "text/plain; charset=utf-8"
PIECE_BYTES = 64 * 1024


def reply(
    body: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """A JSON response."""
    return HttpResponse(encode(body), status=status, content_type=JSON, headers=headers)


def encode(body: object) -> bytes:
    return msgspec.json.encode(body)


def problem(status: int, sentence: str, reason: Reason, details: str = "") -> dict[str, object]:
    """An error: what RFC 9457 calls it, and what clients of the earlier system read."""
    body: dict[str, object] = {
        "type": f"/problems/{reason}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": in_full(sentence, details),
        "error": sentence,
        "reason": reason,
    }
    return body | {"details": details} if details else body


# ---- the server


def server(site: Site) -> dict[str, object]:
    config = site.config
    limits = f"{config.memory_mb}MB RAM, {config.timeout_seconds / 60:g} min timeout"
    if config.quotas:
        limits = f"{config.cpu_seconds_per_minute:g} CPU-sec/min, {limits}"
    return {
        "service": "sandrun",
        "status": "running",
        "description": "Batch job execution with directory upload",
        "privacy": f"No accounts, no logs; a job is deleted {config.ttl_seconds} s after its end",
        "limits": limits,
        "api": 1,
        "openapi": "/openapi.json",
        "quotas": _quotas(config) if config.quotas else None,
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
            "queue_seconds": config.queue_seconds,
            "slots": config.slots,
            "running_memory_mb": config.running_memory_mb,
            "held_bytes": config.held_bytes,
        },
    }


def _quotas(config: Config) -> dict[str, object]:
    return {
        "cpu_seconds_per_minute": config.cpu_seconds_per_minute,
        "concurrent_jobs": config.concurrent_jobs,
        "jobs_per_hour": config.jobs_per_hour,
        "held_bytes": config.client_held_bytes,
        "submit_rate": config.submit_rate,
        "read_rate": config.read_rate,
    }


def stats(site: Site, client: str) -> dict[str, object]:
    """How the asking client stands, and how busy the server is."""
    config, engine = site.config, site.engine
    stand = engine.quota.standing(client)
    return {
        "your_quota": {
            "used": round(stand.cpu_limit - stand.cpu_left, 3),
            "limit": stand.cpu_limit,
            "available": round(stand.cpu_left, 3),
            "active_jobs": stand.active,
            "can_submit": stand.refusal is None,
            "reason": stand.refusal.sentence if stand.refusal else "",
            "retry_after": stand.refusal.retry_after if stand.refusal else 0,
            "concurrent_jobs": stand.concurrent_limit,
            "jobs_per_hour": stand.hourly_limit,
            "jobs_left_this_hour": stand.hourly_left,
            "enforced": config.quotas,
        },
        "system": {
            "queue_length": engine.waiting,
            "active_jobs": engine.running,
            "slots": config.slots,
        },
    }


def environments(site: Site) -> dict[str, object]:
    """What may stand in a manifest's environment or interpreter."""
    return {
        "templates": list(site.interpreters),
        "stats": {
            "total_templates": len(site.interpreters),
            "cached_environments": 0,
            "total_uses": 0,
            "disk_usage_mb": 0,
        },
        "environments": [
            {
                "name": name,
                "version": known.version,
                "aliases": list(known.runtime.aliases),
                "extensions": list(known.runtime.extensions),
                "entrypoint": known.runtime.entrypoint,
            }
            for name, known in site.interpreters.items()
        ],
    }


def health(site: Site) -> dict[str, object]:
    runner = site.engine.runner
    return {
        "status": "healthy" if site.engine.alive else "unhealthy",
        "worker_id": _worker_id(site.engine),
        "sandbox": runner.walls if runner.alive else {},
        "degraded": _missing(runner) if runner.alive else [],
    }


def _missing_of(engine: Engine, job: Job) -> object:
    """Those that `job` does without; of one that is over without having run, there are none."""
    return None if job.is_over and not job.result else _missing(engine.runner)


def _worker_id(engine: Engine) -> str | None:
    """Who signs here."""
    return engine.identity.worker_id if engine.identity else None


def _missing(runner: Runner) -> object:
    """The walls that are not there, by the names with which the settings allow it."""
    return runner.walls.get("missing", [])


# ---- a job


def submitted(engine: Engine, job: Job) -> dict[str, object]:
    return {
        "job_id": job.id,
        "status": "queued",  # always this word: some clients compare it
        "owner_token": job.owner_token,
        "queue_position": engine.position(job),
        "job_hash": job.hash,
        "expires_at": instant(engine.expires_at(job)),
        "warnings": list(job.manifest.warnings),
    }


END_HEADERS = ("X-Sandrun-Status", "X-Sandrun-Reason", "X-Sandrun-Exit-Code")


def end_headers(job: Job) -> dict[str, str]:
    """How a job went, where the body is what it printed."""
    code = job.result.verdict.exit_code if job.result else None
    values = (job.state, job.reason, None if code is None else str(code))
    return {name: value for name, value in zip(END_HEADERS, values, strict=True) if value}


def whole(engine: Engine, job: Job, more: Mapping[str, object]) -> Iterator[bytes]:
    """/status with `more`, and with the logs and outputs, in pieces."""
    return _object(
        {**_status(engine, job), **more},
        receipt=receipt(job),
        output_files=_output_files(job),
        logs=log_json(job.log),
        outputs=_output_list(job),
    )


def status(engine: Engine, job: Job) -> Iterator[bytes]:
    """/status, in pieces: ten thousand outputs take the loop a tenth of a second."""
    return _object(_status(engine, job), receipt=receipt(job), output_files=_output_files(job))


def receipt(job: Job) -> Iterator[bytes]:
    """Its envelope, in pieces; null where there is none."""
    envelope = job.receipt.envelope if job.receipt else b"null"
    # The envelope of now: what else is in the answer is of now too.
    return (envelope[at : at + PIECE_BYTES] for at in range(0, len(envelope), PIECE_BYTES))


RESULT_BYTES = 32 * 1024  # of outputs, and of the receipt, in a result that is one message


def result(engine: Engine, job: Job) -> dict[str, object]:
    """/status of a job that is over, with as many of its outputs as one message can carry."""
    listed: list[msgspec.Raw] = []
    size = 0
    for output in job.outputs.values():
        entry = encode(_output(job, output))
        size += len(entry)
        if size > RESULT_BYTES:
            break
        listed.append(msgspec.Raw(entry))
    envelope = job.receipt.envelope if job.receipt else b"null"
    return {
        **_status(engine, job),
        "receipt": msgspec.Raw(envelope if len(envelope) <= RESULT_BYTES else b"null"),
        "outputs": listed,
        "total_files": len(job.outputs),
        "outputs_complete": len(listed) == len(job.outputs),
    }


BRIEF_OUTPUTS = 200
BRIEF_LOG_BYTES = 100_000  # of the end of each stream


def brief(engine: Engine, job: Job) -> dict[str, object]:
    """/status with as much of the outputs and of the logs as a page can show."""
    some = islice(job.outputs.values(), BRIEF_OUTPUTS)
    return {
        **_status(engine, job),
        "outputs": [_output(job, output) for output in some],
        "total_files": len(job.outputs),
        "logs": [_log_end(job.log, stream) for stream in STREAMS],
    }


def _log_end(log: JobLog, stream: str) -> dict[str, object]:
    start = max(0, log.total(stream) - BRIEF_LOG_BYTES)
    text, at = bytearray(), start
    while (piece := log.read(stream, at)).data:
        text += piece.data
        at = piece.end
    return {"stream": stream, "text": text.decode("utf-8", "replace"), "is_cut": start > 0}


def metrics(engine: Engine, job: Job) -> dict[str, object]:
    """What a running job has used up to now, and may use."""
    manifest, gauge = job.manifest, job.gauge()
    return {
        "cpu_seconds": gauge.cpu_seconds,
        "memory_bytes": gauge.memory_bytes,
        "memory_peak_bytes": gauge.memory_peak_bytes,
        "wall_seconds": round(job.wall_usec(engine.clock()) / 1e6, 3),
        "limits": {
            "cpu_seconds": manifest.cpu_seconds or None,
            "memory_bytes": manifest.memory_mb * MIB,
            "wall_seconds": manifest.timeout,
        },
    }


def files(job: Job) -> dict[str, object]:
    """Which files a running job seems to have made. Nothing but its own word stands behind it."""
    glance = job.glance
    found = [{"path": shown(path), "size": size} for path, size in glance.files]
    return {"advisory": True, "files": found, "more": glance.more}


def _object(fields: Mapping[str, object], **long: Iterator[bytes]) -> Iterator[bytes]:
    """A JSON object of `fields` and those that come in pieces."""
    yield encode(fields)[:-1]
    for name, pieces in long.items():
        yield f',"{name}":'.encode()
        yield from pieces
    yield b"}"


def _joined(opening: bytes, items: Iterator[bytes], closing: bytes) -> Iterator[bytes]:
    """The items with commas between them, some at a time."""
    between = opening
    while batch := list(islice(items, 200)):
        yield between + b",".join(batch)
        between = b","
    yield (opening if between == opening else b"") + closing


def _status(engine: Engine, job: Job) -> dict[str, object]:
    now = engine.clock()
    result = job.result
    return {
        "job_id": job.id,
        "status": job.state,
        "queue_position": engine.position(job),
        "execution_metadata": _execution(job, now),
        "job_hash": job.hash,
        "worker_metadata": {
            "worker_id": _worker_id(engine),
            "signature": job.receipt.signature if job.receipt else None,
        },
        **_usage(job, now),
        "reason": job.reason,
        "signal": result.verdict.signal if result else None,
        "stage": job.stage(result),
        "limits_hit": job.limits_hit(result),
        # Only where there is one: an earlier client takes the key itself for a failed request.
        **({"error": job.error} if job.error else {}),
        # Only where something is: where all stand, there is nothing to know.
        **({"walls_missing": missing} if (missing := _missing_of(engine, job)) else {}),
        "warnings": job.warnings(result),
        "created_at": instant(job.created.wall),
        "expires_at": instant(engine.expires_at(job)),
    }


def _execution(job: Job, now: Moment) -> dict[str, object]:
    verdict = job.result.verdict if job.result else None
    peak = job.memory_peak_bytes
    code = verdict.exit_code if verdict else None
    return {
        "cpu_seconds": job.cpu_seconds,
        "memory_peak_bytes": peak,
        "memory_peak_mb": peak // MIB,
        "wall_time_ms": round(job.wall_usec(now) / 1000),
        # 0 before the end and -1 without an exit code: what the earlier system says
        "exit_code": code if code is not None else (-1 if job.is_over else 0),
        "environment": job.manifest.environment,
        "interpreter": job.manifest.interpreter,
    }


def usage(engine: Engine, job: Job) -> dict[str, object]:
    """What it used, and its exit code."""
    return _execution(job, engine.clock())


def _usage(job: Job, now: Moment) -> dict[str, object]:
    """The same figures under the names by which various clients look for them."""
    peak, cpu, wall = job.memory_peak_bytes, job.cpu_seconds, job.wall_usec(now)
    return {
        "metrics": {"cpu_seconds": cpu, "memory_mb": peak // MIB, "wall_seconds": wall / 1e6},
        "cpu_seconds": cpu,
        "memory_bytes": peak,
        "wall_time": round(wall / 1000),  # the page that reads it writes "ms" behind it
    }


# ---- its outputs


def outputs(job: Job) -> Iterator[bytes]:
    """/outputs, in pieces."""
    return _object(
        {
            "job_id": job.id,
            "status": job.state,
            "total_files": len(job.outputs),
            "truncated": bool(job.result and job.result.outputs.truncated),
        },
        files=_joined(b"[", (encode(shown(path)) for path in job.outputs), b"]"),
        outputs=_output_list(job),
    )


def _output_list(job: Job) -> Iterator[bytes]:
    found = job.outputs.values()
    return _joined(b"[", (encode(_output(job, output)) for output in found), b"]")


def _output_files(job: Job) -> Iterator[bytes]:
    """The same by name, as earlier clients read it."""
    entries = (
        encode({shown(output.path): {
            "size_bytes": output.size,
            "sha256": output.sha256,
            "type": type_of(output.path),
        }})[1:-1]
        for output in job.outputs.values()
    )  # fmt: skip
    return _joined(b"{", entries, b"}")


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
        "download_url": f"/download/{job.id}/{encoded(output.path)}",
    }


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
    return datetime.fromtimestamp(int(wall), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
