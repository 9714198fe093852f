"""The page's modules that need no browser, by Node's own test runner."""

import subprocess
from pathlib import Path

HERE = Path(__file__).parent


def test_the_modules_do_what_their_own_tests_say() -> None:
    files = sorted(HERE.glob("*.test.mjs"))
    assert files
    done = subprocess.run(["node", "--test", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
