"""One server for all attacks, and after every attack: the seven invariants (invariants.py)."""

import os
import re
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.attacks import sweep
from tests.attacks.arena import MANY_OUTPUTS, SESSION, Attacker
from tests.attacks.invariants import ALONE, Invariants, KernelLog, Neighbour
from tests.attacks.wire import crowd_around, full_logs
from tests.journeys.server import Server, make_key

# Nobody is refused for having had much: what is tried here is the sandbox. The quotas are there and
# count all the same; test_rl.py has servers of its own with those of every day.
GENEROUS = {
    "SANDRUN_CONCURRENT_JOBS": 10_000,
    "SANDRUN_JOBS_PER_HOUR": 1_000_000,
    "SANDRUN_CPU_SECONDS_PER_MINUTE": 1_000_000,
    "SANDRUN_SUBMIT_RATE": "1000000/m",
    "SANDRUN_READ_RATE": "1000000/m",
}
# What must not reach a job (LS-09) nor change the server (WB-14).
BAIT = {
    "SERVER_CANARY": f"{SESSION}-server", "DJANGO_CANARY": f"{SESSION}-django",
    "SSH_CANARY": f"{SESSION}-ssh", "DEBUG": "1", "DJANGO_DEBUG": "True", "SANDRUN_DEBUG": "1",
}  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-sweep", action="store_true", help="do not look for canaries on the disks at the end"
    )


@pytest.fixture(scope="session")
def key() -> Iterator[str]:
    """A worker key, where a server that is alone in /tmp finds it too."""
    with TemporaryDirectory(dir="/run") as folder:
        yield make_key(Path(folder, "key.pem"))


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, key: str) -> Iterator[Server]:
    """Signs. Has had its first jobs, so that what it makes once is made. From then on it prints
    nothing, whatever it is sent; and at its end no canary is anywhere on a disk or in a log."""
    # Without the default, who calls pytest from above this folder has no such option.
    unswept = request.config.getoption("--no-sweep", default=False)
    with nullcontext([]) if unswept else sweep.traces(SESSION) as found:
        server = Server("--worker-key", key, prefix=ALONE, env={**GENEROUS, **BAIT})
        server.worker = server.get("/health")["worker_id"]
        said = server.banner
        try:
            _warm_up(server)
            yield server
        finally:
            assert server.end() == 0, server.banner
        assert server.banner == said
    assert not found, f"HI5: a canary is left: {found}"


def _warm_up(server: Server) -> None:
    """Sandboxes at once, and more that wait; something large both ways; and so many requests that
    web has as much garbage as it ever lets lie."""
    attacker = Attacker(server)
    for job in [attacker.start({"run.sh": b"sleep 0.2"}) for _ in range(12)]:
        attacker.finish(job)
    attacker.sh("cat big > out; head -c 3000000 big >&2", files={"big": os.urandom(8 << 20)})
    for path in ("/", "/health", "/none", "/static/frontend/main.js") * 100:
        attacker.ask("GET", path)
    attacker.leave()


@pytest.fixture(scope="session")
def crowded(server: Server) -> None:
    """Has had many outputs, and a crowd around full logs: what the allocator keeps from then on is
    no growth. For the files whose attacks are as large; before others it would hide what grows."""
    attacker = Attacker(server)
    attacker.python("for n in range(10_000): open(f'{n}', 'w').close()")
    attacker.python(MANY_OUTPUTS)
    for _ in range(3):  # until what is kept of it is all that ever will be
        crowd_around(attacker, full_logs(attacker))
    attacker.leave()


@pytest.fixture(scope="session")
def neighbour(server: Server) -> Iterator[Neighbour]:
    with closing(Neighbour(server.port)) as neighbour:
        yield neighbour


@pytest.fixture(scope="session")
def kernel_log() -> Iterator[KernelLog]:
    with closing(KernelLog()) as log:
        yield log


@pytest.fixture
def attacker(server: Server, request: pytest.FixtureRequest) -> Attacker:
    """Who attacks in this test; invariants() sees it out."""
    found = re.match(r"[A-Z]{2}-\d{2}", (request.function.__doc__ or "").strip())
    return Attacker(server, found[0] if found else "XX")


@pytest.fixture(autouse=True)
def invariants(
    attacker: Attacker, neighbour: Neighbour, kernel_log: KernelLog
) -> Iterator[Invariants]:
    """HI1 to HI7, after every attack, whether it was held or not."""
    before = Invariants(attacker.server, kernel_log)
    neighbour.begin()
    try:
        yield before
    finally:
        try:
            attacker.leave()
        finally:
            seen = neighbour.end()
    faults = list(before.faults(attacker.canary, seen))
    assert not faults, "\n".join(faults)


@pytest.fixture
def marker() -> Iterator[Path]:
    """A file of the machine, in its root if that can be, that nothing inside may ever reach."""
    folder = Path("/run" if os.statvfs("/").f_flag & os.ST_RDONLY else "/")
    path = folder / f"HOST_{SESSION}-{os.getpid()}"
    path.write_text(f"{SESSION}-marker")
    path.chmod(0o644)
    try:
        yield path
        assert path.read_text() == f"{SESSION}-marker"
    finally:
        path.unlink()
