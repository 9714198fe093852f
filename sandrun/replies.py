"""What an agent is told of a job: short enough for a model to read, with the way to the rest."""

import base64
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent

from sandrun.errors import ConnectionFailed, Refused, SandrunError
from sandrun.result import Result, StreamName

MAX_CHARACTERS = 8000  # of one text
MAX_PICTURE_BYTES = 300_000
_PIXELS = 8000  # in a row or column
_PICTURES = 4  # that are shown of one job
_LISTED = 12  # outputs that are told by name
_NAME_CHARACTERS = 120
_NOTE_CHARACTERS = 600
# Neither the program's doing nor its caller's.
_FAULTS = ("sandbox_error", "worker_lost", "verification_failed", "cpu_quota")

Json = Mapping[str, Any]


def picture_type(data: bytes) -> str | None:
    """What `data` is, if a model can be shown it. Looks inside: what is no picture but is called
    one makes whole conversations fail.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data.endswith(b"IEND\xaeB`\x82"):
        width, height = struct.unpack(">II", data[16:24].rjust(8))
        return "image/png" if max(width, height) <= _PIXELS else None
    if data.startswith(b"\xff\xd8\xff") and data.rstrip(b"\0").endswith(b"\xff\xd9"):
        return "image/jpeg"
    return None


def may_be_shown(output: Json) -> bool:
    """Whether it is called a picture, and is small enough; `output` as the server lists it."""
    named = output["mime_type"] in ("image/png", "image/jpeg")
    return bool(named and output["size_bytes"] <= MAX_PICTURE_BYTES)


def shown_first(outputs: Iterable[Json]) -> list[Json]:
    """Those to be fetched and shown."""
    return [output for output in outputs if may_be_shown(output)][:_PICTURES]


def picture(data: bytes, mime_type: str) -> ImageContent:
    return ImageContent(data=base64.b64encode(data).decode(), mime_type=mime_type)


def link(job_id: str, output: Json) -> ResourceLink:
    path = quote(output["path"].encode("utf-8", "surrogateescape"), safe="/")
    return ResourceLink(
        uri=f"sandrun://outputs/{job_id}/{path}", name=_short(output["path"]),
        mime_type=output["mime_type"], size=output["size_bytes"],
    )  # fmt: skip


def cut(text: str, limit: int, job_id: str, stream: StreamName) -> str:
    """Head and tail of `text`, and between them how to read the rest: about `limit` characters."""
    if len(text) <= limit:
        return text
    head = limit // 2
    dropped = len(text) - limit
    how = f'read_log(job_id="{job_id}", stream="{stream}", offset={head})'
    tail = text[len(text) - (limit - head) :]
    return f"{text[:head]}\n… {dropped:,} characters cut, {how} …\n{tail}"


def job_reply(
    result: Result, outputs: Sequence[Json], pictures: Mapping[str, tuple[bytes, str]]
) -> CallToolResult:
    """All of a job that is over. `pictures`: data and type by path."""
    fate = (
        result.told if result.exit_code is None or result.reason else f"{result.told}, exit code 0"
    )
    head = (
        f"{fate[0].upper()}{fate[1:]}. job_id: {result.job_id} (kept until {result.expires_at})\n"
    )
    notes = "".join(f"note: {note}\n" for note in _notes(result))
    if len(notes) > _NOTE_CHARACTERS:
        notes = f"{notes[:_NOTE_CHARACTERS]}…\n"
    listed = "".join(_row(result.job_id, output, pictures) for output in outputs[:_LISTED])
    if len(outputs) > _LISTED:
        listed += f"- and {len(outputs) - _LISTED:,} more\n"
    if listed:
        listed = f"outputs:\n{listed}"
    room = MAX_CHARACTERS - len(head) - len(notes) - len(listed) - 400  # for the words between
    printed = share(result, room)
    text = head + notes + sections({"stdout": printed[0], "stderr": printed[1]}) + listed
    content: list[ContentBlock] = [TextContent(text=text)]
    content += [picture(*found) for found in pictures.values()]
    content += [
        link(result.job_id, output)
        for output in outputs[:_LISTED]
        if output["path"] not in pictures
    ]
    told = {
        "job_id": result.job_id,
        "ok": result.ok,
        "exit_code": result.exit_code,
        "reason": result.reason,
        "seconds": result.usage.wall_seconds,
        # Some clients show a model this alone.
        "stdout": printed[0],
        "stderr": printed[1],
        "outputs": [_told(output) for output in outputs[:_LISTED]],
        "outputs_count": len(outputs),
        "limits_hit": list(result.limits_hit),
        "expires_at": result.expires_at,
    }
    is_fault = result.reason in _FAULTS
    return CallToolResult(content=content, structured_content=told, is_error=is_fault)


def share(result: Result, room: int = MAX_CHARACTERS - 400) -> tuple[str, str]:
    """stdout and stderr, cut so that both together have about `room` characters."""
    out, err = result.stdout, result.stderr
    half = room // 2
    for_err = min(len(err), max(half, room - len(out)))
    for_out = min(len(out), max(half, room - len(err)))
    return (
        cut(out, for_out, result.job_id, "stdout"),
        cut(err, for_err, result.job_id, "stderr"),
    )


def sections(named: Mapping[str, str]) -> str:
    """Each text that is not empty below its name."""
    return "".join(
        f"{name}:\n{text}{'' if text.endswith(chr(10)) else chr(10)}"
        for name, text in named.items()
        if text
    )


def text_in(data: bytes, more: bool) -> str | None:
    """The text, if it is some; a character at either end may be cut through."""
    if b"\0" in data:
        return None
    for first in range(4):
        for last in range(4 if more else 1):
            try:
                return data[first : len(data) - last].decode()
            except UnicodeDecodeError:
                continue
    return None


def text_reply(text: str, told: Json | None = None) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(text=text)], structured_content=None if told is None else dict(told)
    )


def error_reply(error: SandrunError, prefix: str = "") -> CallToolResult:
    """Why there is no result. What a program does wrong is none of these."""
    sentence = str(error)
    told: dict[str, Any] = {"error": sentence}
    if isinstance(error, ConnectionFailed):
        sentence += ". Is the Sandrun server running? $SANDRUN_SERVER or --server says where."
    if isinstance(error, Refused):
        if error.errors:
            sentence += f" {json.dumps(list(error.errors), ensure_ascii=False)[:1000]}"
        if error.retry_after is not None:
            sentence += f" It may be taken in {error.retry_after:g} s."
        told = {**told, "reason": error.reason, "retry_after": error.retry_after}
    return CallToolResult(
        content=[TextContent(text=f"{prefix}{sentence}")], structured_content=told, is_error=True
    )


def _notes(result: Result) -> list[str]:
    notes = list(result.warnings)
    if "log" in result.limits_hit:
        notes.append("it printed more than the server keeps: the middle is lost")
    if others := [limit for limit in result.limits_hit if limit != "log"]:
        notes.append(f"limits that it touched: {', '.join(others)}")
    return notes


def _row(job_id: str, output: Json, pictures: Mapping[str, object]) -> str:
    name = _short(output["path"])
    told = f"- {name} ({output['mime_type']}, {output['size_bytes']:,} bytes)"
    if output["path"] in pictures:
        return f"{told}, shown below\n"
    return f'{told}: get_output(job_id="{job_id}", path={json.dumps(name, ensure_ascii=False)})\n'


def _told(output: Json) -> dict[str, Any]:
    return {
        "path": _short(output["path"]),
        "size_bytes": output["size_bytes"],
        "mime_type": output["mime_type"],
    }


def _short(name: str) -> str:
    if len(name) <= _NAME_CHARACTERS:
        return name
    return f"{name[: _NAME_CHARACTERS // 2]}…{name[-_NAME_CHARACTERS // 2 :]}"
