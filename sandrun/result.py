"""What comes back of a job: values, which stay when the job is forgotten."""

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from sandrun.errors import NotVerified, SandrunError

StreamName = Literal["stdout", "stderr"]
Reason = Literal[
    "exit", "signal", "timeout", "memory", "cpu", "cpu_quota", "cancelled", "sandbox_error",
    "worker_lost", "verification_failed",
]  # fmt: skip
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


@dataclass(frozen=True)
class LogLine:
    """A line without its end; `time` in seconds from the start, `seq` the place after it."""

    stream: StreamName
    text: str
    time: float
    seq: int

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Usage:
    cpu_seconds: float
    wall_seconds: float
    memory_peak_bytes: int


@dataclass(frozen=True)
class Output:
    """A file that the job made. `mime_type` is told by its name."""

    path: str
    size: int
    sha256: str
    mime_type: str
    url: str = field(repr=False)
    data: bytes | None = field(repr=False)  # None: it was not downloaded

    @property
    def bytes(self) -> bytes:
        if self.data is None:
            raise SandrunError(f"{self.path} was not downloaded: job.download(path) does it")
        return self.data

    def text(self) -> str:
        """As UTF-8, with U+FFFD for what is none."""
        return self.bytes.decode("utf-8", "replace")

    def json(self) -> Any:
        return json.loads(self.bytes)

    def save(self, where: str | os.PathLike[str] = ".") -> str:
        """Writes it to the file `where`, or under its name into the folder `where`. Its path."""
        path = os.fspath(where)
        if os.path.isdir(path) or path.endswith(os.sep):
            path = os.path.join(path, *self.parts)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "wb") as file:
            file.write(self.bytes)
        return path

    @property
    def parts(self) -> tuple[str, ...]:
        """Its path in steps, none of which leads out of the folder that it is saved to."""
        parts = tuple(self.path.split("/"))
        strange = "\0" if os.sep == "/" else "\0\\:"
        if {"", ".", ".."} & set(parts) or set(strange) & set(self.path):
            raise SandrunError(f"{self.path!a} is no path below a folder")
        return parts

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """How a notebook shows it: a picture as a picture."""
        if self.data is not None and self.mime_type in _PICTURES:
            return {self.mime_type: base64.b64encode(self.data).decode(), "text/plain": repr(self)}
        return {"text/plain": repr(self)}


@dataclass(frozen=True)
class Result:
    """How a job ended, and all that came of it."""

    job_id: str
    ok: bool  # it ended by itself, with exit code 0
    exit_code: int | None  # None: it was ended, by `signal` or for another `reason`
    reason: Reason | None  # why it failed
    signal: int | None
    stage: Literal["compile", "run"] | None  # what ended it: a compiler, or the program
    stdout_bytes: bytes = field(repr=False)  # as much as is kept of them
    stderr_bytes: bytes = field(repr=False)
    outputs: Mapping[str, Output]
    usage: Usage
    limits_hit: tuple[str, ...]  # "log", "disk", "tasks" and others that need not have ended it
    warnings: tuple[str, ...]
    error: str | None  # the server's fault, as a sentence
    job_hash: str
    worker_id: str | None
    expires_at: str  # RFC 3339, when the server forgets it
    receipt: Mapping[str, Any] | None = field(repr=False)  # None: this server does not sign
    status: Mapping[str, Any] = field(repr=False)  # all that the server says of it

    @cached_property
    def stdout(self) -> str:
        """As UTF-8, with U+FFFD for what is none."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @cached_property
    def stderr(self) -> str:
        return self.stderr_bytes.decode("utf-8", "replace")

    @property
    def told(self) -> str:
        """How it ended, in a sentence without an end."""
        match self.reason:
            case None:
                return f"finished in {self.usage.wall_seconds:.1f} s"
            case "exit":
                what = "the compiler ended" if self.stage == "compile" else "failed"
                return f"{what} with exit code {self.exit_code}"
            case "signal":
                return f"crashed: signal {self.signal}"
            case "timeout":
                return f"stopped at the time limit, after {self.usage.wall_seconds:.1f} s"
            case "memory":
                return f"out of memory, at {self.usage.memory_peak_bytes >> 20} MB"
            case "cpu" | "cpu_quota":
                of = "this client's" if self.reason == "cpu_quota" else "its limit of"
                return f"stopped: {of} CPU time is used up, after {self.usage.cpu_seconds:.1f} s"
            case "cancelled":
                return "cancelled"
            case _:
                return f"failed by a fault of the server: {self.error or self.reason}"

    def verify(self, keys: Iterable[str], *, nonce: str | None = None) -> Any:
        """The sandrun.receipt.Receipt that one of `keys` (worker ids, known from elsewhere) has
        signed, after comparing with it the status, the logs and every output that was downloaded.
        Raises NotVerified.
        """
        from sandrun.receipt import verify

        if self.receipt is None:
            raise NotVerified("not_a_receipt", "This server does not sign results.")
        receipt = verify(self.receipt, keys, job_id=self.job_id, nonce=nonce)
        receipt.check_status(self.status)
        receipt.check_log("stdout", self.stdout_bytes)
        receipt.check_log("stderr", self.stderr_bytes)
        for output in self.outputs.values():
            if output.data is not None:
                receipt.check_file(path_of(output.url), output.data)
        return receipt

    def __str__(self) -> str:
        return self.stdout

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """How a notebook shows it: what it printed, and its first picture."""
        shown = {"text/plain": self.stdout + self.stderr or self.told}
        for output in self.outputs.values():
            bundle = output._repr_mimebundle_()
            if len(bundle) > 1:
                return {**bundle, **shown}
        return shown


def result_of(
    status: Mapping[str, Any],
    stdout: bytes,
    stderr: bytes,
    listed: Iterable[Mapping[str, Any]],
    contents: Mapping[str, bytes],
) -> Result:
    """From the server's answers; `contents` of outputs by URL. Raises NotVerified for a file that
    is not what the server said it is.
    """
    ran = status["execution_metadata"]
    failed = status["status"] != "completed"
    code = ran["exit_code"]
    outputs = {}
    for row in listed:
        data = contents.get(row["download_url"])
        if data is not None and hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise NotVerified("differs", f"{row['path']} was altered on its way.")
        outputs[row["path"]] = Output(
            row["path"], row["size_bytes"], row["sha256"], row["mime_type"], row["download_url"],
            data,
        )  # fmt: skip
    return Result(
        job_id=status["job_id"],
        ok=not failed,
        exit_code=None if code == -1 else code,
        reason=status["reason"],
        signal=status["signal"],
        stage=status["stage"],
        stdout_bytes=stdout,
        stderr_bytes=stderr,
        outputs=outputs,
        usage=Usage(ran["cpu_seconds"], ran["wall_time_ms"] / 1000, ran["memory_peak_bytes"]),
        limits_hit=tuple(status["limits_hit"]),
        warnings=tuple(status["warnings"]),
        error=status.get("error"),
        job_hash=status["job_hash"],
        worker_id=status["worker_metadata"]["worker_id"],
        expires_at=status["expires_at"],
        receipt=status["receipt"],
        status=status,
    )


def path_of(url: str) -> bytes:
    """The path of an output, as bytes, in its `download_url`: /download/ID/PATH."""
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(url.split("/", 3)[3])
