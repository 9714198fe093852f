"""What the command line costs: `sandrun run hello.py`, and the same code sent by curl, in turn.

    sudo .venv/bin/python benchmarks/client.py [--rounds 100]

Whole processes, from their start to their end, against one local server; at most 120 ms more than
curl is the aim. Also a request of a client that is already there, and the start of the command.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sandrun  # noqa: E402
from tests.journeys.server import REPOSITORY, Server  # noqa: E402

COMMAND = str(REPOSITORY / ".venv/bin/sandrun")
CODE = "print('hello')"


def process(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout in ("hello\n", f"sandrun {sandrun.__version__}\n"), done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    server = Server("--no-quotas")
    url = f"http://127.0.0.1:{server.port}"
    with tempfile.TemporaryDirectory() as folder, sandrun.Client(url) as client:
        hello = str(Path(folder, "hello.py"))
        Path(hello).write_text(CODE)
        ways: dict[str, Callable[[], object]] = {
            "curl": lambda: process("curl", "-sS", "--data-binary", f"@{hello}", f"{url}/run"),
            "sandrun run": lambda: process(COMMAND, "run", "--server", url, hello),
            "client.run": lambda: client.run(CODE, check=True),
            "sandrun --version": lambda: process(COMMAND, "--version"),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        try:
            for number in range(rounds + 5):
                for name in random.sample(list(ways), len(ways)):
                    began = time.perf_counter()
                    ways[name]()
                    if number >= 5:  # the first ones warm up
                        took[name].append((time.perf_counter() - began) * 1000)
        finally:
            server.end()
    for name, times in took.items():
        quartiles = statistics.quantiles(times, n=4)
        spread = f"{quartiles[0]:.1f} to {quartiles[2]:.1f}"
        print(f"{name:18} {quartiles[1]:6.1f} ms in the median ({spread})")
    more = statistics.median(took["sandrun run"]) - statistics.median(took["curl"])
    print(f"sandrun run takes {more:.1f} ms more than curl")


if __name__ == "__main__":
    main()
