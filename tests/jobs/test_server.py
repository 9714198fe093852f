"""What only a real socket shows: bounds on bodies, deadlines, back-pressure, the end."""

import asyncio
import json
import re
import signal
import socket
import time
import unittest
from collections import Counter
from contextlib import ExitStack, suppress
from http import HTTPStatus
from pathlib import Path
from urllib.request import urlopen

import msgspec
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.testing import StringTransport

from jobs.api.channel import Channel
from jobs.api.server import Factory, Server, Turnstile
from jobs.conf import Config
from jobs.engine import Engine
from tests.fakes import FakeRunner
from tests.jobs.wired import Wired, read_all, readable

MIB = 1024 * 1024


def unread(port: int) -> list[int]:
    """Bytes that the kernel holds for the reader of each connection to `port`."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    ours = (row[4] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01")
    return [int(queues.partition(":")[0], 16) for queues in ours]


def sockets_of(pid: int) -> int:
    """How many of TCP a process has open."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    inodes = {f"socket:[{row[9]}]" for row in rows}
    count = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            count += str(fd.readlink()) in inodes
    return count


def cpu_seconds(pid: int) -> float:
    """What the main thread of a process has used."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    head = (
        "POST /submit HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        "Content-Type: multipart/form-data; boundary=xYx",
        *headers,
    )
    if length is not None:
        head = (*head, f"Content-Length: {length}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def form(content: bytes) -> bytes:
    head = b'--xYx\r\nContent-Disposition: form-data; name="files"; filename="main.py"\r\n\r\n'
    return head + content + b"\r\n--xYx--\r\n"


def get(path: str, *headers: str) -> bytes:
    lines = (f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def status_of(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert found, answer[:200]
    return int(found[1])


def body_of(answer: bytes) -> dict[str, object]:
    body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert isinstance(body, dict)
    return body


class Bodies(unittest.TestCase):
    def test_uploads_and_their_bounds(self) -> None:
        with Wired(upload_bytes=2 * MIB) as server:
            answer = server.ask(post(form(b"x"), length=len(form(b"x"))))
            self.assertEqual(status_of(answer), 200)
            self.assertEqual(body_of(answer)["status"], "queued")
            chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(form(b"x")), form(b"x"))
            answer = server.ask(post(chunked, "Transfer-Encoding: chunked"))
            self.assertEqual(status_of(answer), 200)
            before = server.peak_rss()
            for raw in (
                post(b"", length=50 * MIB),  # refused before a byte of it comes
                post(b"x" * 6 * MIB, length=6 * MIB),  # refused, and still read, so it is heard
                post(b"", "Expect: 100-continue", length=50 * MIB),
                post(b"40000\r\n" + b"x" * 0x40000 + b"\r\n", "Transfer-Encoding: chunked")
                + b"40000\r\n%s\r\n" % (b"x" * 0x40000) * 20
                + b"0\r\n\r\n",
            ):
                answer = server.ask(raw)
                self.assertEqual(status_of(answer), 413)
                self.assertEqual(body_of(answer)["error"], "Request exceeds 2MB limit")
                self.assertIn(b"Connection: close", answer)
                self.assertNotIn(b"100 Continue", answer)
            self.assertLess(server.peak_rss() - before, 8 * MIB)
        self.assertEqual((server.process.returncode, server.out, server.err), (0, "", ""))

    def test_what_is_no_request(self) -> None:
        with Wired() as server:
            for raw in (
                b"GARBAGE\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                get("/", "Content-Length: abc"),
                get("/", "Content-Length: 1", "Transfer-Encoding: chunked"),
                get("/", "X: a\x0bb"),
                b"GET / HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n",
                b"GET /\xc3\xa9 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            ):
                with self.subTest(raw[:60]):
                    answer = server.ask(raw)
                    self.assertEqual(status_of(answer), 400)
                    self.assertIn("error", body_of(answer))
                    self.assertIn(b"X-Content-Type-Options: nosniff", answer)
                    self.assertNotRegex(answer, rb"(?i)server:|daphne|twisted|django|traceback")
        self.assertEqual((server.process.returncode, server.out, server.err), (0, "", ""))

    def test_what_is_too_long_is_said(self) -> None:
        with Wired() as server:
            for raw, status, word in (
                (get("/" + "a" * 17_000), 414, "URL"),
                (get("/" + "a" * 4_000_000), 414, "URL"),  # read on, or a reset hides the answer
                (get("/", "X: " + "a" * 17_000), 431, "head"),
                (get("/", "X: " + "a" * 4_000_000), 431, "head"),
                (get("/", *(f"X-{n}: " + "a" * 1000 for n in range(20))), 431, "16 KiB"),
                (get("/", *(f"X-{n}: a" for n in range(200))), 431, "100 headers"),
                (get("/", *(f"X-{n}: a" for n in range(200))) * 3, 431, "100 headers"),
            ):
                with self.subTest(raw[:40]):
                    answer = server.ask(raw)
                    self.assertEqual(status_of(answer), status)
                    self.assertEqual(answer.count(b"HTTP/1.1"), 1)
                    body = body_of(answer)
                    self.assertEqual(body["reason"], "too_large")
                    self.assertIn(word, str(body["error"]))
        self.assertEqual((server.process.returncode, server.out, server.err), (0, "", ""))


class Refusals(unittest.TestCase):
    def test_a_refused_upload_is_gone_when_the_answer_is_there(self) -> None:
        several = form(bytes(8 * MIB)).replace(b"main.py", b"a.bin")[: -len(b"--xYx--\r\n")]
        several += form(b"").replace(b"main.py", b"b.bin")
        with Wired() as server:
            for _ in range(4):
                answer = server.ask(post(several, length=len(several)))
                self.assertEqual(body_of(answer)["error"], "No entrypoint specified")
                self.assertEqual(server.held(), [])

    def test_a_body_that_is_cut_off_by_an_error_is_gone(self) -> None:
        with Wired() as server, server.connect() as client:
            chunk = b"10000\r\n" + bytes(0x10000) + b"\r\nnonsense\r\n"
            client.sendall(post(chunk, "Transfer-Encoding: chunked"))
            self.assertEqual(status_of(read_all(client)), 400)
            self.assertEqual(server.held(), [])

    def test_each_status_has_its_phrase(self) -> None:
        with Wired(submit_rate="1/d", head_seconds=1, upload_bytes=MIB) as server:
            bad = post(b"x", length=1)
            for raw, status in (
                (post(b"x", "Content-Encoding: gzip", length=1), 415),
                (bad, 429),
                (post(b"", length=2 * MIB), 413),
                (get("/" + "a" * 17_000), 414),
                (get("/", "X: " + "a" * 17_000), 431),
                (b"GET /", 408),
                (get("/submit"), 405),
                (get("/nope"), 404),
            ):
                phrase = server.ask(raw).split(b"\r\n", 1)[0].decode()
                self.assertEqual(phrase, f"HTTP/1.1 {status} {HTTPStatus(status).phrase}")

    def test_websockets_hold_nothing(self) -> None:
        handshake = (
            "Upgrade: websocket",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        )
        with Wired() as server:
            for headers, status in ((handshake, 400), ((*handshake, "Origin: http://x"), 403)):
                for path in ("/", "/health", "/stream/x"):
                    raw = get(path, *headers, f"Content-Length: {MIB}")
                    raw = raw.replace(b"Connection: close", b"Connection: Upgrade")
                    with server.connect() as client:
                        client.sendall(raw + bytes(MIB))
                        answer = client.recv(65536)
                        self.assertEqual(status_of(answer), status)
                        self.assertIn(b"X-Content-Type-Options: nosniff", answer)
                        self.assertNotRegex(answer, rb"(?i)server:|daphne|autobahn")
                        keep = get("/health")  # the connection is still ours
                        client.sendall(keep)
                        self.assertEqual(status_of(read_all(client)), 200)
                        self.assertEqual(server.held(), [])
        self.assertEqual((server.process.returncode, server.err), (0, ""))


class Counting(unittest.TestCase):
    """The bytes of all uploads together, as the server counts them."""

    def send(self, server: Server, raw: bytes) -> Channel:
        channel = Factory(server).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        assert channel
        channel.makeConnection(Wire())
        if raw:
            channel.dataReceived(raw)
        self.addCleanup(channel.connectionLost, None)
        return channel

    def test_refused_and_cut_off_bodies_are_counted_out(self) -> None:
        config = Config(upload_bytes=64 * 1024)
        engine = Engine(FakeRunner(), config)
        with socket.socket() as listener:
            server = Server(never, listener, engine)

        def received() -> int:
            return config.client_held_bytes - engine.room("127.0.0.1")

        channel = self.send(server, post(bytes(1000), length=2000))
        self.assertEqual(received(), 1000)
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        for raw in (chunk * 2, chunk + b"nonsense\r\n"):
            self.send(server, post(raw, "Transfer-Encoding: chunked"))
            self.assertEqual(received(), 1000)
        engine.config = msgspec.structs.replace(config, client_held_bytes=1001)
        for raw in (post(b"x", length=2), post(b"2\r\nxx\r\n", "Transfer-Encoding: chunked")):
            answer = self.send(server, raw).transport.value()
            self.assertEqual(status_of(answer), 429)
            self.assertIn(b"Retry-After: 5", answer)
            self.assertEqual(engine.room("127.0.0.1"), 1)
            self.assertEqual(engine.room("127.0.0.2"), 1001)
        engine.config = config
        channel.connectionLost(None)
        self.assertEqual(received(), 0)

    def test_a_silence_within_a_request_is_told_and_one_between_two_is_the_end(self) -> None:
        with socket.socket() as listener:
            server = Server(never, listener, Engine(FakeRunner(), Config()))
        for raw, status in ((post(b"x", length=9), 408), (b"GET / HT", 408), (b"", None)):
            channel = self.send(server, raw)
            channel.timeoutConnection()
            answer = channel.transport.value()
            self.assertEqual(status_of(answer) if answer else None, status)

    def test_one_client_has_so_many_connections(self) -> None:
        config = Config(client_connections=2, trust_proxy=("192.0.2.0/24",))
        with socket.socket() as listener:
            factory = Factory(Server(never, listener, Engine(FakeRunner(), config)))

        def connect(host: str) -> Channel | None:
            return factory.buildProtocol(IPv6Address("TCP", host, 1))

        first = connect("2001:db8::1")
        self.assertTrue(first and connect("2001:db8::2"))
        self.assertIsNone(connect("2001:db8::3"))  # the same /64
        self.assertTrue(connect("2001:db8:0:1::1") and connect("::ffff:127.0.0.1"))
        self.assertTrue(connect("127.0.0.1"))
        self.assertIsNone(connect("::ffff:127.0.0.1"))
        self.assertTrue(all(connect("192.0.2.7") for _ in range(10)))
        assert first
        factory.lost("2001:db8::1")
        self.assertTrue(connect("2001:db8::3"))


class Bounds(unittest.TestCase):
    def test_who_holds_too_much_may_still_read_and_delete(self) -> None:
        settings = {"client_held_bytes": 1 << 20, "concurrent_jobs": 9}
        with Wired(files={"big": 2 << 20}, **settings) as server:
            body = form(b"print(1)")
            answer = server.ask(post(body, length=len(body)).replace(b"/submit", b"/submit?wait=9"))
            self.assertEqual(status_of(answer), 200)
            job = json.loads(answer.split(b"\r\n\r\n", 1)[1])
            self.assertEqual(status_of(server.ask(post(body, length=len(body)))), 429)
            for path in ("/health", "/stats", f"/status/{job['job_id']}"):
                self.assertEqual(status_of(server.ask(get(path))), 200, path)
            owner = f"Authorization: Bearer {job['owner_token']}"
            delete = get(f"/jobs/{job['job_id']}", owner).replace(b"GET", b"DELETE", 1)
            self.assertEqual(status_of(server.ask(delete)), 200)
            self.assertEqual(status_of(server.ask(post(body, length=len(body)))), 200)

    def test_who_has_had_the_share_cancels_and_deletes_with_any_body(self) -> None:
        body = form(b"print(1)")
        large = ("Transfer-Encoding: chunked",), ("Content-Length: 2000000",)
        with Wired(hold=True) as server:
            jobs = [body_of(server.ask(post(body, length=len(body)))) for _ in range(2)]
            for headers in large:
                refusal = server.ask(post(b"", *headers))
                self.assertEqual(body_of(refusal)["reason"], "concurrent_jobs")
            nobodys = get("/jobs/nobody/cancel", *large[1]).replace(b"GET", b"POST", 1)
            self.assertEqual(status_of(server.ask(nobodys + bytes(2_000_000))), 404)
            chunks = b"5\r\nhello\r\n0\r\n\r\n"
            for job, method, end, sent in zip(
                jobs, (b"POST", b"DELETE"), ("/cancel", ""), (b"0\r\n\r\n", chunks), strict=True
            ):
                owner = f"Authorization: Bearer {job['owner_token']}"
                raw = get(f"/jobs/{job['job_id']}{end}", owner, *large[0])
                self.assertEqual(status_of(server.ask(raw.replace(b"GET", method, 1) + sent)), 200)
            self.await_active(server, 0)
            self.assertEqual(server.held(), [])

    def test_who_asks_too_often_is_told_before_the_upload_and_only_then(self) -> None:
        bad, expect = post(b"x", length=1), "Expect: 100-continue"
        with Wired(submit_rate="2/d") as server:
            self.assertEqual(status_of(server.ask(bad)), 400)
            for _ in range(3):  # to be asked is not counted
                with server.connect() as client:
                    client.sendall(post(b"", expect, length=90 * MIB))
                    self.assertEqual(status_of(client.recv(65536)), 100)
            self.assertEqual(status_of(server.ask(bad)), 400)
            heard = body_of(server.ask(bad))
            for length in (90 * MIB, None):
                raw = post(b"", expect, *(() if length else ("Transfer-Encoding: chunked",)))
                raw = post(b"", expect, length=length) if length else raw
                for path in (b"/submit", b"/submit?wait=1", b"/%73ubmit", b"http://x/submit"):
                    with self.subTest(path=path, length=length):
                        told = body_of(server.ask(raw.replace(b"/submit", path, 1)))
                        self.assertEqual(told["reason"], "rate_limited")
                        self.assertEqual(told["error"], heard["error"])
            with server.connect() as client:  # each endpoint has its own rate
                client.sendall(post(b"", expect, length=90 * MIB).replace(b"/submit", b"/run", 1))
                self.assertEqual(status_of(client.recv(65536)), 100)

    def test_a_client_that_leaves_while_it_waits_takes_its_job_along(self) -> None:
        body = form(b"print(1)")
        with Wired(hold=True, concurrent_jobs=9, slots=9) as server:
            ways = ("close", "close half", "close behind much", "stay behind much")
            with ExitStack() as stack:
                clients = []
                for leave in ways:
                    for path in (b"/run", b"/submit?wait=60"):
                        client = stack.enter_context(server.connect())
                        raw = post(body, length=len(body)).replace(b"/submit", path)
                        much = get("/health") * 300 if "much" in leave else b""
                        client.sendall(raw.replace(b"Connection: close\r\n", b"") + much)
                        clients.append((leave, client))
                self.await_active(server, len(clients))
                for leave, client in clients:
                    if leave == "close half":
                        client.shutdown(socket.SHUT_WR)
                    elif leave.startswith("close"):
                        client.close()
                self.await_active(server, 0)

    def await_active(self, server: Wired, jobs: int) -> None:
        deadline = time.monotonic() + 10
        while True:
            stats = json.loads(server.ask(get("/stats")).split(b"\r\n\r\n", 1)[1])
            if stats["system"]["active_jobs"] == jobs == stats["your_quota"]["active_jobs"]:
                return
            self.assertLess(time.monotonic(), deadline, stats)
            time.sleep(0.02)  # or reading so often would be refused

    def test_a_head_has_no_body_that_could_be_taken_for_the_next_answer(self) -> None:
        with Wired(files={f"f{number}": 1 for number in range(900)}) as server:
            body = form(b"print(1)")
            answer = server.ask(post(body, length=len(body)).replace(b"/submit", b"/submit?wait=9"))
            job = re.search(rb"job-[0-9a-f]{32}", answer)
            assert job
            for path in ("status", "outputs", "logs", "download"):
                target = f"/{path}/{job[0].decode()}"
                self.assertEqual(status_of(server.ask(get(target))), 200)
                head = b"HEAD" + get(target).removeprefix(b"GET")
                answers = server.ask(head.replace(b"Connection: close\r\n", b"") + get("/health"))
                first, second, rest = answers.split(b"\r\n\r\n", 2)
                self.assertTrue(second.startswith(b"HTTP/1.1 200 OK\r\n"), second[:100])
                self.assertIn(b'"status":"healthy"', rest)

    def test_an_invited_page_can_read_why_it_was_refused(self) -> None:
        with Wired(upload_bytes=64 * 1024, allow_origin=["https://play.example"]) as server:
            for origin, told in (("https://play.example", True), ("https://evil.example", False)):
                answer = server.ask(post(b"", f"Origin: {origin}", length=70_000))
                self.assertEqual(status_of(answer), 413)
                self.assertIs(b"Access-Control-Allow-Origin: " in answer, told)


class Turns(unittest.IsolatedAsyncioTestCase):
    async def test_a_crowd_is_let_in_a_few_at_a_time_and_in_its_order(self) -> None:
        turnstile, turn, entered = Turnstile(3), 0, []

        async def ask(number: int) -> None:
            await turnstile.enter()
            entered.append((turn, number))

        crowd = [asyncio.create_task(ask(number)) for number in range(20)]
        crowd[5].cancel()  # whoever leaves takes nobody's place
        while not all(task.done() for task in crowd):
            await asyncio.sleep(0)
            turn += 1
        self.assertEqual([number for _, number in entered], [n for n in range(20) if n != 5])
        self.assertLessEqual(max(Counter(turn for turn, _ in entered).values()), 3)
        await asyncio.wait_for(turnstile.enter(), 1)  # afterwards nobody waits


class Wire(StringTransport):
    def loseWriteConnection(self) -> None:
        pass


async def never(*args: object, **kwargs: object) -> None:
    raise AssertionError("nothing is asked of Django here")


class Crowd(unittest.TestCase):
    def test_whoever_asks_for_health_does_not_wait_for_a_crowd_of_sockets(self) -> None:
        """All handshakes are there before the server hears any; few of them are dealt with before
        the question that came last."""
        handshake = get(
            "/stream/none",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        ).replace(b"Connection: close\r\n", b"")
        with Wired(client_connections=1000) as server, ExitStack() as stack:
            crowd = [stack.enter_context(server.connect()) for _ in range(200)]
            asking = stack.enter_context(server.connect())
            server.ask(get("/health"))  # all before are accepted
            server.process.send_signal(signal.SIGSTOP)
            for client in crowd:
                client.sendall(handshake)
            asking.sendall(get("/health"))
            began = cpu_seconds(server.process.pid)
            server.process.send_signal(signal.SIGCONT)
            self.assertEqual(status_of(read_all(asking)), 200)
            before = cpu_seconds(server.process.pid) - began
            for client in crowd:
                self.assertEqual(status_of(client.recv(65536)), 101)
            whole = cpu_seconds(server.process.pid) - began
            self.assertLess(before, whole / 3)


class Targets(unittest.TestCase):
    def test_a_whole_url_is_its_path_and_its_host(self) -> None:
        evil = ("Host: evil.example", "Connection: close")
        with Wired() as server:
            for target, headers, status in (
                ("http://localhost/health", (), 200),
                ("HTTP://LOCALHOST:1/health?x=1", (), 200),
                ("http://localhost/submit", (), 405),
                ("http://localhost", (), 200),
                ("http://localhost?x=/nope", (), 200),
                ("http://localhost//health", (), 404),
                ("http://localhost/health", evil, 200),  # RFC 9112: the Host header means nothing
                ("http://evil.example/health", (), 400),
                ("http://localhost@evil.example/health", (), 400),
                ("http://evil.example#@localhost/health", (), 400),
                ("http:///health", (), 400),
                ("http://localhost/health", ("Connection: close",), 400),
                ("http://localhost/health", (*evil, "Host: localhost"), 400),
                ("ftp://localhost/health", (), 404),
            ):
                with self.subTest(target):
                    raw = get(target)
                    if headers:
                        raw = "\r\n".join((f"GET {target} HTTP/1.1", *headers, "", "")).encode()
                    self.assertEqual(status_of(server.ask(raw)), status)

    def test_a_foreign_site_stays_foreign(self) -> None:
        raw = post(form(b"x"), "Origin: http://evil.example", length=len(form(b"x")))
        with Wired() as server:
            answer = server.ask(raw.replace(b" /submit", b" http://localhost/submit"))
            self.assertEqual(status_of(answer), 403)


class HalfClosed(unittest.TestCase):
    """Clients that say that they will ask no more, as `nc -N` does, and read on."""

    def ask(self, server: Wired, raw: bytes) -> bytes:
        with server.connect() as client:
            client.sendall(raw)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def test_they_hear_all_that_they_asked(self) -> None:
        body = form(b"print(1)")
        submit = post(body, length=len(body))
        with Wired(files={"big": 12 * MIB}) as server:
            keep = get("/health").replace(b"Connection: close\r\n", b"")
            for raw in (keep, get("/health")):
                self.assertEqual(status_of(self.ask(server, raw)), 200)
            self.assertEqual(self.ask(server, keep * 3).count(b"HTTP/1.1 200 OK"), 3)
            self.assertEqual(self.ask(server, keep * 500).count(b"HTTP/1.1 200 OK"), 500)
            for path in (b"/run", b"/submit?wait=9", b"/submit"):
                raw = submit.replace(b"/submit", path, 1).replace(b"Connection: close\r\n", b"")
                answer = self.ask(server, raw)
                self.assertEqual(status_of(answer), 200)
            job_id = body_of(answer)["job_id"]
            answer = self.ask(server, keep.replace(b"/health", f"/download/{job_id}/big".encode()))
            self.assertEqual(len(answer.split(b"\r\n\r\n", 1)[1]), 12 * MIB)
        self.assertEqual((server.process.returncode, server.out, server.err), (0, "", ""))

    def test_what_is_cut_off_is_not_done_and_what_is_refused_is_told(self) -> None:
        with Wired() as server:
            for raw in (b"", b"GET /hea", post(b"", length=9), get("/health")[:-2]):
                self.assertEqual(self.ask(server, raw), b"")
            self.assertEqual(status_of(self.ask(server, b"GARBAGE\r\n\r\n")), 400)
            self.assertEqual(status_of(self.ask(server, post(b"", length=1 << 40))), 413)
            self.assertEqual(
                status_of(self.ask(server, get("/health").replace(b"GET", b"get"))), 405
            )
            self.assertEqual(server.held(), [])
        self.assertEqual((server.process.returncode, server.err), (0, ""))


class Deadlines(unittest.TestCase):
    def test_a_trickle_does_not_prolong_them(self) -> None:
        with Wired(head_seconds=0.5, body_seconds=0.5) as server:
            for start in (b"GET / HTTP/1.1\r\nX: ", post(b"", length=1000)):
                with server.connect() as client:
                    began = time.monotonic()
                    client.sendall(start)
                    while not readable(client, 0.05):
                        self.assertLess(time.monotonic() - began, 3)
                        client.sendall(b"a")
                    self.assertEqual(status_of(read_all(client)), 408)


class Answers(unittest.TestCase):
    def submit(self, server: Wired) -> str:
        answer = server.ask(post(form(b"x"), length=len(form(b"x"))))
        job_id = str(body_of(answer)["job_id"])
        with urlopen(f"http://127.0.0.1:{server.port}/status/{job_id}?wait=5") as response:
            self.assertEqual(json.load(response)["status"], "completed")
        return job_id

    def test_a_client_that_does_not_read_costs_no_memory_and_is_left(self) -> None:
        with Wired(files={"big": 64 * MIB}, stall_seconds=0.5) as server:
            job_id = self.submit(server)
            before = server.peak_rss()
            clients = [server.connect() for _ in range(4)]
            for client in clients:
                client.sendall(get(f"/download/{job_id}/big"))
            time.sleep(1.5)
            self.assertLess(server.peak_rss() - before, 32 * MIB)
            for client in clients:
                with client, self.assertRaises(ConnectionResetError):
                    read_all(client)
            with urlopen(f"http://127.0.0.1:{server.port}/download/{job_id}/big") as response:
                self.assertEqual(len(response.read()), 64 * MIB)
        self.assertEqual((server.process.returncode, server.err), (0, ""))

    def test_what_a_client_does_not_read_holds_little_memory_of_the_kernel(self) -> None:
        with Wired(files={"big": 16 * MIB}) as server:
            job_id = self.submit(server)
            with ExitStack() as stack:
                for _ in range(10):
                    client = stack.enter_context(server.connect())
                    client.sendall(get(f"/download/{job_id}/big"))
                deadline, queues = time.monotonic() + 10, [0]
                while len(queues) < 10 or min(queues) < 64 * 1024:  # all have been answered
                    self.assertLess(time.monotonic(), deadline, queues)
                    queues = unread(server.port)
                server.ask(get("/health"))  # and the server had time for more
                self.assertLess(max(unread(server.port)), MIB)

    def test_a_client_that_does_not_read_the_end_is_left_too(self) -> None:
        sizes = [size * 1024 for size in range(350, 751, 50)]  # about what the kernel holds
        with Wired(files={str(size): size for size in sizes}, stall_seconds=0.5) as server:
            job_id = self.submit(server)
            with ExitStack() as stack:
                for size in sizes:
                    for half in (False, True):
                        client = stack.enter_context(server.connect())
                        client.sendall(get(f"/download/{job_id}/{size}"))
                        if half:
                            client.shutdown(socket.SHUT_WR)
                        self.assertEqual(client.recv(1), b"H")  # the answer has begun
                deadline = time.monotonic() + 8
                while sockets_of(server.process.pid) > 1:  # the one that listens
                    self.assertLess(time.monotonic(), deadline, sockets_of(server.process.pid))
                    time.sleep(0.05)

    def test_a_request_that_is_over_is_gone_without_the_garbage_collector(self) -> None:
        """With it what its client did not read, and the head with its token. However it ends."""
        with Wired(files={"big": 4 * MIB}, collects=False) as server:
            job_id = self.submit(server)
            whole = (get("/health"), get("/nowhere"), get(f"/status/{job_id}"), get("/status/none"))
            for raw in (*whole, post(b"x", length=1), get(f"/download/{job_id}/big")):
                server.ask(raw)
            for path in (f"/download/{job_id}/big", f"/download/{job_id}?format=tar"):
                with server.connect() as client:
                    client.sendall(get(path))
                    self.assertEqual(client.recv(1), b"H")  # and leaves
            deadline = time.monotonic() + 10
            while living := server.living():
                self.assertLess(time.monotonic(), deadline, living)
                time.sleep(0.1)  # Daphne looks once a second which are over

    def test_raw_bytes_in_a_name_reach_the_file(self) -> None:
        with Wired(files={"\udcff\n.bin": 3}) as server:
            job_id = self.submit(server)
            answer = server.ask(get(f"/download/{job_id}/%ff%0a.bin"))
            self.assertEqual((status_of(answer), answer[-3:]), (200, b"\0\0\0"))

    def test_requests_in_one_connection(self) -> None:
        with Wired() as server, server.connect() as client:
            keep = get("/health").replace(b"Connection: close\r\n", b"")
            client.sendall(keep + keep + get("/health"))
            self.assertEqual(read_all(client).count(b"HTTP/1.1 200 OK"), 3)

    def test_head_has_no_body(self) -> None:
        with Wired() as server:
            answer = server.ask(get("/health").replace(b"GET", b"HEAD"))
            self.assertEqual((status_of(answer), answer.split(b"\r\n\r\n")[1]), (200, b""))


class Ending(unittest.TestCase):
    def test_a_half_sent_upload_does_not_hold_the_server(self) -> None:
        with Wired() as server:
            client = server.connect()
            client.sendall(post(b"--xYx", length=1000))
            waiting = server.connect()
            waiting.sendall(get("/health"))
            read_all(waiting)
            waiting.close()
            began = time.monotonic()
        client.close()
        self.assertLess(time.monotonic() - began, 3)
        self.assertEqual((server.process.returncode, server.out, server.err), (0, "", ""))

    def test_whoever_waits_for_a_job_is_told_that_it_was_cancelled(self) -> None:
        with Wired(hold=True) as server:
            answer = server.ask(post(form(b"x"), length=len(form(b"x"))))
            client = server.connect()
            client.sendall(get(f"/status/{body_of(answer)['job_id']}?wait=60"))
            self.assertFalse(readable(client, 0.3))
        body = body_of(read_all(client))
        client.close()
        self.assertEqual((body["status"], body["reason"]), ("failed", "cancelled"))
        self.assertEqual((server.process.returncode, server.err), (0, ""))


class Paths(unittest.TestCase):
    def test_no_header_moves_the_site(self) -> None:
        with Wired() as server:
            answer = server.ask(get("/x/health", "Daphne-Root-Path: /x"))
            self.assertEqual(status_of(answer), 404)
