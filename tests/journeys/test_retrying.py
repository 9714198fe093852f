"""Sending again what got no answer, with an Idempotency-Key: the job of the first time, once."""

import asyncio
import json
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.journeys.server import Answer, Client, Server, form, targz

SLEEPS = b"import time\nprint('one', flush=True)\ntime.sleep(60)\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(env={"SANDRUN_SLOTS": 16})  # for those that sleep
    yield server
    assert server.end() == 0, server.banner


_addresses = iter(range(1, 255))


@pytest.fixture
def client(server: Server) -> Client:
    """Of an address of its own: nobody else has used its quota, or its keys."""
    return Client(server.port, f"127.0.40.{next(_addresses)}")


def send(
    client: Client, key: str, files: dict[str, bytes], path: str = "/submit", **manifest: Any
) -> Answer:
    kind, body = form(files, manifest)
    return asyncio.run(
        client.ask("POST", path, body, {"Content-Type": kind, "Idempotency-Key": key})
    )


def problem(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["reason"]


def test_the_same_with_the_same_key_is_the_same_job(client: Client) -> None:
    first = send(client, "k1", {"main.py": SLEEPS})
    again = send(client, "k1", {"main.py": SLEEPS})
    assert first.status == again.status == 200
    for name in ("job_id", "owner_token", "job_hash"):
        assert first.json[name] == again.json[name]
    other = send(client, "k2", {"main.py": SLEEPS})
    assert other.json["job_id"] != first.json["job_id"]


def test_a_retry_costs_no_quota_and_is_answered_when_there_is_none(client: Client) -> None:
    jobs = [send(client, key, {"main.py": SLEEPS, "big": os.urandom(2 << 20)}) for key in "ab"]
    big = {"main.py": SLEEPS, "big": os.urandom(2 << 20)}
    assert problem(send(client, "c", big)) == (429, "concurrent_jobs")
    assert [job.status for job in jobs] == [200, 200]
    asyncio.run(client.cancel(jobs[0].json["job_id"], jobs[0].json["owner_token"]))
    third = send(client, "c", big)
    assert third.status == 200, third.body
    again = send(client, "c", big)  # more than is read of a client that has had its share
    assert (again.status, again.json["job_id"]) == (200, third.json["job_id"])
    stats = asyncio.run(client.ask("GET", "/stats")).json["your_quota"]
    assert (stats["active_jobs"], stats["jobs_left_this_hour"]) == (2, 17)


def test_something_else_with_the_same_key_is_refused(client: Client) -> None:
    first = send(client, "k", {"main.py": b"print(1)"}, args=["x"])
    assert first.status == 200
    for files, asked in (
        ({"main.py": b"print(2)"}, {"args": ["x"]}),
        ({"main.py": b"print(1)"}, {"args": ["y"]}),
        ({"mine.py": b"print(1)"}, {"args": ["x"]}),
        ({"main.py": b"print(1)", "more": b""}, {"args": ["x"]}),
    ):
        assert problem(send(client, "k", files, **asked)) == (422, "key_reused"), files


def test_what_was_refused_is_no_first_time(client: Client) -> None:
    assert problem(send(client, "k", {"main.py": b"1"}, timeout=-1)) == (400, "invalid_manifest")
    assert send(client, "k", {"main.py": b"1"}, timeout=9).status == 200


def test_a_key_is_its_clients_own_and_is_forgotten_with_the_job(
    server: Server, client: Client
) -> None:
    first = send(client, "k", {"main.py": b"1"})
    other = Client(server.port, "127.0.41.1")
    assert send(other, "k", {"main.py": b"2"}).status == 200
    bearer = {"Authorization": f"Bearer {first.json['owner_token']}"}
    assert (
        asyncio.run(client.ask("DELETE", f"/jobs/{first.json['job_id']}", b"", bearer)).status
        == 200
    )
    again = send(client, "k", {"main.py": b"2"})
    assert again.status == 200 and again.json["job_id"] != first.json["job_id"]


def test_how_it_was_packed_does_not_matter(client: Client) -> None:
    """A client that builds its request anew chooses another boundary; JSON has none at all."""
    asked = {"timeout": 9}
    first = send(client, "k", {"main.py": b"print(1)"}, **asked)
    body = b'--other\r\nContent-Disposition: form-data; name="manifest"\r\n\r\n'
    body += json.dumps(asked).encode() + b"\r\n--other\r\n"
    body += b'Content-Disposition: form-data; name="files"; filename="main.py"\r\n\r\n'
    body += b"print(1)\r\n--other--\r\n"
    again = asyncio.run(
        client.ask(
            "POST",
            "/submit",
            body,
            {"Content-Type": "multipart/form-data; boundary=other", "Idempotency-Key": "k"},
        )
    )
    assert (again.status, again.json.get("job_id")) == (200, first.json["job_id"]), again.body


def test_of_many_at_once_one_makes_the_job(client: Client) -> None:
    """The others hear that it is not answered yet, or get the same job: an archive is looked at in
    a sandbox, which takes a while."""
    kind, body = form({"job.tar.gz": targz({"main.py": b"print(1)"})}, {})

    async def all_at_once() -> list[Answer]:
        headers = {"Content-Type": kind, "Idempotency-Key": "k"}
        asks = (client.ask("POST", "/submit", body, headers) for _ in range(12))
        return await asyncio.gather(*asks)

    answers = asyncio.run(all_at_once())
    jobs = {answer.json["job_id"] for answer in answers if answer.status == 200}
    late = {problem(answer) for answer in answers if answer.status != 200}
    assert len(jobs) == 1 and late == {(409, "in_flight")}, (jobs, late)


def test_whoever_lost_the_connection_finds_the_job_with_the_key(
    server: Server, client: Client
) -> None:
    """Without a key a job goes with its client, since nobody else knows its id."""
    head = (
        "POST /run HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: mine\r\n"
        f"Content-Length: {len(SLEEPS)}\r\n\r\n"
    )
    with socket.create_connection(
        ("127.0.0.1", server.port), 60, source_address=(client.address, 0)
    ) as connection:
        connection.sendall(head.encode() + SLEEPS)
        said = b""
        while b"one" not in said:
            said += connection.recv(65536)
        # Closed with a reset: whoever only says that it sends no more may still read.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    job = next(
        line.split(b": ")[1].decode()
        for line in said.split(b"\r\n")
        if line.lower().startswith(b"x-sandrun-job:")
    )

    again = asyncio.run(client.ask("POST", "/run?wait=1", SLEEPS, {"Idempotency-Key": "mine"}))
    assert (again.status, again.json["job_id"], again.json["status"]) == (202, job, "running")


@pytest.mark.parametrize("key", ["a b", "x" * 256, "caf\xe9"])
def test_a_key_that_is_none_is_refused(client: Client, key: str) -> None:
    assert problem(send(client, key, {"main.py": b"1"})) == (400, "invalid_request")
