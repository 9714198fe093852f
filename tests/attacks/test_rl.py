"""RL: quotas, rates, and what can be guessed. Whoever asks for more than his share hears so, under
whatever name he asks; and what he is refused costs nobody anything.
"""

import asyncio
import json
import math
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jobs.api.clients import Counters, client_name
from jobs.bundle import Bundle
from jobs.conf import Config
from jobs.job import Job, Moment
from jobs.manifest import Manifest
from jobs.memory import MemoryFile
from jobs.quota import CLIENTS, Quota
from jobs.terms import Terms
from sandbox.model import Limits
from sandrun_site import settings
from tests.attacks.arena import Attacker
from tests.attacks.invariants import ALONE, size
from tests.attacks.wire import (
    GOOD_GZ,
    GOOD_ZIP,
    MIB,
    asked,
    each,
    file,
    json_submission,
    packed,
    ran,
    refused,
    request,
    submission,
)
from tests.journeys.server import Answer, Client, Server, cgroups_of, eventually, memory_of, targz
from tests.journeys.test_crowd import upload

MAIN_PART = file("main.py", b"print('ran')")
SLEEPER = {"run.sh": b"echo up; sleep 50"}
PROXY = "127.250.0.1"
SPOOFS = [
    "X-Forwarded-For: {0}", "X-Real-IP: {0}", "Forwarded: for={0}", "CF-Connecting-IP: {0}",
    "True-Client-IP: {0}", "X-Client-IP: {0}", "X-Forwarded: {0}", "Forwarded-For: {0}",
    "X-Cluster-Client-IP: {0}", "Fastly-Client-IP: {0}", "X-Originating-IP: {0}", "Via: 1.1 {0}",
    "X-Remote-Addr: {0}", "Remote-Addr: {0}", "X_Forwarded_For: {0}", "Client-IP: {0}",
    "X-Forwarded-For: {0}, {0}", "X-Forwarded-For: {0}\r\nX-Forwarded-For: 192.0.2.9",
    "X-Azure-ClientIP: {0}", "Akamai-Client-IP: {0}", "X-ProxyUser-Ip: {0}", "REMOTE_ADDR: {0}",
]  # fmt: skip


@contextmanager
def serving(*options: str, **given: object) -> Iterator[Server]:
    """A server with quotas of every day, but for what is `given`. It prints nothing meanwhile, and
    at its end nothing of it is left."""
    env = {f"SANDRUN_{name.upper()}": value for name, value in given.items()}
    server = Server(*options, prefix=ALONE, env=env)
    keeper, said = server.pids()["keeper"], server.banner
    try:
        yield server
    finally:
        assert server.end() == 0, server.banner
    assert server.banner == said, "it printed something"
    assert not cgroups_of(keeper)


@pytest.fixture(scope="module")
def everyday() -> Iterator[Server]:
    """As anybody starts it, behind one proxy at most; with a slot for others beside a client's two,
    which one processor would not give."""
    with serving("--trust-proxy", f"{PROXY}/32", slots=4) as server:
        yield server


READS, SUBMITS, WINDOW = 40, 4, 3


@pytest.fixture(scope="module")
def tight() -> Iterator[Server]:
    """With rates that are soon used up."""
    with serving(
        "--trust-proxy", f"{PROXY}/32",
        read_rate=f"{READS}/m", submit_rate=f"{SUBMITS}/{WINDOW}s", client_held_bytes=2 * MIB,
    ) as server:  # fmt: skip
        yield server


@pytest.fixture(autouse=True)
def theirs_are_calm(everyday: Server, tight: Server, attacker: Attacker) -> Iterator[None]:
    """After every test, too: the invariants look at the session's server only."""
    yield
    for server in (everyday, tight):
        assert eventually(
            lambda s=server: (
                list(s.get("/stats")["system"].values())[:2] == [0, 0]
                and not memory_of(s.pids()["web"]).memfds
                and not cgroups_of(s.process.pid)
            ),
            10,
        ), server.get("/stats")


def quota_of(client: Attacker, *headers: str) -> dict[str, Any]:
    answer = client.answer(request("GET", "/stats", None, *headers))
    assert answer.status == 200, answer
    return dict(answer.json["your_quota"])


