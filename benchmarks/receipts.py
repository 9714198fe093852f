"""What signing costs: a small job with a key and without, and the event loop while much is signed.

    sudo .venv/bin/python benchmarks/receipts.py [--rounds 300]

Two servers, one with a key, take the same small job in turn (`/submit?wait=`, from the request to
the whole answer); whichever is first changes. Then a job leaves 95 MB, or 2,000 files, or 90 MB of
log, on each of them: the slowest /health meanwhile.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.journeys.server import Server, form, make_key  # noqa: E402

PLENTY = {"SANDRUN_LOG_BYTES": 100 << 20, "SANDRUN_HELD_BYTES": 2 << 30}
LARGE = {
    "95 MB of outputs": "open('a', 'wb').write(bytes(95 << 20))",
    "2,000 outputs": "for n in range(2000): open(f'{n:0200}', 'w').write('x')",
    "90 MB of log": "import os\nfor _ in range(90): os.write(1, bytes(1 << 20))",
}
SMALL = {"shell": ("main.sh", b"echo 42"), "Python": ("main.py", b"print(42)")}


def seconds_of(server: Server, files: dict[str, bytes]) -> float:
    """Of one small job, from the request to the answer with its result."""
    kind, body = form(files, None)
    began = time.perf_counter()
    status, answer, _ = server.request("POST", "/submit?wait=30", body, **{"Content-Type": kind})
    took = time.perf_counter() - began
    assert status == 200 and json.loads(answer)["status"] == "completed", answer
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        key = make_key(Path(folder, "key.pem"))
        servers = {
            "without a key": Server("--no-quotas", env=PLENTY),
            "with a key": Server("--no-quotas", "--worker-key", key, env=PLENTY),
        }
    try:
        for what, (name, code) in SMALL.items():
            took: dict[str, list[float]] = {name: [] for name in servers}
            for number in range(rounds + 20):
                for which in random.sample(list(servers), len(servers)):
                    seconds = seconds_of(servers[which], {name: code})
                    if number >= 20:  # the first ones warm up
                        took[which].append(seconds)
            medians = {which: statistics.median(times) * 1000 for which, times in took.items()}
            told = ", ".join(f"{which} {median:.2f} ms" for which, median in medians.items())
            more = medians["with a key"] - medians["without a key"]
            print(f"{what}, median of {rounds}: {told}: {more:+.2f} ms", flush=True)
        for what, code in LARGE.items():
            slowest = {
                which: server.slowest_health(server.start({"main.py": code.encode()})) * 1000
                for which, server in servers.items()
            }
            told = ", ".join(f"{which} {most:.0f} ms" for which, most in slowest.items())
            print(f"{what}: /health at worst {told}", flush=True)
    finally:
        for server in servers.values():
            server.end()


if __name__ == "__main__":
    main()
