"""Writes the test vectors of docs/receipts/: always the same files.

python -m tests.receipts.vectors
"""

import base64
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sandrun.key import SMALL_ORDER
from tests.receipts.forging import ORDER, forged
from tests.receipts.making import (
    KEY,
    OTHER,
    Made,
    envelope,
    made,
    payload,
    status,
    worker_id,
    wrapped,
)

FOLDER = Path(__file__).resolve().parents[2] / "docs/receipts"
ME = worker_id()
JOB = "job-0123456789abcdef0123456789abcdef"

SHOWN = made(
    {b"results/out.txt": b"a b\n", "Grüße 1.txt".encode(): b"Hallo\n"}, b"42\n", b"",
    job={"nonce": "lab 7"},
)  # fmt: skip
ODD_NAMES = {
    b"a b": b"space", "\u00fc".encode(): b"NFC", "u\u0308".encode(): b"NFD", b"\xfc\xff": b"bytes",
    b"\x1b[2J\r\n\t\x7f": b"control characters", b"\"'`$\\&<>": b"quotes", b"%41": b"percent",
    "\u0430".encode(): b"a Cyrillic letter", "\U0001f600".encode(): b"\xf0\x9f\x98\x80", b"-": b"",
    "e\u202ex".encode(): b"right to left", b"outputs/logs/stdout": b"no log", b"__proto__": b"{}",
}  # fmt: skip
GOOD = {
    "completed": SHOWN,
    "odd names": made(ODD_NAMES),
    "no outputs": made({}, b"", b""),
    "failed by its time limit": made(
        verdict={"status": "failed", "reason": "timeout", "exit_code": None, "signal": 9,
                 "limits_hit": ["timeout"]},
    ),
    "never run": made(
        {}, b"", b"", walls=None, job={"started": None},
        verdict={"status": "failed", "reason": "sandbox_error", "exit_code": None, "stage": None,
                 "error": "The sandbox failed at the step \"mount\"."},
        usage={"cpu_usec": 0, "memory_peak_bytes": 0, "wall_usec": 0},
    ),
    "a cut log": made(stdout=b"head\ntail\n", stderr=b"\xffh\xc3", dropped=123456),
    "live stdin": made(input={"stdin": {"bytes": 3, "sha256": "ab" * 32}}),
    "largest numbers": made(usage={"cpu_usec": 2**53 - 1, "memory_peak_bytes": 2**53 - 1}),
    "words with control characters": made(warnings=["\x1b]0;x\x07\u2028\x00\x7f\"\\/\u00fc"]),
    "a wall missing": made(walls={"missing": ["cgroup-cpu"], "seccomp": True}),
}  # fmt: skip


def vectors() -> Iterator[dict[str, Any]]:
    for name, content in GOOD.items():
        yield {
            **_vector(name, content.signed()),
            "outputs": {quote(path): _base64(data) for path, data in content.files.items()},
            "logs": {"stdout": _base64(content.stdout), "stderr": _base64(content.stderr)},
        }
    yield _vector("asked for as it is", SHOWN.signed(), job=JOB, nonce="lab 7")
    yield _vector("two pinned keys", SHOWN.signed(), keys=[worker_id(OTHER), ME])
    yield from _of_others()
    yield from _damaged()
    yield from _misleading()


def _of_others() -> Iterator[dict[str, Any]]:
    """Whole receipts, but not what was asked for."""
    yield _vector("no key", SHOWN.signed(), "no_key", keys=[])
    yield _vector("another key", SHOWN.signed(), "other_key", keys=[worker_id(OTHER)])
    lied = SHOWN.signed(OTHER)
    lied["signatures"][0]["keyid"] = ME
    yield _vector("another key that says it were this", lied, "signature")
    yield _vector("another worker in it", made(key=OTHER).signed(KEY), "worker")
    yield _vector("another job", SHOWN.signed(), "job", job="job-" + "0" * 32)
    yield _vector("another nonce", SHOWN.signed(), "nonce", nonce="lab 8")
    yield _vector("no nonce", made().signed(), "nonce", nonce="lab 7")
    for key in sorted(SMALL_ORDER):
        body, signature, worker = forged(key, lambda worker: payload(_of(worker).statement))
        content = wrapped(body, signature, worker)
        yield _vector(f"forged with the key {key.hex()}", content, "bad_key", keys=[worker])


def _of(worker: str) -> Made:
    return made(worker=worker)


