"""The operations of the API, by path: one function for each group of jobs/api/urls.py."""

from jobs import archives
from jobs.api import live, preview, uploads, wire
from jobs.api.openapi.notation import (
    REASONS,
    Object,
    answer,
    header,
    json,
    operation,
    path,
    query,
)
from jobs.api.openapi.shapes import BINARY, JOB_ID, TEXT, Schema, ref, words
from jobs.api.parameters import WAIT_SECONDS
from jobs.conf import MIB, Config
from jobs.receipt import MEDIA_TYPE

_RATED = ("rate_limited",)
_JOB = (*_RATED, "unknown_job", "unknown_path")
_UPLOAD = (
    *(*_RATED, "foreign_origin", "invalid_manifest", "invalid_upload", "unsupported_upload"),
    *("concurrent_jobs", "hourly_jobs", "cpu_quota", "held_bytes"),
    *("queue_full", "busy", "unavailable", "sandbox_error", "in_flight", "key_reused"),
)
_QUOTA = ("RateLimit", "RateLimit-Policy")

_ID = path("job_id", JOB_ID, "From the submission.")
_WAIT = query(
    "wait",
    {"type": "integer", "minimum": 0, "default": 0},
    f"Seconds to wait for the job's end; more than {WAIT_SECONDS} are {WAIT_SECONDS}.",
)
_KEY = header(
    "Idempotency-Key",
    {"type": "string", "pattern": uploads.KEY},
    "The same again with the same key, from the same address, is the same job; while it is "
    "remembered. Who has one may hang up and come back. A random UUID is a good one.",
)
_POSITION: Schema = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
_SWITCH: Schema = {"type": "integer", "enum": [0, 1], "default": 0}
_TAG = header("If-None-Match", TEXT, "An ETag.")
_LINES: Schema = {"type": "array", "items": ref("Frame"), "description": "One a line."}
_EVENTS: Schema = {
    "type": "object",
    "description": "One event.",
    "properties": {
        "id": {"type": "string", "description": "The seq."},
        "event": {"type": "string", "description": "The type."},
        "data": {
            "type": "string",
            "contentMediaType": wire.JSON,
            "contentSchema": ref("Frame"),
        },
    },
}
_PRINTED: dict[str, Schema] = {wire.TEXT: BINARY, live.NDJSON: _LINES, live.EVENTS: _EVENTS}


def paths(config: Config, manifest: Schema) -> Object:
    return {
        **_server(),
        "/submit": {"post": _submit(config)},
        "/run": {"post": _run(manifest)},
        **_job(),
        **_receipt(),
        **_download(),
        **_preview(),
        **_owner(),
        "/stream/{job_id}": {"get": _socket("stream")},
        "/logs/{job_id}/stream": {"get": _socket("logs_stream")},
    }


def _server() -> Object:
    about = {**json("Server"), "text/html": TEXT}
    document: dict[str, Schema] = {wire.JSON: {"type": "object"}}
    return {
        "/": {
            "get": operation(
                *("server", "server", "What this server is"),
                {200: answer("JSON; the page for who accepts text/html", about)},
                _RATED,
            )
        },
        "/health": {
            "get": operation(
                *("health", "server", "Whether it can run jobs, and behind which walls"),
                {
                    200: answer("It can", json("Health")),
                    503: answer("It cannot: the sandbox is gone", json("Health")),
                },
                (),
            )
        },
        "/stats": {
            "get": operation(
                *("stats", "server", "Your quota, and how busy the server is"),
                {200: answer("Now", json("Stats"), *_QUOTA)},
                _RATED,
            )
        },
        "/environments": {
            "get": operation(
                *("environments", "server", "The languages, with versions"),
                {200: answer("Those that work here", json("Environments"))},
                _RATED,
            )
        },
        "/problems": {
            "get": operation(
                *("problems", "server", "What each reason of an error means"),
                {200: answer("A paragraph for each", {wire.TEXT: TEXT})},
                _RATED,
            )
        },
        "/problems/{reason}": {
            "get": operation(
                *("problem", "server", "What an error means and what to do: its type"),
                {200: answer("In a few sentences", {wire.TEXT: TEXT})},
                (*_RATED, "unknown_path"),
                parameters=[path("reason", words(*REASONS), "The reason of an error.")],
            )
        },
        "/openapi.json": {
            "get": operation(
                *("openapi", "server", "This document, with the limits of this server"),
                {200: answer("It", document, "ETag"), 304: answer("You have it", None, "ETag")},
                _RATED,
                parameters=[_TAG],
            )
        },
    }


# ---- a job's beginning


_HELLO = {
    "files": {"main.py": "print(6 * 7)\nopen('answer.txt', 'w').write('42')\n"},
    "manifest": {"entrypoint": "main.py", "timeout": 10},
}


