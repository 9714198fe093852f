"""What is shown of a job while it runs, and what is said when it is over."""

import json
from typing import Any

from sandrun.api import Json
from sandrun.client import Job, OnEvent
from sandrun.commands.terminal import Terminal, plural, say, size, some
from sandrun.errors import ConnectionFailed
from sandrun.lines import STREAMS, Lines, data_of
from sandrun.result import LogLine, Result

_FD = {"stdout": 1, "stderr": 2}
_SPINNER = "|/-\\"
CANCELLED = 130
TIMED_OUT, OUT_OF_MEMORY, OURS = 124, 137, 125


class Watch:
    """Takes the frames of its log: Job.wait(on_event=...)."""

    def __init__(
        self, terminal: Terminal, shows: bool = True, timestamps: bool = False, hint: str = ""
    ) -> None:
        """`shows`: what it prints; `hint`: what Ctrl-C does."""
        self._terminal = terminal
        self._shows = shows
        self._lines = Lines() if timestamps else None
        self._hint = f" ({hint})" if hint else ""
        self._turns = 0
        self._time = 0.0
        self.seq = 0

    def __call__(self, frame: Json) -> None:
        kind = frame["type"]
        self.seq = frame["seq"]
        if kind in STREAMS:
            self._time = frame["t"]
            if self._shows:
                self._print(frame)
        elif kind == "gap" and self._shows:
            lost = plural(frame["bytes"], "byte")
            self._terminal.warn(f"{lost} of {frame['stream']} are missing here: it printed more "
                                "than the server keeps")  # fmt: skip
        elif kind == "status":
            self._status(
                f"Waiting, number {frame['queue_position']} in line"
                if frame["status"] == "queued"
                else "Running"
            )
        elif kind == "metrics":
            memory = size(frame["memory_bytes"])
            self._status(f"Running {frame['wall_seconds']:.1f} s, {memory}")
        elif kind in ("end", "gone") and self._lines:
            self._put(*self._lines.end(frame["seq"], self._time))

    def _print(self, frame: Json) -> None:
        if self._lines:
            self._put(*self._lines.put(frame))
        else:
            self._terminal.job(_FD[frame["type"]], data_of(frame))

    def _put(self, *lines: LogLine) -> None:
        for line in lines:
            text = f"{line.time:9.3f} {line.text}\n"
            self._terminal.job(_FD[line.stream], text.encode())

    def _status(self, text: str) -> None:
        self._turns += 1
        self._terminal.status(f"{_SPINNER[self._turns % 4]} {text}{self._hint}")


def see_through(job: Job, watch: OnEvent, resume: str, **how: Any) -> Result:
    """Job.wait(), whose end a lost connection does not make look like the job's."""
    try:
        return job.wait(on_event=watch, **how)
    except ConnectionFailed as error:
        raise ConnectionFailed(f"{error}. The job may go on: {resume}") from None


def exit_code(result: Result) -> int:
    match result.reason:
        case None:
            return 0
        case "exit":
            return 1 if result.exit_code is None else result.exit_code & 0xFF
        case "signal":
            return 128 + (result.signal or 0)
        case "timeout" | "cpu" | "cpu_quota":
            return TIMED_OUT
        case "memory":
            return OUT_OF_MEMORY
        case "cancelled":
            return CANCELLED
        case _:
            return OURS


def tell_end(result: Result, terminal: Terminal, more: str = "") -> None:
    """What the exit code does not say goes to everybody."""
    if result.reason in (None, "exit"):
        terminal.tell(f"{result.told}{more}")
    else:
        terminal.warn(f"{result.told}{more}")
    for name in result.limits_hit:
        if name == result.reason:
            continue
        terminal.tell(f"its limit was reached: {name}")


def tell_warnings(warnings: list[str], terminal: Terminal) -> None:
    for warning in warnings:
        terminal.note(warning)


def outputs_of(result: Result, job_id: str) -> str:
    """What there is to be fetched, as the end of a sentence."""
    if not result.outputs:
        return ""
    named = some([f"{path} ({size(one.size)})" for path, one in result.outputs.items()])
    return f"; it made {named}: sandrun get {job_id} -o DIR"


def as_json(result: Result, **more: Any) -> Json:
    """All of it as one object; the streams in base64 too where they are no text."""
    found: Json = {
        "job_id": result.job_id,
        "ok": result.ok,
        "exit_code": result.exit_code,
        "reason": result.reason,
        "signal": result.signal,
        "stage": result.stage,
        "told": result.told,
        **streams(result.stdout_bytes, result.stderr_bytes),
        "outputs": [
            {"path": one.path, "size_bytes": one.size, "sha256": one.sha256,
             "mime_type": one.mime_type}
            for one in result.outputs.values()
        ],
        "cpu_seconds": result.usage.cpu_seconds,
        "wall_seconds": result.usage.wall_seconds,
        "memory_peak_bytes": result.usage.memory_peak_bytes,
        "limits_hit": list(result.limits_hit),
        "warnings": list(result.warnings),
        "error": result.error,
        "job_hash": result.job_hash,
        "worker_id": result.worker_id,
        "expires_at": result.expires_at,
        "receipt": result.receipt,
    }  # fmt: skip
    return {**found, **more}


def streams(stdout: bytes, stderr: bytes) -> Json:
    """As text, and where they are none in base64 too."""
    found: Json = {}
    for name, data in (("stdout", stdout), ("stderr", stderr)):
        found[name] = data.decode("utf-8", "replace")
        if found[name].encode() != data:
            import base64

            found[f"{name}_base64"] = base64.b64encode(data).decode()
    return found


def say_json(found: Any) -> None:
    say(json.dumps(found))
