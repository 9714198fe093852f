"""Jobs that end before their time, and what is left of them: cancelled, deleted, read."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.journeys.server import Answer, Client, Server, eventually, memory_of
from tests.journeys.websocket import WebSocket
from tests.sandbox.box import job_processes

MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(
        "--no-quotas", env={"SANDRUN_LOG_BYTES": 32 * MIB, "SANDRUN_STALL_SECONDS": 300}
    )
    yield server
    assert server.end() == 0, server.banner


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.port)


def ask(client: Client, path: str, method: str = "GET", token: str = "", **headers: str) -> Answer:
    bearer = {"Authorization": f"Bearer {token}"} if token else {}
    return asyncio.run(client.ask(method, path, b"", {**bearer, **headers}))


def submit(client: Client, code: str, wait: int = 0, **manifest: Any) -> dict[str, Any]:
    answer = asyncio.run(client.submit({"main.py": code.encode()}, wait, **manifest))
    assert answer.status == 200, answer
    return dict(answer.json)


def is_gone(client: Client, job: str) -> bool:
    paths = (f"/status/{job}", f"/logs/{job}", f"/outputs/{job}", f"/download/{job}")
    return {ask(client, path, "HEAD").status for path in paths} == {404}  # reads nothing


def is_over(client: Client, job: str) -> bool:
    return ask(client, f"/status/{job}").json["status"] in ("completed", "failed")


# --- cancel ------------------------------------------------------------------------------------

DEAF = """
import os, signal, sys
for number in signal.valid_signals() - {9, 19}:
    signal.signal(number, signal.SIG_IGN)
children = 0
if all(os.fork() for _ in range(29)):
    print("thirty", flush=True)
while True:
    signal.pause()
"""


def test_cancel_ends_thirty_processes_that_ignore_every_signal(
    server: Server, client: Client
) -> None:
    """As many as a job may have, nearly. benchmarks/live.py says how long it takes for fifty."""
    answer = submit(client, DEAF)
    job = answer["job_id"]
    server.wait_for_log(job, "thirty")
    assert len(job_processes()) > 30
    ended = asyncio.run(client.cancel(job, answer["owner_token"]))
    assert (ended["status"], ended["reason"]) == ("failed", "cancelled")
    assert not job_processes()


# --- delete ------------------------------------------------------------------------------------

LARGE = """
import os, sys
data = os.urandom(1 << 20)
with open("big", "wb") as file:
    for _ in range(30): file.write(data)
