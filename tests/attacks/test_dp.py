"""DP: what is left. Of code, data, logs, results and clients: nothing in a file, in a log, in a
cookie or in what a server still holds, once a job was deleted or forgotten.
"""

import base64
import http.client
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sandbox import doctor
from tests.attacks.arena import Attacker, look
from tests.attacks.checkout import checkout
from tests.attacks.invariants import ALONE, size
from tests.attacks.wire import HARDENED, MIB, each, hardened, refused, request, submission
from tests.attacks.wire import file as part
from tests.journeys.server import REPOSITORY, Server, cgroups_of, eventually, form, memory_of
from tests.journeys.test_forgetting import (
    Canaries,
    Host,
    command_lines,
    in_reach_of,
    kernel_log,
    running,
)
from tests.uml import boot

SANDRUN = str(REPOSITORY / ".venv/bin/sandrun")
BROWSER = {"Accept": "text/html", "User-Agent": "Mozilla/5.0"}


@pytest.fixture(scope="module")
def host() -> Host:
    """Every file of the machine; one for all tests, since the first look takes seconds."""
    host = Host()
    host.where()
    return host


def said_about(canaries: Canaries) -> list[str]:
    """Logs of the machine that hold a canary, or the address that it came from."""
    found = ["kernel log"] if canaries.are_in(kernel_log()) else []
    journal = ["journalctl", "--no-pager", "--quiet", "--since", "-10min"]
    with suppress(FileNotFoundError):
        if canaries.are_in(subprocess.run(journal, capture_output=True, check=False).stdout):
            found.append("journal")
    return found


def delete(server: Server, canaries: Canaries, answer: dict[str, Any]) -> None:
    bearer = {"Authorization": f"Bearer {answer['owner_token']}"}
    assert canaries.ask(server, "DELETE", f"/jobs/{answer['job_id']}", **bearer)[0] == 200
    assert_forgotten(server, canaries, answer["job_id"])


def assert_forgotten(server: Server, canaries: Canaries, job: str) -> None:
    for path in ("status", "logs", "outputs", "download"):
        assert canaries.ask(server, "GET", f"/{path}/{job}")[0] == 404, path
    assert canaries.ask(server, "GET", f"/download/{job}/{canaries.of['made']}")[0] == 404


def bad_requests(server: Server, canaries: Canaries) -> Iterator[int]:
    """Everything that might be worth a line in a log; the status of each."""
    word = canaries.of["source"]
    kind, body = form(canaries.files("exit 0"), canaries.manifest(entrypoint=word))
    yield canaries.ask(server, "POST", "/submit", body, **{"Content-Type": kind})[0]
    kind, body = form({f"../{word}": b""}, {})
    yield canaries.ask(server, "POST", "/submit", body, **{"Content-Type": kind})[0]
    kind, body = form({"job.tar.gz": word.encode()}, f"{{{word}")
    yield canaries.ask(server, "POST", "/submit", body, **{"Content-Type": kind})[0]
    yield canaries.ask(server, "POST", "/submit", word.encode(), **{"Content-Type": word})[0]
    yield canaries.ask(server, "POST", f"/run?interpreter={word}", word.encode())[0]
    yield canaries.ask(server, "GET", f"/{word}?{word}={word}")[0]
    yield canaries.ask(server, "GET", f"/status/{word}?wait={word}")[0]
    yield canaries.ask(server, word.upper(), f"/{word}")[0]
    for name in ("Host", "Origin", "Referer", "Authorization", "Cookie", "X-Forwarded-For",
                 "Content-Length", "Transfer-Encoding", "Upgrade", "Expect", word):  # fmt: skip
        with suppress(http.client.HTTPException, ConnectionError):
            yield canaries.ask(server, "GET", "/", **{name: word})[0]


# --- files and logs ----------------------------------------------------------------------------


