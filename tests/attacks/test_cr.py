"""CR: receipts, as whoever would deceive their reader makes them: altered, replayed, signed for
something else, or such that two readers understand them differently. Whatever it is, verification
says no in a sentence, and never yes about something else."""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from nacl.bindings import crypto_core_ed25519_add, crypto_scalarmult_ed25519_base_noclamp
from nacl.exceptions import BadSignatureError

from sandrun.errors import NotVerified
from sandrun.key import SMALL_ORDER
from sandrun.receipt import Receipt, verify
from tests.receipts.forging import ORDER, forged, openssl_holds
from tests.receipts.making import (
    KEY,
    OTHER,
    TYPE,
    Made,
    envelope,
    made,
    pae,
    payload,
    status,
    worker_id,
    wrapped,
)

ME = worker_id()
SANDRUN = Path(sys.executable).with_name("sandrun")
ANOTHER_JOB = "job-" + "f" * 32


def refused(do: Callable[..., object], *args: Any, **options: Any) -> str:
    """The kind of the refusal, which has a sentence that any terminal may show."""
    with pytest.raises(NotVerified) as raised:
        do(*args, **options)
    assert str(raised.value).isprintable()
    return raised.value.kind


def read(text: object, **options: Any) -> Receipt:
    return verify(text, [ME], **options)  # type: ignore[arg-type]


def signed(body: bytes) -> dict[str, Any]:
    """Whatever these bytes are, the worker has signed them as a receipt."""
    return envelope(body)


def parts(content: Made) -> tuple[bytes, bytes]:
    """(payload, signature)"""
    whole = content.signed()
    return tuple(
        base64.b64decode(text) for text in (whole["payload"], whole["signatures"][0]["sig"])
    )  # type: ignore[return-value]


def flips(data: bytes) -> Iterator[bytes]:
    """`data` with one bit of one byte changed, for each byte."""
    for at, byte in enumerate(data):
        yield data[:at] + bytes([byte ^ 1 << at % 8]) + data[at + 1 :]


def altered(value: Any) -> Iterator[Any]:
    """A JSON value, each time with one thing in it changed, left out or added."""
    if isinstance(value, dict):
        yield {**value, "x": 0}
        for key, inner in value.items():
            yield {name: other for name, other in value.items() if name != key}
            yield {(f"{name}x" if name == key else name): other for name, other in value.items()}
            yield from ({**value, key: other} for other in altered(inner))
    elif isinstance(value, list):
        yield [*value, 0]
        for at, inner in enumerate(value):
            yield value[:at] + value[at + 1 :]
            yield from (value[:at] + [other] + value[at + 1 :] for other in altered(inner))
    else:
        yield from (other for other in (None, 0, 1, True, False, "", f"{value}x", [value])
                    if json.dumps(other) != json.dumps(value))  # fmt: skip


def test_nothing_that_is_signed_can_be_changed() -> None:
    """CR-01. Each field of the statement, each byte of the payload and of the signature, and each
    byte of every log and output, its name included."""
    content = made({b"results/out.txt": b"a b\n", "ü".encode(): b"\0\xff"}, job={"nonce": "n"})
    body, signature = parts(content)
    receipt = read(content.signed())
    fields = [payload(changed) for changed in altered(content.statement)]
    assert len(fields) > 500 and body not in fields
    for changed in (*fields, *flips(body), *(body[:at] for at in range(0, len(body), 7))):
        assert refused(read, wrapped(changed, signature, ME)) == "signature"
    for changed in flips(signature):
        assert refused(read, wrapped(body, changed, ME)) == "signature"
    for path, data in content.files.items():
        for changed in (*flips(data), data[:-1], data + b"\0", b""):
            assert refused(receipt.check_file, path, changed) == "differs"
            assert refused(receipt.check_file, path, io.BytesIO(changed)) == "differs"
        for changed in flips(path):
            assert refused(receipt.check_file, changed, data) == "differs"
    for stream, data in (("stdout", content.stdout), ("stderr", content.stderr)):
        for changed in (*flips(data), data[:-1], data + b"\n", b""):
            assert refused(receipt.check_log, stream, changed) == "differs"