@contextmanager
def busy(client: Attacker, count: int, *headers: str) -> Iterator[list[str]]:
    """So many jobs that wait to be ended, submitted with `headers`."""
    sleeper = submission(file("run.sh", SLEEPER["run.sh"]), headers=headers)
    answers = [client.answer(sleeper) for _ in range(count)]
    assert [answer.status for answer in answers] == [200] * count, answers
    for answer in answers:
        client.accepted(answer)
    try:
        yield [answer.json["job_id"] for answer in answers]
    finally:
        for answer in answers:
            bearer = f"Authorization: Bearer {answer.json['owner_token']}"
            client.answer(request("DELETE", f"/jobs/{answer.json['job_id']}", None, bearer))
            del client.tokens[answer.json["job_id"]]


@contextmanager
def over(client: Attacker) -> Iterator[str]:
    """The id of a job that has come to its end; asks nothing but to start and to delete it."""
    answer = client.answer(submission(MAIN_PART, query="?wait=60"))
    assert (answer.status, answer.json["status"]) == (200, "completed"), answer
    try:
        yield answer.json["job_id"]
    finally:
        bearer = f"Authorization: Bearer {answer.json['owner_token']}"
        gone = client.answer(request("DELETE", f"/jobs/{answer.json['job_id']}", None, bearer))
        assert gone.status == 200, gone


# --- who asks ----------------------------------------------------------------------------------


def test_no_header_makes_another_client_of_a_direct_one(everyday: Server) -> None:
    """RL-01, RL-03. Two jobs are there; with any header, and another address in it each time, they
    are still this client's, and the third is refused."""
    client = Attacker(everyday)
    with busy(client, 2):

        def check(header: str) -> None:
            assert quota_of(client, header)["active_jobs"] == 2
            body = refused(
                client.exchange(submission(MAIN_PART, headers=[header])), 429,
                reason="concurrent_jobs",
            )  # fmt: skip
            assert body["retry_after"] > 0

        cases = [(name, name.format(f"198.51.100.{n}")) for n, name in enumerate(SPOOFS)]
        assert each(cases, check) == len(SPOOFS)
        stranger = Attacker(everyday)
        assert quota_of(stranger)["active_jobs"] == 0, "that was told apart by its address"


CLIENT = "198.51.100.7"
CLIENTS_OWN = [
    f"X-Forwarded-For: {CLIENT}", f"X-Forwarded-For: {CLIENT}:99",
    f"X-Forwarded-For: ::ffff:{CLIENT}", f"X-Forwarded-For: [::ffff:{CLIENT}]:99",
    "X-Forwarded-For: ::ffff:c633:6407",
    f"X-Forwarded-For: 6.6.6.6, {CLIENT}", f"X-Forwarded-For:   {CLIENT}  ",
    f"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: {CLIENT}", f"X-Forwarded-For: unknown, {CLIENT}",
    f"X-Forwarded-For: {CLIENT}\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6",
    f"X-Forwarded-For: {CLIENT}, {PROXY}", f"X-Forwarded-For: ,, {CLIENT}, ,",
    f"X-Forwarded-For: {', '.join(['6.6.6.6'] * 1000)}, {CLIENT}",
]  # fmt: skip
PROXYS_OWN = [
    "X: y", "X-Forwarded-For: ", "X-Forwarded-For: unknown", "X-Forwarded-For: 1.2.3",
    f"X-Forwarded-For: {CLIENT}.", f"X-Forwarded-For: {CLIENT}; x", f"X-Forwarded-For: {CLIENT} x",
    "X-Forwarded-For: 198.51.100.007", "X-Forwarded-For: 3325256711", "X-Forwarded-For: 0x7f.1",
    f"X-Forwarded-For: {'1' * 10_000}", "X-Forwarded-For: \xff",
    f"X-Forwarded-For: {CLIENT}/32", f"X-Forwarded-For: {CLIENT}, unknown", "X-Forwarded-For: ::g",
    f"X-Forwarded-For: {PROXY}", f"X-Forwarded-For: {CLIENT}:99:99", "X-Forwarded-For: localhost",
]  # fmt: skip
IPV6 = "2001:db8:7:7"
SUBNETS_OWN = [
    f"X-Forwarded-For: {IPV6}::1", f"X-Forwarded-For: [{IPV6}:ffff::2]:99",
    f"X-Forwarded-For: {IPV6}::3%eth0", f"X-Forwarded-For: [{IPV6}::4%25eth0]",
    f"X-Forwarded-For: {IPV6.upper()}:1:2:3:4", "X-Forwarded-For: 2001:0DB8:0007:0007:0:0:0:9",
]  # fmt: skip
UNDERSCORED = f"X_Forwarded_For: {CLIENT}"


def test_what_a_trusted_proxy_says_is_an_address_or_nothing(everyday: Server) -> None:
    """RL-03. One job is the client's, two the proxy's own and one a subnet's: so /stats tells which
    of them a header is taken for, or none of them."""
    proxy = Attacker(everyday)
    proxy.address = PROXY
    with busy(proxy, 1, CLIENTS_OWN[0]), busy(proxy, 2), busy(proxy, 1, SUBNETS_OWN[0]) as [job]:

        def check(case: tuple[str, int]) -> None:
            header, expected = case
            assert quota_of(proxy, header)["active_jobs"] == expected

        cases = [(ascii(header)[:60], (header, 1)) for header in CLIENTS_OWN]
        cases += [(ascii(header)[:60], (header, 2)) for header in PROXYS_OWN]
        # CVE-2026-3902: an underscore is no other way to write it, alone or beside the real one.
        cases += [("underscored", (UNDERSCORED, 2))]
        cases += [("both", (f"X-Forwarded-For: 192.0.2.3\r\n{UNDERSCORED}", 0))]
        cases += [(header, (header, 1)) for header in SUBNETS_OWN]
        cases += [("other subnet", ("X-Forwarded-For: 2001:db8:7:8::1", 0))]
        cases += [("other address", ("X-Forwarded-For: 198.51.100.8", 0))]
        assert each(cases, check) == len(cases) > 40
        assert job


ONE_SUBNET = 10_000


def pipelined(server: Server, address: str, requests: list[bytes]) -> list[bytes]:
    """The bodies of the answers to many requests over one connection, none chunked."""
    bodies = []
    with socket.create_connection(("127.0.0.1", server.port), 60, (address, 0)) as client:
        stream = client.makefile("rb")
        for start in range(0, len(requests), 50):
            some = requests[start : start + 50]
            client.sendall(b"".join(some))
            for _ in some:
                length = 0
                while (line := stream.readline().lower()) not in (b"\r\n", b""):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                bodies.append(stream.read(length))
    return bodies


def asking(path: str, forwarded: str) -> bytes:
    """A request of `forwarded` by way of the proxy, which keeps the connection."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {forwarded}\r\n\r\n".encode()
    )


def test_all_addresses_of_a_subnet_are_one_client(everyday: Server) -> None:
    """RL-04. 10 000 of one IPv6 /64 have one name; and 1 000 that ask have one quota, in which two
    jobs are."""
    names = {
        client_name(f"2001:db8:1:2:{n * 6007 % 65536:x}:{n:x}::{n:x}") for n in range(ONE_SUBNET)
    }
    assert names == {"2001:db8:1:2::/64"}
    assert client_name("2001:db8:1:3::1") not in names
    proxy = Attacker(everyday)
    proxy.address = PROXY
    with busy(proxy, 2, "X-Forwarded-For: 2001:db8:1:2::1"):
        wanted = [asking("/stats", f"2001:db8:1:2:{n:x}::{n:x}") for n in range(1000)]
        quotas = [json.loads(body)["your_quota"] for body in pipelined(everyday, PROXY, wanted)]
        assert Counter(quota["active_jobs"] for quota in quotas) == {2: 1000}
        for n in range(20):
            header = f"X-Forwarded-For: 2001:db8:1:2:ffff::{n:x}"
            raw = proxy.exchange(submission(MAIN_PART, headers=[header]))
            refused(raw, 429, reason="concurrent_jobs")
        assert quota_of(proxy, "X-Forwarded-For: 2001:db8:1:3::1")["active_jobs"] == 0


# --- how many ----------------------------------------------------------------------------------


def test_of_50_submissions_at_once_from_one_address_exactly_2_are_admitted(
    everyday: Server,
) -> None:
    """RL-05, RL-10. Loose, large and as an archive; each time two, and their places come back once:
    whoever is refused has paid nothing, and ending a job twice does not give two places."""

    async def crowd() -> None:
        client = Client(everyday.port, "127.50.0.1")
        large = SLEEPER | {"more": bytes(MIB)}
        for files in (SLEEPER, large, {"job.tar.gz": targz(SLEEPER)}):
            answers = await asyncio.gather(
                *(client.submit(files, entrypoint="run.sh") for _ in range(50))
            )
            assert Counter(answer.status for answer in answers) == {200: 2, 429: 48}
            for answer in answers:
                if answer.status == 429:
                    assert answer.json["reason"] == "concurrent_jobs", answer
                    assert int(answer.headers["retry-after"]) > 0
            quota = await standing(client)
            assert (quota["active_jobs"], quota["can_submit"]) == (2, False)
            neighbour = Client(everyday.port, "127.50.0.2")
            ended = await neighbour.submit({"run.sh": b"echo up"}, wait=60)
            assert ended.json["status"] == "completed", "of another address"
            begun = [answer.json for answer in answers if answer.status == 200]
            ends = [one for one in begun for _ in range(5)]
            await asyncio.gather(*(end(client, one) for one in ends))
            assert (await standing(client))["active_jobs"] == 0
        assert (await standing(client))["jobs_left_this_hour"] == 20 - 3 * 2

    async def end(client: Client, begun: dict[str, Any]) -> None:
        ended = await client.cancel(begun["job_id"], begun["owner_token"])
        assert (ended["status"], ended["reason"]) == ("failed", "cancelled")

    async def standing(client: Client) -> dict[str, Any]:
        return dict((await client.ask("GET", "/stats")).json["your_quota"])

    asyncio.run(crowd())


def test_what_is_refused_costs_nothing(everyday: Server) -> None:
    """RL-07, RL-10. With 20 jobs an hour: 40 refusals of every kind, uploads that are too large and
    clients that hang up, from one address or said to be from others, and none is counted."""
    client = Attacker(everyday)
    before = quota_of(client)
    assert (before["jobs_left_this_hour"], before["enforced"]) == (20, True)
    script = file("run.sh", b"echo")
    bad = (
        submission(MAIN_PART, asked(b"[" * 1000)),
        submission(script, asked({"entrypoint": "missing.sh"})),
        submission(file("../run.sh", b"echo")),
        submission(),
        packed("tar.gz", GOOD_GZ[:-1]),
        packed("tar.gz", b"no archive"),
        packed("zip", GOOD_ZIP[:-1]),
        json_submission(b'{"files": {"../x": ""}}'),
    )
    for number in range(40):
        refused(client.exchange(bad[number % len(bad)]), 400)
        forged = request("POST", "/run?timeout=0", b"1", f"X-Forwarded-For: 192.0.2.{number}")
        refused(client.exchange(forged), 400)
    assert asyncio.run(upload(everyday.port, client.address, 101 * MIB)).status == 413
    begun = submission(file("big", bytes(90 * MIB)), MAIN_PART)[: 2 * MIB]
    for _ in range(5):
        with client.connect() as leaving:
            leaving.sendall(begun)
    assert eventually(lambda: quota_of(client) == before, 10)
    raw = submission(MAIN_PART, asked({"timeout": 300}))
    with ran(client, raw):  # MF-13: more CPU time than is left in a minute
        pass
    assert quota_of(client)["jobs_left_this_hour"] == 19


def until_limited(client: Attacker, raw: bytes, limit: int) -> tuple[int, Answer]:
    """How many were taken until one was refused for its number, and that refusal. A window may end
    meanwhile, so there may be twice as many."""
    for taken in range(2 * limit + 1):
        answer = client.exchange(raw)
        if b" 429 " in answer.split(b"\r\n", 1)[0]:
            body = refused(answer, 429, reason="rate_limited")
            assert body["retry_after"] > 0
            return taken, client.answer(raw)
    raise AssertionError(f"{2 * limit + 1} requests, and no end of it")


def test_attempts_are_limited_whatever_becomes_of_them(tight: Server) -> None:
    """RL-07, RL-12. Refused submissions, ids that nobody has, polls: each endpoint by itself, for
    each address by itself; who reads too much may still submit and end."""
    client = Attacker(tight)
    nobody = "job-" + "0" * 32
    for path in ("status", "logs", "outputs", "download"):
        taken, _ = until_limited(client, request("GET", f"/{path}/{nobody}"), READS)
        assert taken >= READS, path
    taken, _ = until_limited(client, request("GET", "/environments"), READS)
    assert taken >= READS
    assert client.ask("GET", "/stats").status == 200, "of another endpoint"
    assert client.ask("GET", "/health").status == 200, "always"
    with over(client):
        pass
    until_limited(client, submission(MAIN_PART, asked(b"nonsense")), SUBMITS)
    until_limited(client, request("DELETE", f"/jobs/{nobody}"), SUBMITS)
    until_limited(client, request("POST", f"/jobs/{nobody}/cancel", b""), SUBMITS)
    other = Attacker(tight)
    refused(other.exchange(submission(MAIN_PART, asked(b"nonsense"))), 400)
    refused(other.exchange(request("GET", f"/status/{nobody}")), 404)


def test_more_than_a_client_may_hold_is_refused_before_it_is_sent(tight: Server) -> None:
    """RL-07. By the length that it is said to have, or as soon as it is too much; nothing of it is
    read meanwhile, and nothing is kept."""
    client = Attacker(tight)
    for head in ("Content-Length: 90000000", "Transfer-Encoding: chunked"):
        raw = request(
            "POST", "/submit", b"", "Content-Type: multipart/form-data; boundary=xYx", head
        )
        for _ in range(10):
            with client.connect() as waiting:
                waiting.sendall(raw)
                if "chunked" in head:
                    waiting.sendall(b"%x\r\n%b" % (3 * MIB, bytes(3 * MIB)))
                answer = bytearray()
                while piece := waiting.recv(65_536):
                    answer += piece
            body = refused(bytes(answer), 429, reason="held_bytes")
            assert body["retry_after"] > 0
    web = tight.pids()["web"]
    assert eventually(lambda: not memory_of(web).memfds, 5)


def test_who_has_had_the_share_is_told_before_the_upload(everyday: Server) -> None:
    """RL-07. Two jobs run: a third one's 90 MB are refused by their length, with nothing of them
    read, and with the words and the waiting time that a small one hears."""
    client = Attacker(everyday)
    head = "Content-Type: multipart/form-data; boundary=xYx", "Content-Length: 90000000"
    with client.held(), client.held():
        small = refused(client.exchange(submission(MAIN_PART)), 429, reason="concurrent_jobs")
        with client.connect() as waiting:
            waiting.sendall(request("POST", "/submit", b"", *head))
            answer = bytearray()
            while piece := waiting.recv(65_536):
                answer += piece
        large = refused(bytes(answer), 429, reason="concurrent_jobs")
    assert (large["error"], large["retry_after"]) == (small["error"], small["retry_after"])


def test_when_it_says_that_one_may_come_back_one_may(tight: Server, everyday: Server) -> None:
    """RL-10. Windows of a rate, and the hours of a quota: at most so many within one, and never
    more than the next one's beyond an edge; Retry-After is true, to a second."""
    client = Attacker(tight)
    nonsense = submission(MAIN_PART, asked(b"nonsense"))
    began, taken, rounds = time.monotonic(), 0, 2
    for _ in range(rounds):
        some, limited = until_limited(client, nonsense, SUBMITS)
        taken += some
        if limited.status != 429:  # an edge, between two requests
            taken += 1
            continue
        told = int(limited.headers["retry-after"])
        assert 0 < told <= WINDOW + 1 and told == limited.json["retry_after"], limited
        time.sleep(told)
        refused(client.exchange(nonsense), 400)
        taken += 1
    windows = math.ceil((time.monotonic() - began) / WINDOW) + 2
    assert taken <= SUBMITS * windows, (taken, windows)

    hourly = Attacker(everyday)
    for _ in range(20):
        answer = hourly.answer(submission(file("run.sh", b""), headers=(), query="?wait=60"))
        assert answer.status == 200, answer
        hourly.accepted(answer)
    answer = hourly.answer(submission(MAIN_PART))
    assert (answer.status, answer.json["reason"]) == (429, "hourly_jobs")
    assert 3000 < int(answer.headers["retry-after"]) <= 3600
    hourly.leave()