def test_nothing_is_in_a_file_or_a_log_while_a_job_lives_or_after_it_was_deleted(
    attacker: Attacker, host: Host
) -> None:
    """DP-01, DP-05, DP-10. Every piece of a job is looked for in every file of the machine: sent
    loose and as an archive, while it runs, when it is over and was downloaded, and when it is gone.
    """
    canaries = Canaries()
    server = Server("--no-quotas")
    said = server.banner
    try:
        web = server.pids()["web"]
        answers = [canaries.submit(server, "sleep 50", archive) for archive in (False, True)]
        for answer in answers:
            canaries.wait_until_up(server, answer["job_id"])
        assert host.where(canaries, everything=True) == []
        assert in_reach_of(server, canaries) == []
        for answer in answers:
            delete(server, canaries, answer)
        assert eventually(lambda: not running(canaries), 2)
        assert eventually(lambda: not memory_of(web).memfd_count, 2)

        # One that is over, and whose outputs somebody has.
        answer = canaries.submit(server, "exit 0", wait=20)
        job, made = answer["job_id"], canaries.of["made"]
        assert [output["name"] for output in answer["outputs"]] == [made]
        path = f"/download/{job}/{made}"
        assert canaries.ask(server, "GET", path)[1].decode() == canaries.of["written"] * 1000
        for form_of_all in ("zip", "tar.gz"):
            path = f"/download/{job}?format={form_of_all}"
            assert canaries.ask(server, "GET", path)[0] == 200
        assert host.where(canaries) == []
        assert in_reach_of(server, canaries) == []
        delete(server, canaries, answer)
        assert memory_of(web).memfd_count == 0
        assert in_reach_of(server, canaries) == []
    finally:
        assert server.end() == 0, server.banner
    assert host.where(canaries) == []
    assert said_about(canaries) == []
    assert server.banner == said
    assert attacker.server is not server


def test_a_job_of_every_end_is_forgotten_when_its_time_is_over(
    attacker: Attacker, host: Host
) -> None:
    """DP-07. Completed, failed, killed for a limit, cancelled, given up before its turn; never
    downloaded. All doors answer 404, memory and files of the server are back, nothing is anywhere.
    """
    canaries = Canaries()
    settings = {"TTL_SECONDS": 1, "SWEEP_SECONDS": 0.1, "SLOTS": 1, "QUEUE_SECONDS": 1}
    env = {f"SANDRUN_{name}": value for name, value in settings.items()}
    server = Server("--no-quotas", env=env)
    said = server.banner
    try:
        canaries.submit(server, "exit 0", wait=20)
        before = size(server.pids())
        jobs = [
            canaries.submit(server, "exit 0", wait=20),
            canaries.submit(server, "exit 3", archive=True, wait=20),
            canaries.submit(server, "kill -ABRT $$", wait=20),
            canaries.submit(server, "sleep 50", timeout=1, wait=20),
            canaries.submit(server, "while :; do :; done", cpu_seconds=0.5, wait=20),
        ]
        reasons = [job["reason"] for job in jobs]
        assert reasons == [None, "exit", "signal", "timeout", "cpu"]
        runs = canaries.submit(server, "sleep 50")
        given_up = canaries.submit(server, "exit 0", wait=20)
        assert (given_up["reason"], given_up["execution_metadata"]["wall_time_ms"]) == (
            "cancelled", 0,
        )  # fmt: skip
        bearer = {"Authorization": f"Bearer {runs['owner_token']}"}
        canaries.ask(server, "POST", f"/jobs/{runs['job_id']}/cancel", **bearer)
        refusals = list(bad_requests(server, canaries))
        assert len(refusals) > 10 and set(map(_hundreds, refusals)) <= {2, 4}
        for job in [job["job_id"] for job in (*jobs, runs, given_up)]:
            status = f"/status/{job}"
            assert eventually(lambda s=status: canaries.ask(server, "GET", s)[0] == 404, 10)
            assert_forgotten(server, canaries, job)
        assert memory_of(server.pids()["web"]).memfd_count == 0
        assert eventually(lambda: size(server.pids()).rss <= before.rss * 1.1, 5)
        assert in_reach_of(server, canaries) == []
        assert host.where(canaries, everything=True) == []
    finally:
        assert server.end() == 0, server.banner
    assert said_about(canaries) == []
    assert server.banner == said, "something was logged"
    assert attacker.server is not server


def _hundreds(status: int) -> int:
    return status // 100


