"""/metrics: what an operator's Prometheus hears, on a listener of its own, and nobody else."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
import typing
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.api.metrics import CONNECTIONS, HEAD_BYTES, SECONDS
from jobs.errors import Reason
from tests.journeys.server import REPOSITORY, Answer, Client, Server, parse

Key = tuple[str, tuple[tuple[str, str], ...]]

ENDS = {"", "exit", "signal", "timeout", "memory", "cpu", "cpu_quota", "cancelled", "sandbox_error"}
LABELS = {  # all that there are, and all their values
    "state": {"completed", "failed"},
    "reason": ENDS | set(typing.get_args(Reason)),
}
NUMBERS = {"le": r"\+Inf|\d+\.\d+", "version": r"\d+\.\d+\.\d+", "python": r"\d+\.\d+\.\d+\S*"}


class Scraped(Server):
    """A server with metrics, on whatever port is free."""

    def __init__(self) -> None:
        super().__init__("--no-quotas", "--metrics", "127.0.0.1:0")
        found = re.search(r"Metrics are at http://127.0.0.1:(\d+)/metrics\n", self.banner)
        assert found, self.banner
        self.scraped = int(found[1])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.scraped), timeout=20)

    def exchange(self, raw: bytes) -> Answer:
        with self.connect() as client:
            client.sendall(raw)
            return parse(read_all(client))

    def text(self) -> str:
        answer = self.exchange(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.status == 200, answer
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert int(answer.headers["content-length"]) == len(answer.body)
        return answer.body.decode()

    def figures(self) -> dict[Key, float]:
        return dict(samples(self.text()))

    def now(self, name: str, **labels: str) -> float:
        return self.figures()[f"sandrun_{name}", tuple(sorted(labels.items()))]


def samples(text: str) -> Iterator[tuple[Key, float]]:
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type != "unknown", family
        for sample in family.samples:
            yield (sample.name, tuple(sorted(sample.labels.items()))), sample.value


def read_all(client: socket.socket) -> bytes:
    received = bytearray()
    while piece := client.recv(65536):
        received += piece
    return bytes(received)


@pytest.fixture(scope="module")
def server() -> Iterator[Scraped]:
    server = Scraped()
    try:
        yield server
    finally:
        assert server.end() == 0, server.banner


def test_jobs_and_refusals_are_counted(server: Scraped) -> None:
    before = server.figures()
    burn = b"import time\nwhile time.process_time() < 0.3: pass\nprint(5)"
    server.run({"main.py": burn})
    server.run({"main.py": b"exit(3)"})
    status, _ = server.run({"main.py": b"import time; time.sleep(60)"}, timeout=1)
    assert status["reason"] == "timeout"
    for path, code in (("/status/x", 404), ("/nothing", 404), ("/nothing", 404)):
        assert server.request("GET", path)[0] == code
    assert server.submit({"main.py": b""}, {"timout": 1})[0] == 400
    assert server.request("GET", "/" + "x" * 20_000)[0] == 414  # below Django
    after = server.figures()

    def more(name: str, **labels: str) -> float:
        key = (f"sandrun_{name}", tuple(sorted(labels.items())))
        return after[key] - before[key]

    assert more("jobs_total", state="completed", reason="") == 1
    assert more("jobs_total", state="failed", reason="exit") == 1
    assert more("jobs_total", state="failed", reason="timeout") == 1
    changed = {key for key in after if key[0] == "sandrun_jobs_total" and after[key] > before[key]}
    assert len(changed) == 3
    assert more("refused_total", reason="unknown_job") == 1
    assert more("refused_total", reason="unknown_path") == 2
    assert more("refused_total", reason="invalid_manifest") == 1
    assert more("refused_total", reason="too_large") == 1
    assert 0.3 < more("job_cpu_seconds_total") < 3
    for name in ("queue", "launch", "run"):
        assert more(f"{name}_seconds_count") == more(f"{name}_seconds_bucket", le="+Inf") == 3
    assert more("run_seconds_bucket", le="0.25") <= 1  # one burns longer, one sleeps longer
    assert 1.3 < more("run_seconds_sum") < 10
    assert 0 < more("launch_seconds_sum") < 5
    assert more("jobs_known") == 3
    assert 2 <= more("held_bytes") < 1000  # for the two that were printed
    assert 50e6 < after["process_resident_memory_bytes", ()] < 500e6
    assert 10 < after["process_open_fds", ()] < 1000
    assert after["sandrun_healthy", ()] == 1


def test_what_goes_on_is_seen(server: Scraped) -> None:
    slots = int(server.now("slots"))
    sleeper = {"main.py": b"import time; print('up', flush=True); time.sleep(60)"}
    jobs = []
    for _ in range(slots + 1):
        answer = server.submit(sleeper, {"memory_mb": 16})[1]
        jobs.append((answer["job_id"], answer["owner_token"]))
    server.wait_for_log(jobs[0][0], "up")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as watcher:
        connections = server.now("connections")
        watcher.sendall(
            f"GET /logs/{jobs[0][0]}?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        assert b"200 OK" in watcher.recv(4096)
        assert server.now("watchers") == 1
        assert (server.now("jobs_running"), server.now("jobs_waiting")) == (slots, 1)
        assert connections >= 1
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sender:
        head = "POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        sender.sendall(head.encode() + b"x" * 50_000)
        until(lambda: server.now("receiving_bytes") == 50_000)
    cancelled = server.now("jobs_total", state="failed", reason="cancelled")
    for job, token in reversed(jobs):  # the one that waits first
        assert server.request("DELETE", f"/jobs/{job}", Authorization=f"Bearer {token}")[0] == 200
    until(lambda: server.now("jobs_running") == server.now("jobs_waiting") == 0)
    until(lambda: server.now("receiving_bytes") == server.now("watchers") == 0)
    assert server.now("jobs_total", state="failed", reason="cancelled") == cancelled + slots + 1


def until(true: typing.Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nothing_in_it_names_a_client_a_job_or_a_file(server: Scraped) -> None:
    async def submit() -> dict[str, typing.Any]:
        client = Client(server.port, "127.0.0.77")
        manifest = {
            "entrypoint": "canary.py",
            "args": ["canary"],
            "env": {"CANARY": "canary"},
            "canary": 1,
        }
        code = {"canary.py": b"open('canary.txt', 'w').write('canary'); print('canary')"}
        refused = await client.submit(code, **manifest)
        assert refused.status == 400
        await client.ask("CANARY", "/canary")
        await client.ask("GET", "/download/canary/canary")
        del manifest["canary"]
        return dict((await client.submit(code, 30, **manifest)).json)

    job = asyncio.run(submit())
    assert job["status"] == "completed", job
    text = server.text()
    assert "canary" not in text.lower()
    assert job["job_id"][4:] not in text and job["owner_token"] not in text
    assert job["job_hash"] not in text
    assert "127.0.0" not in text and "python3" not in text
    for (name, labels), _ in samples(text):
        for label, value in labels:
            known = LABELS.get(label)
            if known is None:
                assert re.fullmatch(NUMBERS[label], value), (name, label, value)
            else:
                assert value in known, (name, label, value)


def test_histograms_are_cumulative(server: Scraped) -> None:
    server.run({"main.py": b""})
    figures = server.figures()
    for name in ("queue", "launch", "run"):
        buckets = [
            value for (key, _), value in figures.items() if key == f"sandrun_{name}_seconds_bucket"
        ]
        assert len(buckets) > 10 and buckets == sorted(buckets)
        assert buckets[-1] == figures[f"sandrun_{name}_seconds_count", ()] > 0


def test_the_public_door_has_no_metrics_and_this_one_nothing_else(server: Scraped) -> None:
    for path in ("/metrics", "/metrics/", "//metrics", "/metrics?x=1"):
        status, body, _ = server.request("GET", path)
        assert (status, json.loads(body)["reason"]) == (404, "unknown_path")
    for raw, status in (
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /health HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01" + b"\xff" * 100 + b"\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES, 431),
        (b"GET /metrics?name=x HTTP/1.0\r\n\r\n", 200),
    ):
        assert server.exchange(raw).status == status, raw[:50]


def test_a_head_in_pieces_is_one_head_and_one_that_never_ends_is_left(server: Scraped) -> None:
    with server.connect() as client:
        for byte in b"GET /metrics HTTP/1.1\r\n\r\n":
            client.sendall(bytes([byte]))
        assert parse(read_all(client)).status == 200
    began = time.monotonic()
    with server.connect() as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n")
        with pytest.raises(ConnectionResetError):
            assert read_all(client) is None
    assert SECONDS - 0.5 < time.monotonic() - began < SECONDS + 5


def test_more_connections_than_a_few_are_not_held(server: Scraped) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(CONNECTIONS)]
        with server.connect() as one_more:
            assert one_more.recv(1) == b""
        assert server.request("GET", "/health")[0] == 200
        clients.pop().close()
        until(lambda: answers(server))


def answers(server: Scraped) -> bool:
    try:
        return bool(server.text())
    except (ConnectionError, IndexError):  # closed at once
        return False


def listening(pid: int) -> int:
    """How many sockets a process listens on."""
    inodes = {
        line.split()[9]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    return sum(link in {f"socket:[{inode}]" for inode in inodes} for link in links)


def test_without_the_option_nobody_listens_for_it(server: Scraped) -> None:
    assert listening(server.pids()["web"]) == 2
    plain = Server()
    try:
        assert "etrics" not in plain.banner
        assert listening(plain.pids()["web"]) == 1
    finally:
        assert plain.end() == 0


def test_without_the_option_the_library_is_not_loaded() -> None:
    code = (
        "import os, sys, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'sandrun_site.settings';"
        "django.setup(); import sandrun_site.management.commands.serve, sandrun_site.urls;"
        "print('prometheus_client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n", done


def test_an_address_that_cannot_be_had_is_a_sentence(server: Scraped) -> None:
    for option, code, word in (
        (["--metrics", f"127.0.0.1:{server.scraped}"], 1, "Address already in use"),
        (["--metrics=127.0.0.1:70000"], 1, "no such port"),
        (["--metrics=::1:90"], 1, "SANDRUN setting"),
        (["--metrics"], 2, "needs a value"),
        (["--metrics", "9100"], 2, "needs HOST:PORT, not '9100'"),
        (["--metrics=localhost:"], 2, "needs HOST:PORT"),
        (["--metrics=x:1;id:1"], 2, "needs HOST:PORT"),
    ):
        done = subprocess.run(
            [str(REPOSITORY / "script/server"), "--port", "0", *option],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert (done.returncode, word in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr
