"""Stdin of a job that runs, through the real server: by WebSocket and HTTP, for its owner only."""

import asyncio
import base64
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.feed import ROOM
from tests.journeys.server import Answer, Client, Server, eventually, memory_of
from tests.journeys.test_live import Job
from tests.journeys.websocket import WebSocket, content_of

ECHO = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)\nprint('end')"
CAT = "import sys, os\nwhile data := os.read(0, 65536): os.write(1, data)"
DEAF = "import time\nprint('here', flush=True)\ntime.sleep(60)"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("--no-quotas")
    yield server
    assert server.end() == 0, server.banner


def send(watching: WebSocket, job: Job, **more: object) -> None:
    watching.send(json.dumps({"type": "stdin", "owner_token": job.token, **more}))


def until(watching: WebSocket, *kinds: str) -> dict[str, Any]:
    """The next frame of one of these types."""
    return next(one for one in watching.frames() if one["type"] in kinds)


def answered(watching: WebSocket, job: Job, **more: object) -> dict[str, Any]:
    send(watching, job, **more)
    return until(watching, "stdin", "error")


def post(job: Job, data: bytes, query: str = "", token: str | None = None) -> Answer:
    bearer = {"Authorization": f"Bearer {token or job.token}"}
    return asyncio.run(job.client.ask("POST", f"/jobs/{job.id}/stdin{query}", data, bearer))


# --- what arrives ------------------------------------------------------------------------------


def test_a_loop_is_answered_line_by_line(server: Server) -> None:
    job = Job(server, ECHO, stdin="first\n", stdin_live=True)
    with job.watch(server) as watching:
        assert until(watching, "stdout")["data"] == "tsrif\n"
        for number in range(20):
            line = f"line {number:02}"
            send(watching, job, data=f"{line}\n")
            assert until(watching, "stdout")["data"] == f"{line[::-1]}\n"
        send(watching, job, end=True)
        last = list(watching.frames())[-1]
    assert (last["type"], last["result"]["status"]) == ("end", "completed")
    assert job.log("stdout").endswith(b"\nend\n")


def test_a_megabyte_in_pieces_comes_back_whole(server: Server) -> None:
    sent = os.urandom(1 << 20)
    job = Job(server, CAT, stdin_live=True)
    with job.watch(server) as watching:
        at, printed, refused = 0, b"", 0
        while at < len(sent):
            piece = base64.b64encode(sent[at : at + 40_000]).decode()
            send(watching, job, base64=piece, at=at)
            while (one := until(watching, "stdin", "error", "stdout"))["type"] == "stdout":
                printed += content_of(one)
            if one["type"] == "stdin":
                at = one["taken"]
                assert one["waiting"] <= ROOM
            else:
                assert one["reason"] == "stdin_full"
                refused += 1
        send(watching, job, end=True)
        for one in watching.frames():
            printed += content_of(one) if one["type"] == "stdout" else b""
    assert at == len(sent) and printed == sent
    assert one["result"]["status"] == "completed"


def test_what_is_sent_in_line_waits_for_the_program(server: Server) -> None:
    job = Job(server, CAT, stdin_live=True)
    answer = post(job, b"before ")
    assert (answer.status, answer.json["taken"]) == (200, 7)
    assert post(job, b"after", "?end=1&at=7").json["taken"] == 12
    assert asyncio.run(job.client.finish(job.id))["status"] == "completed"
    assert job.log("stdout") == b"before after"


def test_curl_types_into_a_job(server: Server) -> None:
    job = Job(server, ECHO, stdin_live=True)

    def curl(data: str, query: str = "") -> str:
        url = f"http://127.0.0.1:{server.port}/jobs/{job.id}/stdin{query}"
        words = ["curl", "-sS", "-H", f"Authorization: Bearer {job.token}", "--data-binary", "@-"]
        chunked = ["-H", "Transfer-Encoding: chunked"]
        return subprocess.run(
            [*words, *chunked, url], input=data, capture_output=True, text=True, check=True
        ).stdout

    assert json.loads(curl("abc\n")) == {"job_id": job.id, "taken": 4, "waiting": 0}
    assert json.loads(curl("de", "?end=1"))["taken"] == 6
    assert asyncio.run(job.client.finish(job.id))["status"] == "completed"
    assert job.log("stdout") == b"cba\ned\nend\n"