def test_a_server_logs_no_request(attacker: Attacker) -> None:
    """DP-05. As the README starts it: a hundred requests, good and bad, and not a word."""
    canaries = Canaries()
    server = Server(prefix=ALONE)
    said = server.banner
    try:
        for _ in range(4):
            count = len(list(bad_requests(server, canaries)))
            for path in ("/", "/health", "/stats", "/environments", "/status/x", "/none"):
                canaries.ask(server, "GET", path)
            assert count + 6 >= 24
        answer = canaries.submit(server, "exit 0", wait=20)
        delete(server, canaries, answer)
    finally:
        assert server.end() == 0, server.banner
    assert server.banner == said
    assert attacker.server is not server


# --- deletion ----------------------------------------------------------------------------------


def test_a_deleted_job_is_gone_at_once_and_for_all(attacker: Attacker) -> None:
    """DP-10. While it runs: its processes, its cgroup, its file systems and its doors. These exist
    in its own mount namespace only, and nobody but its processes is in there or holds it."""
    code = f"open('/tmp/big', 'wb').write(bytes({8 * MIB})); say(os.getpid())\nsignal.pause()"
    job = attacker.start_python(code)
    assert eventually(lambda: attacker.log(job) != b"", 30)
    pids = [pid for pid, line in command_lines() if b"main.py" in line and _is_of(pid, attacker)]
    assert pids, "it does not run"
    program = look(pids[0])
    namespace = program.namespaces["mnt"]
    inside = {
        int(name) for name in os.listdir("/proc") if name.isdigit() and _mnt(name) == namespace
    }
    assert inside >= set(pids)
    uids = {look(pid).status["Uid"].split()[0] for pid in inside}
    assert len(uids) == 1 and not uids & {"0"}, "somebody else is in there"
    for name, pid in attacker.server.pids().items():
        links = look(pid).descriptors.values()
        assert namespace not in links, f"{name} holds it"
    assert sum(" - tmpfs " in " ".join(line) for line in program.mounts) >= 1
    web = attacker.server.pids()["web"]
    had = memfds_of(web)
    token = {"Authorization": f"Bearer {attacker.tokens[job]}"}
    assert attacker.ask("DELETE", f"/jobs/{job}", b"", token).status == 200
    doors = [("GET", f"/{name}/{job}") for name in ("status", "logs", "outputs", "download")]
    doors += [("GET", f"/download/{job}/x"), ("POST", f"/jobs/{job}/cancel")]
    doors += [("DELETE", f"/jobs/{job}")] * 2
    for method, path in doors:
        raw = request(method, path, None, f"Authorization: {token['Authorization']}")
        refused(attacker.exchange(raw), 404, reason="unknown_job")
    del attacker.tokens[job]
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside), 2)
    assert had and eventually(lambda: not memfds_of(web) & had, 2), "its memory is held"


def _mnt(pid: str) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt")
    return ""


def _is_of(pid: int, attacker: Attacker) -> bool:
    with suppress(OSError):
        return attacker.canary.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def test_a_download_that_deletes_does_so_for_its_owner_only_and_wholly(attacker: Attacker) -> None:
    """DP-17. Only with the owner's token, asked for by name, never a HEAD nor before the end; what
    was asked for so arrives whole, and then nothing of it is anywhere."""
    size = 6 * MIB
    web = attacker.server.pids()["web"]
    seen = attacker.python(f"open('out', 'wb').write(os.urandom({size}))")
    token = f"Authorization: Bearer {attacker.tokens[seen.id]}"
    target = f"/download/{seen.id}?delete=1"
    refused(attacker.exchange(request("GET", target)), 401, reason="not_owner")
    refused(attacker.exchange(request("GET", target, None, token + "x")), 403, reason="not_owner")
    assert attacker.answer(request("HEAD", target, None, token)).status == 200
    for query, status in (
        ("delete=0", 200),
        ("Delete=1", 200),
        ("delete=", 400),
        ("delete=true", 400),
    ):
        raw = request("GET", f"/download/{seen.id}?{query}", None, token)
        assert attacker.answer(raw).status == status
    assert attacker.ask("GET", f"/status/{seen.id}").status == 200, "one of these deleted it"
    had = memfds_of(web)
    answer = attacker.answer(request("GET", target, None, token))
    assert answer.status == 200 and len(answer.body) > size, "it does not compress"
    assert attacker.exchange(request("GET", target, None, token)).startswith(b"HTTP/1.1 404")
    assert attacker.ask("GET", f"/status/{seen.id}").status == 404
    del attacker.tokens[seen.id]
    assert eventually(lambda: not memfds_of(web) & had, 5), "its memory is held"
    with attacker.held() as held:  # not over, so there is nothing to fetch, nor to delete
        token = f"Authorization: Bearer {attacker.tokens[held.id]}"
        raw = request("GET", f"/download/{held.id}?delete=1", None, token)
        refused(attacker.exchange(raw), 409, reason="not_over")


