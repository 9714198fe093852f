"""Whether an answer of the server is what the receipt says: what each field of /status must be, and
of what some answers have beside it. A field that is not here is refused: nothing speaks for it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from sandrun.envelope import Envelope
from sandrun.errors import NotVerified

if TYPE_CHECKING:
    from sandrun.receipt import Log, Output, Receipt

MIB = 1 << 20

# What a server says that a file is, by its extension; it stands in no receipt, being nothing but
# another word for the name.
MIME_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif",
    "bmp": "image/bmp", "webp": "image/webp", "svg": "image/svg+xml", "mp4": "video/mp4",
    "avi": "video/x-msvideo", "mov": "video/quicktime", "mkv": "video/x-matroska",
    "webm": "video/webm", "mp3": "audio/mpeg", "wav": "audio/wav", "ogg": "audio/ogg",
    "csv": "text/csv", "json": "application/json", "txt": "text/plain", "md": "text/markdown",
    "log": "text/plain", "zip": "application/zip", "tar": "application/x-tar",
    "gz": "application/gzip", "py": "text/x-python", "js": "application/javascript",
    "cpp": "text/x-c++", "c": "text/x-c", "h": "text/x-c", "pdf": "application/pdf",
}  # fmt: skip


def check_answer(
    receipt: "Receipt", answer: Mapping[str, Any], logs: Mapping[str, bytes | None]
) -> None:
    """Raises NotVerified("differs") with the name of the first field that is not as it must be.
    `logs` are the bytes of those that are known (and checked).
    """
    rest = dict(answer)
    if "receipt" in rest:
        envelope = rest.pop("receipt")
        # Null in a message that it is too long for, which may lack outputs too.
        if envelope is not None or "outputs_complete" not in rest:
            _check_envelope(receipt, envelope)
    if "owner_token" in rest and not isinstance(rest.pop("owner_token"), str):
        _differ("owner_token", "is not text")  # it is nobody's but the owner's, and in no receipt
    if "logs" in rest:
        _check_logs(receipt, rest.pop("logs"), logs)
    if not {"output_files", "outputs"} & rest.keys():
        _differ("output_files", "is missing")
    if "output_files" in rest:
        _check_files(receipt, rest.pop("output_files"))
    if "outputs" in rest:
        _check_outputs(receipt, rest.pop("outputs"), rest.pop("outputs_complete", True))
    if "total_files" in rest:
        _compare("total_files", rest.pop("total_files"), len(receipt.outputs))
    _compare("", rest, _status(receipt))


def _status(receipt: "Receipt") -> dict[str, object]:
    """/status, but for what names the files."""
    cpu, peak, wall = receipt.cpu_usec / 1e6, receipt.memory_peak_bytes, receipt.wall_usec
    missing = (receipt.walls or {}).get("missing")
    return {
        "job_id": receipt.job_id,
        "status": receipt.status,
        "queue_position": 0,
        "execution_metadata": {
            "cpu_seconds": cpu,
            "memory_peak_bytes": peak,
            "memory_peak_mb": peak // MIB,
            "wall_time_ms": round(wall / 1000),
            "exit_code": -1 if receipt.exit_code is None else receipt.exit_code,
            "environment": receipt.environment,
            "interpreter": receipt.interpreter,
        },
        "job_hash": receipt.input_sha256,
        "worker_metadata": {"worker_id": receipt.worker, "signature": receipt.signature},
        "metrics": {"cpu_seconds": cpu, "memory_mb": peak // MIB, "wall_seconds": wall / 1e6},
        "cpu_seconds": cpu,
        "memory_bytes": peak,
        "wall_time": round(wall / 1000),
        "reason": receipt.reason,
        "signal": receipt.signal,
        "stage": receipt.stage,
        "limits_hit": list(receipt.limits_hit),
        **({} if receipt.error is None else {"error": receipt.error}),
        **({"walls_missing": missing} if missing else {}),
        "warnings": list(receipt.warnings),
        "created_at": instant(receipt.created),
        "expires_at": instant(receipt.expires),
    }


def instant(seconds: int) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(path: bytes) -> str:
    """A path as the server writes it into JSON; two paths may be shown alike."""
    return path.decode("utf-8", "backslashreplace")


def _check_envelope(receipt: "Receipt", envelope: object) -> None:
    try:
        opened = Envelope.read(envelope)
    except NotVerified:
        _differ("receipt", "is none")
    signatures = [signature.text for signature in opened.signatures]
    if opened.payload != receipt.payload or receipt.signature not in signatures:
        _differ("receipt", "is another one")


def _check_logs(receipt: "Receipt", found: object, raw: Mapping[str, bytes | None]) -> None:
    logs = {"stdout": receipt.stdout, "stderr": receipt.stderr}
    expected: dict[str, object] = {"truncated": any(log.dropped for log in logs.values())}
    for stream, log in logs.items():
        expected[f"{stream}_bytes"] = log.printed
        expected[f"{stream}_dropped_bytes"] = log.dropped
        text = found.get(stream) if isinstance(found, Mapping) else None
        if isinstance(text, str):
            _check_text(f"logs.{stream}", text, log, raw[stream])
        expected[stream] = text if isinstance(text, str) else ""
    _compare("logs", found, expected)


def _check_text(where: str, text: str, log: "Log", raw: bytes | None) -> None:
    if raw is not None:
        if raw.decode("utf-8", "replace") != text:
            _differ(where, "is not the text of these bytes")
        return
    data = text.encode("utf-8", "surrogatepass")
    if len(data) == log.kept.size and hashlib.sha256(data).hexdigest() == log.kept.sha256:
        return
    if "\ufffd" in text:  # stands for bytes that were no UTF-8; which ones is lost
        _differ(where, "cannot be compared, since what was printed is no UTF-8: its bytes can")
    _differ(where, "is not what was printed")


def _check_files(receipt: "Receipt", found: object) -> None:
    expected: dict[str, list[dict[str, object]]] = {}
    for output in receipt.outputs.values():
        expected.setdefault(shown(output.path), []).append({
            "size_bytes": output.content.size,
            "sha256": output.content.sha256,
            "type": output.type,
        })  # fmt: skip
    if not isinstance(found, Mapping):
        _differ("output_files", "is not an object")
    for name, entry in found.items():
        where = f"output_files[{name!a}]"
        if name not in expected:
            _differ(where, "is not among the receipt's outputs")
        # Two paths that are shown alike have one place in the object, and it is either's.
        alike = [known for known in expected[name] if _same(entry, known)]
        if not alike:
            _compare(where, entry, expected[name][-1])
    if absent := expected.keys() - found.keys():
        _differ(f"output_files[{min(absent)!a}]", "is missing")


def _check_outputs(receipt: "Receipt", found: object, complete: object) -> None:
    if not isinstance(found, list):
        _differ("outputs", "is not a list")
    if not isinstance(complete, bool):
        _differ("outputs_complete", "is not true or false")
    expected = {f"/download/{receipt.job_id}/{output.quoted}": output
                for output in receipt.outputs.values()}  # fmt: skip
    for index, entry in enumerate(found):
        url = entry.get("download_url") if isinstance(entry, Mapping) else None
        output = expected.pop(url, None) if isinstance(url, str) else None
        if output is None:
            _differ(f"outputs[{index}]", "is not in the receipt, or is there twice")
        _compare(f"outputs[{index}]", entry, {**_entry(output), "download_url": url})
    if complete and expected:
        _differ("outputs", f"lacks {len(expected)} of the receipt's outputs")
    if not complete and not expected:
        _differ("outputs_complete", "is false, and all outputs are there")


def _entry(output: "Output") -> dict[str, object]:
    name, size = shown(output.path), output.content.size
    base = name.rsplit("/", 1)[-1]
    extension = base.rsplit(".", 1)[-1].lower() if "." in base else ""
    return {
        "name": name,
        "path": name,
        "size": size,
        "size_bytes": size,
        "size_formatted": size_formatted(size),
        "type": output.type,
        "mime_type": MIME_TYPES.get(extension, "application/octet-stream"),
        "sha256": output.content.sha256,
    }


def size_formatted(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"


def _compare(where: str, found: object, expected: object) -> None:
    """That both are the same JSON. To Python, but not here, true is 1."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        at = f"{where}." if where else ""
        for name in found.keys() - expected.keys():
            _differ(f"{at}{ascii(name)[1:-1]:.100}", "is nothing that the receipt speaks of")
        for name in expected:
            if name not in found:
                _differ(f"{at}{name}", "is missing")
            _compare(f"{at}{name}", found[name], expected[name])
    elif _is_list(expected) and _is_list(found):
        assert isinstance(expected, Sequence) and isinstance(found, Sequence)
        if len(found) != len(expected):
            _differ(where, f"has {len(found)} entries, and {len(expected)} in the receipt")
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            _compare(f"{where}[{index}]", one, other)
    elif isinstance(found, bool) != isinstance(expected, bool) or found != expected:
        _differ(where, f"is {_told(found)}, and {_told(expected)} in the receipt")


def _same(found: object, expected: object) -> bool:
    try:
        _compare("", found, expected)
    except NotVerified:
        return False
    return True


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _told(value: object) -> str:
    if isinstance(value, str | int | float) or value is None:
        return f"{value!a:.100}"
    return "something else"


def _differ(where: str, what: str) -> NoReturn:
    raise NotVerified("differs", f"In the answer, {where} {what}.")