def test_no_field_of_an_answer_can_be_changed_on_the_way() -> None:
    """CR-01. What clients read is /status: each field of it is in the receipt."""
    content = made(
        walls={"missing": ["cgroup-cpu"]}, warnings=["w"],
        verdict={"status": "failed", "reason": "sandbox_error", "error": "E", "exit_code": None},
    )  # fmt: skip
    answer, receipt = status(content, whole=True), read(content.signed())
    receipt.check_status(answer)
    del answer["owner_token"], answer["receipt"]  # the owner's own, and what is compared with
    receipt.check_status(answer)
    optional = [{name: answer[name] for name in answer if name != left_out}
                for left_out in ("logs", "outputs", "output_files")]  # fmt: skip
    tried = [changed for changed in altered(answer) if changed not in optional]
    assert len(tried) > 300
    for changed in tried:
        if json.dumps(changed, sort_keys=True) != json.dumps(answer, sort_keys=True):
            assert refused(receipt.check_status, changed) == "differs", changed


def test_a_receipt_is_for_one_job_and_one_nonce() -> None:
    """CR-03. The same input twice, by two clients: hash, logs and outputs are the same."""
    first = made(job={"nonce": "first"})
    second = made(job={"nonce": "second", "id": ANOTHER_JOB})
    assert first.predicate["input"] == second.predicate["input"]
    read(first.signed(), job_id=first.predicate["job"]["id"], nonce="first")
    assert refused(read, first.signed(), job_id=ANOTHER_JOB) == "job"
    assert refused(read, first.signed(), nonce="second") == "nonce"
    assert refused(read, made().signed(), nonce="first") == "nonce"
    for near in ("First", "first ", "firs", "", "first\0", "ｆirst"):
        assert refused(read, first.signed(), nonce=near) == "nonce"
    # Nor do the parts of both make one.
    body, signature = parts(second)
    assert refused(read, wrapped(parts(first)[0], signature, ME)) == "signature"
    # And an answer about one is none about the other.
    assert refused(read(second.signed()).check_status, status(first)) == "differs"
    answer = status(second) | {"receipt": first.signed()}
    assert refused(read(second.signed()).check_status, answer) == "differs"


def test_one_meaning_has_one_form() -> None:
    """CR-05. The order of keys, escapes, spaces, forms of names, and numbers: what is not the form
    that a worker writes has another signature, or is refused where it would have the right one."""
    content = made({"ü".encode(): b"1", "u\u0308".encode(): b"2", b"\xfc": b"3"})
    body, signature = parts(content)
    value = json.loads(body)
    for other in (
        json.dumps(value), json.dumps(value, ensure_ascii=False, sort_keys=True),
        json.dumps(value, separators=(",", ":"), sort_keys=True, indent=0),
        json.dumps(dict(reversed(value.items())), separators=(",", ":")),
        body.decode().replace("/", "\\/"), body.decode() + "\n", "\ufeff" + body.decode(),
    ):  # fmt: skip
        assert other.encode() != body
        assert refused(read, wrapped(other.encode(), signature, ME)) == "signature"
    receipt = read(content.signed())
    assert len(receipt.outputs) == 3 == len({one.quoted for one in receipt.outputs.values()})
    for number in (
        b"9007199254740992",
        b"-1",
        b"1.0",
        b"1e1",
        b"0.5",
        b"1E400",
        b"NaN",
        b"1" * 5000,
    ):
        changed = body.replace(b'"cpu_usec":12345', b'"cpu_usec":' + number)
        assert refused(read, signed(changed)) == "not_a_receipt"