def memfds_of(pid: int) -> set[int]:
    """The inodes of its memory files. Later ones have other numbers: what was there is gone when
    none of these is there any more, whatever the neighbour's jobs hold.
    """
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if os.readlink(fd).startswith("/memfd:"):
                found.add(os.stat(fd).st_ino)
    return found


# --- memory ------------------------------------------------------------------------------------

# In a copy of the repository, which collects no garbage: a door that counts what lives of the
# objects that hold a job's data.
LIVING = """

import gc

gc.disable()


async def living(request):
    from collections import Counter
    from jobs.api.wire import reply

    kinds = ("Job", "JobLog", "Manifest", "Bundle", "Upload", "MemoryFile", "Body", "Result",
             "Form", "Reservation", "Reading", "Output")
    return reply(Counter(type(one).__name__ for one in gc.get_objects()
                         if type(one).__name__ in kinds))


urlpatterns.insert(0, path("living", living))
"""


def test_what_was_forgotten_is_held_by_nobody(attacker: Attacker) -> None:
    """DP-08. Memory is given back, not scrubbed (sandbox/README.md says so): how often a word still
    stands in what the allocator will use again is printed. But no object that holds anything of a
    job is alive, nor waits for the garbage collector, and nothing ever came into the memory of
    launcher and keeper."""
    marks: list[bytes] = []
    with checkout() as path:
        urls = path / "jobs/api/urls.py"
        urls.write_text(urls.read_text() + LIVING)
        server = Server("--no-quotas", repository=path)
        try:
            pids, began = server.pids(), server.get("/living")
            for n in range(4):
                canaries = Canaries()
                marks.append(canaries.mark.encode())
                answer = canaries.submit(server, "exit 0", archive=n % 2 == 1, wait=60)
                assert answer["status"] == "completed", answer["reason"]
                door = f"/download/{answer['job_id']}"
                assert canaries.ask(server, "GET", f"{door}/{canaries.of['made']}")[0] == 200
                assert canaries.ask(server, "GET", door)[0] == 200
                alive = server.get("/living")
                assert alive["Job"] == 1 and alive["JobLog"] == 1, "this is how it would show"
                delete(server, canaries, answer)
            assert eventually(lambda: server.get("/living") == began, 10), server.get("/living")
            assert memory_of(pids["web"]).memfd_count == 0
            for name, pid in pids.items():
                left = [found_in(pid, mark) for mark in marks]
                print(f"remnants in {name}: {left}")
                assert name == "web" or not any(left)
        finally:
            assert server.end() == 0, server.banner
    assert attacker.server is not server


def found_in(pid: int, word: bytes) -> int:
    """How often it stands in the memory that this process may write to."""
    return sum(piece.count(word) for piece in memory(pid))


def memory(pid: int) -> Iterator[bytes]:
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps.read().splitlines():
            span, mode, *_ = line.split()
            start, end = (int(number, 16) for number in span.split("-"))
            if mode.startswith("rw"):
                with suppress(OSError, ValueError):
                    mem.seek(start)
                    yield mem.read(end - start)


# --- answers -----------------------------------------------------------------------------------

TRACKING = re.compile(
    r"set-cookie|last-modified|alt-svc|report-to|nel|x-request-id|request-id|x-trace|trace|"
    r"x-correlation|server-timing|date|age|expires|x-runtime|server|x-powered-by|via|p3p"
)
RESPONSES = 1000


KEPT = {**HARDENED, "cache-control": "public, max-age=31536000, immutable"}


