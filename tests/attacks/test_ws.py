"""WS: WebSockets. Who may open one, what may be sent over one, and what many of them cost."""

import json
import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.attacks.arena import Attacker
from tests.attacks.wire import MIB, each, refused
from tests.journeys.server import Server, eventually, memory_of
from tests.journeys.websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    WebSocket,
    content_of,
    frame,
)

pytestmark = pytest.mark.usefixtures("crowded", "opened_before")

V1 = "sandrun.v1"
WAITS = "print('up', flush=True); time.sleep(120)"


def opened(attacker: Attacker, job: str, *headers: str, path: str = "/stream/{}") -> WebSocket:
    return WebSocket(attacker.server.port, path.format(job), V1, headers, attacker.address)


@pytest.fixture(scope="module")
def opened_before(server: Server) -> None:
    """The server has had many sockets, at once and one after the other: what its allocator keeps of
    the first few thousand is no growth (seen: none after them)."""
    attacker = Attacker(server)
    job = attacker.start_python(WAITS)
    with ExitStack() as stack:
        for _ in range(190):
            stack.enter_context(opened(attacker, job))
    for _ in range(1500):
        opened(attacker, job).socket.close()
    attacker.leave()


def refusal(attacker: Attacker, path: str, *headers: str) -> bytes:
    """What a handshake hears that opens nothing."""
    with pytest.raises(ConnectionError) as error:
        WebSocket(attacker.server.port, path, V1, headers, attacker.address)
    return str(error.value).encode()


@contextmanager
def waiting(attacker: Attacker) -> Iterator[str]:
    """A job that has said something, and is still there at the end."""
    job = attacker.start_python(WAITS)
    assert eventually(lambda: attacker.log(job) == b"up\n", 30)
    yield job
    assert not attacker.is_over(job)


def is_left(watching: WebSocket, seconds: float) -> bool:
    """Whether the server hangs up within so long."""
    watching.socket.settimeout(seconds)
    with suppress(TimeoutError):
        with suppress(ConnectionResetError):
            while watching.socket.recv(65536):
                pass
        return True
    return False


# --- who may open one --------------------------------------------------------------------------

STRANGERS = (
    "https://evil.example", "http://127.0.0.1.evil.example", "null", "file://", "http://127.0.0.1:1",
    "HTTPS://EVIL.EXAMPLE", "http://127.0.0.1", "http://[::1]", "http://localhost", "x",
    "http://127.0.0.1:{port}@evil.example", "http://127.0.0.1:{port}, http://127.0.0.1:{port}",
)  # fmt: skip


def test_only_our_own_pages_and_programs_open_a_socket(attacker: Attacker) -> None:
    """WS-01. Twelve origins, two Origin headers, foreign hosts and sites: refused with a sentence
    before anything is opened. A program sends no Origin, and our own page sends ours."""
    port = attacker.server.port
    job = attacker.python("print(1)").id
    path = f"/stream/{job}"

    def check(headers: tuple[str, ...]) -> None:
        status = 400 if headers[0].startswith("Host") else 403
        refused(refusal(attacker, path, *headers), status)

    cases = {origin: (f"Origin: {origin}".format(port=port),) for origin in STRANGERS}
    cases["two"] = ("Origin: http://evil.example", f"Origin: http://127.0.0.1:{port}")
    cases["site"] = ("Sec-Fetch-Site: cross-site",)
    cases["same site"] = ("Sec-Fetch-Site: same-site", f"Origin: http://127.0.0.1:{port}")
    cases["host"] = ("Host: evil.example",)
    assert each(cases.items(), check) == 16
    for headers in ((), (f"Origin: http://127.0.0.1:{port}", "Sec-Fetch-Site: same-origin")):
        with opened(attacker, job, *headers) as watching:
            assert [one["type"] for one in watching.frames()] == ["stdout", "end"]