def test_what_the_key_signed_for_something_else_is_no_receipt() -> None:
    """CR-06. A challenge, a key proof, the joined text of the earlier system, the bare payload,
    another type, another predicate, another version: none passes for a receipt, nor a receipt for
    one of them."""
    body, signature = parts(made())
    challenge, joined = b"health:0123456789abcdef", b"job-1|0|0.5|1024|abc"
    messages = (
        challenge, joined, body, pae(body, "text/plain"), pae(body, TYPE + ";v=2"),
        pae(body).replace(b"DSSEv1", b"DSSEv2"), pae(body).replace(b" 28 ", b" 028 "),
        pae(body).rstrip(b"}"), b"\0" + pae(body), pae(body) + b"\0", pae(pae(body)),
    )  # fmt: skip
    for message in messages:
        other = KEY.sign(message).signature
        for content in (body, message):
            assert refused(read, wrapped(content, other, ME)) == "signature"
        with pytest.raises(BadSignatureError):
            KEY.verify_key.verify(message, signature)
    for name, value in (
        ("_type", "https://in-toto.io/Statement/v0.1"), ("_type", "urn:sandrun:receipt:v1"),
        ("predicateType", "https://slsa.dev/provenance/v1"), ("predicateType", None),
        ("predicateType", "urn:sandrun:receipt:v1 "), ("predicateType", "urn:sandrun:health:v1"),
    ):  # fmt: skip
        statement = made().statement | {name: value}
        assert refused(read, signed(payload(statement))) == "not_a_receipt"
    for kind in ("text/plain", TYPE + " ", TYPE.upper(), "", None, [TYPE]):
        relabelled = {**made().signed(), "payloadType": kind}
        assert refused(read, relabelled) == "not_a_receipt"
    assert refused(read, envelope(body, type="text/plain")) == "not_a_receipt"


def test_a_key_that_comes_twice_is_understood_by_nobody() -> None:
    """CR-30. Readers take the first, the last or both; also when one of them is escaped."""
    body = payload(made().statement)
    for old, new in (
        (b'"exit_code":0', b'"exit_code":1,"exit_code":0'),
        (b'"exit_code":0', b'"exit_code":0,"exit_code":0'),
        (b'"exit_code":0', b'"exit\\u005fcode":1,"exit_code":0'),
        (b'"status":"completed"', b'"status":"failed","\\u0073tatus":"completed"'),
        (b'"_type"', b'"_type":"x","_type"'),
        (b'"worker"', b'"worker":"x","worker"'),
        (b'"memory":"v2"', b'"memory":"v1","memory":"v2"'),
    ):
        assert old in body
        assert refused(read, signed(body.replace(old, new))) == "not_a_receipt"
    text = json.dumps(made().signed())
    for name in ("payload", "payloadType", "signatures", "x"):
        twice = f'{{"{name}": 0, "{name}": 0, {text[1:]}'
        assert refused(read, twice) == "not_a_receipt"
    assert refused(read, text.replace('"keyid"', '"sig": "", "keyid"')) == "not_a_receipt"
    same = [made().statement["subject"][0]] * 2
    statement = made().statement | {"subject": same + made().statement["subject"]}
    assert refused(read, signed(payload(statement))) == "not_a_receipt"