def stylesheet(attacker: Attacker) -> str:
    """The path of a file of the page."""
    page = attacker.ask("GET", "/", headers=BROWSER).body.decode()
    found = re.search(r'href="(/static/[^"]+/style\.css)"', page)
    assert found, page
    return found[1]


def test_a_thousand_answers_have_nothing_to_know_a_client_by(attacker: Attacker) -> None:
    """DP-12. No cookie, no entity tag but the hash of an output, no number or token of a request or
    a client: an answer is the same for all who ask."""
    ours, theirs = attacker, Attacker(attacker.server)
    job = attacker.run({"main.py": b"print(1); open('out', 'w')"}).id
    style = stylesheet(attacker)
    paths = (
        "/", "/health", "/environments", f"/status/{job}", f"/logs/{job}", f"/outputs/{job}",
        f"/download/{job}/out", "/status/x", "/none", style,
    )  # fmt: skip
    cookies = {"Cookie": "csrftoken=x; sessionid=y", "If-None-Match": '"x"', **BROWSER}
    seen: dict[str, Counter[str]] = {path: Counter() for path in paths}
    for n in range(RESPONSES):
        path = paths[n % len(paths)]
        answer = (ours, theirs)[n // len(paths) % 2].ask("GET", path, headers=cookies)
        assert answer.status in (200, 404)
        if path != "/":
            hardened(answer, KEPT if path == style else HARDENED)
        for name in answer.headers:
            assert not TRACKING.fullmatch(name), (path, name)
            assert name != "etag" or "/download/" in path or path == style, (path, name)
        seen[path][json.dumps([sorted(answer.headers.items()), answer.body.hex()])] += 1
    for path, answers in seen.items():
        assert len(answers) == 1, (path, [answer[:2000] for answer in answers])
    for method, path in (
        ("POST", "/submit"),
        ("POST", "/run"),
        ("OPTIONS", "/"),
        ("DELETE", "/jobs/x"),
    ):
        for name in attacker.ask(method, path, b"x", cookies).headers:
            assert not TRACKING.fullmatch(name), (method, path, name)


SECONDS_ONLY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def test_no_result_tells_who_asked_or_when_exactly(attacker: Attacker) -> None:
    """DP-14. Status, logs, outputs and what is signed have no address, no user agent and no time of
    day finer than a second."""
    agent = f"Agent/{attacker.canary}"
    raw = submission(
        part("main.py", b"import os; print(dict(os.environ)); open('out', 'w')"),
        headers=[f"User-Agent: {agent}", f"Referer: http://{attacker.canary}/", "From: me@x"],
    )
    job = attacker.accepted(attacker.answer(raw)).json["job_id"]
    attacker.finish(job)
    everything = {path: attacker.ask("GET", path).body.decode() for path in (
        f"/status/{job}", f"/status/{job}?wait=1", f"/logs/{job}", f"/outputs/{job}",
        f"/receipt/{job}",
    )}  # fmt: skip
    envelope = json.loads(everything[f"/receipt/{job}"])
    everything["what is signed"] = base64.b64decode(envelope["payload"]).decode()
    for path, text in everything.items():
        for word in (attacker.address, "127.0.0.1", attacker.canary, "Agent/", "me@x"):
            assert word not in text, (path, word)
    status = json.loads(everything[f"/status/{job}"])
    for name in ("created_at", "expires_at"):
        assert SECONDS_ONLY.fullmatch(status[name]), status[name]
    now = time.time()

    def times(value: Any) -> Iterator[float]:
        """Numbers that could be a time of day, in any unit."""
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from times(inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield from (value for unit in (1, 1e3, 1e6, 1e9) if abs(value / unit - now) < 1e6)

    said = json.loads(everything.pop("what is signed"))
    for name in ("created", "started", "ended", "expires"):  # whole seconds
        assert type(said["predicate"]["job"].pop(name)) is int
    for text in (*everything.values(), json.dumps(said)):
        assert not list(times(json.loads(text))), text


# --- the machine -------------------------------------------------------------------------------

# On a guest kernel whose swap is on: what it says of a process in a cgroup without our limit (it
# swaps: so there is something to refuse), and then of a job of ours that needs twice its memory.
SWAP = r"""
import ctypes, glob, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
[module] = glob.glob(f"/usr/lib/uml/modules/{os.uname().release}/kernel/drivers/block/brd.ko")
fd = os.open(module, os.O_RDONLY)
assert libc.syscall(313, fd, b"rd_nr=1 rd_size=131072", 0) == 0, os.strerror(ctypes.get_errno())
os.mknod("/run/swap", 0o060600, os.makedev(1, 0))
subprocess.run(["mkswap", "/run/swap"], check=True, capture_output=True)
assert libc.swapon(b"/run/swap", 0) == 0, os.strerror(ctypes.get_errno())

greedy = "m = bytearray(60 << 20)\nfor i in range(0, len(m), 4096): m[i] = 1\nprint('held all')"
if "v2" in sys.argv:
    os.mkdir("/sys/fs/cgroup/free")
    open("/sys/fs/cgroup/cgroup.subtree_control", "w").write("+memory")
    open("/sys/fs/cgroup/free/memory.max", "w").write(str(32 << 20))
    enter = "import os; open('/sys/fs/cgroup/free/cgroup.procs', 'w').write(str(os.getpid()))\n"
    free = subprocess.run([sys.executable, "-c", enter + greedy], capture_output=True, text=True)
    print("free:", free.returncode, free.stdout.strip(), flush=True)
job = [sys.executable, "-m", "sandbox", "run", "--memory-mb", "32", "--", "python3", "-c", greedy]
done = subprocess.run(job, capture_output=True, text=True)
print("job:", done.returncode, " ".join((done.stdout + done.stderr).split()))
"""


@pytest.mark.skipif(not boot.installed(), reason="needs linux.uml (package user-mode-linux)")
@pytest.mark.skipif("guest" in platform.node(), reason="is the guest; the test starts one")
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_nothing_of_a_job_is_swapped(attacker: Attacker, tmp_path: Path, version: str) -> None:
    """DP-03. On a kernel whose swap is on: with cgroup version 1 no job runs at all, and it says
    what to do; with version 2 a job is ended at its limit where any other program would swap."""
    script = tmp_path / "swap.py"
    script.write_text(SWAP)
    code, output = boot.run(
        [sys.executable, script, version],
        cwd=REPOSITORY,
        readable=[Path(sys.prefix), tmp_path],
        v1=("memory",) if version == "v1" else (),
    )
    assert code == 0, output
    if version == "v1":
        assert "job: 1 Sandrun cannot start: swap: turn it off (swapoff -a)" in output, output
    else:
        assert "free: 0 held all" in output, f"nobody swaps there: {output}"
        assert '"reason": "memory"' in output and "held all" not in output.split("job:")[1], output
    assert attacker.tokens == {}


def findings(change: str, folder: Path) -> dict[str, dict[str, str]]:
    """What the doctor finds in a mount namespace of its own, after `change`."""
    script = f'cd {shlex.quote(str(folder))}; {change}\ncd /; exec "$0" "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", script, SANDRUN, "doctor", "--json", "--look"],
        capture_output=True, text=True, timeout=60, cwd="/", check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)}


