"""The server keeps to its OpenAPI document: schemathesis, with data that the document allows and
with data that it forbids, finds no answer that is not in it and none that says 5xx. Longer, with
other data each time: CONTRACT_EXAMPLES=300 script/test tests/contract
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis

from tests.journeys.server import REPOSITORY, Answer, Server, make_key

EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "0"))
FREE = {
    "SANDRUN_CONCURRENT_JOBS": 100_000,
    "SANDRUN_JOBS_PER_HOUR": 1_000_000,
    "SANDRUN_CPU_SECONDS_PER_MINUTE": 1_000_000,
    "SANDRUN_SUBMIT_RATE": "1000000/m",
    "SANDRUN_READ_RATE": "1000000/m",
}
# What must have been answered, or nothing was tried but what does not exist.
DEEP = """
GET / 200 application/json
GET / 200 text/html
GET /health 200 application/json
GET /stats 200 application/json
GET /environments 200 application/json
POST /submit 200 application/json
POST /submit 400 application/problem+json
POST /submit 422 application/problem+json
POST /run 200 text/plain
POST /run 200 application/json
POST /run 400 application/problem+json
GET /status/{job_id} 200 application/json
GET /status/{job_id} 400 application/problem+json
GET /status/{job_id} 404 application/problem+json
GET /logs/{job_id} 200 application/json
GET /logs/{job_id} 200 text/plain
GET /logs/{job_id} 200 application/x-ndjson
GET /logs/{job_id} 200 text/event-stream
GET /logs/{job_id} 400 application/problem+json
GET /outputs/{job_id} 200 application/json
GET /receipt/{job_id} 200 application/vnd.dsse.envelope.v1+json
GET /receipt/{job_id} 404 application/problem+json
GET /receipt/{job_id} 409 application/problem+json
GET /download/{job_id} 200 application/gzip
GET /download/{job_id} 200 application/zip
GET /download/{job_id} 400 application/problem+json
GET /download/{job_id} 409 application/problem+json
GET /download/{job_id}/{path} 200 text/plain
GET /download/{job_id}/{path} 206 text/plain
GET /download/{job_id}/{path} 304
GET /download/{job_id}/{path} 404 application/problem+json
GET /download/{job_id}/{path} 416 application/problem+json
GET /preview/{job_id}/{path} 200 text/html
GET /preview/{job_id}/{path} 404 application/problem+json
POST /jobs/{job_id}/cancel 200 application/json
POST /jobs/{job_id}/cancel 401 application/problem+json
POST /jobs/{job_id}/stdin 409 application/problem+json
POST /jobs/{job_id}/stdin 401 application/problem+json
DELETE /jobs/{job_id} 200 application/json
DELETE /jobs/{job_id} 401 application/problem+json
"""


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = Server("--worker-key", make_key(tmp_path / "key.pem"), env=request.param)
    try:
        yield server
    finally:
        assert server.end() == 0, server.banner


def settings(**values: object) -> pytest.MarkDecorator:
    """The server of a test: one that limits nobody, but for these."""
    env = FREE | {f"SANDRUN_{name.upper()}": value for name, value in values.items()}
    return pytest.mark.parametrize("server", [env], indirect=True, ids=[""])


# A job of at most two seconds, two at once: none of those that chance makes keeps others waiting.
@settings(slots=2, timeout_seconds=2)
def test_schemathesis_finds_no_undocumented_answer_and_no_5xx(
    server: Server, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{server.port}"
    seen = tmp_path / "seen"
    how = [f"--max-examples={EXAMPLES}"] if EXAMPLES else ["--max-examples=5", "--seed=1"]
    done = subprocess.run(
        [Path(sys.executable).with_name("schemathesis")]
        + ["--config-file", str(REPOSITORY / "tests/contract/schemathesis.toml")]
        + ["run", f"{url}/openapi.json", "--no-color", "--continue-on-failure", *how],
        cwd=tmp_path,
        env={**os.environ, "CONTRACT_URL": url, "CONTRACT_SEEN": str(seen)},
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(DEEP.strip().splitlines()) - set(seen.read_text().splitlines()) == set()


# ---- what chance does not come to


class Contract:
    """Requests by hand, each answer checked against the document that this server serves."""

    def __init__(self, server: Server) -> None:
        self.port = server.port
        self.schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")

    def ask(
        self, method: str, template: str, body: bytes | str = b"", path: str = "", **headers: str
    ) -> Answer:
        """What is answered to `path`, which else is the template."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path or template, body or None, fields)
        raw = connection.getresponse()
        answer = Answer(raw.status, raw.read(), {k.lower(): v for k, v in raw.getheaders()})
        connection.close()
        response = schemathesis.Response(
            status_code=answer.status,
            headers={name: [value] for name, value in answer.headers.items()},
            content=answer.body,
            request=requests.Request(method, f"http://host{path or template}").prepare(),
            elapsed=0.0,
            verify=False,
        )
        operation = self.schema[template][method]
        told = operation.definition.raw["responses"]
        assert str(answer.status) in told, (method, template, answer)
        operation.validate_response(response)
        return answer

    def refused(self, *request: Any, **headers: str) -> tuple[int, str]:
        """Status and reason of what is answered to it."""
        response = self.ask(*request, **headers)
        assert response.headers["content-type"] == "application/problem+json"
        return response.status, response.json["reason"]

    def submit(self, **files: str) -> tuple[int, str]:
        response = self.ask("POST", "/submit", json.dumps({"files": files}), **JSON)
        return response.status, response.json.get("reason", "")