def test_one_job_may_be_asked_for_by_a_thousand_addresses(tight: Server) -> None:
    """RL-12. What one of them asks too often is nobody else's."""
    owner = Attacker(tight)
    with over(owner) as job:
        path = f"/status/{job}"
        taken, limited = until_limited(owner, request("GET", path), READS)
        assert taken >= READS - 2 and limited.status in (429, 200)
        addresses = [f"203.0.{n // 250}.{n % 250 + 1}" for n in range(1000)]
        answers = pipelined(tight, PROXY, [asking(path, address) for address in addresses])
        assert Counter(json.loads(body)["status"] for body in answers) == {"completed": 1000}


# --- what is remembered ------------------------------------------------------------------------

CAP = 6000


def test_a_million_addresses_do_not_fill_the_memory(tight: Server) -> None:
    """RL-09. The table of rates has an end, at which the longest unheard go first, and so has that
    of quotas; 1 000 addresses that ask once cost a server less than a kilobyte each."""
    most = settings.CACHES["ratelimit"]["OPTIONS"]["MAX_ENTRIES"]  # type: ignore[index]
    assert CLIENTS <= most <= 1_000_000  # of some 300 bytes
    table = Counters("as large as it may be", {"OPTIONS": {"MAX_ENTRIES": CAP}})
    table.add("limited", 1, 60)
    largest = 0
    for n in range(3 * CAP):
        table.add(f"client-{n}", 1, 60)
        if n % 1000 == 0:
            table.incr("limited")
            largest = max(largest, len(table._cache))
    assert largest <= CAP and len(table._expire_info) <= CAP
    assert table.get("limited") == 1 + 3 * CAP // 1000, "whoever asks all the time is forgotten"
    table.clear()

    quota = Quota(Config(), time.monotonic)
    for n in range(CAP):
        quota.standing(f"client {n}")
    assert len(quota) == 0, "asking is remembered"

    pids = tight.pids()
    pipelined(tight, PROXY, [asking("/stats", f"100.64.0.{n % 250}") for n in range(250)])
    grown = []
    for network in range(65, 69):  # what so many requests at once take is taken but once
        before = size(pids)
        asks = [asking("/stats", f"100.{network}.{n // 250}.{n % 250}") for n in range(1000)]
        assert len(pipelined(tight, PROXY, asks)) == 1000
        grown.append(size(pids).rss - before.rss)
    assert min(grown) < 1000 * 1024 + MIB, f"{grown} bytes for 1 000 addresses each"


