"""The command `sandrun` as it is used: behind pipes, and in a terminal of its own."""

import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.journeys.server import eventually

ERASE = b"\r\x1b[K"
SECONDS = 60


class Done(NamedTuple):
    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode()

    @property
    def said(self) -> str:
        """On stderr."""
        return self.stderr.decode()


class Command:
    """`sandrun` for one server and one user, in the folder `home`."""

    def __init__(self, url: str, home: Path) -> None:
        self.home = home
        runtime = home / "runtime"
        runtime.mkdir(mode=0o700)
        ours = {name: value for name, value in os.environ.items() if "SANDRUN" not in name}
        self.env = {
            **ours, "SANDRUN_SERVER": url, "XDG_RUNTIME_DIR": str(runtime), "NO_COLOR": "1",
            "XDG_CONFIG_HOME": str(home / "config"), "HOME": str(home), "TERM": "xterm",
        }  # fmt: skip

    def words(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-I", "-m", "sandrun", *map(str, arguments)]

    def __call__(
        self, *arguments: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Done:  # fmt: skip
        """Behind pipes, to its end."""
        done = subprocess.run(
            self.words(*arguments), input=stdin, capture_output=True, timeout=SECONDS,
            cwd=cwd or self.home, env={**self.env, **(env or {})},
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str | Path) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self.words(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=self.home, env=self.env,
        )  # fmt: skip

    def terminal(self, *arguments: str | Path, cwd: Path | None = None) -> "Terminal":
        return Terminal(self.words(*arguments), self.env, cwd or self.home)


class Terminal:
    """A command in a session of its own, whose stdin and stderr are one terminal, the one that
    Ctrl-C is typed into, and whose stdout is another: so that each can be compared. Both hand on
    bytes as they are.
    """

    def __init__(self, words: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self._ours, theirs = _open()
        shown, stdout = _open()
        self.process = subprocess.Popen(
            words, stdin=theirs, stdout=stdout, stderr=theirs, env=env, cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        os.close(stdout)
        self.stdout, self.stderr = bytearray(), bytearray()
        self._threads = [
            threading.Thread(target=_read, args=(fd, into))
            for fd, into in ((shown, self.stdout), (self._ours, self.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def type(self, data: bytes) -> None:
        os.write(self._ours, data)

    def wait_for(self, data: bytes) -> None:
        assert eventually(lambda: data in self.stdout + self.stderr, 20), (self.stdout, self.stderr)

    def end(self) -> Done:
        try:
            code = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        for thread in self._threads:
            thread.join()
        return Done(code, bytes(self.stdout), bytes(self.stderr))


def _open() -> tuple[int, int]:
    """Our end, and the terminal."""
    ours, theirs = pty.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    return ours, theirs


def _read(fd: int, into: bytearray) -> None:
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:  # nobody has the terminal any more
            break
        if not data:
            break
        into += data
    os.close(fd)


_OWN = re.compile(rb"(?:\n?sandrun: [^\n]*\n)*")


def of_the_job(stderr: bytes) -> bytes:
    """What the job itself has printed to a terminal's stderr: Sandrun's own words stand before it,
    each erased, and behind it.
    """
    before, _, after = stderr.rpartition(ERASE)
    assert _OWN.fullmatch(re.sub(rb"\r\x1b\[K[^\r\n]*", b"", before + ERASE)), stderr
    cut = after.find(b"sandrun: ")
    assert cut < 0 or _OWN.fullmatch(after[cut:]), stderr
    return after if cut < 0 else after[:cut]
