"""Receipts as a worker makes them, and answers of the server beside them, by docs/receipts.md and
docs/api.md: written apart from sandrun/, so that a mistake has to be made twice.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
from nacl.signing import SigningKey

TYPE = "application/vnd.in-toto+json"
# Published: whoever believes what this key has signed believes everybody.
KEY = SigningKey(hashlib.sha256(b"sandrun: a key for tests only").digest())
OTHER = SigningKey(hashlib.sha256(b"sandrun: another key for tests only").digest())

FILES = {b"results/out.txt": b"a b\n", b"plot 1.png": b"\x89PNG"}
STDOUT, STDERR = b"42\n", "Grüße\n".encode()


def worker_id(key: SigningKey = KEY) -> str:
    return base64.b64encode(bytes(key.verify_key)).decode()


class Made(NamedTuple):
    """A statement, and all the bytes that it speaks of."""

    statement: dict[str, Any]
    files: Mapping[bytes, bytes]
    stdout: bytes
    stderr: bytes

    @property
    def predicate(self) -> dict[str, Any]:
        predicate: dict[str, Any] = self.statement["predicate"]
        return predicate

    def signed(self, key: SigningKey = KEY) -> dict[str, Any]:
        return envelope(payload(self.statement), key)


def made(
    files: Mapping[bytes, bytes] = FILES,
    stdout: bytes = STDOUT,
    stderr: bytes = STDERR,
    *,
    key: SigningKey = KEY,
    dropped: int = 0,
    **changes: Any,
) -> Made:
    """A receipt's content; `changes` go over the fields of the predicate."""
    logs = {"stdout": stdout, "stderr": stderr}
    subjects = [subject(f"logs/{name}", data) for name, data in logs.items()]
    subjects += [
        subject("outputs/" + quote(path), data, mode="0644", type=type_of(path))
        for path, data in files.items()
    ]
    predicate: dict[str, Any] = {
        "worker": worker_id(key),
        "job": {
            "id": "job-0123456789abcdef0123456789abcdef", "nonce": None, "created": 1795453200,
            "started": 1795453201, "ended": 1795453202, "expires": 1795453502,
        },
        "input": {"sha256": sha256(b"input"), "stdin": None},
        "environment": "",
        "interpreter": {"name": "python3", "version": "3.11.7"},
        "limits": {
            "cpu_millis": 1000, "cpu_usec": 0, "descriptors": 256, "disk_bytes": 104857600,
            "inodes": 20000, "log_bytes": 10485760, "memory_bytes": 536870912, "tasks": 32,
            "wall_usec": 300000000,
        },
        "walls": {"seccomp": True, "cgroups": {"memory": "v2"}, "namespaces": ["user", "pid"]},
        "verdict": {
            "status": "completed", "reason": None, "exit_code": 0, "signal": None, "stage": "run",
            "limits_hit": [], "error": None,
        },
        "usage": {"cpu_usec": 12345, "memory_peak_bytes": 7654321, "wall_usec": 23456},
        "logs": {
            name: {"bytes": len(data) + dropped, "dropped": dropped} for name, data in logs.items()
        },
        "outputs": {
            "bytes": sum(map(len, files.values())), "files": len(files), "truncated": False,
        },
        "warnings": [],
    }  # fmt: skip
    for name, change in changes.items():
        known = predicate[name]
        predicate[name] = known | change if isinstance(known, dict) and change else change
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "urn:sandrun:receipt:v1",
        "subject": sorted(subjects, key=lambda one: str(one["name"])),
        "predicate": predicate,
    }
    return Made(statement, files, stdout, stderr)


def subject(name: str, data: bytes, **notes: str) -> dict[str, Any]:
    annotations = {"bytes": len(data), **notes}
    return {"name": name, "digest": {"sha256": sha256(data)}, "annotations": annotations}


def payload(statement: object) -> bytes:
    return msgspec.json.encode(statement, order="sorted")


def pae(body: bytes, type: str = TYPE) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(type), type.encode(), len(body), body)