def test_what_only_some_call_json_is_not_read() -> None:
    """CR-31. Numbers, characters and encodings about which readers differ."""
    body = payload(made().statement).decode()
    number, text = '"cpu_usec":12345', '"environment":""'
    for word in ("NaN", "Infinity", "-Infinity", "01", "+1", "1.", ".5", "0x10", "1_0", "١", "1n"):
        # Where a count must be, and where anything may be.
        for place in (number, '"seccomp":true'):
            changed = body.replace(place, f"{place.partition(':')[0]}:{word}")
            assert changed != body and refused(read, signed(changed.encode())) == "not_a_receipt"
    for word in (r"\ud800", r"\udc00", r"\udc00\ud800", "\t", "\n", r"\x41", r"\u12", "\\", "\0"):
        changed = body.replace(text, f'"environment":"{word}"')
        assert refused(read, signed(changed.encode())) == "not_a_receipt"
    whole = body.replace(text, r'"environment":"\ud83d\ude00"')  # one character, in two halves
    assert read(signed(whole.encode())).environment == "\U0001f600"
    for raw in (
        b"\xef\xbb\xbf" + body.encode(), body.encode("utf-16"), body.encode("utf-32-le"),
        body.replace(text, '"environment":"#"').encode().replace(b"#", b"\xc0\xaf"),
        body.replace(text, '"environment":"#"').encode().replace(b"#", b"\xed\xa0\x80"),
        body.encode() + b"{}", body.encode() + b"\0", body.encode()[:-1] + b",}",
        b"/**/" + body.encode(), b"(" + body.encode() + b")", b"[" + body.encode() + b"]",
    ):  # fmt: skip
        assert refused(read, signed(raw)) == "not_a_receipt"
        assert refused(read, raw) == "not_a_receipt"


def test_bytes_have_one_text() -> None:
    """CR-32. Other base64 for the same bytes: spaces, no padding, URL letters, loose bits."""
    contents = [made(environment="x" * n).signed() for n in range(3)]
    content = next(found for found in contents if found["payload"].endswith("=="))
    body, sig = content["payload"], content["signatures"][0]["sig"]
    read(content)
    for text in (body, sig):
        bare, loose = text[:-2], chr(ord(text[-3]) + 1)
        for other in (
            bare, bare + "=", text + "=", text + "\n", " " + text, text[:4] + "\n" + text[4:],
            bare[:-1] + loose + "==", text[:4] + "====" + text[4:], text + "A", text + text,
            text[:8] + "*" + text[8:], bare + "%3D%3D", bare + "\uff1d\uff1d", text + "\0",
            "-" + text[1:], "_" + text[1:], "",
        ):  # fmt: skip
            changed = {"payload": other} if text is body else {"signatures": [{"sig": other}]}
            expected = "signature" if (other, text) == ("", body) else "not_a_receipt"
            assert refused(read, {**content, **changed}) == expected, other


def test_a_signature_has_one_form() -> None:
    """CR-33. S + L, and an R with a part of small order, which only the signer can make: what some
    accept and others do not would be a receipt that he can deny."""
    body, signature = parts(made())
    scalar = int.from_bytes(signature[32:], "little")
    for times in range(1, 15):
        larger = (scalar + times * ORDER).to_bytes(32, "little")
        assert refused(read, wrapped(body, signature[:32] + larger, ME)) == "signature"
    eighth = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
    for r in range(1, 9):
        found = with_point(body, r, eighth)
        assert not openssl_holds(bytes(KEY.verify_key), body, found)
        assert refused(read, wrapped(body, found, ME)) == "signature"
        assert openssl_holds(bytes(KEY.verify_key), body, with_point(body, r, None))


def with_point(body: bytes, r: int, point: bytes | None) -> bytes:
    """A signature by KEY with R = rB + point."""
    secret = bytearray(hashlib.sha512(bytes(KEY)).digest()[:32])
    secret[0] &= 248
    secret[31] = secret[31] & 127 | 64
    first = crypto_scalarmult_ed25519_base_noclamp(r.to_bytes(32, "little"))
    if point:
        first = crypto_core_ed25519_add(first, point)
    hashed = hashlib.sha512(first + bytes(KEY.verify_key) + pae(body)).digest()
    scalar = r + int.from_bytes(hashed, "little") * int.from_bytes(secret, "little")
    return first + (scalar % ORDER).to_bytes(32, "little")