def test_run_tells_its_id_at_once_and_takes_stdin(server: Server) -> None:
    head = f"POST /run?stdin_live=true HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(ECHO)}"
    with socket.create_connection(("127.0.0.1", server.port), 20) as running:
        running.sendall(f"{head}\r\nConnection: close\r\n\r\n{ECHO}".encode())
        said = b""
        while b"\r\n\r\n" not in said:  # before the job has printed anything
            said += running.recv(65536)
        job, token = re.findall(rb"(?i)X-Sandrun-(?:Job|Owner-Token): (\S+)", said)
        bearer = {"Authorization": f"Bearer {token.decode()}"}
        path = f"/jobs/{job.decode()}/stdin"
        assert asyncio.run(Client(server.port).ask("POST", path, b"abc\n", bearer)).status == 200
        while b"cba" not in said:  # its line may end in another chunk
            said += running.recv(65536)
        answer = asyncio.run(Client(server.port).ask("POST", f"{path}?end=1", b"", bearer))
        assert answer.status == 200
        while piece := running.recv(65536):
            said += piece
    assert b"end" in said.partition(b"cba")[2] and said.endswith(b"X-Sandrun-Exit-Code: 0\r\n\r\n")


# --- what is refused ---------------------------------------------------------------------------


def test_only_the_owner_sends(server: Server) -> None:
    job = Job(server, CAT, stdin_live=True)
    with job.watch(server) as watching:
        for order in ({"data": "x"}, {"end": True}, {"data": "x", "owner_token": job.id}):
            watching.send(json.dumps({"type": "stdin", **order}))
            assert until(watching, "error")["reason"] == "not_owner"
        path = f"/jobs/{job.id}/stdin"
        assert asyncio.run(job.client.ask("POST", path, b"x")).status == 401
        assert post(job, b"x", token=job.id).status == 403
        assert answered(watching, job, end=True) == {"type": "stdin", "taken": 0, "waiting": 0}
        assert list(watching.frames())[-1]["result"]["status"] == "completed"
    assert job.log("stdout") == b""


def test_what_cannot_be_taken_is_refused_with_a_sentence(server: Server) -> None:
    job = Job(server, CAT, stdin_live=True)
    with job.watch(server) as watching:
        for order, reason in (
            ({"data": "x", "base64": "eA=="}, "invalid_request"),
            ({"base64": "x"}, "invalid_request"),
            ({"base64": "é"}, "invalid_request"),
            ({"data": 3}, "invalid_request"),
            ({"end": "yes"}, "invalid_request"),
            ({"eof": True}, "invalid_request"),
            ({"data": "x", "at": 1}, "stdin_position"),
            ({"data": "x", "at": -1}, "stdin_position"),
        ):
            one = answered(watching, job, **order)
            assert (one["type"], one["reason"]) == ("error", reason), order
        assert answered(watching, job, data="\ud800")["reason"] == "invalid_request"
        for query in ("?end=yes", "?at=x", "?at=-1"):
            answer = post(job, b"x", query)
            assert (answer.status, answer.json["reason"]) == (400, "invalid_request"), query
        assert post(job, b"x", "?at=1").status == 409
        answer = post(job, b"x" * (64 * 1024 + 1))
        assert (answer.status, answer.json["reason"]) == (413, "too_large")
        assert "64KB" in answer.json["error"]
        assert post(job, b"only this", "?end=1").status == 200
        assert list(watching.frames())[-1]["result"]["status"] == "completed"
    assert job.log("stdout") == b"only this"
    answer = post(job, b"x")
    assert (answer.status, answer.json["reason"]) == (409, "stdin_closed")
    assert "over" in answer.json["error"]


def test_after_the_end_of_stdin_nothing_is_taken(server: Server) -> None:
    job = Job(server, "import sys, time\nprint(sys.stdin.read(), flush=True)\ntime.sleep(60)",
              stdin_live=True)  # fmt: skip
    with job.watch(server) as watching:
        assert "taken" in answered(watching, job, data="all", end=True)
        assert until(watching, "stdout")["data"] == "all\n"
        assert answered(watching, job, data="more")["reason"] == "stdin_closed"
        assert post(job, b"more").status == post(job, b"", "?end=1").status == 409
        assert post(job, b"").json["taken"] == 3  # asks only
    assert job.delete() == 200


