"""What schemathesis is told beside the document, when tests/contract/test_openapi.py runs it: jobs
that exist, in every state of their life; the owner's token; content types to ask for. Chance would
find none of them, and every answer about a job would be 404.
"""

import http.client
import itertools
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import TestPhase

JOB_SECONDS = 200  # then another one is finished: a job is forgotten 300 s after its end

PRINTS = "import os, sys; os.mkdir('a b')\nopen('a b/ü.txt', 'w').write('42'); print('one')\n"
PRINTS += "open('a b/ü.html', 'w').write('<p>42')\n"
RUNS = f"{PRINTS}sys.stdout.flush(); import time; time.sleep(0.1); sys.exit('two')\n"


class Job(NamedTuple):
    id: str
    token: str


class Jobs:
    """Jobs of ours on the server, made as they are needed."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}  # of every job that we know
        self._finished: tuple[float, Job] | None = None

    def finished(self) -> Job:
        """One that is over; the same for a while."""
        if self._finished is None or time.monotonic() - self._finished[0] > JOB_SECONDS:
            self._finished = time.monotonic(), self.submit(PRINTS, "?wait=60")
        return self._finished[1]

    def running(self) -> Job:
        return self.submit(RUNS)

    def queued(self) -> Job:
        """The last of more than run at once."""
        return [self.submit(RUNS) for _ in range(SLOTS + 1)][-1]

    def submit(self, code: str, query: str = "") -> Job:
        body = json.dumps({"files": {"main.py": code}})
        return self.know(ask("POST", f"/submit{query}", body, {"Content-Type": "application/json"}))

    def delete(self, job: Job) -> None:
        ask("DELETE", f"/jobs/{job.id}", "", {"Authorization": f"Bearer {job.token}"})

    def know(self, made: Mapping[str, Any]) -> Job:
        self.tokens[made["job_id"]] = made["owner_token"]
        return Job(made["job_id"], made["owner_token"])


def ask(method: str, path: str, body: str, headers: dict[str, str]) -> Any:
    """The JSON of an answer that must be 200."""
    address = urlsplit(os.environ["CONTRACT_URL"])
    assert address.hostname
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=90)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    made = json.loads(answer.read())
    connection.close()
    assert answer.status == 200, made
    return made


SLOTS = 2  # of the server that is asked
JOBS = Jobs()
ENDS_IT = ("DELETE /jobs/{job_id}", "POST /jobs/{job_id}/cancel")
FILE = "a b/ü.txt"
PAGE = "a b/ü.html"

# What is taken in turn.
STATES = (JOBS.finished, JOBS.running, *[JOBS.finished] * 4, JOBS.queued, JOBS.finished)
IS_OWNER = (True, True, False)
ACCEPTS = ("*/*", "text/html", "application/json", "text/plain", "application/x-ndjson")
ACCEPTS += ("text/event-stream",)
KEYS = ("again", None, None)  # mostly one that nobody has used
FOLLOWS: tuple[dict[str, object], ...] = (
    {},
    {"follow": 1},
    {"follow": 1, "format": "ndjson"},
    {"follow": 1, "format": "sse"},
)
CONDITIONS: tuple[dict[str, str], ...] = (
    {},
    {"Range": "bytes=0-0"},
    {"Range": "bytes=99-"},
    {"If-None-Match": "*"},
    {"Range": "bytes=-1", "If-Range": '"another"'},
)

_turns: dict[tuple[str, int], Iterator[Any]] = {}
_seen: set[str] = set()


def turn(name: str, options: tuple[Any, ...]) -> Any:
    """The next of them, for that operation."""
    return next(_turns.setdefault((name, id(options)), itertools.cycle(options)))


@schemathesis.hook
def before_load_schema(context: object, raw_schema: dict[str, Any]) -> None:
    """Take no key that the document does not name. Clients are told nothing of the kind: one more
    key breaks none of them.
    """
    for name, schema in raw_schema["components"]["schemas"].items():
        if name not in ("Manifest", "Upload", "Form"):
            _close(schema)


def _close(schema: Any) -> None:
    if isinstance(schema, dict):
        if "properties" in schema and "required" in schema:
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            _close(value)
    elif isinstance(schema, list):
        for value in schema:
            _close(value)


@schemathesis.deserializer("application/x-ndjson")
def ndjson(context: object, response: Any) -> list[Any]:
    return [json.loads(line) for line in response.content.splitlines()]


@schemathesis.hook
def before_call(context: object, case: Any, kwargs: dict[str, Any]) -> None:
    """Every operation comes to jobs in every state, with the owner's token and with another one."""
    name = f"{case.method} {case.operation.path}"
    if is_valid(case, "header"):
        case.headers.setdefault("Accept", turn(name, ACCEPTS))
        if "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = turn(name, KEYS) or uuid.uuid4().hex
    if is_linked(case) and is_valid(case, "body") and case.media_type == "application/json":
        case.body = {"files": {"main.py": PRINTS}}  # or no job comes of it, and no link leads on
    job_id = (case.path_parameters or {}).get("job_id")
    if job_id is None or not is_valid(case, "path"):
        return
    if not (is_linked(case) and job_id in JOBS.tokens):
        takes = name in ENDS_IT or "delete" in (case.query or {})
        job_id = (JOBS.running if takes else turn(name, STATES))().id
        case.path_parameters = {**case.path_parameters, "job_id": job_id}
    if is_valid(case, "header") and turn(name, IS_OWNER):
        case.headers["Authorization"] = f"Bearer {JOBS.tokens[job_id]}"
    if name == "GET /logs/{job_id}" and is_valid(case, "query"):
        case.query = {**(case.query or {}), **turn(name, FOLLOWS)}
    if name == "GET /download/{job_id}/{path}" and is_valid(case, "header"):
        if condition := turn(name, CONDITIONS):
            job_id = JOBS.finished().id
            case.path_parameters = {"job_id": job_id, "path": FILE}
            for other in ("Range", "If-Range", "If-None-Match"):
                case.headers.pop(other, None)  # or it would say which answer comes
            case.headers.update(condition)
    if name == "GET /preview/{job_id}/{path}" and not is_linked(case):
        if shown := turn(name, (PAGE, FILE, None)):
            case.path_parameters = {"job_id": JOBS.finished().id, "path": shown}


