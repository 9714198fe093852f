"""The bodies that wire.py and live.py make. Every key is here: a test takes no answer that has
another one, or lacks one.
"""

from collections.abc import Mapping

from jobs.api import wire
from jobs.api.openapi.notation import REASONS
from jobs.api.openapi.shapes import (
    COUNT,
    FLAG,
    INSTANT,
    JOB_ID,
    NULL,
    NUMBER,
    SHA256,
    STATE,
    TEXT,
    Schema,
    array,
    either,
    record,
    ref,
    table,
    words,
)
from jobs.filetypes import TYPES
from jobs.receipt import PAYLOAD_TYPE
from sandbox.model import REASONS as ENDS

_PROBLEM = record(
    {
        "type": {"type": "string", "pattern": "^/problems/[a-z_]+$"},
        "title": TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": TEXT,
        "error": {**TEXT, "description": "A sentence that says what is wrong."},
        "reason": words(*REASONS),
        "details": {**TEXT, "description": "What helps."},
        "errors": array(record({"pointer": TEXT, "detail": TEXT})),
        "retry_after": {**COUNT, "description": "Seconds, as in the header Retry-After."},
        "cpu_available": NUMBER,
        "active_jobs": COUNT,
    },
    ("details", "errors", "retry_after", "cpu_available", "active_jobs"),
)

_QUOTAS = record(
    {
        "cpu_seconds_per_minute": NUMBER,
        "concurrent_jobs": COUNT,
        "jobs_per_hour": COUNT,
        "held_bytes": COUNT,
        "submit_rate": TEXT,
        "read_rate": TEXT,
    }
)
_RUNTIME: dict[str, Schema] = {
    "version": TEXT,
    "extensions": array(TEXT),
    "aliases": array(TEXT),
    "entrypoint": TEXT,
}
_SERVER = record(
    {
        "service": {"const": "sandrun"},
        "status": {"const": "running"},
        "description": TEXT,
        "privacy": TEXT,
        "limits": TEXT,
        "api": {"const": 1},
        "openapi": {"const": "/openapi.json"},
        "quotas": either(_QUOTAS, NULL),
        "interpreters": table(record(_RUNTIME)),
        "limits_detail": record(
            {
                name: COUNT
                for name in (
                    "timeout_seconds",
                    "memory_mb",
                    "upload_bytes",
                    "log_bytes",
                    "ttl_seconds",
                    "queue_seconds",
                    "slots",
                    "running_memory_mb",
                    "held_bytes",
                )
            }
        ),
    }
)
_WORKER_ID: Schema = {
    "type": "string",
    "pattern": "^[A-Za-z0-9+/]{43}=$",
    "description": "The public key (Ed25519) with which this server signs; null: it has none.",
}
_SIGNATURE: Schema = {"type": "string", "pattern": "^[A-Za-z0-9+/]{86}==$"}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
_ENVELOPE = record(
    {
        "payload": {**_BASE64, "description": "An in-toto Statement: see docs/receipts.md."},
        "payloadType": {"const": PAYLOAD_TYPE},
        "signatures": array(record({"keyid": _WORKER_ID, "sig": _SIGNATURE}), minItems=1),
    }
)
_HEALTH = record(
    {
        "status": words("healthy", "unhealthy"),
        "worker_id": either(_WORKER_ID, NULL),
        "sandbox": {"type": "object", "description": "The walls that stand around every job."},
        "degraded": array({**TEXT, "description": "A wall that this machine lacks."}),
    }
)
_STATS = record(
    {
        "your_quota": record(
            {
                "used": {**NUMBER, "description": "CPU-seconds, as limit and available."},
                "limit": NUMBER,
                "available": NUMBER,
                "active_jobs": COUNT,
                "can_submit": FLAG,
                "reason": {**TEXT, "description": "Why not; else empty."},
                "retry_after": COUNT,
                "concurrent_jobs": COUNT,
                "jobs_per_hour": COUNT,
                "jobs_left_this_hour": COUNT,
                "enforced": FLAG,
            }
        ),
        "system": record({"queue_length": COUNT, "active_jobs": COUNT, "slots": COUNT}),
    }
)
_ENVIRONMENTS = record(
    {
        "templates": array(TEXT),
        "stats": record(
            {
                name: COUNT
                for name in ("total_templates", "cached_environments", "total_uses")
                + ("disk_usage_mb",)
            }
        ),
        "environments": array(record({"name": TEXT, **_RUNTIME})),
    }
)

