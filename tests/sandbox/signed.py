"""A real signer for the tests, and what the machine shows of it and of the key."""

import base64
import fcntl
import hashlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from nacl.signing import VerifyKey

from sandbox import channel, key
from tests.sandbox.box import REPOSITORY

SIGNER = [sys.executable, "-I", "-m", "sandbox.signer"]
ANSWER_SECONDS = 30.0  # on a busy machine
PAE = b"DSSEv1 28 application/vnd.in-toto+json %d %s"


class Signer:
    """One process; `ask` is one question and its answer."""

    def __init__(
        self, file: Path, program: Sequence[str] = SIGNER, prefix: Sequence[str] = ()
    ) -> None:
        self.file = file
        self.end, theirs = channel.pair()
        self.end.settimeout(ANSWER_SECONDS)
        self.process = subprocess.Popen(
            [*prefix, *program, str(theirs.fileno()), str(file)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(REPOSITORY)},
            pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, start_new_session=True, extra_groups=[4, 65533],
        )  # fmt: skip
        theirs.close()
        self.public = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def __enter__(self) -> "Signer":
        hello, _ = channel.receive(self.end)
        assert set(hello) == {"op", "public"} and hello["op"] == "hello"
        self.public = base64.b64decode(hello["public"], validate=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.close()

    def close(self) -> tuple[int, str]:
        """Let go of it; its exit code and what it said on stderr."""
        self.end.close()
        _, said = self.process.communicate(timeout=ANSWER_SECONDS)
        return self.process.returncode, said

    def ask(self, fd: int, id: int = 1) -> dict[str, Any]:
        channel.send(self.end, {"op": "sign", "id": id}, (fd,))
        return channel.receive(self.end)[0]

    def signature(self, statement: bytes) -> bytes:
        fd = channel.memfd("statement", statement)
        try:
            answer = self.ask(fd)
        finally:
            os.close(fd)
        assert set(answer) == {"op", "id", "signature"}, answer
        return base64.b64decode(answer["signature"], validate=True)

    def signs(self, statement: bytes) -> bool:
        """Whether it does; a wrong signature is an error."""
        VerifyKey(self.public).verify(PAE % (len(statement), statement), self.signature(statement))
        return True

    def is_ended(self) -> bool:
        """Whether it hangs up, and has ended by itself."""
        try:
            while self.end.recv(65536):  # what it had answered before
                pass
        except ConnectionResetError:
            pass
        return self.process.wait(ANSWER_SECONDS) == 0


# --- where a key is ------------------------------------------------------------------------------


class Secret(NamedTuple):
    """A key in every shape in which somebody could hold it."""

    seed: bytes
    pem: bytes  # its base64, from where the seed begins
    scalar: bytes  # what libsodium makes of the seed for a signature

    def shapes(self) -> tuple[bytes, ...]:
        half = len(self.seed) // 2
        hexed = self.seed.hex().encode()
        return (
            self.seed[:half], self.seed[half:], self.pem[:24], self.pem[-24:], hexed[:32],
            self.scalar[:half], self.scalar[half:], base64.b64encode(self.seed)[:24],
        )  # fmt: skip


def secret_of(file: Path) -> Secret:
    fd = key.open_file(str(file))
    try:
        seed = key.read(fd)[1][:32]
    finally:
        os.close(fd)
    scalar = bytearray(hashlib.sha512(seed).digest()[:32])
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    text = file.read_text().splitlines()[1].encode()
    return Secret(seed, text[24:], bytes(scalar))


MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r\S+ \S+ \S+ \S+ *(.*)")  # of /proc/PID/maps


def name_of(row: re.Match[str]) -> str:
    return f"{int(row[1], 16):x}-{int(row[2], 16):x} {row[3]}"


def places(pid: int, secret: Secret) -> list[str]:
    """The mappings in which any shape of it is; read as root reads."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for row in map(MAPPING.match, Path(f"/proc/{pid}/maps").read_text().splitlines()):
            if row and not row[3].startswith("[v"):  # the kernel's own pages
                data = _all(memory, int(row[1], 16), int(row[2], 16))
                if any(shape in data for shape in secret.shapes()):
                    found.append(name_of(row))
    return found


def _all(memory: io.FileIO, first: int, last: int) -> bytes:
    """What can be read of these addresses; a file may be shorter than its mapping."""
    data = bytearray()
    memory.seek(first)
    with suppress(OSError):
        while len(data) < last - first and (piece := memory.read(last - first - len(data))):
            data += piece
    return bytes(data)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}


def memfd_with(size: int, seals: int = channel.SEALS) -> int:
    """A memfd of zeros, sealed so."""
    fd = channel.new_memfd("statement")
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, channel._F_ADD_SEALS, seals)
    return fd
