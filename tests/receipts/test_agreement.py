"""Four that have nothing in common agree about a thousand receipts and about a thousand damaged
ones: ours, the DSSE library securesystemslib, docs/receipts.md's program for Node, and openssl."""

import base64
import json
import random
import string
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from nacl.signing import SigningKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from sandrun.errors import NotVerified
from sandrun.key import SMALL_ORDER
from sandrun.receipt import verify
from tests.receipts import vectors
from tests.receipts.forging import ORDER, forged
from tests.receipts.making import (
    TYPE,
    Made,
    envelope,
    made,
    pae,
    payload,
    worker_id,
    wrapped,
)
from tests.receipts.test_vectors import block

COUNT = 1000
SMALL = [base64.b64encode(key).decode() for key in SMALL_ORDER]
LARGEST = 2**53 - 1
LETTERS = (
    string.printable + "\0\x1b\x7f\u00fc\u0308\u2028\u202e\ufeff\ufffd\U0001f600\u0430<>&'\"\\/"
)


class Case(NamedTuple):
    """An envelope, and what somebody asks of it."""

    text: str
    key: str
    job: str
    nonce: str | None
    what: str


# ---- what is made


class Maker:
    """Receipts with anything in any field; always the same ones."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.keys = [SigningKey(self.random.randbytes(32)) for _ in range(5)]

    def text(self, most: int = 12) -> str:
        return "".join(self.random.choices(LETTERS, k=self.random.randint(0, most)))

    def count(self) -> int:
        return self.random.choice([0, 1, 2**32, LARGEST, self.random.randint(0, LARGEST)])

    def time(self) -> int:
        return self.random.randint(0, 253402300799)

    def perhaps(self, value: object) -> Any:
        return self.random.choice([None, value])

    def path(self) -> bytes:
        names = []
        for _ in range(self.random.randint(1, 3)):
            odd = self.random.choice([self.random.randbytes(4), self.text().encode()])
            name = odd.replace(b"/", b"").replace(b"\0", b"")
            names.append(name if name not in (b"", b".", b"..") else b"x")
        return b"/".join(names)

    def receipt(self, key: SigningKey) -> Made:
        text, count, pick = self.text, self.count, self.random
        files = {
            self.path(): pick.randbytes(pick.randint(0, 40)) for _ in range(pick.randint(0, 4))
        }
        dropped = pick.choice([0, 0, 12345])
        nonce = "".join(pick.choices(string.printable[:95], k=pick.randint(1, 128)))
        return made(
            files, pick.randbytes(pick.randint(0, 20)), text().encode(), key=key, dropped=dropped,
            job={
                "id": f"job-{pick.randbytes(16).hex()}", "nonce": self.perhaps(nonce),
                "created": self.time(), "started": self.perhaps(self.time()),
                "ended": self.time(), "expires": self.time(),
            },
            input={
                "sha256": pick.randbytes(32).hex(),
                "stdin": self.perhaps({"bytes": count(), "sha256": pick.randbytes(32).hex()}),
            },
            environment=text(), interpreter={"name": text(), "version": text()},
            limits={name: count() for name in made().predicate["limits"]},
            walls=self.perhaps({text(): text(), "missing": [text()], "on": True, "of": {"a": 1}}),
            verdict={
                "status": pick.choice(["completed", "failed"]), "reason": self.perhaps(text()),
                "exit_code": self.perhaps(count()), "signal": self.perhaps(count()),
                "stage": pick.choice([None, "run", "compile"]),
                "limits_hit": [text() for _ in range(pick.randint(0, 2))],
                "error": self.perhaps(text(100)),
            },
            usage={name: count() for name in made().predicate["usage"]},
            warnings=[text(100) for _ in range(pick.randint(0, 2))],
        )  # fmt: skip


def whole(maker: Maker) -> Case:
    key = maker.random.choice(maker.keys)
    content = maker.receipt(key)
    job = content.predicate["job"]
    return Case(json.dumps(content.signed(key)), worker_id(key), job["id"], job["nonce"], "whole")


def damaged(maker: Maker) -> Iterator[Case]:
    """Receipts, each with one thing wrong, of all kinds in turn."""
    while True:
        key, other = maker.random.sample(maker.keys, 2)
        content, pick = maker.receipt(key), maker.random
        body, job = payload(content.statement), content.predicate["job"]
        signed = content.signed(key)
        signature = base64.b64decode(signed["signatures"][0]["sig"])
        me = worker_id(key)

        def case(what: str, found: Any, **asked: Any) -> Case:
            text = found if isinstance(found, str) else json.dumps(found)
            known = {"key": me, "job": job["id"], "nonce": job["nonce"]}  # noqa: B023
            return Case(text=text, what=what, **(known | asked))

        for _ in range(5):
            where, changed = altered(pick, content.statement)
            yield case(f"field {where}", wrapped(payload(changed), signature, me))
        for kind in (b"0123456789", b'{}[],:"', string.ascii_letters.encode()):
            at = pick.choice([at for at, byte in enumerate(body) if byte in kind])
            new = bytes([pick.choice([byte for byte in kind if byte != body[at]])])
            changed_body = body[:at] + new + body[at + 1 :]
            yield case(f"byte {at}", wrapped(changed_body, signature, me))
        for half in (0, 32):
            at, bit = half + pick.randrange(32), 1 << pick.randrange(8)
            flipped = signature[:at] + bytes([signature[at] ^ bit]) + signature[at + 1 :]
            yield case(f"signature byte {at}", wrapped(body, flipped, me))
        scalar = (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")
        yield case("S + L", wrapped(body, signature[:32] + scalar, me))
        yield case("payload cut", wrapped(body[: pick.randrange(len(body))], signature, me))
        yield case("payload longer", wrapped(body + b" ", signature, me))
        yield case("signature cut", wrapped(body, signature[: pick.randrange(64)], me))
        text = json.dumps(signed)
        yield case("text cut", text[: pick.randrange(len(text))])
        yield case("other payload", wrapped(payload(maker.receipt(key).statement), signature, me))
        yield case("other key", signed, key=worker_id(other))
        yield case("other key's keyid", content.signed(other))
        lied = content.signed(other)
        lied["signatures"][0]["keyid"] = me
        yield case("other key, this keyid", lied)
        yield case("other worker in it", maker.receipt(other).signed(key))
        yield case("other job asked", signed, job=f"job-{pick.randbytes(16).hex()}")
        yield case("other nonce asked", signed, nonce="another one")
        small, forgery, worker = forged(
            pick.choice(sorted(SMALL_ORDER)),
            lambda worker: payload(content.statement | {  # noqa: B023
                "predicate": content.predicate | {"worker": worker},  # noqa: B023
            }),
        )  # fmt: skip
        yield case("small order", wrapped(small, forgery, worker), key=worker)
        kind = pick.choice(["application/json", TYPE + "x", TYPE.title(), maker.text() + "/"])
        yield case("relabelled", {**signed, "payloadType": kind})
        yield case("signed as another type", envelope(body, key, kind))
        for name in ("_type", "predicateType"):
            wrong = content.statement | {name: content.statement[name] + "1"}
            yield case(f"signed, other {name}", envelope(payload(wrong), key))


def altered(pick: random.Random, statement: Any) -> tuple[str, Any]:
    """(where, a statement in which one field is another)."""
    changed = deepcopy(statement)
    inner, path = changed, []
    while True:
        at = pick.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        path.append(str(at))
        if not isinstance(inner[at], dict | list) or not inner[at] or pick.random() < 0.05:
            break
        inner = inner[at]
    old = inner[at]
    news = [None, 0, 1, True, "", "x", [], {}, old + 1 if isinstance(old, int) else f"{old}x"]
    inner[at] = pick.choice([new for new in news if json.dumps(new) != json.dumps(old)])
    return ".".join(path), changed


# ---- who judges


def ours(cases: list[Case]) -> list[bool]:
    return [_ours(case) for case in cases]


def _ours(case: Case) -> bool:
    try:
        receipt = verify(case.text, [case.key], job_id=case.job, nonce=case.nonce)
    except NotVerified:
        return False
    return receipt.nonce == case.nonce


def asked_for(case: Case, body: bytes) -> bool:
    """What is left for a library's user to compare, when the signature holds."""
    try:
        statement = json.loads(body)
        predicate = statement["predicate"]
    except (ValueError, KeyError):
        return False
    kind = (statement["_type"], statement["predicateType"], predicate["worker"])
    known = ("https://in-toto.io/Statement/v1", "urn:sandrun:receipt:v1", case.key)
    job = predicate["job"]
    return kind == known and (job["id"], job["nonce"]) == (case.job, case.nonce)


