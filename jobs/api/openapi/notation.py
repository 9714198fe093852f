"""The parts of which operations.py puts the operations together, and the errors of all of them."""

from collections.abc import Iterable, Mapping

from jobs.api import wire
from jobs.api.openapi.shapes import COUNT, JOB_ID, TEXT, Schema, ref, words
from jobs.conf import Config

Object = dict[str, object]

# Every reason of an error, with the statuses that it comes with.
REASONS: dict[str, tuple[int, ...]] = {
    "invalid_request": (400,),
    "invalid_manifest": (400,),
    "invalid_upload": (400,),
    "not_owner": (401, 403),
    "foreign_origin": (403,),
    "unknown_job": (404,),
    "unknown_file": (404,),
    "unsigned": (404,),
    "unknown_path": (404,),
    "method_not_allowed": (405,),
    "timeout": (408,),
    "not_over": (409,),
    "in_flight": (409,),
    "stdin_closed": (409,),
    "stdin_position": (409,),
    "too_large": (413, 414, 431),
    "unsupported_upload": (415,),
    "invalid_range": (416,),
    "key_reused": (422,),
    "concurrent_jobs": (429,),
    "hourly_jobs": (429,),
    "cpu_quota": (429,),
    "held_bytes": (429,),
    "rate_limited": (429,),
    "internal": (500,),
    "queue_full": (503,),
    "stdin_full": (503,),
    "busy": (503,),
    "unavailable": (503,),
    "sandbox_error": (503,),
}
# Those of every operation: head, size and duration of a request are looked at before what it asks.
_ALWAYS = ("invalid_request", "timeout", "too_large", "internal")

STATUSES = {
    400: "The request is wrong",
    401: "There is no owner_token",
    403: "The owner_token is another job's, or another web site is behind the request",
    404: "There is no such thing, or it is forgotten: both look the same",
    405: "The path takes other methods",
    408: "The request took too long to arrive",
    409: "Not now, or not so",
    413: "The body is too large",
    414: "The URL is longer than 16 KiB",
    415: "The upload has a form that is not understood",
    416: "The range lies behind the end of the file",
    422: "The Idempotency-Key came with something else before",
    429: "Too much for one client, for now",
    431: "The head of the request is larger than 16 KiB, or has more than 100 headers",
    500: "A fault of the server",
    503: "Too much for the server, for now",
}
_RETRY: Object = {"$ref": "#/components/headers/Retry-After"}
_HEADERS = {
    401: ("WWW-Authenticate",),
    416: ("Content-Range",),
    503: ("Retry-After",),
}
_REFUSALS = "#/components/responses/"


def operation(
    name: str,
    tag: str,
    summary: str,
    answers: Mapping[int, Object],
    reasons: Iterable[str],
    description: str = "",
    **more: object,
) -> Object:
    """`answers` by status, beside the errors with these reasons."""
    found = {**_refusals({*_ALWAYS, *reasons}), **answers}
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        **({"description": description} if description else {}),
        **more,
        "responses": {str(status): found[status] for status in sorted(found)},
    }


def _refusals(reasons: set[str]) -> dict[int, Object]:
    """For each status that one of these reasons has, the answer; its name tells both."""
    found: dict[int, str] = {}
    for reason, statuses in REASONS.items():
        for status in statuses if reason in reasons else ():
            found[status] = f"{found.get(status, status)}.{reason}"
    return {status: {"$ref": _REFUSALS + name} for status, name in found.items()}


def refusals_in(operations: object) -> Object:
    """The answers, by name, that the operations refer to."""
    if not isinstance(operations, dict):
        return {}
    found: Object = {}
    for key, value in operations.items():
        if key == "$ref" and value.startswith(_REFUSALS):
            name = value.removeprefix(_REFUSALS)
            found[name] = _refusal(name)
        found |= refusals_in(value)
    return found


def _refusal(name: str) -> Object:
    status, *reasons = name.split(".")
    about: Schema = {"properties": {"reason": {"enum": reasons}}}
    if status in ("429", "503"):
        about["required"] = ["retry_after"]
    content: dict[str, Schema] = {wire.PROBLEM: {"allOf": [ref("Problem"), about]}}
    made = answer(STATUSES[int(status)], content, *_HEADERS.get(int(status), ()))
    if status == "429":
        about = {"description": "Not when it is refused while it comes.", "schema": TEXT}
        made["headers"] = {"Retry-After": _RETRY, "RateLimit": about, "RateLimit-Policy": about}
    return made


def answer(
    description: str,
    content: Mapping[str, Schema] | None = None,
    *headers: str,
    links: Mapping[str, Object] | None = None,
) -> Object:
    """A schema for each content type; the headers by their names."""
    made: Object = {"description": description}
    if headers:
        made["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    if content:
        made["content"] = {
            kind.partition(";")[0]: {"schema": schema} for kind, schema in content.items()
        }
    return made | ({"links": dict(links)} if links else {})


def json(name: str) -> dict[str, Schema]:
    return {wire.JSON: ref(name)}


def headers(config: Config) -> Object:
    """All of them by name; `required` where no answer that names it goes out without."""

    def header(description: str, schema: Schema, required: bool = True) -> Object:
        return {"description": description, "required": required, "schema": schema}

    limited = config.quotas
    ends = ", ".join(wire.END_HEADERS)
    return {
        "Retry-After": header("Seconds.", COUNT),
        "RateLimit": header(
            "CPU-seconds, jobs this hour and at once: what is left.", TEXT, limited
        ),
        "RateLimit-Policy": header("The same: what a client has.", TEXT, limited),
        "Location": header("The status of the job.", {"type": "string", "format": "uri-reference"}),
        "X-Sandrun-Job": header("The job_id.", JOB_ID),
        "X-Sandrun-Owner-Token": header("The owner_token.", TEXT),
        "Trailer": header(f"Behind what is printed come {ends}.", {"const": ends}, False),
        "X-Sandrun-Truncated": header(
            "Of a log as text: whether it lacks its middle.", words("true", "false"), False
        ),
        "ETag": header("A strong one; of an output its sha256.", _text('^"[0-9a-f]{64}"$')),
        "Accept-Ranges": header("One range at a time.", {"const": "bytes"}),
        "Content-Range": header("Which bytes of how many.", _text(r"^bytes (\*|\d+-\d+)/\d+$")),
        "Content-Disposition": header("Always an attachment.", _text("^attachment; ")),
        "WWW-Authenticate": header("What is asked for.", {"const": "Bearer"}),
    }


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": pattern}


def query(name: str, schema: Schema, description: str) -> Object:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def header(name: str, schema: Schema, description: str) -> Object:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def path(name: str, schema: Schema, description: str) -> Object:
    place = {"name": name, "in": "path", "required": True}
    return {**place, "description": description, "schema": schema}