# --- what can be guessed -----------------------------------------------------------------------

IDS = 10_000
REAL_IDS = 100


def test_an_id_is_128_random_bits_and_compared_exactly(attacker: Attacker) -> None:
    """RL-13. 100 of real jobs and 10 000 as they are made for them: no two alike in any part, each
    bit as often 0 as 1, no order of time; and no other spelling of one leads to its job."""
    raw = json_submission({"files": {"run.sh": ""}}).replace(b"?wait=60", b"")
    answers = [attacker.accepted(attacker.answer(raw)) for _ in range(REAL_IDS)]
    ids = [answer.json["job_id"] for answer in answers]
    tokens = {answer.json["owner_token"] for answer in answers}
    assert len(tokens) == REAL_IDS and all(re.fullmatch(r"[\w-]{32}", token) for token in tokens)
    made = asyncio.run(ids_of_jobs(IDS))
    for some in (ids, made):
        assert all(re.fullmatch(r"job-[0-9a-f]{32}", id) for id in some)
        numbers = [int(id[4:], 16) for id in some]
        for bit in range(128):
            share = sum(number >> bit & 1 for number in numbers) / len(numbers)
            assert abs(share - 0.5) < 3.5 / math.sqrt(len(numbers)), bit  # 7 sigma
        rising = sum(a < b for a, b in zip(numbers, numbers[1:], strict=False))
        assert abs(rising / len(numbers) - 0.5) < 3.5 / math.sqrt(len(numbers))
    for start in (0, 8, 16, 24):  # 2**64 of each, so no two of so few
        assert len({(id[4:] * 2)[start : start + 16] for id in [*ids, *made]}) == IDS + REAL_IDS

    attacker.finish(ids[0])
    digits = ids[0][4:]
    id = ids[0]
    others = [
        id.upper(), id + "/", id + "%20", "%20" + id, id + "%00", id + "%0a", id[:-1], id + "0",
        digits, "job_" + digits, "JOB-" + digits, "job%2D%2D" + digits, id + ".", id + ";x",
        id.replace("j", "%D1%98"), id.replace("-", "%EF%BC%8D"), id + "%E2%80%8B", id + "%ff",
        "./" + id, "x/" + id, "job-" + str(int(digits, 16)), "job-0x" + digits, "*", "job-*",
    ]  # fmt: skip

    def check(other: str) -> None:
        refused(attacker.exchange(request("GET", f"/status/{other}")), 404, 400)

    assert each(((other, other) for other in others), check) == len(others)
    quoted = "".join(f"%{ord(letter):02x}" for letter in ids[0])  # the same path, RFC 3986, 6.2.2.2
    assert attacker.answer(request("GET", f"/status/{quoted}")).json["job_id"] == ids[0]