def of_the_library(cases: list[Case]) -> list[bool]:
    return [_of_the_library(case) for case in cases]


def _of_the_library(case: Case) -> bool:
    public = base64.b64decode(case.key).hex()
    key = SSlibKey(case.key, "ed25519", "ed25519", {"public": public})
    try:
        found = Envelope.from_dict(json.loads(case.text))
        found.verify([key], 1)
    except Exception:  # it has many ways to say no
        return False
    # That it takes keys of small order is why docs/receipts.md has a list of them.
    if found.payload_type != TYPE or case.key in SMALL:
        return False
    return asked_for(case, found.payload)


def of_node(cases: list[Case], place: Path) -> list[bool]:
    (place / "verify.mjs").write_text(block("js"))
    (place / "small-order.txt").write_bytes(vectors.files()["small-order.txt"])
    (place / "driver.mjs").write_text(
        'import { verify } from "./verify.mjs";\n'
        'import { readFileSync } from "node:fs";\n'
        "const holds = ([text, key, id, nonce]) => { try {\n"
        "  const job = verify(text, key).predicate.job;\n"
        "  return job.id === id && job.nonce === nonce;\n"
        "} catch { return false } };\n"
        "console.log(JSON.stringify(JSON.parse(readFileSync(0)).map(holds)));\n"
    )
    done = subprocess.run(
        ["node", "driver.mjs"], input=json.dumps([case[:4] for case in cases]),
        cwd=place, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers: list[bool] = json.loads(done.stdout)
    return answers


def of_openssl(cases: list[Case], place: Path) -> list[bool]:
    """It judges signatures; what it is given is taken out of the envelope here."""
    bodies: dict[int, bytes] = {}
    for number, case in enumerate(cases):
        try:
            found = json.loads(case.text)
            body, sig = (base64.b64decode(text, validate=True) for text in (
                found["payload"], found["signatures"][0]["sig"],
            ))  # fmt: skip
        except ValueError:
            continue
        if found["payloadType"] == TYPE and case.key not in SMALL:
            bodies[number] = body
            (place / f"{number}.signed").write_bytes(pae(body))
            (place / f"{number}.sig").write_bytes(sig)
            der = bytes.fromhex("302a300506032b6570032100") + base64.b64decode(case.key)
            text = base64.b64encode(der).decode()
            pem = f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"
            (place / f"{number}.pem").write_text(pem)
    done = subprocess.run(
        ["sh", "-c", "while read n; do openssl pkeyutl -verify -pubin -inkey $n.pem -rawin "
         "-in $n.signed -sigfile $n.sig >/dev/null 2>&1; echo $?; done"],
        input="".join(f"{number}\n" for number in bodies),
        cwd=place, capture_output=True, text=True, check=True,
    )  # fmt: skip
    holds = dict(zip(bodies, (code == "0" for code in done.stdout.split()), strict=True))
    return [
        holds.get(number, False) and asked_for(case, bodies[number])
        for number, case in enumerate(cases)
    ]


def judged(cases: list[Case], place: Path) -> list[tuple[str, tuple[bool, ...]]]:
    judges = (
        ours(cases), of_the_library(cases), of_node(cases, place), of_openssl(cases, place),
    )  # fmt: skip
    return [
        (case.what, answers) for case, answers in zip(cases, zip(*judges, strict=True), strict=True)
    ]


def test_four_verifiers_hold_a_thousand_receipts(tmp_path: Path) -> None:
    maker = Maker("whole")
    cases = [whole(maker) for _ in range(COUNT)]
    assert len({case.text for case in cases}) == COUNT
    assert [found for found in judged(cases, tmp_path) if found[1] != (True,) * 4] == []


def test_four_verifiers_refuse_a_thousand_damaged_ones(tmp_path: Path) -> None:
    maker = damaged(Maker("damaged"))
    cases = [next(maker) for _ in range(COUNT)]
    assert [found for found in judged(cases, tmp_path) if found[1] != (False,) * 4] == []
    # Each kind is there, and nearly every field.
    assert len({case.what for case in cases if not case.what.startswith("byte")}) > 80


@pytest.mark.parametrize("key", sorted(SMALL_ORDER), ids=bytes.hex)
def test_openssl_and_node_would_believe_keys_of_small_order(key: bytes, tmp_path: Path) -> None:
    # If they no longer do, the list in docs/receipts.md can go.
    body, signature, worker = forged(key, lambda worker: payload(made(worker=worker).statement))
    job = made().predicate["job"]
    case = Case(json.dumps(wrapped(body, signature, worker)), worker, job["id"], None, "forged")
    assert not _ours(case)
    (tmp_path / "small-order.txt").touch()
    program = block("js")
    (tmp_path / "verify.mjs").write_text(program)
    (tmp_path / "receipt").write_text(case.text)
    done = subprocess.run(
        ["node", "verify.mjs", "receipt", worker], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "completed\n", done.stderr