SHOWN = "process list"


def test_that_arguments_are_shown_to_everybody_on_the_machine_is_said(
    attacker: Attacker, tmp_path: Path
) -> None:
    """DP-15. The machine's ps shows what a job was started with: the doctor says so and how to hide
    it, and with hidepid it is hidden from everybody but root."""
    secret = f"argument-{attacker.canary}"
    with attacker.held("say(os.getpid())", secret) as held:
        command = ["cat", f"/proc/{held.program.pid}/cmdline"]
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        shown = subprocess.run([*nobody, *command], capture_output=True, check=False)
        hidden = 'mount -t proc -o hidepid=invisible proc /proc; exec "$@"'
        prefix = ["unshare", "--mount", "sh", "-euc", hidden, "sh", *nobody]
        kept = subprocess.run([*prefix, *command], capture_output=True, check=False)
        assert kept.returncode != 0 and secret.encode() not in kept.stdout
        told = findings(":", tmp_path)[SHOWN]
        if secret.encode() in shown.stdout:
            assert told["verdict"] == doctor.WARNING and "arguments" in told["meaning"], told
            assert "hidepid" in told["remedy"]
        else:
            assert told["verdict"] == doctor.GOOD
    hidden = findings("mount -t proc -o hidepid=invisible proc /proc", tmp_path)[SHOWN]
    assert hidden["verdict"] == doctor.GOOD, hidden
    text = (REPOSITORY / "docs/doctor.md").read_text()
    assert re.search(rf"\| {SHOWN} \|.*arguments of running jobs", text)