JSON = {"Content_Type": "application/json"}
LATE = "import time; time.sleep(30)"


@settings(upload_bytes=64 * 1024, body_seconds=0.3)
def test_what_is_refused_before_it_is_read_is_in_the_document(server: Server) -> None:
    contract = Contract(server)
    assert contract.refused("GET", "/", Host="elsewhere") == (400, "invalid_request")
    for method, path in (("POST", "/run"), ("POST", "/submit"), ("DELETE", "/jobs/{job_id}")):
        foreign = {"Origin": "http://elsewhere"}
        assert contract.refused(method, path, **foreign) == (403, "foreign_origin")
        large = {"Content_Length": "65537"}
        assert contract.refused(method, path, **large) == (413, "too_large")
        slow = {"Content_Length": "65536"}
        assert contract.refused(method, path, **slow) == (408, "timeout")
    for path in ("/", "/health", "/openapi.json", "/status/{job_id}"):
        assert contract.refused("GET", path, b"", f"{path}?{'x' * 20_000}") == (414, "too_large")
        assert contract.refused("GET", path, Cookie="x" * 20_000) == (431, "too_large")


@settings()
def test_the_document_is_had_once(server: Server) -> None:
    contract = Contract(server)
    whole = contract.ask("GET", "/openapi.json")
    etag = whole.headers["etag"]
    assert whole.json["openapi"] == "3.1.1" and server.get("/")["openapi"] == "/openapi.json"
    same = contract.ask("GET", "/openapi.json", If_None_Match=etag)
    assert (same.status, same.body) == (304, b"") and "content-type" not in same.headers
    _, body, headers = server.request("HEAD", "/openapi.json")
    assert (headers["etag"], body) == (etag, b"")
    properties = whole.json["components"]["schemas"]["Manifest"]["properties"]
    assert properties["timeout"]["maximum"] == server.get("/")["limits_detail"]["timeout_seconds"]


@settings(read_rate="2/m", submit_rate="2/m")
def test_who_asks_too_often_is_in_the_document(server: Server) -> None:
    contract = Contract(server)  # asks once
    contract.ask("GET", "/openapi.json")
    assert contract.refused("GET", "/openapi.json") == (429, "rate_limited")
    for _ in range(2):
        contract.ask("POST", "/run", "print(1)")
    assert contract.refused("POST", "/run", "print(1)") == (429, "rate_limited")


@settings(slots=1, queue_length=1)
def test_a_full_queue_is_in_the_document(server: Server) -> None:
    contract = Contract(server)
    heard = [contract.submit(**{"main.py": LATE})[1] for _ in range(3)]
    assert heard == ["", "", "queue_full"]


@settings(concurrent_jobs=1, jobs_per_hour=2, client_held_bytes=1 << 20)
def test_the_quotas_are_in_the_document(server: Server) -> None:
    contract = Contract(server)
    assert contract.submit(**{"main.py": "1", "x": "x" * (1 << 20)}) == (429, "held_bytes")
    for _ in range(2):
        taken = contract.ask("POST", "/submit", json.dumps({"files": {"main.py": LATE}}), **JSON)
        assert taken.status == 200
        assert contract.submit(**{"main.py": LATE}) == (429, "concurrent_jobs")
        owner = {"Authorization": f"Bearer {taken.json['owner_token']}"}
        place = f"/jobs/{taken.json['job_id']}/cancel"
        assert contract.ask("POST", "/jobs/{job_id}/cancel", b"", place, **owner).status == 200
    assert contract.submit(**{"main.py": LATE}) == (429, "hourly_jobs")


@settings(cpu_seconds_per_minute=0.1)
def test_an_empty_bucket_is_in_the_document(server: Server) -> None:
    contract = Contract(server)
    ended = contract.ask("POST", "/run", "while True: pass", "/run?wait=20")
    assert ended.json["reason"] == "cpu_quota"
    assert contract.submit(**{"main.py": "1"}) == (429, "cpu_quota")


@settings()
def test_a_handshake_is_in_the_document(server: Server) -> None:
    contract = Contract(server)
    job = server.start({"main.py": b""})
    key = {"Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec_WebSocket_Version": "13"}
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    for path in ("/stream/{job_id}", "/logs/{job_id}/stream"):
        place = path.format(job_id=job)
        opened = contract.ask("GET", path, b"", place, **key, **upgrade)
        assert opened.status == 101
        assert contract.refused("GET", path, b"", place, **upgrade) == (400, "invalid_request")
        assert contract.refused("GET", path, b"", place) == (404, "unknown_path")
