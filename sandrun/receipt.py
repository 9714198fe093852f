"""Receipts: what a worker has signed about a job. `verify` checks one against keys that the caller
pins, and gives a Receipt: what is proven, and the checks of files, logs and answers against it.
docs/receipts.md is the specification. Nothing here opens a file or a connection.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from sandrun import statement
from sandrun.envelope import Envelope
from sandrun.errors import NotVerified
from sandrun.key import public_key
from sandrun.status import check_answer
from sandrun.strict import Malformed, from_json

_PIECE = 1 << 20


class Readable(Protocol):
    """A file opened for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


Data = bytes | bytearray | memoryview | Readable


@dataclass(frozen=True)
class Digest:
    """So many bytes with this SHA-256 (hex)."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Log:
    """What was kept of a stream; `dropped` bytes of the middle of `printed` were not."""

    kept: Digest
    printed: int
    dropped: int


@dataclass(frozen=True)
class Output:
    path: bytes
    quoted: str  # as in its URL: text that no other path has
    content: Digest
    mode: str
    type: str


@dataclass(frozen=True)
class Receipt:
    """What `worker` has signed. Times are UNIX seconds, hashes are hex."""

    worker: str
    signature: str
    job_id: str
    nonce: str | None
    created: int
    started: int | None
    ended: int
    expires: int
    input_sha256: str
    stdin: Digest | None
    environment: str
    interpreter: str
    interpreter_version: str
    limits: Mapping[str, int]
    walls: Mapping[str, Any] | None
    status: str
    reason: str | None
    exit_code: int | None
    signal: int | None
    stage: str | None
    limits_hit: tuple[str, ...]
    error: str | None
    cpu_usec: int
    memory_peak_bytes: int
    wall_usec: int
    stdout: Log
    stderr: Log
    outputs: Mapping[bytes, Output]  # by path
    truncated: bool
    warnings: tuple[str, ...]
    payload: bytes = field(repr=False)  # the bytes that are signed
    statement: Mapping[str, Any] = field(repr=False)  # all that they say

    def check_file(self, path: str | bytes, data: Data) -> Output:
        """That `data` is the output `path`. Raises NotVerified("differs")."""
        if not (output := self.outputs.get(_bytes_of(path))):
            raise NotVerified("differs", f"{path!a} is not among the outputs of the receipt.")
        _compare(output.quoted, output.content, data)
        return output

    def check_log(self, stream: str, data: Data) -> Log:
        """That `data` is what was kept of "stdout" or "stderr". Raises NotVerified("differs")."""
        if stream not in statement.LOGS:
            raise ValueError(f"{stream!r} is neither stdout nor stderr")
        log: Log = getattr(self, stream)
        _compare(stream, log.kept, data)
        return log

    def check_status(
        self, answer: Mapping[str, Any], *, stdout: bytes | None = None, stderr: bytes | None = None
    ) -> None:
        """That every field of an answer of /status, or of what has more (/submit?wait=, /run as
        JSON), is what the receipt says. Logs in it that are no UTF-8 can only be compared beside
        their bytes. Raises NotVerified("differs").
        """
        logs = {"stdout": stdout, "stderr": stderr}
        for stream, data in logs.items():
            if data is not None:
                self.check_log(stream, data)
        check_answer(self, answer, logs)


def verify(
    envelope: bytes | str | Mapping[str, Any],
    keys: Iterable[str],
    *,
    job_id: str | None = None,
    nonce: str | None = None,
) -> Receipt:
    """The Receipt in a DSSE envelope, signed by one of `keys` (worker ids that the caller knows
    from elsewhere), about this job and with this nonce, where they are given. Raises NotVerified.
    """
    opened = Envelope.read(envelope)
    pinned = [public_key(key) for key in ([keys] if isinstance(keys, str) else keys)]
    receipt = _read(opened.payload, opened.signed_by(pinned))
    if job_id is not None and job_id != receipt.job_id:
        raise NotVerified("job", f"The receipt is about the job {receipt.job_id}, not {job_id!a}.")
    if nonce is not None and nonce != receipt.nonce:
        found = "no nonce" if receipt.nonce is None else f"the nonce {receipt.nonce!a}"
        raise NotVerified("nonce", f"The receipt has {found}, not {nonce!a}.")
    return receipt


def _read(payload: bytes, signed: Mapping[str, str]) -> Receipt:
    try:
        said = statement.check(from_json(payload))
    except Malformed as error:
        sentence = f"What is signed is not a receipt: it {error}."
        raise NotVerified("not_a_receipt", sentence) from None
    predicate = said["predicate"]
    worker = predicate["worker"]
    if worker not in signed:
        sentence = (
            f"The receipt says that {worker} ran the job, and {next(iter(signed))} signed it."
        )
        raise NotVerified("worker", sentence)
    subjects = {subject["name"]: subject for subject in said["subject"]}
    stdout, stderr = (
        Log(_digest(subjects.pop(f"logs/{stream}")), log["bytes"], log["dropped"])
        for stream, log in ((stream, predicate["logs"][stream]) for stream in statement.LOGS)
    )
    outputs = {output.path: output for output in map(_output, subjects.values())}
    job, verdict, usage = predicate["job"], predicate["verdict"], predicate["usage"]
    stdin = predicate["input"]["stdin"]
    return Receipt(
        worker=worker,
        signature=signed[worker],
        job_id=job["id"],
        nonce=job["nonce"],
        created=job["created"],
        started=job["started"],
        ended=job["ended"],
        expires=job["expires"],
        input_sha256=predicate["input"]["sha256"],
        stdin=stdin and Digest(stdin["bytes"], stdin["sha256"]),
        environment=predicate["environment"],
        interpreter=predicate["interpreter"]["name"],
        interpreter_version=predicate["interpreter"]["version"],
        limits=predicate["limits"],
        walls=predicate["walls"],
        status=verdict["status"],
        reason=verdict["reason"],
        exit_code=verdict["exit_code"],
        signal=verdict["signal"],
        stage=verdict["stage"],
        limits_hit=tuple(verdict["limits_hit"]),
        error=verdict["error"],
        cpu_usec=usage["cpu_usec"],
        memory_peak_bytes=usage["memory_peak_bytes"],
        wall_usec=usage["wall_usec"],
        stdout=stdout,
        stderr=stderr,
        outputs=MappingProxyType(outputs),
        truncated=predicate["outputs"]["truncated"],
        warnings=tuple(predicate["warnings"]),
        payload=payload,
        statement=said,
    )


def _digest(subject: Mapping[str, Any]) -> Digest:
    return Digest(subject["annotations"]["bytes"], subject["digest"]["sha256"])


def _output(subject: Mapping[str, Any]) -> Output:
    name, notes = subject["name"], subject["annotations"]
    quoted = name.removeprefix(statement.OUTPUTS)
    path = statement.path_of(name)
    return Output(path, quoted, _digest(subject), notes["mode"], notes["type"])


def _bytes_of(path: str | bytes) -> bytes:
    """As Python reads names from the disk; b"", which is no path, for what cannot be one."""
    try:
        return path if isinstance(path, bytes) else path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b""


def _compare(name: str, expected: Digest, data: Data) -> None:
    size, digest = 0, hashlib.sha256()
    if isinstance(data, bytes | bytearray | memoryview):
        size = memoryview(data).nbytes
        digest.update(data)
    else:
        while size <= expected.size and (piece := data.read(_PIECE)):
            size += len(piece)
            digest.update(piece)
    if size > expected.size:
        sentence = f"{name} has more than the {expected.size} bytes that are in the receipt."
    elif size < expected.size:
        sentence = f"{name} has {size} bytes, and {expected.size} in the receipt."
    elif digest.hexdigest() != expected.sha256:
        sentence = f"{name} has another content than in the receipt."
    else:
        return
    raise NotVerified("differs", sentence)