async def ids_of_jobs(count: int) -> list[str]:
    """Of jobs as the engine makes them."""
    quota = Quota(Config(quotas=False), time.monotonic)
    memory, bundle = MemoryFile(), Bundle("files", -1, ())
    asked = Manifest(
        entrypoint="x", interpreter="sh", environment="sh", steps=1, args=(), env={}, stdin="",
        outputs=(), timeout=1, memory_mb=16, cpu_seconds=0, ttl=1,
    )  # fmt: skip
    terms = Terms("sh", "", Limits())
    ids = []
    for _ in range(count):
        with quota.reserve("x") as place:
            now = Moment(time.monotonic(), time.time())
            job = Job(asked, bundle, memory, terms, "", place, ttl_seconds=1, now=now)
            ids.append(job.id)
    memory.close()
    return ids


COARSE = {"queue_length", "active_jobs", "slots"}


def test_what_everybody_may_ask_tells_of_nobody(everyday: Server, attacker: Attacker) -> None:
    """RL-15. While a client's jobs run and wait, others learn how many there are, and not whose,
    what, or where from."""
    owner = Attacker(everyday, "RL-15")
    spy = Attacker(everyday)
    idle = {path: spy.ask("GET", path).body for path in ("/", "/health", "/environments")}
    files = {f"{owner.canary}.sh": SLEEPER["run.sh"]}
    entry = {"entrypoint": f"{owner.canary}.sh", "args": [owner.canary]}
    jobs = [owner.start(files, **entry) for _ in range(2)]
    assert eventually(lambda: b"up" in owner.log(jobs[0]), 30)
    browser = {"Accept": "text/html"}
    for path in ("/", "/health", "/environments", "/stats"):
        for headers in ({}, browser):
            answer = spy.ask("GET", path, b"", headers)
            assert answer.status == 200
            whole = answer.body + json.dumps(answer.headers).encode()
            for word in (*jobs, owner.canary, owner.address, *owner.tokens.values()):
                assert word.encode() not in whole, (path, word)
            if path in idle and not headers:
                assert answer.body == idle[path], "it changes with what others do"
    stats = spy.ask("GET", "/stats").json
    assert set(stats) == {"your_quota", "system"}
    assert set(stats["system"]) == COARSE
    assert all(isinstance(value, int) for value in stats["system"].values())
    assert (stats["your_quota"]["active_jobs"], stats["your_quota"]["used"]) == (0, 0)
    for path in ("/pool", "/jobs", "/jobs/", "/status", "/logs", "/metrics", "/queue", "/clients"):
        refused(spy.exchange(request("GET", path)), 404)
    owner.leave()
    assert attacker.server is not everyday