def _link(operation_id: str, description: str, **parameters: str) -> Object:
    found = {"job_id": "$response.body#/job_id", **parameters}
    return {"operationId": operation_id, "description": description, "parameters": found}


_LINKS = {
    "status": _link("status", "How it is"),
    "logs": _link("logs", "What it prints"),
    "outputs": _link("outputs", "What it made"),
    "archive": _link("download_all", "All that it made"),
    "cancel": _link("cancel", "With the owner_token"),
    "delete": _link("delete", "With the owner_token"),
}


def _submit(config: Config) -> Object:
    taken: Schema = {"anyOf": [ref("Submitted"), ref("Whole")]}
    return operation(
        *("submit", "submission", "Take a job"),
        {
            200: answer(
                "It is in line; with wait: it is over, or as it is after so long",
                *({wire.JSON: taken}, "Location", *_QUOTA),
                links=_LINKS,
            )
        },
        _UPLOAD,
        f"At most {config.upload_bytes / MIB:g} MB and 1000 loose files. Who hangs up while "
        "waiting takes the job along.",
        parameters=[_WAIT, _KEY],
        requestBody={
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": ref("Form"),
                    "encoding": {
                        "files": {"contentType": "application/octet-stream"},
                        "manifest": {"contentType": wire.JSON},
                    },
                },
                wire.JSON: {"schema": ref("Upload"), "example": _HELLO},
            },
        },
    )


def _run(manifest: Schema) -> Object:
    known = manifest["properties"]
    assert isinstance(known, dict)
    asked = [
        query(name, schema, schema["description"])
        for name, schema in known.items()
        if name not in ("entrypoint", "env")
    ]
    told = ("Location", "X-Sandrun-Job", "X-Sandrun-Owner-Token", *_QUOTA)
    return operation(
        *("run", "submission", "Run the body, and answer with what it prints"),
        {
            200: answer(
                "What it prints, as it prints it, or everything after the end",
                *({**_PRINTED, **json("Whole")}, "Trailer", *told),
            ),
            202: answer("It is not over by then", json("Whole"), *told),
        },
        _UPLOAD,
        "The query is the manifest (?interpreter=node&args=a&args=b&timeout=5). Without "
        "interpreter or environment the #! line of the code tells, else it is Python. Both streams "
        "come in the order of time: as text, or as Frames for who accepts application/x-ndjson or "
        f"text/event-stream; behind them the trailers {', '.join(wire.END_HEADERS)}. For who "
        "accepts application/json, or with wait: everything, after the end. Who hangs up takes the "
        "job along.",
        parameters=[*asked, _WAIT, _KEY],
        requestBody={
            "required": True,
            "description": "Code, whatever its Content-Type says.",
            "content": {
                "application/octet-stream": {
                    "schema": {**BINARY, "minLength": 1},
                    "example": "print(6 * 7)",
                }
            },
        },
    )


# ---- one job


def _job() -> Object:
    status: dict[str, Schema] = {wire.JSON: {"anyOf": [ref("Status"), ref("Whole")]}}
    first = {"download": _link("download", "The first", path="$response.body#/outputs/0/path")}
    return {
        "/status/{job_id}": {
            "get": operation(
                *("status", "job", "How the job is"),
                {200: answer("With wait: its logs and outputs too", status)},
                _JOB,
                "Ask until status is completed (exit code 0) or failed; there is no other end.",
                parameters=[_ID, _WAIT],
            )
        },
        "/logs/{job_id}": {
            "get": operation(
                *("logs", "job", "What the job printed; with follow=1: prints"),
                {
                    200: answer(
                        "JSON; for who accepts text/plain the bytes, stdout then stderr",
                        *({**json("Logs"), **_PRINTED}, "X-Sandrun-Truncated"),
                    )
                },
                _JOB,
                "With follow=1 both streams in the order of time, while they come, up to the end "
                "of the job: as text, or as Frames for who accepts application/x-ndjson or "
                "text/event-stream.",
                parameters=[
                    _ID,
                    query("stream", words("stdout", "stderr"), "The bytes of one of them."),
                    query("follow", _SWITCH, "1: stay, and hear what comes."),
                    query("format", words(*live.FORMATS), "With follow=1, instead of Accept."),
                    query("since", _POSITION, "With follow=1: the seq that was read last."),
                    header("Last-Event-ID", _POSITION, "The same, as browsers say it."),
                ],
            )
        },
        "/outputs/{job_id}": {
            "get": operation(
                *("outputs", "job", "The files that the job made"),
                {200: answer("None before its end", json("Outputs"), links=first)},
                _JOB,
                parameters=[_ID],
            )
        },
    }