_POSITION: Schema = {
    "type": "integer",
    "minimum": 0,
    "description": "In line, from 1; 0: it does not wait.",
}
_TOKEN: Schema = {**TEXT, "description": "Who has it may cancel and delete the job."}
_SUBMITTED = record(
    {
        "job_id": JOB_ID,
        "status": {"const": "queued"},
        "owner_token": _TOKEN,
        "queue_position": _POSITION,
        "job_hash": SHA256,
        "expires_at": INSTANT,
        "warnings": array(TEXT),
    }
)
_BARE_STATUS: dict[str, Schema] = {
    "job_id": JOB_ID,
    "status": STATE,
    "queue_position": _POSITION,
    "execution_metadata": record(
        {
            "cpu_seconds": NUMBER,
            "memory_peak_bytes": COUNT,
            "memory_peak_mb": COUNT,
            "wall_time_ms": COUNT,
            "exit_code": {"type": "integer", "description": "0 before the end, -1: there is none."},
            "environment": TEXT,
            "interpreter": TEXT,
        }
    ),
    "job_hash": {
        **SHA256,
        "description": "Over all that decides what runs: every file with its name and mode, the "
        "program's words, interpreter and limits.",
    },
    "worker_metadata": record(
        {
            "worker_id": either(_WORKER_ID, NULL),
            "signature": {
                **either(_SIGNATURE, NULL),
                "description": "That of the receipt, or null.",
            },
        }
    ),
    "metrics": record({"cpu_seconds": NUMBER, "memory_mb": COUNT, "wall_seconds": NUMBER}),
    "cpu_seconds": NUMBER,
    "memory_bytes": COUNT,
    "wall_time": {**COUNT, "description": "Milliseconds."},
    "reason": {
        **either(words(*ENDS), NULL),
        "description": "Why it failed; null before the end, and when it is completed.",
    },
    "signal": either(COUNT, NULL),
    "stage": {
        **either(words("compile", "run"), NULL),
        "description": "What ended it: a compiler, or the program.",
    },
    "limits_hit": array(TEXT),
    "error": {**TEXT, "description": "A sentence, when it failed by a fault of the server."},
    "walls_missing": array(TEXT),
    "warnings": array(TEXT),
    "created_at": INSTANT,
    "expires_at": INSTANT,
}
_STATUS_OPTIONAL = ("error", "walls_missing")
_FILE: dict[str, Schema] = {
    "size_bytes": COUNT,
    "sha256": SHA256,
    "type": words(*TYPES, "other"),
}
_RECEIPT: Schema = {
    **either(ref("Envelope"), NULL),
    "description": "Signed by this server; null before the end, and where it did not sign.",
}
_STATUS: dict[str, Schema] = {
    **_BARE_STATUS,
    "receipt": _RECEIPT,
    "output_files": table(record(_FILE)),
}
_OUTPUT = record(
    {
        "name": TEXT,
        "path": TEXT,
        "size": COUNT,
        "size_formatted": TEXT,
        "mime_type": TEXT,
        "download_url": {"type": "string", "format": "uri-reference"},
        **_FILE,
    }
)
_LOGS = record(
    {
        "stdout": {**TEXT, "description": "Bytes that are not UTF-8 as U+FFFD."},
        "stderr": TEXT,
        "truncated": FLAG,
        "stdout_bytes": COUNT,
        "stderr_bytes": COUNT,
        "stdout_dropped_bytes": COUNT,
        "stderr_dropped_bytes": COUNT,
    }
)
_WHOLE: dict[str, Schema] = {
    "owner_token": {**_TOKEN, "description": "To whoever submitted it."},
    "logs": ref("Logs"),
    "outputs": array(ref("Output")),
}
_OUTPUTS = record(
    {
        "job_id": JOB_ID,
        "status": STATE,
        "total_files": COUNT,
        "truncated": {**FLAG, "description": "There were more than are kept."},
        "files": array({**TEXT, "description": "A path."}),
        "outputs": array(ref("Output")),
    }
)