def test_a_key_for_which_anybody_can_sign_is_refused(tmp_path: Path) -> None:
    """CR-34. Keys of small order and mixed order, and others that are not written as they should
    be; pinned as text or as a PEM file, alone or beside a good one."""
    for key in sorted(SMALL_ORDER):
        body, signature, worker = forged(key, lambda worker: payload(made(worker=worker).statement))
        assert openssl_holds(key, body, signature)
        content = wrapped(body, signature, worker)
        assert refused(verify, content, [worker]) == "bad_key"
        assert refused(verify, content, [ME, worker]) == "bad_key"
        assert refused(verify, content, [ME]) == "other_key"
    # A good key with a part of small order: whether it signed depends on whom one asks.
    mixed = crypto_core_ed25519_add(bytes(KEY.verify_key), min(SMALL_ORDER, key=lambda key: key[0]))
    assert refused(verify, made().signed(), [base64.b64encode(mixed).decode()]) == "bad_key"
    (tmp_path / "receipt").write_text(json.dumps(content))
    der = bytes.fromhex("302a300506032b6570032100") + key
    text = base64.b64encode(der).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"
    (tmp_path / "key").write_text(pem)
    done = command(tmp_path / "receipt", "--key", tmp_path / "key")
    assert done.returncode == 6 and b"small order" in done.stderr


def test_nobody_signs_in_the_name_of_another() -> None:
    """CR-35. Lies in keyid and in worker, several signatures, the key inside the envelope."""
    mine, theirs = made(), made(key=OTHER)
    for keyid in (ME, worker_id(OTHER), "", "../../etc/passwd", "x" * 10_000):
        forgery = deepcopy(mine.signed(OTHER))
        forgery["signatures"][0]["keyid"] = keyid
        assert refused(read, forgery) in ("signature", "other_key")
    assert refused(read, theirs.signed(KEY)) == "worker"
    both = mine.signed()["signatures"] + mine.signed(OTHER)["signatures"]
    for signatures in (both, both[::-1], both * 8):
        assert read({**mine.signed(), "signatures": signatures}).worker == ME
        assert refused(verify, {**mine.signed(), "signatures": signatures}, [worker_id(OTHER)]) == (
            "worker"
        )
    broken = [{"keyid": ME, "sig": base64.b64encode(bytes(64)).decode()}]
    assert read({**mine.signed(), "signatures": broken + both}).worker == ME
    assert refused(read, {**mine.signed(), "signatures": both * 9}) == "not_a_receipt"
    own = {**mine.signed(OTHER), "keys": [worker_id(OTHER)], "key": worker_id(OTHER)}
    assert refused(verify, own, []) == "no_key"
    assert refused(read, own) == "other_key"


def test_names_that_mean_something_to_a_language_are_names() -> None:
    """CR-36. __proto__, constructor, and what Python or JSON know by itself, as names of files, of
    walls and of fields."""
    names = ("__proto__", "constructor", "toString", "__class__", "length", "null", "true", "NaN")
    content = made({name.encode(): name.encode() for name in names}, walls=dict.fromkeys(names, {}))
    receipt = read(content.signed())
    for name in names:
        receipt.check_file(name, name.encode())
        assert refused(receipt.check_file, name, b"") == "differs"
        assert refused(receipt.check_status, {**status(content), name: {}}) == "differs"
    receipt.check_status(status(content, whole=True))
    answer = status(content)
    answer["output_files"]["__proto__"]["polluted"] = True
    assert refused(receipt.check_status, answer) == "differs"


def test_a_name_that_looks_alike_is_another_name(tmp_path: Path) -> None:
    """CR-37. Cyrillic letters, both forms of an umlaut, invisible and turning characters, and
    bytes that are shown as a name looks that is written with them."""
    alike = ["a.txt", "\u0430.txt", "a\u200b.txt", "\u202etxt.a", "ü", "u\u0308", "A.txt", "a.txt "]
    for name in alike:
        content = made({name.encode(): b"1"})
        receipt = read(content.signed())
        for other in alike:
            if other != name:
                assert refused(receipt.check_file, other, b"1") == "differs"
                changed = status(content, whole=True)
                changed["output_files"] = {other: changed["output_files"][name]}
                assert refused(receipt.check_status, changed) == "differs"
    receipt = read(made({b"\xff": b"1"}).signed())
    assert refused(receipt.check_file, rb"\xff", b"1") == "differs"
    # Whoever reads what was verified sees which it is.
    (tmp_path / "receipt").write_text(
        json.dumps(made({name.encode(): b"" for name in alike}).signed())
    )
    told = command(tmp_path / "receipt", "--key", ME).stdout.decode()
    assert told.isascii() and len(set(told.splitlines())) == len(told.splitlines())