def test_bytes_that_end_lines_elsewhere_smuggle_no_header(attacker: Attacker) -> None:
    """WS-12. A header with a control byte or a folded line in it opens nothing, and what it hides
    is nobody's address, origin or root path."""
    job = attacker.python("print(1)").id
    for byte in (b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x85", b"\0", b"\r", b"\n"):
        hidden = b"X-A: b" + byte + b"Origin: http://evil.example"
        raw = (
            b"GET /stream/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n%s\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % (job.encode(), hidden)
        )
        with attacker.connect() as client:
            client.sendall(raw)
            head = client.recv(65536)
        # Latin-1 bytes are text of a header that nobody reads.
        allowed = (b"HTTP/1.1 4", b"HTTP/1.1 101") if byte == b"\x85" else (b"HTTP/1.1 4",)
        assert head.startswith(allowed), (byte, head[:100])
    rooted = ("Daphne-Root-Path: /stream", "X-Forwarded-For: 192.0.2.1")
    with opened(attacker, job, *rooted) as watching:
        assert [one["type"] for one in watching.frames()] == ["stdout", "end"]


IDS = ("x" * 200, "x" * 5000, "%2e%2e", "*", "job-*", "job.{}", "%00", "%F0%9F%98%80", "{}%20",
       "%0a{}", "{}?since=0&since=9999", "x?" + "a&" * 5000, "{}?%ff=%ff&since=%ff",
       "..%2f{}", "JOB-{}")  # fmt: skip


def test_a_name_that_is_no_jobs_watches_nothing(attacker: Attacker) -> None:
    """WS-10. Long, strange and nearly right ids: not found, and never another job's bytes."""
    with waiting(attacker) as job:
        for name in IDS:
            try:
                watching = opened(attacker, job, path="/stream/" + name)
            except ConnectionError as error:
                refused(str(error).encode(), 400, 404)
                continue
            with watching:
                watching.send(json.dumps({"type": "cancel", "owner_token": "x"}))
                (only,) = watching.frames()
                assert only["type"] == "error", name
                assert watching.closed in (4400, 4404), name
        for path in ("/stream/", "/stream", "/stream/{}/", "/stream/{}/x", "/logs/{}",
                     "//stream/{}", "/logs//stream", "/stream/{}#x"):  # fmt: skip
            assert b" 101 " not in refusal(attacker, path.format(job))[:20], path


# --- what may be sent over one -----------------------------------------------------------------

HOSTILE = {
    "a frame that is too long": frame(b"", size=1 << 20),
    "a frame of 100 MB": frame(b"", size=100 << 20),
    "a frame of 2**62 bytes": frame(b"", size=1 << 62),
    "a frame of 2**63 bytes": frame(b"", size=1 << 63),
    "a message of too many frames": b"".join(
        frame(bytes(30_000), TEXT if n == 0 else 0, False) for n in range(4)
    ),
    "no mask": bytes([129, 1]) + b"x",
    "an unknown kind": frame(b"x", 3),
    "text that is none": frame(b"\xff"),
    "a ping in pieces": frame(b"x", PING, False),
    "a ping that is too long": frame(bytes(126), PING),
    "a continuation of nothing": frame(b"x", 0),
    "two beginnings": frame(b"x", TEXT, False) + frame(b"x"),
    "a close of one byte": frame(b"x", CLOSE),
    "a close for a reason that is none": frame(b"\x03\xe8\xff", CLOSE),
    "a close of a code that is none": frame(b"\0\1", CLOSE),
    "a reserved bit": bytes([0x80 | 0x20 | TEXT]) + frame(b"x")[1:],
    "compressed, as nobody had agreed to": bytes([0x80 | 0x40 | TEXT]) + frame(b"x")[1:],
    "no WebSocket at all": b"GET / HTTP/1.1\r\n\r\n" * 3,
}


def test_whoever_breaks_the_protocol_is_hung_up_on(attacker: Attacker) -> None:
    """WS-05. Lengths that are lies, frames of no kind, masks, bits, letters and closes that are
    wrong: each ends its own connection and nothing else."""
    with waiting(attacker) as job:

        def check(raw: bytes) -> None:
            with opened(attacker, job) as watching:
                assert next(one for one in watching.frames() if one["type"] == "stdout")
                watching.socket.sendall(raw)
                assert is_left(watching, 10)

        assert each(HOSTILE.items(), check) == len(HOSTILE)


FLOODS = {
    "pings": frame(bytes(125), PING),
    "pongs": frame(bytes(125), PONG),
    "empty-text": frame(b""),
    "small-text": frame(b"{}"),
    "large-text": frame(b"x" * 60_000),
    "bytes": frame(bytes(60_000), BINARY),
    "endless-continuation": frame(b"", 0, False),
}


@pytest.mark.parametrize("name", FLOODS)
def test_whoever_sends_for_ever_is_not_read_for_ever(attacker: Attacker, name: str) -> None:
    """WS-05, WS-07. 64 MB of small frames, or a million: read no faster than they are looked at,
    never piled up, and the connection of a client that reads no answers is closed."""
    web = attacker.server.pids()["web"]
    before = memory_of(web).rss
    with waiting(attacker) as job, opened(attacker, job) as watching:
        watching.socket.settimeout(1)
        flood = FLOODS[name] * (65_536 // len(FLOODS[name]) + 1)
        if name == "endless-continuation":
            watching.socket.sendall(frame(b"x", TEXT, False))
        sent, until = 0, time.monotonic() + 8
        with suppress(TimeoutError, ConnectionError):
            while sent < 64 * MIB and time.monotonic() < until:
                sent += watching.socket.send(flood)
        assert memory_of(web).rss - before < 8 * MIB


def test_nothing_is_inflated(attacker: Attacker) -> None:
    """WS-06. Compression is not agreed to, however it is offered."""
    offers = (
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame",
    )
    job = attacker.python("print(1)").id
    for offer in offers:
        with opened(attacker, job, f"Sec-WebSocket-Extensions: {offer}") as watching:
            assert b"extensions" not in watching.head.lower()
            assert [one["type"] for one in watching.frames()] == ["stdout", "end"]


# --- what many of them cost --------------------------------------------------------------------


def test_one_address_has_its_share_of_connections(attacker: Attacker) -> None:
    """WS-04. 2,000 sockets of one address: 200 are opened, and as many again when those are closed.
    A thousand that come and go leave nothing, nor do those that leave within their handshake."""
    web = attacker.server.pids()["web"]
    with waiting(attacker) as job, ExitStack() as stack:
        for _ in range(2000):
            try:
                stack.enter_context(opened(attacker, job))
            except ConnectionError:
                break
        had = memory_of(web).descriptors
        for _ in range(300):
            with suppress(ConnectionError):
                stack.enter_context(opened(attacker, job))
        # The neighbour's jobs and connections come and go; 300 more would show.
        assert memory_of(web).descriptors < had + 30
        stack.close()
        assert eventually(lambda: memory_of(web).descriptors < had - 150, 10)
        for number in range(1000):
            with opened(attacker, job) as watching:
                if number % 2:
                    watching.send(b"", CLOSE)
        hasty = (
            f"GET /stream/{job} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode() + frame(b"{}") * 3  # fmt: skip
        for number in range(600):
            with attacker.connect() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(hasty[: len(hasty) - number % 7])
        # The last of them may still be counted; then our own next question would be one too many.
        assert eventually(lambda: memory_of(web).descriptors < had - 150, 10)


@pytest.mark.long
def test_five_thousand_sockets_are_open_and_the_server_answers() -> None:
    """WS-04. From thirty addresses; besides, 500 that never finish their handshake. Others are
    served as fast as before, every socket hears what the job prints, and all is given back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 12_000), max(hard, 12_000)))
    server = Server(env={"SANDRUN_READ_RATE": "1000000/m"})
    try:
        attacker = Attacker(server, "WS-04")
        job = attacker.start_python(WAITS)
        web = server.pids()["web"]
        before = memory_of(web)
        with ExitStack() as stack:
            watching = [
                stack.enter_context(
                    WebSocket(server.port, f"/stream/{job}", V1, (), f"127.77.0.{n // 190 + 1}")
                )
                for n in range(5000)
            ]
            for n in range(500):
                half = socket.create_connection(
                    ("127.0.0.1", server.port), 10, (f"127.78.0.{n // 190 + 1}", 0)
                )
                stack.callback(half.close)
                half.sendall(b"GET /stream/x HTTP/1.1\r\nUpgrade: websocket\r\n")
            took = []
            for _ in range(20):
                began = time.monotonic()
                assert attacker.ask("GET", "/health").status == 200
                took.append(time.monotonic() - began)
            assert sorted(took)[10] < 0.5, took
            assert memory_of(web).rss - before.rss < 5500 * 65_536
            for one in watching[::50]:
                printed = (f for f in one.frames() if f["type"] == "stdout")
                assert next(printed)["data"].startswith("up")
        assert eventually(lambda: memory_of(web).descriptors <= before.descriptors + 5, 20)
        attacker.leave()
    finally:
        assert server.end() == 0, server.banner
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_crowd_around_a_flood_delays_nobody_and_nobody_misses_a_byte(attacker: Attacker) -> None:
    """WS-13. 150 watchers of a job that prints 20 MB, ten of which never read: the job ends as if
    nobody looked, and each that reads gets every byte, or is told which are lost."""
    size = 20_000_000
    code = "time.sleep(3)\nfor n in range(200): os.write(1, b'%099999d\\n' % n)"
    job = attacker.start_python(code, canary=False)
    with ExitStack() as stack:
        crowd = [stack.enter_context(opened(attacker, job)) for _ in range(150)]
        seen = attacker.finish(job)
        assert seen.reason is None and seen.status["wall_time"] < 30_000

        def heard(watching: WebSocket) -> int:
            total = 0
            for one in watching.frames():
                if one["type"] == "stdout":
                    total += len(content_of(one))
                elif one["type"] == "gap":
                    total += one["bytes"]
            return total

        assert {heard(watching) for watching in crowd[10::20]} == {size}


def test_a_job_that_ends_as_a_watcher_comes_is_heard_whole(attacker: Attacker) -> None:
    """WS-11. Forty watchers at the moment of the end: the bytes of /logs and the end, once."""
    for number in range(8):
        job = attacker.start_python(f"time.sleep({number} / 50); say(*range(200))")
        for _ in range(5):
            with opened(attacker, job, path="/logs/{}/stream") as watching:
                frames = list(watching.frames())
            printed = b"".join(content_of(one) for one in frames if one["type"] == "stdout")
            assert printed == attacker.log(job)
            assert [one["type"] for one in frames].count("end") == 1 and watching.closed == 1000


def test_orders_of_others_are_refused_over_a_socket_too(attacker: Attacker) -> None:
    """WS-07. Cancelling needs the owner's token there as anywhere, however often it is tried."""
    other = Attacker(attacker.server)
    with waiting(attacker) as job, opened(other, job) as watching:
        frames = watching.frames()
        for token in ("", "x", attacker.tokens[job] + "x", attacker.tokens[job][:-1], "\u00e9"):
            watching.send(json.dumps({"type": "cancel", "owner_token": token}))
            error = next(one for one in frames if one["type"] == "error")
            assert error["reason"] == "not_owner"