# ---- who watches


_RESULT: dict[str, Schema] = {
    "receipt": {
        **_RECEIPT,
        "description": "The receipt; null where it is longer than "
        f"{wire.RESULT_BYTES // 1024} KiB too: then it is at /receipt.",
    },
    "outputs": array(
        ref("Output"), description=f"The first {wire.RESULT_BYTES // 1024} KiB of them."
    ),
    "total_files": COUNT,
    "outputs_complete": FLAG,
}


def _frame(kind: str, fields: Mapping[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    return record({"seq": COUNT, "type": {"const": kind}, **fields}, optional)


_SAID: dict[str, Schema] = {
    "t": {**NUMBER, "description": "Seconds after the start."},
    "data": TEXT,
    "base64": {
        "type": "string",
        "contentEncoding": "base64",
        "description": "Instead of data, where it is no UTF-8.",
    },
}
_FRAME: Schema = {
    "description": "One message of a WebSocket that speaks sandrun.v1, one line of NDJSON, or the "
    "data of one event. seq is the position to come back with (?since=).",
    "oneOf": [
        _frame("stdout", _SAID, ("data", "base64")),
        _frame("stderr", _SAID, ("data", "base64")),
        _frame("gap", {"t": NUMBER, "stream": words("stdout", "stderr"), "bytes": COUNT}),
        _frame("status", {"status": words("queued", "running"), "queue_position": _POSITION}),
        _frame(
            "metrics",
            {
                "cpu_seconds": NUMBER,
                "memory_bytes": COUNT,
                "memory_peak_bytes": COUNT,
                "wall_seconds": NUMBER,
                "limits": record(
                    {
                        "cpu_seconds": either(NUMBER, NULL),
                        "memory_bytes": COUNT,
                        "wall_seconds": COUNT,
                    }
                ),
            },
        ),
        _frame(
            "files",
            {
                "advisory": {"const": True, "description": "The job says so; /outputs knows."},
                "files": array(record({"path": TEXT, "size": COUNT})),
                "more": {**COUNT, "description": "That were seen beside them."},
            },
        ),
        _frame("ping", {}),
        _frame("end", {"result": ref("Result")}),
        _frame("gone", {}),
    ],
}


ANSWERS: dict[str, Schema] = {
    "Problem": _PROBLEM,
    "Server": _SERVER,
    "Health": _HEALTH,
    "Stats": _STATS,
    "Environments": _ENVIRONMENTS,
    "Submitted": _SUBMITTED,
    "Status": record(_STATUS, _STATUS_OPTIONAL),
    "Whole": record({**_STATUS, **_WHOLE}, (*_STATUS_OPTIONAL, "owner_token")),
    "Result": record({**_BARE_STATUS, **_RESULT}, _STATUS_OPTIONAL),
    "Logs": _LOGS,
    "Outputs": _OUTPUTS,
    "Output": _OUTPUT,
    "Envelope": _ENVELOPE,
    "Taken": record(
        {
            "job_id": JOB_ID,
            "taken": {**COUNT, "description": "Bytes that have come to its stdin."},
            "waiting": {**COUNT, "description": "Of them, those that wait for room in its pipe."},
        }
    ),
    "Deleted": record({"job_id": JOB_ID, "deleted": {"const": True}}),
    "Frame": _FRAME,
}
