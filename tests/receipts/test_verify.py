"""What `verify` accepts and refuses, and what a Receipt then says of files, logs and answers."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from nacl.bindings import crypto_core_ed25519_is_valid_point

from jobs import filetypes
from jobs.api import wire
from sandrun.errors import NotVerified
from sandrun.key import SMALL_ORDER, worker_id_in
from sandrun.receipt import Receipt, verify
from sandrun.status import MIME_TYPES, size_formatted
from tests.receipts.making import (
    FILES,
    KEY,
    OTHER,
    STDERR,
    STDOUT,
    TYPE,
    Made,
    envelope,
    made,
    payload,
    status,
    worker_id,
    wrapped,
)  # fmt: skip

ME = worker_id()


def refused(kind: str, do: Callable[..., object], *args: Any, **options: Any) -> str:
    """The sentence."""
    with pytest.raises(NotVerified) as raised:
        do(*args, **options)
    assert raised.value.kind == kind, raised.value
    sentence = str(raised.value)
    assert sentence.endswith(".") and sentence.isprintable() and "\n" not in sentence
    return sentence


def believed(content: Made | None = None) -> Receipt:
    return verify((content or made()).signed(), [ME])


# ---- what is accepted


def test_a_receipt_says_what_its_worker_signed() -> None:
    content = made(job={"nonce": "n 1"}, verdict={"limits_hit": ["disk"]}, environment="default")
    receipt = verify(content.signed(), [ME], job_id=content.predicate["job"]["id"], nonce="n 1")
    assert (receipt.worker, receipt.job_id, receipt.nonce) == (
        ME, "job-0123456789abcdef0123456789abcdef", "n 1",
    )  # fmt: skip
    assert (receipt.status, receipt.reason, receipt.exit_code, receipt.stage) == (
        "completed", None, 0, "run",
    )  # fmt: skip
    assert (receipt.environment, receipt.interpreter, receipt.interpreter_version) == (
        "default", "python3", "3.11.7",
    )  # fmt: skip
    assert receipt.limits_hit == ("disk",)
    assert (receipt.created, receipt.started, receipt.ended, receipt.expires) == (
        1795453200, 1795453201, 1795453202, 1795453502,
    )  # fmt: skip
    assert (receipt.cpu_usec, receipt.memory_peak_bytes, receipt.wall_usec) == (
        12345, 7654321, 23456,
    )  # fmt: skip
    assert set(receipt.outputs) == set(FILES)
    assert receipt.outputs[b"plot 1.png"].quoted == "plot%201.png"
    assert receipt.outputs[b"plot 1.png"].mode == "0644"
    assert receipt.stdout.kept.size == receipt.stdout.printed == 3
    assert receipt.payload == payload(content.statement)
    assert receipt.statement == content.statement


def test_bytes_text_and_objects_are_read_alike() -> None:
    content = made().signed()
    text = json.dumps(content)
    assert verify(text, [ME]) == verify(text.encode(), [ME]) == verify(content, [ME])


def test_one_key_may_be_given_as_it_is() -> None:
    assert verify(made().signed(), ME).worker == ME


def test_any_pinned_key_may_be_the_signer() -> None:
    assert verify(made().signed(), [worker_id(OTHER), ME]).worker == ME


def test_a_signature_by_somebody_else_beside_it_counts_for_nothing() -> None:
    content = made()
    both = content.signed()
    both["signatures"] = content.signed(OTHER)["signatures"] + both["signatures"]
    assert verify(both, [ME]).worker == ME
    refused("worker", verify, both, [worker_id(OTHER)])


def test_a_keyid_is_only_a_hint() -> None:
    for keyid in ("", "nonsense", worker_id(OTHER), 7, None, {}):
        content = made().signed()
        content["signatures"][0]["keyid"] = keyid
        assert verify(content, [ME]).worker == ME
    del content["signatures"][0]["keyid"]
    assert verify(content, [ME]).worker == ME


def test_fields_of_a_later_version_are_let_be() -> None:
    content = made()
    content.statement["new"] = content.predicate["new"] = {"constructor": 1, "__proto__": [2]}
    assert verify({**content.signed(), "new": 1}, [ME]).statement["new"]["constructor"] == 1


def test_ten_thousand_outputs_of_odd_names_are_read() -> None:
    files = {b"%d/\xff \n'%d" % (n % 100, n): b"" for n in range(10_000)}
    assert believed(made(files)).outputs.keys() == files.keys()


# ---- whose it is


def test_without_a_pinned_key_nothing_is_believed() -> None:
    sentence = refused("no_key", verify, made().signed(), [])
    assert ME in sentence and "proves nothing" in sentence


def test_what_another_key_signed_is_refused() -> None:
    sentence = refused("other_key", verify, made().signed(), [worker_id(OTHER)])
    assert ME in sentence


def test_what_is_said_of_the_signer_is_repeated_only_if_it_is_a_worker_id() -> None:
    content = made().signed()
    content["signatures"][0]["keyid"] = "\x1b[2J you can trust me"
    assert "trust" not in refused("other_key", verify, content, [worker_id(OTHER)])


def test_a_changed_payload_or_signature_does_not_hold() -> None:
    content = made().signed()
    body = base64.b64decode(content["payload"])
    sig = base64.b64decode(content["signatures"][0]["sig"])
    for at in (0, len(body) // 2, len(body) - 1):
        changed = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        refused("signature", verify, wrapped(changed, sig, ME), [ME])
    for at in range(64):
        changed = sig[:at] + bytes([sig[at] ^ 1]) + sig[at + 1 :]
        refused("signature", verify, wrapped(body, changed, ME), [ME])
    refused("signature", verify, wrapped(body[:-1], sig, ME), [ME])
    refused("signature", verify, wrapped(b"", sig, ME), [ME])


def test_whoever_signs_in_the_name_of_another_worker_is_refused() -> None:
    sentence = refused("worker", verify, made(key=OTHER).signed(KEY), [ME, worker_id(OTHER)])
    assert ME in sentence and worker_id(OTHER) in sentence


def test_a_receipt_of_another_job_or_nonce_is_refused() -> None:
    content = made(job={"nonce": "mine"}).signed()
    assert "job-1" in refused("job", verify, content, [ME], job_id="job-1")
    assert "'yours'" in refused("nonce", verify, content, [ME], nonce="yours")
    assert "no nonce" in refused("nonce", verify, made().signed(), [ME], nonce="")


# ---- keys


@pytest.mark.parametrize("key", sorted(SMALL_ORDER), ids=bytes.hex)
def test_keys_of_small_order_are_refused(key: bytes) -> None:
    text = base64.b64encode(key).decode()
    assert "small order" in refused("bad_key", verify, made().signed(), [text])


@pytest.mark.parametrize(
    "key",
    [
        "", "A", ME[:-1], ME + "=", ME + "\n", " " + ME, ME.replace("=", ""), ME[:-2] + "/=",
        base64.b64encode(bytes(31)).decode(), base64.b64encode(b"\x01" * 33).decode(),
        base64.b64encode(b"\x02" + bytes(31)).decode(),  # on no point of the curve
        base64.b64encode((2**255 - 19 + 3).to_bytes(32, "little")).decode(),  # 3, beyond the field
        "\ud800" * 44, "ü" * 44, 5, None, b"bytes",
    ],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_key_is_refused(key: Any) -> None:
    refused("bad_key", verify, made().signed(), [key])
    refused("bad_key", verify, made().signed(), [ME, key])


def test_small_order_is_what_the_library_means_by_it() -> None:
    assert len(SMALL_ORDER) == 14
    assert not any(map(crypto_core_ed25519_is_valid_point, SMALL_ORDER))


def test_a_key_is_read_from_a_worker_id_or_a_pem() -> None:
    der = bytes.fromhex("302a300506032b6570032100") + bytes(KEY.verify_key)
    pem = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----"
    for text in (ME, f"{ME}\n", pem, f"{pem}\n", pem.replace("\n", "\r\n")):
        assert worker_id_in(text) == ME
    for text in (
        "", "\0", ME + ME, f"{ME}\n{ME}", pem + pem, pem.replace("PUBLIC", "RSA PUBLIC"),
        pem[:-3], pem.replace("MCow", "MCox"), f"# mine\n{pem}",
    ):  # fmt: skip
        refused("bad_key", worker_id_in, text)
    assert "private" in refused("bad_key", worker_id_in, pem.replace("PUBLIC", "PRIVATE"))


# ---- what is no receipt


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff", b"\0", b"{", b"[]", b"null", b"7", b'"x"', b"{}", b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"), b"[" * 100_000, b'{"a":' * 100_000, b'{"payload": 1e999}',
        json.dumps(made().signed()).encode()[:-1], json.dumps(made().signed()).encode() + b"x",
    ],
    ids=lambda text: ascii(text[:20]),
)  # fmt: skip
def test_what_is_no_envelope_is_not_a_receipt(text: bytes) -> None:
    refused("not_a_receipt", verify, text, [ME])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("payload", None), ("payload", 7), ("payload", "%"), ("payload", "é"), ("payload", "QQ"),
        ("payloadType", None), ("payloadType", "text/plain"), ("payloadType", TYPE.upper()),
        ("payloadType", TYPE + " "), ("payloadType", [TYPE]), ("signatures", None),
        ("signatures", {}), ("signatures", []), ("signatures", [None]), ("signatures", [{}]),
        ("signatures", [{"sig": 7}]), ("signatures", [{"sig": ""}]),
        ("signatures", [{"sig": "QQ=="}]),
        ("signatures", [{"sig": base64.b64encode(bytes(65)).decode()}]),
        ("signatures", made().signed()["signatures"] * 17),
    ],
)  # fmt: skip
def test_a_wrong_field_of_the_envelope_is_not_a_receipt(name: str, value: object) -> None:
    content = made().signed()
    assert verify({**content}, [ME])
    refused("not_a_receipt", verify, {**content, name: value}, [ME])
    del content[name]
    assert name in refused("not_a_receipt", verify, content, [ME])


def test_more_than_the_largest_receipt_is_refused_unread() -> None:
    huge = "A" * (2 * (64 << 20) + 4)
    assert "too large" in refused("not_a_receipt", verify, huge, [ME])
    content = {**made().signed(), "payload": huge}
    assert "too large" in refused("not_a_receipt", verify, content, [ME])


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of everything within a JSON value, and of the value itself."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))


def put(value: Any, path: tuple[str | int, ...], new: object) -> Any:
    """A copy of a JSON value with `new` at the path; without what is there if that is ..."""
    value = deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return value


FREE = ("predicate", "walls")  # whose content is as /health has it


@pytest.mark.parametrize("wrong", [..., [[]], 1.5, -1, 2**53, True], ids=ascii)
def test_a_statement_without_a_field_or_with_a_wrong_one_is_not_a_receipt(wrong: object) -> None:
    statement = made(input={"stdin": {"bytes": 1, "sha256": "0" * 64}}).statement
    for path in leaves(statement):
        is_free = path[:2] == FREE and (len(path) > 2 or wrong is not ...)
        if not path or (is_free and wrong in (..., [[]], True, -1)):
            continue
        if path[-1] == "truncated" and wrong is True:
            continue
        if isinstance(path[-1], int) and wrong is ... and path[0] != "subject":
            continue
        changed = put(statement, path, wrong)
        refused("not_a_receipt", verify, envelope(payload(changed)), [ME])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("_type",), "https://in-toto.io/Statement/v0.1"),
        (("predicateType",), "urn:sandrun:receipt:v2"),
        (("predicate", "worker"), "me"),
        (("predicate", "job", "id"), ""),
        (("predicate", "job", "nonce"), "x" * 129),
        (("predicate", "job", "nonce"), "ü"),
        (("predicate", "job", "created"), 253402300800),
        (("predicate", "input", "sha256"), "0" * 63 + "G"),
        (("predicate", "input", "sha256"), "A" * 64),
        (("predicate", "verdict", "status"), "running"),
        (("predicate", "verdict", "stage"), "walk"),
        (("predicate", "outputs", "files"), 3),
        (("predicate", "outputs", "bytes"), 9),
        (("predicate", "logs", "stdout", "dropped"), 1),
        (("subject", 0, "name"), "logs/stdin"),
        (("subject", 0, "name"), "logs/stdout"),
        (("subject", 2, "annotations", "mode"), "rw-r--r--"),
        *((("subject", 2, "name"), f"outputs/{path}") for path in (
            "", "/a", "a//b", "a/", "..", "a/../b", "./a", "%2e%2e", "%2E/a", "a%00b", "a b", "%41",
            "a%2fb", "a%2Fb", "%c3%bc", "ü", "a%", "a%4", "a%zz",
        )),
        (("subject", 2, "name"), "results/out.txt"),
    ],
)  # fmt: skip
def test_a_statement_that_contradicts_itself_is_not_a_receipt(path: Any, value: object) -> None:
    changed = put(made().statement, path, value)
    refused("not_a_receipt", verify, envelope(payload(changed)), [ME])


# ---- files and logs


def test_files_and_logs_are_what_was_signed_or_are_refused() -> None:
    receipt = believed()
    for path, data in FILES.items():
        assert receipt.check_file(path, data).path == path
        assert receipt.check_file(path.decode(), io.BytesIO(data)).content.size == len(data)
        for wrong in (b"", data + b"x", data[:-1], bytes([data[0] ^ 1]) + data[1:]):
            refused("differs", receipt.check_file, path, wrong)
            refused("differs", receipt.check_file, path, io.BytesIO(wrong))
    receipt.check_log("stdout", STDOUT)
    receipt.check_log("stderr", memoryview(bytearray(STDERR)))
    refused("differs", receipt.check_log, "stdout", STDERR)
    refused("differs", receipt.check_log, "stderr", b"")
    with pytest.raises(ValueError, match="neither"):
        receipt.check_log("stdin", b"")


def test_a_wrong_size_is_told_before_the_end() -> None:
    receipt = believed()
    assert "has 3 bytes, and 4" in refused("differs", receipt.check_file, "results/out.txt", b"a b")

    class Endless(io.BytesIO):
        read_bytes = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.read_bytes += size or 0
            assert self.read_bytes < 10 << 20
            return bytes(size or 0)

    assert "more than the 4" in refused("differs", receipt.check_file, "results/out.txt", Endless())


def test_a_file_that_is_no_output_is_refused() -> None:
    receipt = believed()
    for path in ("", "out.txt", "results", "./results/out.txt", "results/Out.txt", "\x1b[2J\ud800"):
        refused("differs", receipt.check_file, path, b"a b\n")


def test_names_are_bytes() -> None:
    files = {"ü".encode(): b"1", "u\u0308".encode(): b"2", b"\xfc": b"3", rb"\xfc": b"4"}
    receipt = believed(made(files))
    for path, data in files.items():
        receipt.check_file(path, data)
        receipt.check_file(path.decode("utf-8", "surrogateescape"), data)
        refused("differs", receipt.check_file, path, b"5")


# ---- answers


ANSWERS = {
    "completed": made(),
    "failed": made(
        verdict={"status": "failed", "reason": "timeout", "exit_code": None, "signal": 9,
                 "limits_hit": ["timeout", "memory"], "stage": "compile"},
        warnings=["a", "b"], walls={"missing": ["cgroup-memory"]}, environment="ml",
    ),
    "never run": made(
        {}, b"", b"", walls=None,
        verdict={"status": "failed", "reason": "sandbox_error", "exit_code": None, "stage": None,
                 "error": "The step mount failed."},
        usage={"cpu_usec": 0, "memory_peak_bytes": 0, "wall_usec": 0}, job={"started": None},
    ),
    "cut": made(stdout=b"head tail", dropped=1000),
    "odd": made({b"\xff": b"1", "ü".encode(): b"2" * 3000, b'"\n\\': b"3", b"x.d/y": b""}),
}  # fmt: skip


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_of_the_server_is_what_its_receipt_says(name: str, whole: bool) -> None:
    content = ANSWERS[name]
    believed(content).check_status(status(content, whole=whole))


@pytest.mark.parametrize("name", ANSWERS)
def test_each_field_of_an_answer_that_is_changed_or_missing_is_noticed(name: str) -> None:
    content = ANSWERS[name]
    receipt, answer = believed(content), status(content, whole=True)
    tried = 0
    for path in leaves(answer):
        where = path[0] if path else ""
        if not path or where == "receipt":  # the test after next
            continue
        old = answer
        for key in path:
            old = old[key]
        news = [other(old), [[]], {"x": 1}, None if old is not None else 0]
        # What only some answers have may be left out.
        if len(path) > 1 or where not in ("owner_token", "logs", "outputs", "output_files"):
            news.append(...)
        for new in news if where != "owner_token" else [7, None]:
            tried += 1
            refused("differs", receipt.check_status, put(answer, path, new))
    assert tried > 150


def other(value: Any) -> object:
    """Something of the same kind, or what a careless comparison takes for the same."""
    match value:
        case bool():
            return int(value)
        case 0 | 1:
            return bool(value)
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case list():
            return [*value, "x"]
        case dict():
            return {**value, "x": 1}
    return False


@pytest.mark.parametrize("name", ["new", "__proto__", "constructor", "error", "walls_missing"])
def test_a_field_that_the_receipt_does_not_speak_of_is_refused(name: str) -> None:
    sentence = refused("differs", believed().check_status, {**status(made()), name: "x"})
    assert name in sentence


def test_the_end_of_a_stream_lists_as_many_outputs_as_fit() -> None:
    receipt, answer = believed(), status(made(), whole=True)
    del answer["output_files"], answer["logs"]
    answer |= {"total_files": 2, "outputs_complete": True}
    receipt.check_status(answer)
    answer["outputs"].pop()
    refused("differs", receipt.check_status, answer)
    answer["outputs_complete"] = False
    receipt.check_status(answer)
    receipt.check_status({**answer, "receipt": None})  # too long for the message
    refused("differs", receipt.check_status, {**answer, "receipt": {}})
    refused("differs", receipt.check_status, {**answer, "total_files": 1})
    refused("differs", receipt.check_status, {**answer, "outputs": answer["outputs"] * 2})
    del answer["outputs"], answer["outputs_complete"], answer["total_files"]
    refused("differs", receipt.check_status, answer)


def test_another_receipt_in_the_answer_is_noticed() -> None:
    answer = status(made())
    mixed = {**made().signed(), "payload": made({}).signed()["payload"]}
    for wrong in (made({}).signed(), made().signed(OTHER), mixed, None, {}, "x"):
        refused("differs", believed().check_status, {**answer, "receipt": wrong})
    answer["receipt"]["signatures"] *= 2
    believed().check_status(answer)


def test_a_log_that_is_no_text_is_compared_beside_its_bytes() -> None:
    content = made(stdout=b"\xff\xfe", stderr="\ufffd".encode())
    receipt, answer = believed(content), status(content, whole=True)
    assert "no UTF-8" in refused("differs", receipt.check_status, answer)
    receipt.check_status(answer, stdout=b"\xff\xfe")
    receipt.check_status(answer, stdout=b"\xff\xfe", stderr=content.stderr)
    refused("differs", receipt.check_status, answer, stdout=b"\xff\xff")
    answer["logs"]["stdout"] += "x"
    refused("differs", receipt.check_status, answer, stdout=b"\xff\xfe")


def test_two_files_that_are_shown_alike_have_one_place_in_an_answer() -> None:
    content = made({b"\xff": b"1", rb"\xff": b"22"})
    receipt, answer = believed(content), status(content)
    receipt.check_status(answer)
    shown = answer["output_files"][r"\xff"]
    shown["size_bytes"] = 1
    refused("differs", receipt.check_status, answer)


def test_verifying_needs_nothing_but_python_and_pynacl() -> None:
    def loaded(code: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-I", "-c", f"{code}; import sys; print(*sys.modules)"],
            capture_output=True, check=True, text=True,
        )  # fmt: skip
        return {name.partition(".")[0] for name in done.stdout.split()}

    ours = loaded("import sandrun.verify") - loaded("pass") - sys.stdlib_module_names
    assert ours - {"_cffi_backend", "_sodium"} <= {"sandrun", "nacl", "cffi"}


def test_what_a_server_calls_a_file_is_told_alike() -> None:
    assert MIME_TYPES == filetypes._MIME_OF
    for size in (0, 1023, 1024, 1500, 2**20, 2**30, 2**40 + 5):
        assert size_formatted(size) == wire.size_formatted(size)