def test_a_job_without_live_stdin_says_what_the_manifest_lacks(server: Server) -> None:
    job = Job(server, DEAF)
    with job.watch(server) as watching:
        one = answered(watching, job, data="x")
        assert one["reason"] == "stdin_closed" and '"stdin_live": true' in one["error"]
    answer = post(job, b"x")
    assert answer.status == 409 and '"stdin_live": true' in answer.json["error"]
    assert job.delete() == 200
    assert post(job, b"x").status == 404


def test_a_program_that_has_closed_its_stdin_is_told_of(server: Server) -> None:
    job = Job(server, "import os, time\nos.close(0)\nprint(1, flush=True)\ntime.sleep(60)",
              stdin_live=True)  # fmt: skip
    with job.watch(server) as watching:
        until(watching, "stdout")
        one = answered(watching, job, data="x")
        assert (one["reason"], one["error"]) == ("stdin_closed", "The program has closed its stdin")
    assert job.delete() == 200


def test_a_client_that_has_had_its_share_still_types_into_its_jobs() -> None:
    server = Server(env={"SANDRUN_CONCURRENT_JOBS": 1})
    try:
        job = Job(server, CAT, stdin_live=True)
        with socket.create_connection(("127.0.0.1", server.port), 20, ("127.0.7.1", 0)) as client:
            head = f"POST /jobs/{job.id}/stdin?end=1 HTTP/1.1\r\nHost: localhost\r\n"
            head += f"Authorization: Bearer {job.token}\r\nTransfer-Encoding: chunked\r\n"
            client.sendall(f"{head}Connection: close\r\n\r\n4\r\nabcd\r\n0\r\n\r\n".encode())
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert asyncio.run(job.client.finish(job.id))["status"] == "completed"
        assert job.log("stdout") == b"abcd"
    finally:
        assert server.end() == 0, server.banner


# --- who does not read, or does not end --------------------------------------------------------


def test_a_deaf_job_is_bounded_and_holds_up_no_order(server: Server) -> None:
    web = server.pids()["web"]
    jobs = [Job(server, DEAF, stdin_live=True) for _ in range(3)]
    assert eventually(lambda: all(job.log("stdout") for job in jobs), 20)
    before = memory_of(web)
    sockets = [job.watch(server) for job in jobs]
    for job, watching in zip(jobs, sockets, strict=True):
        taken = 0
        while "taken" in (one := answered(watching, job, data="x" * 60_000)):
            taken = one["taken"]
        assert one["reason"] == "stdin_full"
        assert ROOM - 60_000 < taken <= ROOM + (1 << 20)
        answer = post(job, b"x" * 60_000)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        for _ in range(300):  # refused, and nothing piles up
            send(watching, job, data="x" * 60_000)
        watching.send(json.dumps({"type": "cancel", "owner_token": job.token}))
        last = list(watching.frames())[-1]
        assert (last["type"], last["result"]["reason"]) == ("end", "cancelled")
        watching.socket.close()
    assert memory_of(web).rss - before.rss < 3 * ROOM + (4 << 20)


def test_a_job_whose_stdin_nobody_ends_ends_by_its_timeout(server: Server) -> None:
    job = Job(server, CAT, stdin_live=True, timeout=1)
    assert asyncio.run(job.client.finish(job.id))["reason"] == "timeout"


def test_nothing_is_left_open_in_web(server: Server) -> None:
    web = server.pids()["web"]

    def pipes() -> int:
        return sum("pipe:" in _link(f"/proc/{web}/fd/{fd}") for fd in os.listdir(f"/proc/{web}/fd"))

    idle = pipes()
    ways: list[tuple[str, dict[str, Any]]] = [(CAT, {"timeout": 1}), (DEAF, {"timeout": 1})]
    ways += [("pass", {}), ("import os; os.close(0)", {}), ("import time; time.sleep(60)", {})]
    jobs = [Job(server, code, stdin_live=True, **more) for code, more in ways]
    for job in jobs:
        for _ in range(4):
            post(job, b"x" * 60_000)
    jobs[-1].delete()
    for job in jobs[:-1]:
        asyncio.run(job.client.finish(job.id))
    assert eventually(lambda: pipes() == idle, 5), pipes()


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""
