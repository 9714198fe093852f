"""/metrics for Prometheus, on a listener of its own that the operator chooses: the public door has
no such path. Labels are words of fixed lists; no id, address or name is in the text.

Imported only where it is asked for: the library takes 0.15 s to load.
"""

import platform
import socket
import typing
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from twisted.internet import protocol
from twisted.protocols import policies

from jobs import VERSION
from jobs.api.channel import reactor
from jobs.api.server import Server
from jobs.errors import Reason
from jobs.figures import Durations
from sandbox import model

HEAD_BYTES = 8 * 1024
SECONDS = 5  # for a whole connection
CONNECTIONS = 8

TwistedProtocol: Any = protocol.Protocol  # come without types
TwistedFactory: Any = protocol.Factory
TimeoutMixin: Any = policies.TimeoutMixin

_ENDS = [("completed", ""), *(("failed", reason) for reason in model.REASONS)]


def listen(listener: socket.socket, server: Server) -> None:
    """Answer on `listener` what there is to tell about `server`, as long as the reactor runs."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServerCollector(server))
    ProcessCollector(registry=registry)
    reactor.adoptStreamPort(listener.fileno(), listener.family, ScrapeFactory(registry))
    listener.close()  # Twisted has its own copy of it


class ServerCollector(Collector):
    """Looks when it is asked: only what is over was counted before."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._build = {"version": VERSION, "python": platform.python_version()}

    def collect(self) -> Iterator[Metric]:
        engine = self._server.engine
        figures = engine.figures
        yield InfoMetricFamily("sandrun_build", "What runs", self._build)
        for name, text, value in (
            ("healthy", "1 while jobs can be run", engine.runner.alive),
            ("slots", "Jobs that may run at once", engine.config.slots),
            ("jobs_running", "Jobs in slots", engine.running),
            ("jobs_waiting", "Jobs in line", engine.waiting),
            ("jobs_known", "Jobs that are not forgotten", len(engine.store)),
            ("held_bytes", "Uploads, logs and outputs of jobs", engine.store.held_bytes),
            ("held_bytes_limit", "What may be held, receiving included", engine.config.held_bytes),
            ("receiving_bytes", "Uploads on their way", engine.receiving),
            ("connections", "Connections of clients", self._server.http_factory.clients.total()),
            ("watchers", "Who follow a job", engine.store.watchers),
        ):
            yield GaugeMetricFamily(f"sandrun_{name}", text, float(value))
        jobs = CounterMetricFamily("sandrun_jobs", "Jobs that are over", labels=["state", "reason"])
        for end in _ENDS:
            jobs.add_metric(end, figures.jobs[end])
        yield jobs
        refused = CounterMetricFamily("sandrun_refused", "Requests refused", labels=["reason"])
        for reason in typing.get_args(Reason):
            refused.add_metric([reason], figures.refused[reason])
        yield refused
        yield CounterMetricFamily(
            "sandrun_job_cpu_seconds", "CPU time of jobs that are over", figures.cpu_seconds
        )
        yield _histogram("queue", "From submission until a job left the line", figures.queued)
        yield _histogram("launch", "Until a job's sandbox stood", figures.launch)
        yield _histogram("run", "From a program's start to its end", figures.run)


def _histogram(name: str, text: str, durations: Durations) -> HistogramMetricFamily:
    buckets, total = [], 0
    for bound, count in zip((*durations.bounds, "+Inf"), durations.counts, strict=True):
        total += count
        buckets.append((str(bound), float(total)))
    return HistogramMetricFamily(f"sandrun_{name}_seconds", text, buckets, durations.seconds)


class Scrape(TwistedProtocol, TimeoutMixin):
    """One connection: a head, an answer, and all of it in a few seconds."""

    def __init__(self, factory: "ScrapeFactory") -> None:
        self.factory = factory
        self._head = b""
        self._answered = False

    def connectionMade(self) -> None:
        self.setTimeout(SECONDS)  # never prolonged

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.setTimeout(None)
        self.factory.open -= 1

    def dataReceived(self, data: bytes) -> None:
        if self._answered:
            return
        self._head += data
        if len(self._head) > HEAD_BYTES:
            self._answer(431, b"The head is too long\n")
        elif b"\r\n\r\n" in self._head:
            self._answer(*self._asked(self._head.partition(b"\r\n")[0].split(b" ")))

    def _asked(self, words: list[bytes]) -> tuple[int, bytes]:
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return 400, b"This is not HTTP/1\n"
        if words[1].partition(b"?")[0] != b"/metrics":
            return 404, b"Only /metrics is here\n"
        if words[0] != b"GET":
            return 405, b"Only GET is answered\n"
        return 200, generate_latest(self.factory.registry)

    def _answer(self, status: int, body: bytes) -> None:
        self._answered = True
        kind = CONTENT_TYPE_PLAIN_0_0_4 if status == 200 else "text/plain; charset=utf-8"
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"Content-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\n"
            "X-Content-Type-Options: nosniff\r\n"
            "Allow: GET\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.loseConnection()


class ScrapeFactory(TwistedFactory):
    """Makes the connections, a few at once."""

    noisy = False

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.open = 0

    def buildProtocol(self, addr: object) -> Scrape | None:
        if self.open >= CONNECTIONS:
            return None  # Twisted closes it
        self.open += 1
        return Scrape(self)