def _receipt() -> Object:
    return {
        "/receipt/{job_id}": {
            "get": operation(
                *("receipt", "job", "What this server signed about the job, once it is over"),
                {200: answer("A DSSE envelope", {MEDIA_TYPE: ref("Envelope")})},
                (*_JOB, "unsigned", "not_over"),
                parameters=[_ID],
            )
        }
    }


def _download() -> Object:
    archive: dict[str, Schema] = {one.content_type: BINARY for one in archives.FORMATS.values()}
    content: dict[str, Schema] = {"*/*": BINARY}
    about = ("ETag", "Accept-Ranges", "Content-Disposition")
    return {
        "/download/{job_id}": {
            "get": operation(
                *("download_all", "job", "All outputs as one archive"),
                {200: answer("The archive", archive, "Content-Disposition")},
                (*_JOB, "not_over", "not_owner"),
                parameters=[
                    _ID,
                    query("format", words(*archives.FORMATS), "tar.gz without it."),
                    query("delete", _SWITCH, "1, with the owner_token: and it is forgotten."),
                ],
                security=[{}, {"ownerToken": []}],
            )
        },
        "/download/{job_id}/{path}": {
            "get": operation(
                *("download", "job", "One output, or a part of it"),
                {
                    200: answer("All of it; the ETag is its sha256", content, *about),
                    206: answer("The range", content, "Content-Range", *about),
                    304: answer("You have it", None, "ETag"),
                },
                (*_JOB, "unknown_file", "invalid_range"),
                "Its type is never one that a browser runs.",
                parameters=[
                    _ID,
                    path("path", {**TEXT, "minLength": 1}, "From /outputs; with its slashes."),
                    header("Range", TEXT, "One range of bytes; several are all of it."),
                    header("If-Range", TEXT, "An ETag: if it is another, all of it."),
                    _TAG,
                ],
            )
        },
    }


def _preview() -> Object:
    shown: dict[str, Schema] = {preview.HTML: BINARY}
    return {
        "/preview/{job_id}/{path}": {
            "get": operation(
                *("preview", "job", "One output that is HTML, to be shown in a frame"),
                {200: answer("As text/html, of no origin, which can fetch nothing", shown)},
                (*_JOB, "unknown_file"),
                "For the page, in an iframe with sandbox=allow-scripts, and for pages of invited "
                f"sites. At most {preview.PREVIEW_BYTES // MIB} MB of .html or .htm.",
                parameters=[
                    _ID,
                    path("path", {**TEXT, "minLength": 1}, "From /outputs; with its slashes."),
                ],
            )
        }
    }


def _owner() -> Object:
    reasons = (*_JOB, "foreign_origin", "not_owner")
    owner = [{"ownerToken": list[str]()}]
    return {
        "/jobs/{job_id}/cancel": {
            "post": operation(
                *("cancel", "owner", "End the job"),
                {200: answer("Its status then; one that is over stays as it is", json("Status"))},
                reasons,
                parameters=[_ID],
                security=owner,
            )
        },
        "/jobs/{job_id}/stdin": {
            "post": operation(
                *("stdin", "owner", "Send more to the stdin of a job with stdin_live"),
                {200: answer("It is on its way", json("Taken"))},
                (*reasons, "stdin_closed", "stdin_position", "stdin_full", "held_bytes", "busy"),
                "All of it or nothing is taken.",
                parameters=[
                    _ID,
                    query("end", _SWITCH, "1: nothing follows."),
                    query("at", _POSITION, "How many bytes have come before: else it is refused."),
                ],
                requestBody={
                    "description": f"At most {uploads.STDIN_BYTES // 1024} KiB.",
                    "content": {"application/octet-stream": {"schema": BINARY}},
                },
                security=owner,
            )
        },
        "/jobs/{job_id}": {
            "delete": operation(
                *("delete", "owner", "End the job and forget it, now"),
                {200: answer("It is gone", json("Deleted"))},
                reasons,
                parameters=[_ID],
                security=owner,
            )
        },
    }


def _socket(name: str) -> Object:
    return operation(
        *(name, "job", "The same as follow=1, as a WebSocket"),
        {101: answer("One Frame a message for who offers the subprotocol sandrun.v1")},
        ("foreign_origin", "unknown_path"),
        "Without the subprotocol the words of an earlier server. Close codes: 1000 after the end, "
        "4404 no such job, 4410 gone, 4400 a wrong request, 4429 too many. The message "
        '{"type": "cancel", "owner_token": "..."} ends the job, {"type": "stdin", "owner_token": '
        '"...", "data": "..."} goes to its stdin. Without a handshake: 404.',
        parameters=[_ID, query("since", _POSITION, "The seq that was read last.")],
    )