def test_a_folder_is_compared_as_it_lies_there(tmp_path: Path) -> None:
    """CR-38. Links, FIFOs, devices, folders for files and files for folders, names of the
    receipt that lead out: nothing but the regular files in the folder is ever opened."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"1")
    content = made({b"a": b"1", b"d/b": b"1"})
    (tmp_path / "receipt").write_text(json.dumps(content.signed()))
    folder = tmp_path / "folder"
    tricks: list[Callable[[Path], object]] = [
        lambda at: at.symlink_to(outside), lambda at: at.symlink_to("../outside"),
        lambda at: at.symlink_to("d/b"), lambda at: at.symlink_to(at), Path.mkdir, os.mkfifo,
        lambda at: os.mknod(at, 0o020600, os.makedev(1, 5)),  # /dev/zero, which has no end
        lambda at: at.symlink_to("/dev/zero"), lambda at: None,
    ]  # fmt: skip
    for trick in tricks:
        for name in ("a", "d/b", "d"):
            lay_out(folder)
            remove(folder / name)
            trick(folder / name)
            done = command(*folder_of(tmp_path))
            assert done.returncode == 4, (name, done)
    lay_out(folder)
    assert command(*folder_of(tmp_path)).returncode == 0
    for name in ("../outside", "%2e%2e/outside", "/etc/passwd", "a/../../outside", "./a", "d//b"):
        statement = content.statement | {"subject": deepcopy(content.statement["subject"])}
        statement["subject"][2]["name"] = f"outputs/{name}"
        assert refused(read, signed(payload(statement))) == "not_a_receipt"


def lay_out(folder: Path) -> None:
    remove(folder)
    (folder / "d").mkdir(parents=True)
    (folder / "a").write_bytes(b"1")
    (folder / "d/b").write_bytes(b"1")


def remove(path: Path) -> None:
    subprocess.run(["rm", "-rf", path], check=True)


def folder_of(place: Path) -> list[str | Path]:
    return [place / "receipt", "--key", ME, "--files", place / "folder"]


def command(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run([SANDRUN, "verify", *arguments], capture_output=True, timeout=60)
    assert b"Traceback" not in done.stderr
    return done


def test_a_receipt_cannot_keep_its_reader_busy() -> None:
    """CR-39. Deep, long and repetitive JSON, numbers of a million digits, thousands of signatures:
    refused in seconds, mostly before anything is computed."""
    one = made().signed()
    texts: list[Any] = [
        b"[" * 1_000_000, b'{"a":' * 1_000_000, b'{"payload":' + b"9" * 1_000_000 + b"}",
        b"{" + b",".join(b'"%d":0' % n for n in range(200_000)) + b',"0":0}',
        {**one, "signatures": one["signatures"] * 100_000}, {**one, "payload": "A" * 40_000_000},
        {**one, "payload": "A" * ((1 << 27) + 4)}, b" " * ((1 << 27) + 1),
        signed(b"[" * 1_000_000), signed(b'{"_type":' * 1_000_000), signed(b"9" * 1_000_000),
        signed(b'{"_type":"' + b"\\ud83d\\ude00" * 100_000 + b'"}'),
    ]  # fmt: skip
    for text in texts:
        begun = time.process_time()
        assert refused(read, text) in ("not_a_receipt", "signature")
        assert time.process_time() - begun < 5