for _ in range(30): os.write(1, data)
"""


def begin_to_read(server: Server, path: str) -> socket.socket:
    """A client that has the head of an answer, and a little of the body, and reads no more."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    client.settimeout(60)
    client.connect(("127.0.0.1", server.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n".encode())
    said = b""
    while b"\r\n\r\n" not in said:
        said += client.recv(1024)
    assert b" 200 OK" in said, said
    return client


def read_on(client: socket.socket) -> bytes:
    """What comes until the end, or the reset, of the connection."""
    said = b""
    with suppress(ConnectionResetError):
        while piece := client.recv(MIB):
            said += piece
    return said


def test_delete_frees_the_memory_at_once_and_cuts_whoever_reads(
    server: Server, client: Client
) -> None:
    before = memory_of(server.pids()["web"])
    answer = submit(client, LARGE)
    job = answer["job_id"]
    assert eventually(lambda: is_over(client, job), 60)
    paths = (f"/download/{job}/big", f"/download/{job}", f"/logs/{job}", f"/logs/{job}?follow=1")
    with ExitStack() as stack:
        readers = [stack.enter_context(begin_to_read(server, path)) for path in paths]
        held = memory_of(server.pids()["web"])
        assert held.memfds >= before.memfds + 30 * MIB and held.rss > before.rss + 30 * MIB
        assert ask(client, f"/jobs/{job}", "DELETE", answer["owner_token"]).status == 200
        assert is_gone(client, job)
        after = memory_of(server.pids()["web"])
        assert after.memfds <= before.memfds
        assert after.rss < held.rss - 20 * MIB, "the log"
        for path, reader in zip(paths, readers, strict=True):
            rest = read_on(reader)
            assert len(rest) < 25 * MIB and not rest.endswith(b"\r\n0\r\n\r\n"), path


def test_deleting_a_running_job_tells_its_watchers(server: Server, client: Client) -> None:
    answer = submit(client, "print('one', flush=True)\nimport time\ntime.sleep(60)")
    job = answer["job_id"]
    with WebSocket(server.port, f"/stream/{job}", "sandrun.v1") as watching:
        frames = watching.frames()
        assert any(frame["type"] == "stdout" for frame in frames)
        assert ask(client, f"/jobs/{job}", "DELETE", answer["owner_token"]).status == 200
        assert is_gone(client, job)
        assert [frame["type"] for frame in frames][-1] == "gone"
        assert watching.closed == 4410
    assert eventually(lambda: not job_processes(), 5)


# --- burn after reading ------------------------------------------------------------------------

SAYS = "print('read me')"
WRITES = "print('read me'); open('a.txt', 'w').write('a'); open('b.txt', 'w').write('bb')"


def finished(client: Client, code: str, **manifest: Any) -> str:
    """The id of a job that has ended, and of which nothing was read."""
    job = str(submit(client, code, burn_after_read=True, **manifest)["job_id"])
    assert eventually(lambda: is_over(client, job), 30)
    return job


def follow(server: Server, client: Client, job: str) -> None:
    assert b"read me" in ask(client, f"/logs/{job}?follow=1").body


def as_json(server: Server, client: Client, job: str) -> None:
    assert ask(client, f"/logs/{job}").json["stdout"] == "read me\n"


def as_text(server: Server, client: Client, job: str) -> None:
    assert ask(client, f"/logs/{job}", Accept="text/plain").body == b"read me\n"


def with_status(server: Server, client: Client, job: str) -> None:
    assert ask(client, f"/status/{job}?wait=9").json["logs"]["stdout"] == "read me\n"


def by_socket(server: Server, client: Client, job: str) -> None:
    with WebSocket(server.port, f"/stream/{job}", "sandrun.v1") as watching:
        assert [frame["type"] for frame in watching.frames()][-1] == "end"


@pytest.mark.parametrize("read", [follow, as_json, as_text, with_status, by_socket])
def test_a_job_burns_when_its_log_was_read(
    server: Server, client: Client, read: Callable[[Server, Client, str], None]
) -> None:
    job = finished(client, SAYS)
    assert not is_gone(client, job)
    read(server, client, job)
    assert eventually(lambda: is_gone(client, job), 5)


def test_a_job_with_outputs_burns_when_all_were_read_too(server: Server, client: Client) -> None:
    job = finished(client, WRITES)
    as_json(server, client, job)
    assert ask(client, f"/download/{job}/a.txt").body == b"a"
    for unread in (
        ask(client, f"/download/{job}/b.txt", "HEAD"),
        ask(client, f"/download/{job}/b.txt", Range="bytes=0-0"),
        ask(client, f"/download/{job}", "HEAD"),
        ask(client, f"/outputs/{job}"),
        ask(client, f"/status/{job}"),
    ):
        assert unread.status < 300
    assert ask(client, f"/download/{job}/b.txt").body == b"bb"
    assert eventually(lambda: is_gone(client, job), 5)


def test_an_archive_of_all_outputs_is_all_of_them(server: Server, client: Client) -> None:
    job = finished(client, WRITES)
    assert ask(client, f"/download/{job}").status == 200
    assert not is_gone(client, job)
    as_json(server, client, job)
    assert eventually(lambda: is_gone(client, job), 5)


def test_reading_while_it_runs_or_half_of_it_burns_nothing(server: Server, client: Client) -> None:
    job = str(
        submit(client, "import time\nprint('read me', flush=True)\ntime.sleep(2)",
               burn_after_read=True)["job_id"]
    )  # fmt: skip
    server.wait_for_log(job, "read me")
    as_json(server, client, job)
    ask(client, f"/status/{job}?wait=0")
    assert eventually(lambda: ask(client, f"/status/{job}").json["status"] == "completed", 30)
    assert ask(client, f"/logs/{job}?stream=stdout").body == b"read me\n"
    assert ask(client, f"/logs/{job}", "HEAD").status == 200
    assert not is_gone(client, job)
    as_text(server, client, job)
    assert eventually(lambda: is_gone(client, job), 5)


@pytest.mark.parametrize("path", ["/run?", "/run?wait=60&"])
def test_what_run_has_answered_was_read(server: Server, client: Client, path: str) -> None:
    for flag in ("1", "true"):
        answer = asyncio.run(client.ask("POST", f"{path}burn_after_read={flag}", SAYS.encode(), {}))
        assert answer.status == 200 and b"read me" in answer.body
        assert eventually(lambda: is_gone(client, answer.headers["x-sandrun-job"]), 5)  # noqa: B023
    kept = asyncio.run(client.ask("POST", f"{path}burn_after_read=0", SAYS.encode(), {}))
    assert not is_gone(client, kept.headers["x-sandrun-job"])
    wrong = asyncio.run(client.ask("POST", f"{path}burn_after_read=yes", SAYS.encode(), {}))
    assert wrong.status == 400 and "burn_after_read" in wrong.json["error"], wrong.body