def is_valid(case: Any, place: str) -> bool:
    """Whether that part of it is as the document allows."""
    return not (case.meta and case.meta.is_negative_at(ParameterLocation(place)))


def is_linked(case: Any) -> bool:
    """Whether what it is about may come from an earlier answer."""
    return bool(case.meta and case.meta.phase.name == TestPhase.STATEFUL)


@schemathesis.hook
def after_call(context: object, case: Any, response: Any) -> None:
    """Know the jobs that chance made, and tell the test what was answered where."""
    kind = response.headers.get("content-type", [""])[0].partition(";")[0]
    if case.operation.path == "/submit" and response.status_code == 200:
        job = JOBS.know(response.json())
        if not is_linked(case):
            JOBS.delete(job)  # the slots are for those that somebody asks about
    seen = f"{case.method} {case.operation.path} {response.status_code} {kind}".strip()
    if seen not in _seen:
        _seen.add(seen)
        with open(os.environ["CONTRACT_SEEN"], "a") as file:
            print(seen, file=file)


@schemathesis.check
def owner_only(ctx: object, response: Any, case: Any) -> None:
    """What ends a job was done for whoever sent its owner_token."""
    name = f"{case.method} {case.operation.path}"
    if name in ENDS_IT and response.status_code == 200:
        sent = response.request.headers.get("Authorization")
        assert sent == f"Bearer {JOBS.tokens[case.path_parameters['job_id']]}"