def envelope(body: bytes, key: SigningKey = KEY, type: str = TYPE) -> dict[str, Any]:
    signature = key.sign(pae(body, type)).signature
    return wrapped(body, signature, worker_id(key), type)


def wrapped(body: bytes, signature: bytes, keyid: str, type: str = TYPE) -> dict[str, Any]:
    return {
        "payload": base64.b64encode(body).decode(),
        "payloadType": type,
        "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
    }


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def type_of(path: bytes) -> str:
    return {b"txt": "text", b"png": "image"}.get(path.rpartition(b".")[2], "other")


# ---- what the server answers beside it


def status(made: Made, *, whole: bool = False) -> dict[str, Any]:
    """/status; with `whole` what /submit?wait= and /run as JSON have."""
    said, signed = made.predicate, made.signed()
    usage, verdict, job = said["usage"], said["verdict"], said["job"]
    cpu, peak, wall = usage["cpu_usec"] / 1e6, usage["memory_peak_bytes"], usage["wall_usec"]
    files = {
        path.decode("utf-8", "backslashreplace"): {
            "size_bytes": len(data), "sha256": sha256(data), "type": type_of(path),
        } for path, data in made.files.items()
    }  # fmt: skip
    answer = {
        "job_id": job["id"],
        "status": verdict["status"],
        "queue_position": 0,
        "execution_metadata": {
            "cpu_seconds": cpu, "memory_peak_bytes": peak, "memory_peak_mb": peak // 2**20,
            "wall_time_ms": round(wall / 1000),
            "exit_code": -1 if verdict["exit_code"] is None else verdict["exit_code"],
            "environment": said["environment"], "interpreter": said["interpreter"]["name"],
        },
        "job_hash": said["input"]["sha256"],
        "worker_metadata": {
            "worker_id": said["worker"], "signature": signed["signatures"][0]["sig"],
        },
        "metrics": {"cpu_seconds": cpu, "memory_mb": peak // 2**20, "wall_seconds": wall / 1e6},
        "cpu_seconds": cpu,
        "memory_bytes": peak,
        "wall_time": round(wall / 1000),
        **{name: verdict[name] for name in ("reason", "signal", "stage", "limits_hit")},
        "warnings": said["warnings"],
        "created_at": rfc3339(job["created"]),
        "expires_at": rfc3339(job["expires"]),
        "output_files": files,
        "receipt": signed,
    }  # fmt: skip
    if verdict["error"] is not None:
        answer["error"] = verdict["error"]
    if said["walls"] and said["walls"].get("missing"):
        answer["walls_missing"] = said["walls"]["missing"]
    if whole:
        logs, names = said["logs"], ("stdout", "stderr")
        answer["owner_token"] = "only the owner's"
        answer["logs"] = {
            "stdout": made.stdout.decode("utf-8", "replace"),
            "stderr": made.stderr.decode("utf-8", "replace"),
            "truncated": any(logs[name]["dropped"] for name in names),
            **{f"{name}_bytes": logs[name]["bytes"] for name in names},
            **{f"{name}_dropped_bytes": logs[name]["dropped"] for name in names},
        }
        answer["outputs"] = [_output(job["id"], *one) for one in made.files.items()]
    return json.loads(json.dumps(deepcopy(answer)))  # type: ignore[no-any-return]


def _output(job: str, path: bytes, data: bytes) -> dict[str, Any]:
    name = path.decode("utf-8", "backslashreplace")
    kinds = {".txt": "text/plain", ".png": "image/png"}
    return {
        "name": name, "path": name, "size": len(data), "size_bytes": len(data),
        "size_formatted": f"{len(data)} B" if len(data) < 1024 else f"{len(data) / 1024:.1f} KB",
        "type": type_of(path), "mime_type": kinds.get(name[-4:], "application/octet-stream"),
        "sha256": sha256(data), "download_url": f"/download/{job}/{quote(path)}",
    }  # fmt: skip


def rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