def _damaged() -> Iterator[dict[str, Any]]:
    whole = SHOWN.signed()
    body = base64.b64decode(whole["payload"])
    signature = base64.b64decode(whole["signatures"][0]["sig"])
    for name, changed in (
        ("a later end", body.replace(b'"ended":1795453202', b'"ended":1795453203')),
        ("another exit code", body.replace(b'"exit_code":0', b'"exit_code":1')),
        ("a space more", body.replace(b",", b", ", 1)),
        ("cut short", body[:-1]),
        ("empty", b""),
    ):
        yield _vector(f"payload: {name}", wrapped(changed, signature, ME), "signature")
    large = int.from_bytes(signature[32:], "little") + ORDER
    for name, changed in (
        ("first bit", bytes([signature[0] ^ 1]) + signature[1:]),
        ("last bit", signature[:-1] + bytes([signature[-1] ^ 1])),
        ("S + L", signature[:32] + large.to_bytes(32, "little")),
        ("zeros", bytes(64)),
        ("of another receipt", base64.b64decode(made().signed()["signatures"][0]["sig"])),
    ):
        yield _vector(f"signature: {name}", wrapped(body, changed, ME), "signature")
    short = {**whole, "signatures": [{"keyid": ME, "sig": _base64(signature[:-1])}]}
    yield _vector("signature: cut short", short, "not_a_receipt")
    yield _vector("no signature", {**whole, "signatures": []}, "not_a_receipt")
    for kind in ("application/json", "application/vnd.in-toto+JSON", ""):
        yield _vector(f"relabelled as {kind!r}", {**whole, "payloadType": kind}, "not_a_receipt")
    yield _vector("text that is cut short", json.dumps(whole)[:-200], "not_a_receipt")


def _misleading() -> Iterator[dict[str, Any]]:
    """By the right key, but no receipt; or one that not everybody reads alike."""
    for name, path, value in (
        ("another type", ("_type",), "https://in-toto.io/Statement/v0.1"),
        ("another predicate", ("predicateType",), "urn:sandrun:receipt:v2"),
    ):
        statement = deepcopy(SHOWN.statement)
        statement[path[0]] = value
        yield _vector(f"signed: {name}", envelope(payload(statement)), "not_a_receipt")
    yield _vector("signed: a challenge", envelope(b"nonce", type="text/plain"), "not_a_receipt")
    yield _vector("signed: no JSON", envelope(b"\xff"), "not_a_receipt")
    body = payload(SHOWN.statement)
    for name, old, new in (
        ("a key twice", b'"exit_code":0', b'"exit_code":1,"exit_code":0'),
        ("a fraction", b'"exit_code":0', b'"exit_code":0.0'),
        ("2**53", b'"exit_code":0', b'"exit_code":9007199254740992'),
        ("a negative number", b'"exit_code":0', b'"exit_code":-1'),
        ("half a character", b'"environment":""', b'"environment":"\\ud800"'),
        ("a path upwards", b"outputs/results/out.txt", b"outputs/../out.txt"),
        ("a path in another spelling", b"Gr%C3%BC", b"Gr%c3%bc"),
        ("a time as text", b'"ended":1795453202', b'"ended":"1795453202"'),
        ("a field missing", b'"warnings":[]', b'"warning":[]'),
        ("a wrong sum", b'"files":2', b'"files":3'),
    ):
        assert old in body
        signed = envelope(body.replace(old, new))
        yield _vector(f"signed: {name}", signed, "not_a_receipt", strict=True)
    text = json.dumps(SHOWN.signed())
    twice = text[:-1] + ', "payload": "e30="}'
    yield _vector("envelope: a key twice", twice, "not_a_receipt", strict=True)
    both = {**SHOWN.signed(), "signatures": [
        *SHOWN.signed(OTHER)["signatures"], *SHOWN.signed()["signatures"],
    ]}  # fmt: skip
    yield {**_vector("two signatures, one of them by the pinned key", both), "strict": True}


def _vector(
    name: str,
    content: Mapping[str, Any] | str,
    expected: str = "holds",
    *,
    keys: list[str] | None = None,
    job: str | None = None,
    nonce: str | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    return {
        "name": name,
        "envelope": content if isinstance(content, str) else json.dumps(content),
        "keys": [ME] if keys is None else keys,
        "job": job,
        "nonce": nonce,
        "expected": expected,
        "strict": strict,
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def files() -> dict[str, bytes]:
    """What is in the folder, by path."""
    shown = {f"outputs/{path.decode()}": data for path, data in SHOWN.files.items()}
    return {
        "worker-id": f"{ME}\n".encode(),
        "worker-secret": f"{bytes(KEY).hex()}\n".encode(),
        "small-order.txt": "".join(f"{key.hex()}\n" for key in sorted(SMALL_ORDER)).encode(),
        "receipt.json": json.dumps(SHOWN.signed(), indent=1).encode() + b"\n",
        "status.json": json.dumps(status(SHOWN, whole=True), indent=1).encode() + b"\n",
        "vectors.json": json.dumps(list(vectors()), indent=1).encode() + b"\n",
        **shown,
    }


if __name__ == "__main__":
    for name, data in files().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