RECORDERS = (
    "accounting", "audit rules", "core dumps", "hibernation", "shared pages", "tracing", "watchers",
)  # fmt: skip
# A recorder, how it can be made to look as if it were on, and the word that must be told then.
SWITCHED_ON = {
    "core dumps": ("echo '|/usr/lib/systemd/systemd-coredump %P' >x; "
                   "mount --bind x /proc/sys/kernel/core_pattern", "systemd-coredump"),
    "shared pages": ("echo 1 >one; mount --bind one /sys/kernel/mm/ksm/run", ""),
    "audit rules": ("mkdir rules; echo '-a always,exit -S execve' >rules/x.rules; "
                    "mount -t tmpfs none /etc; mkdir -p /etc/audit/rules.d; "
                    "cp rules/x.rules /etc/audit/rules.d/", "execve"),
    "accounting": ("mkdir log; touch log/pacct; mount --bind log /var/log; "
                   "mkdir -p /var/log/account; touch /var/log/account/pacct", "account"),
}  # fmt: skip


def test_whoever_records_what_programs_do_is_reported(attacker: Attacker, tmp_path: Path) -> None:
    """DP-16. The doctor looks for each of them, and tells those that are there."""
    found = findings(":", tmp_path)
    assert set(RECORDERS) <= set(found)
    for name in RECORDERS:
        assert found[name]["verdict"] in (doctor.GOOD, doctor.WARNING, doctor.BAD)
        assert (found[name]["verdict"] == doctor.GOOD) == (not found[name]["remedy"]), found[name]

    def check(name: str) -> None:
        change, word = SWITCHED_ON[name]
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        row = findings(change, folder)[name]
        assert row["verdict"] != doctor.GOOD, row
        assert word in row["found"] + row["meaning"], row
        assert row["remedy"], row

    can = dict(SWITCHED_ON)
    if not os.path.exists("/sys/kernel/mm/ksm/run"):  # a kernel that shares no pages at all
        del can["shared pages"]
        assert found["shared pages"]["verdict"] == doctor.GOOD, found["shared pages"]
    assert each(((name, name) for name in can), check) == len(can) >= 3
    assert attacker.tokens == {}


READ_ONLY = [
    "unshare", "--mount", "--propagation", "private", "sh", "-euc",
    'mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; '
    '! touch "$0/x" 2>/dev/null; cd /; exec "$@"',
    str(REPOSITORY),
]  # fmt: skip
WRITTEN = re.compile(r"__pycache__|\.pyc$|sqlite|\.db$|session|staticfiles|\.pem$|\.key$|\.crt$")


def test_a_server_writes_nothing_beside_itself(attacker: Attacker) -> None:
    """DP-18. It starts and serves from a repository that nobody can write to; and from one that
    can be written to it leaves no bytecode, database, session, collected file or certificate."""
    before = files_below(REPOSITORY)
    for prefix in (READ_ONLY, []):
        server = Server(prefix=prefix)
        client = Attacker(server)
        try:
            for _ in range(2):
                assert client.python("say(1)").said == 1
            page = client.ask("GET", "/", headers=BROWSER)
            assert page.status == 200
            assert client.ask("GET", stylesheet(client)).status == 200
            assert client.answer(request("GET", "/none")).status == 404
            client.leave()
        finally:
            assert server.end() == 0, server.banner
        assert not cgroups_of(server.process.pid)
    new = {path for path in files_below(REPOSITORY) - before if WRITTEN.search(path)}
    # Tests of others may be compiled meanwhile; what a server imports is not.
    assert not {path for path in new if "/tests/" not in path}, new
    assert attacker.tokens == {}


def files_below(top: Path) -> set[str]:
    """All but those of .git."""
    found = set()
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name != ".git"]
        found |= {f"{folder}/{name}" for name in names}
    return found
