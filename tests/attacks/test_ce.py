"""CR: receipts, from the side that signs. What a job or a client does to have something signed that
is not true, or to have something that is true go unsigned. Whoever checks is in test_cr.py, the key
and its signer in test_ck.py.

Every job of every other attack is looked at too: `Attacker.finish` verifies its receipt, and holds
the status, the logs and their bytes against it.
"""

import base64
import hashlib
import json
import os
import random
import re
import time
from typing import Any

import pytest

from sandrun.errors import NotVerified
from sandrun.receipt import Receipt, verify
from tests.attacks.arena import MANY_OUTPUTS, Attacker, Seen
from tests.attacks.wire import Entry, tar_of
from tests.journeys.server import REPOSITORY, eventually, meanwhile

PLAIN: dict[str, Any] = {
    "entrypoint": "main.py",
    "args": ['"\\\u2028\x7f\x01\U0001f600'],
    "env": {"A": "1"},
}


def receipt_of(attacker: Attacker, seen: Seen) -> Receipt:
    envelope = attacker.ask("GET", f"/receipt/{seen.id}")
    assert envelope.status == 200, envelope
    return verify(envelope.body, [attacker.server.worker], job_id=seen.id)


def input_hash(*known: Any) -> str:
    """As the program in docs/receipts.md makes it, from what a client sent and what was signed."""
    document = (REPOSITORY / "docs/receipts.md").read_text()
    [program] = re.findall(r"```python\n(# input_hash\.py\n.*?)```", document, re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    return str(names["input_hash"](*known))


def test_the_hash_of_the_input_covers_all_of_it(attacker: Attacker) -> None:
    """CR-04. Whoever has the input can make it anew; whatever is changed changes it."""
    main, data = b"print(1)", b"data"
    archives = {
        "plain": ([Entry("main.py", main), Entry("d/a", data)], PLAIN),
        "content": ([Entry("main.py", b"print(2)"), Entry("d/a", data)], PLAIN),
        "another file's content": ([Entry("main.py", main), Entry("d/a", b"date")], PLAIN),
        "name": ([Entry("main.py", main), Entry("d/b", data)], PLAIN),
        "name in another form": ([Entry("main.py", main), Entry("d/a\u0308", data)], PLAIN),
        "name composed": ([Entry("main.py", main), Entry("d/\u00e4", data)], PLAIN),
        "mode": ([Entry("main.py", main), Entry("d/a", data, mode=0o755)], PLAIN),
        "one file more": ([Entry("main.py", main), Entry("d/a", data), Entry("e")], PLAIN),
        "one file less": ([Entry("main.py", main)], PLAIN),
        "swapped": ([Entry("main.py", main), Entry("d", data), Entry("a")], PLAIN),
    }
    for name, value in {
        "args": ["a", ""], "env": {"A": "2"}, "stdin": "x", "outputs": ["d/"], "stdin_live": True,
        "timeout": 7, "memory_mb": 65, "cpu_seconds": 1.5,
    }.items():  # fmt: skip
        archives[name] = (archives["plain"][0], {**PLAIN, name: value})
    hashes = {}
    for what, (entries, manifest) in archives.items():
        job = attacker.start({"job.tar": tar_of(entries)}, canary=False, **manifest)
        if "stdin_live" in manifest:
            attacker.ask("POST", f"/jobs/{job}/stdin?end=1", b"", attacker.bearer(job))
        receipt = receipt_of(attacker, attacker.finish(job))
        said = receipt.statement["predicate"]
        files = {e.name: (e.content, f"{e.mode:04o}") for e in entries}
        assert receipt.input_sha256 == input_hash(files, manifest, said), what
        hashes[what] = receipt.input_sha256
    assert len(set(hashes.values())) == len(hashes), hashes
    for options in (
        {"ttl": 9},
        {"nonce": "x"},
        {"burn_after_read": True},
    ):  # do not change what runs
        again = attacker.start({"job.tar": tar_of(archives["plain"][0])}, canary=False,
                               **PLAIN, **options)  # fmt: skip
        assert attacker.ask("GET", f"/status/{again}").json["job_hash"] == hashes["plain"]


def test_the_version_of_the_interpreter_is_in_the_hash(attacker: Attacker) -> None:
    """CR-04."""
    seen = attacker.sh("echo $0")
    receipt = receipt_of(attacker, seen)
    told = attacker.ask("GET", "/environments").json["environments"]
    known = {one["name"]: one["version"] for one in told}
    assert receipt.interpreter_version == known[receipt.interpreter] != ""


def test_no_end_can_be_made_to_look_like_another(attacker: Attacker) -> None:
    """CR-10. Jobs that fail, in every way, and print what a success would: each is signed as what
    it was; and a cancelled one as cancelled."""
    says = 'print(\'{"status": "completed", "exit_code": 0}\', flush=True)\n'
    for code, reason, options in (
        ("", None, {}),
        ("sys.exit(1)", "exit", {}),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal", {}),
        ("signal.pause()", "timeout", {"timeout": 1}),
        ("x = bytearray(b'x') * (1 << 30)", "memory", {"memory_mb": 64}),
        ("while True: pass", "cpu", {"cpu_seconds": 0.3}),
    ):
        seen = attacker.python(says + code, **options)
        receipt = receipt_of(attacker, seen)
        assert (seen.reason, receipt.reason) == (reason, reason), seen
        assert receipt.status == ("failed" if reason else "completed")
        assert (receipt.exit_code == 0) == (reason is None)
    job = attacker.start_python(says + "signal.pause()")
    assert eventually(lambda: b"completed" in attacker.log(job), 20)
    attacker.cancel(job)
    assert receipt_of(attacker, attacker.finish(job)).reason == "cancelled"


FORGES = """
import json
forged = json.dumps({"payload": "e30=", "payloadType": "application/vnd.in-toto+json",
                     "signatures": [{"keyid": "", "sig": ""}]})
for path in ("logs/stdout", "logs/stderr", "outputs/a", "receipt.json", "%2e%2e/b", "a%", "a%25",
             "a "):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    open(path, "w").write(path)
print(forged, flush=True)
print('","receipt":' + forged, file=sys.stderr)
"""


def test_names_and_texts_of_a_job_are_nothing_but_names_and_texts(attacker: Attacker) -> None:
    """CR-40. It writes outputs named like logs, like outputs, like escaped names, and prints a
    receipt: each output is under its own name, and the receipt is ours."""
    seen = attacker.python(FORGES)
    receipt = receipt_of(attacker, seen)
    assert len(receipt.outputs) == 8
    for path, output in receipt.outputs.items():
        assert output.content.sha256 == hashlib.sha256(path).hexdigest()
        receipt.check_file(path, attacker.download(seen.id, output.quoted))
    receipt.check_log("stdout", seen.stdout)
    receipt.check_log("stderr", seen.stderr)


@pytest.mark.usefixtures("crowded")
def test_the_largest_statement_is_signed_and_nobody_waits_for_it(attacker: Attacker) -> None:
    """CR-41, CR-14. As many outputs as are taken whose names are the longest that a name can be
    signed as: a statement of fifteen megabytes."""
    slowest = 0.0

    def look() -> None:
        nonlocal slowest
        slowest = max(slowest, _health_seconds(attacker))

    job = attacker.start_python(MANY_OUTPUTS)
    with meanwhile(look, 0.02):
        assert eventually(lambda: attacker.is_over(job), 60)
    answer = attacker.ask("GET", f"/receipt/{job}")
    receipt = verify(answer.body, [attacker.server.worker], job_id=job)
    assert 14 << 20 < len(receipt.payload) < 16 << 20
    assert receipt.truncated
    assert slowest < 1.0


def _health_seconds(attacker: Attacker) -> float:
    began = time.monotonic()
    assert attacker.ask("GET", "/health").status == 200
    return time.monotonic() - began


def test_the_middle_of_a_log_that_is_lost_is_told(attacker: Attacker) -> None:
    """CR-42. It prints more than is kept, so that what it said is out of sight: the receipt tells
    how much is missing, and the hash is that of what is served."""
    seen = attacker.python("print('x' * (5 << 20)); print('secret' * 10); print('y' * (6 << 20))")
    receipt = receipt_of(attacker, seen)
    log = receipt.stdout
    assert (log.printed, log.kept.size) == (len(seen.stdout) + log.dropped, len(seen.stdout))
    assert log.dropped > 0 and "log" in receipt.limits_hit
    receipt.check_log("stdout", seen.stdout)
    with pytest.raises(NotVerified):
        receipt.check_log("stdout", seen.stdout + b"\n")


def test_cancelling_at_the_end_makes_one_end(attacker: Attacker) -> None:
    """CR-43. Cancelled at random about when it ends: one receipt, always the same, and its verdict
    is the status's."""
    rng = random.Random(43)
    reasons = set()
    for _ in range(25):
        job = attacker.start({"run.sh": b"sleep 0.02; echo done"}, canary=False)
        assert eventually(lambda: bool(attacker.log(job)) or rng.random() < 0.5, 5)  # noqa: B023
        attacker.cancel(job)
        envelopes = {attacker.ask("GET", f"/receipt/{job}").body for _ in range(3)}
        assert len(envelopes) == 1
        seen = attacker.finish(job)
        receipt = receipt_of(attacker, seen)
        assert receipt.reason == seen.reason
        assert (receipt.reason is None) == (seen.stdout == b"done\n" and receipt.exit_code == 0)
        reasons.add(receipt.reason)
    assert "cancelled" in reasons


def test_what_came_to_stdin_is_what_was_taken(attacker: Attacker) -> None:
    """CR-44. It goes on sending while the job ends: what was answered as taken is what is signed,
    and nothing is taken after."""
    code = "for _ in range(5): input()\nsys.exit(0)"
    job = attacker.start_python(code, stdin_live=True)
    sent, headers = b"", attacker.bearer(job)
    for number in range(500):
        line = b"%d\n" % number
        answer = attacker.ask("POST", f"/jobs/{job}/stdin", line, headers)
        if answer.status != 200:
            assert answer.status in (409, 503), answer
            break
        sent += line
        assert answer.json["taken"] == len(sent)
    seen = attacker.finish(job)
    stdin = receipt_of(attacker, seen).stdin
    assert stdin and stdin.size >= len(sent)
    if stdin.size == len(sent):
        assert stdin.sha256 == hashlib.sha256(sent).hexdigest()
    late = attacker.ask("POST", f"/jobs/{job}/stdin", b"late", headers)
    assert (late.status, late.json["reason"]) == (409, "stdin_closed")
    assert receipt_of(attacker, seen).stdin == stdin


@pytest.mark.parametrize("nonce", ['"}', "\\", "</script>", "{}" * 64, "0", " ", "null"])
def test_a_nonce_is_text_and_comes_back_as_it_was(attacker: Attacker, nonce: str) -> None:
    """CR-45."""
    seen = attacker.sh("true", nonce=nonce)
    receipt = receipt_of(attacker, seen)
    assert receipt.nonce == nonce
    with pytest.raises(NotVerified):
        verify(attacker.ask("GET", f"/receipt/{seen.id}").body, [attacker.server.worker], nonce="")


def test_a_nonce_that_is_no_short_plain_text_is_refused(attacker: Attacker) -> None:
    """CR-45."""
    for nonce in ("\n", "\0", "\u00e4", "\ud800", "x" * 129, 1, None, ["a"], {}, 1e400):
        manifest = json.dumps({"entrypoint": "main.py", "nonce": nonce})
        answer = attacker.submit({"main.py": b"1"}, **json.loads(manifest)) if nonce != 1e400 else (
            attacker.ask("POST", "/run?nonce=" + "x" * 129, b"print(1)")
        )  # fmt: skip
        assert answer.status == 400, (nonce, answer)
        assert answer.json["reason"] == "invalid_manifest" and "nonce" in answer.json["error"]


def test_the_same_request_again_has_the_same_receipt(attacker: Attacker) -> None:
    """CR-46. With an Idempotency-Key: no second job, and no second signature about it."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": os.urandom(8).hex()}
    body = json.dumps({"files": {"main.sh": "echo $RANDOM"}, "manifest": {"nonce": "n"}}).encode()
    answers = [
        attacker.accepted(attacker.ask("POST", "/submit?wait=30", body, headers)).json
        for _ in range(3)
    ]
    assert len({json.dumps(answer["receipt"]) for answer in answers}) == 1
    other = body.replace(b'"n"', b'"m"')
    refused_ = attacker.ask("POST", "/submit?wait=30", other, headers)
    assert (refused_.status, refused_.json["reason"]) == (422, "key_reused")


def test_receipts_are_read_only_and_by_id(attacker: Attacker) -> None:
    """CR-47. Other methods, other ids, paths around it: nothing but a sentence; and it goes with
    the job."""
    seen = attacker.sh("true")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert attacker.ask(method, f"/receipt/{seen.id}").status == 405
    for id in ("", "job-" + "0" * 32, seen.id.upper(), seen.id + "%00", f"../status/{seen.id}"):
        assert attacker.ask("GET", f"/receipt/{id}").status == 404, id
    head = attacker.ask("HEAD", f"/receipt/{seen.id}")
    whole = attacker.ask("GET", f"/receipt/{seen.id}")
    assert head.body == b"" and int(head.headers["content-length"]) == len(whole.body)
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "no-store" in whole.headers["cache-control"]
    assert whole.headers["content-disposition"].startswith("attachment")
    attacker.delete(seen.id)
    assert attacker.ask("GET", f"/receipt/{seen.id}").status == 404


def test_no_word_about_the_client_is_signed(attacker: Attacker) -> None:
    """CR-48, DP-14. Address, headers, canaries of the environment and of files: not in it."""
    job = attacker.start_python("say(1)", env={"SECRET": attacker.canary})
    seen = attacker.finish(job)
    payload = receipt_of(attacker, seen).payload
    for word in (attacker.address, attacker.tokens[job], "127.", "Host", "SECRET"):
        assert word.encode() not in payload, word
    assert attacker.canary.encode() not in payload


def test_a_signature_is_over_nothing_that_a_client_chose_whole(attacker: Attacker) -> None:
    """CR-06. There is no door through which a client has bytes of its own signed: a statement sent
    as a body, as a nonce, as a file is in the receipt as a hash or as a text, never as itself."""
    seen = attacker.sh("cat statement", files={"statement": b"{}"})
    receipt = receipt_of(attacker, seen)
    envelope = attacker.ask("GET", f"/receipt/{seen.id}").json
    assert base64.b64decode(envelope["payload"]) == receipt.payload != b"{}"
    for path in ("/sign", "/health", "/receipt"):
        assert attacker.ask("POST", path, b"{}").status in (404, 405)
