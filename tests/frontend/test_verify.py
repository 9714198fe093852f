"""The page's verify.js says of receipts what sandrun.receipt says: of the test vectors, of a
thousand that are whole and a thousand damaged ones, by the browser's cryptography and by the
vendored one.
"""

import base64
import functools
import json
import random
import re
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from sandrun.errors import NotVerified
from sandrun.receipt import Receipt
from sandrun.receipt import verify as ours
from sandrun.status import MIME_TYPES, shown, size_formatted
from tests.journeys.server import Server, make_key
from tests.receipts import vectors
from tests.receipts.making import KEY, Made, envelope, made, payload, status, worker_id
from tests.receipts.test_agreement import Maker, damaged, whole
from tests.receipts.test_served import CODE
from tests.receipts.test_vectors import VECTORS
from tests.receipts.test_verify import leaves, put

HERE = Path(__file__).parent
COUNT = 1000
ME = worker_id()
Case = dict[str, Any]


@pytest.fixture(params=["subtle", "noble"])
def judge(request: pytest.FixtureRequest) -> Callable[[list[Case]], list[Any]]:
    """noble takes a hundred times as long, and hears fewer."""

    def judge(cases: list[Case]) -> list[Any]:
        return judged(cases, request.param)

    judge.most = COUNT if request.param == "subtle" else COUNT // 10  # type: ignore[attr-defined]
    return judge


@functools.cache
def some_damaged() -> list[tuple[str, Case, str]]:
    """What is wrong, the case, and what Python says of it."""
    maker = damaged(Maker("damaged"))
    found = []
    for one in (next(maker) for _ in range(COUNT)):
        case = {"envelope": one.text, "worker": one.key, "jobId": one.job, "nonce": one.nonce}
        found.append((one.what, case, kind_of_python(case)))
    return found


def judged(cases: list[Case], by: str = "subtle") -> list[Any]:
    """{ok, steps} for each case."""
    done = subprocess.run(
        ["node", HERE / "judging.mjs", by],
        input=json.dumps(cases), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def kind(answer: Any) -> str:
    """The first thing that is wrong."""
    return next((step["kind"] for step in answer["steps"] if step["ok"] is False), "holds")


def kind_of_python(case: Case) -> str:
    try:
        receipt = ours(
            case.get("envelope", base64.b64decode(case.get("bytes", ""))), case["worker"],
            job_id=case.get("jobId"), nonce=case.get("nonce"),
        )  # fmt: skip
        raw = {name: base64.b64decode(data) for name, data in case.get("logs", {}).items()}
        for stream, data in raw.items():
            receipt.check_log(stream, data)
        if case.get("status"):
            receipt.check_status(case["status"], **raw)
        for output in case.get("outputs", []):
            check_file(receipt, output)
    except NotVerified as refused:
        return refused.kind
    return "holds"


def check_file(receipt: Receipt, output: Case) -> None:
    receipt.check_file(output["path"], base64.b64decode(output["data"]))


def data(content: bytes) -> str:
    return base64.b64encode(content).decode()


# ---- signatures and statements


def test_each_vector_is_judged_as_it_says(judge: Callable[[list[Case]], list[Any]]) -> None:
    cases = [
        {"envelope": vector["envelope"], "worker": vector["keys"], "jobId": vector["job"],
         "nonce": vector["nonce"], "logs": vector.get("logs", {}),
         "outputs": [
             {"download_url": f"/download/{vectors.JOB}/{path}", "data": content}
             for path, content in vector.get("outputs", {}).items()
         ]}
        for vector in VECTORS
    ]  # fmt: skip
    found = [
        (vector["name"], kind(answer)) for vector, answer in zip(VECTORS, judge(cases), strict=True)
    ]
    assert found == [(vector["name"], vector["expected"]) for vector in VECTORS]


def test_a_thousand_receipts_hold(judge: Any) -> None:
    maker = Maker("whole")
    cases = [whole(maker) for _ in range(judge.most)]
    answers = judge(
        [{"envelope": one.text, "worker": one.key, "jobId": one.job, "nonce": one.nonce}
         for one in cases]
    )  # fmt: skip
    assert {kind(answer) for answer in answers} == {"holds"}
    assert all(answer["ok"] for answer in answers)


def test_a_thousand_damaged_ones_are_refused_as_python_does(judge: Any) -> None:
    cases = some_damaged()[: judge.most]
    answers = judge([case for _, case, _ in cases])
    found = [(what, kind(answer)) for (what, _, _), answer in zip(cases, answers, strict=True)]
    assert found == [(what, said) for what, _, said in cases]
    # Without a nonce asked for, one that is there is its asker's to compare.
    assert sum(said == "holds" for _, _, said in cases) < len(cases) / 20


def test_every_field_that_is_missing_or_wrong_is_refused_as_python_does() -> None:
    statement = made(input={"stdin": {"bytes": 1, "sha256": "0" * 64}}).statement
    bodies = [
        payload(put(statement, path, wrong))
        for path in leaves(statement)
        for wrong in (..., [[]], 1.5, -1, 1, 2**53, True, None, "", {}, "x" * 200)
        if path
    ]
    agree([{"envelope": json.dumps(envelope(body)), "worker": ME} for body in bodies])


def test_every_field_of_the_envelope_that_is_wrong_is_refused_as_python_does() -> None:
    signed = made().signed()
    changed = [
        put(signed, path, wrong)
        for path in leaves(signed)
        for wrong in (..., None, 7, "", "x", [], {}, True, -1)
        if path
    ]
    agree([{"envelope": one, "worker": ME} for one in (*changed, *map(json.dumps, changed))])


KEYS = [
    "", "A", ME[:-1], ME + "=", ME + "\n", " " + ME, ME.replace("=", ""), ME[:-2] + "/=",
    data(bytes(31)), data(b"\x01" * 33), data(b"\x02" + bytes(31)),
    *(data((2**255 - 19 + more).to_bytes(32, "little")) for more in range(-4, 5)),
    *(data((more | 1 << 255).to_bytes(32, "little")) for more in range(5)), "ü" * 44, 5, None,
]  # fmt: skip


def test_keys_are_refused_as_python_refuses_them() -> None:
    # Half of all numbers are the height of a point, an eighth of those are of prime order.
    drawn = random.Random("keys")
    keys = [*KEYS, *(data(drawn.randbytes(31) + bytes([drawn.randrange(128)])) for _ in range(200))]
    cases = [{"envelope": made().signed(), "worker": [ME, key]} for key in keys]
    agree(cases)
    judgements = [kind_of_python(case) for case in cases]
    assert 10 < judgements.count("holds") < 60


def test_the_keys_of_small_order_are_those_of_the_document() -> None:
    code = (HERE.parents[1] / "frontend/static/frontend/receipt/key.js").read_text()
    listed = (vectors.FOLDER / "small-order.txt").read_text().split()
    assert re.findall(r'"([0-9a-f]{64})"', code) == listed


TEXTS = [
    b"",
    b"\xff",
    b"\0",
    b"{",
    b"[]",
    b"null",
    b"7",
    b'"x"',
    b"{}",
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"payload": 1e999}',
    json.dumps(made().signed()).encode()[:-1],
    json.dumps(made().signed()).encode() + b"x",
    b" \t\r\n" + json.dumps(made().signed(), indent=1).encode() + b"\n ",
    b"\x0b" + json.dumps(made().signed()).encode(),
    b"\xc2\xa0" + json.dumps(made().signed()).encode(),
]
# In place of a number that may be anything: in "walls".
VALUES = [
    "1",
    "-0",
    "0",
    "-1",
    "01",
    "1.0",
    "1e2",
    "1E2",
    "-",
    "+1",
    ".5",
    "1.",
    "9007199254740991",
    "9007199254740992",
    "-9007199254740991",
    "-9007199254740992",
    "00000000000000000001",
    "123456789012345678",
    "NaN",
    "Infinity",
    "-Infinity",
    "nan",
    "true",
    "True",
    "null",
    "nul",
    "'x'",
    '""',
    '"\\u00e9"',
    '"\\ud83d\\ude00"',
    '"\\ud83d"',
    '"\\ude00\\ud83d"',
    '"\\uD83D x"',
    '"\\x41"',
    '"\\u12"',
    '"\t"',
    '"\n"',
    '"\x7f"',
    '"\u2028"',
    '"\\\\ud800"',
    '"',
    '"\\"',
    "{",
    "{}}",
    "[1,]",
    '{"a":1,}',
    '{"a":1,"a":1}',
    '{"a":1,"\\u0061":2}',
    '{"__proto__":1,"__proto__":1}',
    '{"__proto__":{"a":1},"constructor":2}',
    "{1:2}",
    '{"a" 1}',
    '{"a":}',
    "[1 2]",
    "[,]",
    "[",
    "]",
    "[" * 400 + "]" * 400,
    "[" * 2000 + "]" * 2000,
    "[[]" * 3,
    "// x\n1",
    "/* */ 1",
    "1 2",
    "",
    " 1 ",
]


def test_json_is_read_as_python_reads_it() -> None:
    agree([{"bytes": data(text), "worker": ME} for text in TEXTS])
    body = payload(made(walls={"here": 1}).statement)
    bodies = [body.replace(b'"here":1', b'"here":%s' % value.encode()) for value in VALUES]
    bodies += [
        body.replace(b'"here"', text) for text in (b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"')
    ]
    bodies += [b"\xef\xbb\xbf" + body, body + b" ", body + b"\0", b"\n" + body]
    assert len(set(bodies)) == len(bodies)
    cases = [{"envelope": json.dumps(envelope(one)), "worker": ME} for one in bodies]
    agree(cases)
    assert 15 < [kind_of_python(case) for case in cases].count("holds") < 30


def test_base64_that_is_not_what_its_bytes_encode_to_is_refused_as_python_does() -> None:
    signed = made().signed()
    whole = signed["payload"]
    texts = [
        whole + "=",
        whole + "\n",
        whole[:-1],
        whole[:40] + "\n" + whole[40:],
        whole[:40] + " " + whole[40:],
        whole.replace("=", ""),
        whole.replace("+", "-").replace("/", "_"),
        "",
        "=",
        "====",
        "QQ",
        "QR==",
        "QQ==QQ==",
        "é",
        whole + "QQ==",
        "QQ=",
        "Q",
    ]
    agree([{"envelope": {**signed, "payload": text}, "worker": ME} for text in texts])


PATHS = [
    "",
    "/a",
    "a//b",
    "a/",
    "..",
    "a/../b",
    "./a",
    "%2e%2e",
    "%2E/a",
    "a%00b",
    "a b",
    "%41",
    "a%2fb",
    "a%2Fb",
    "%c3%bc",
    "%C3%BC",
    "ü",
    "a%",
    "a%4",
    "a%zz",
    "a%FF",
    "~",
    "%7E",
    "a'b",
    "a%27b",
    "...",
    "a..b",
]


def test_paths_of_outputs_are_judged_as_python_judges_them() -> None:
    statements = [
        put(made().statement, ("subject", 2, "name"), f"outputs/{path}") for path in PATHS
    ]
    cases = [{"envelope": envelope(payload(one)), "worker": ME} for one in statements]
    agree(cases)
    assert {kind_of_python(case) for case in cases} == {"holds", "not_a_receipt"}


def agree(cases: list[Case]) -> None:
    found = [kind(answer) for answer in judged(cases)]
    expected = [kind_of_python(case) for case in cases]
    assert [one for one in zip(found, expected, cases, strict=True) if one[0] != one[1]] == []


# ---- answers, logs and files

ODD = made(
    vectors.ODD_NAMES, b"out\xff\n", b"\xef\xbb\xbferr \xed\xa0\x80\xf0\x9f", dropped=7,
    job={"nonce": "n"}, walls={"missing": ["cgroup-cpu"]}, warnings=["w"],
    verdict={"status": "failed", "reason": "timeout", "exit_code": None, "signal": 9,
             "limits_hit": ["timeout"], "stage": "compile", "error": "e"},
)  # fmt: skip


def answer_case(content: Made, answer: Any, *, raw: bool = True) -> Case:
    logs = {"stdout": data(content.stdout), "stderr": data(content.stderr)} if raw else {}
    return {"envelope": content.signed(), "worker": ME, "status": answer, "logs": logs}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("content", [made(), ODD], ids=["plain", "odd"])
def test_every_changed_field_of_an_answer_is_found_as_python_finds_it(
    content: Made, whole: bool
) -> None:
    good = status(content, whole=whole)
    assert kind_of_python(answer_case(content, good)) == "holds"
    cases = [answer_case(content, good)]
    for path in leaves(good):
        if path:
            cases += [
                answer_case(content, put(good, path, wrong))
                for wrong in (..., None, "x", 1, True, [], {})
            ]
    for name in ("new", "__proto__", "constructor", "toString"):
        cases += [answer_case(content, {**good, name: {}})]
    agree(cases)


def test_an_answer_in_parts_is_judged_as_python_judges_it() -> None:
    good = status(ODD, whole=True)
    partial = {**good, "receipt": None, "outputs_complete": False, "outputs": good["outputs"][:3]}
    del partial["output_files"]
    variants = [
        partial,
        {**partial, "outputs": good["outputs"]},
        {**partial, "outputs": [*good["outputs"][:2], good["outputs"][0]]},
        {**partial, "outputs_complete": True},
        {**partial, "total_files": len(good["outputs"])},
        {**partial, "total_files": 1},
        {**good, "receipt": None},
        {**good, "receipt": made().signed()},
    ]
    agree([answer_case(ODD, one) for one in variants])


def test_logs_without_their_bytes_are_compared_by_their_text() -> None:
    for content in (made(), ODD, made(stdout="ü😀\n".encode())):
        good = status(content, whole=True)
        other = deepcopy(good)
        other["logs"]["stdout"] += "x"
        agree([answer_case(content, one, raw=False) for one in (good, other)])


def test_rounding_is_pythons() -> None:
    drawn = random.Random("rounding")
    halves = [500, 1500, 2500, 22_500, 23_500, 2**53 - 1, 0, 1]
    sizes = [0, 1, 1023, 1024, 1280, 1792, 1311, 1 << 20, (1 << 20) + 262144, (1 << 30) * 5 // 4]
    cases = []
    for number in [*halves, *(drawn.randrange(2**40) for _ in range(20))]:
        content = made(usage={"cpu_usec": number, "memory_peak_bytes": number, "wall_usec": number})
        cases.append(answer_case(content, status(content)))
    agree(cases)
    sizes += [drawn.randrange(1 << drawn.randrange(1, 53)) for _ in range(300)]
    names = [
        (bytes([drawn.choice(b"\x80\xc3\xa9\xed\xa0\xf0\x9fa%\\x") for _ in range(6)]))
        for _ in sizes
    ]
    quoted = ["".join(f"%{byte:02X}" for byte in name) for name in names]
    done = subprocess.run(
        ["node", "--input-type=module", "-e",
         f"import {{ formatted, shown, MIME_TYPES }} from {json.dumps(str(ANSWER))};"
         "const [sizes, paths] = JSON.parse((await import('node:fs')).readFileSync(0));"
         "console.log(JSON.stringify([sizes.map(formatted), paths.map(shown), "
         "Object.fromEntries(MIME_TYPES)]))"],
        input=json.dumps([sizes, quoted]), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [
        [size_formatted(size) for size in sizes], [shown(name) for name in names], MIME_TYPES,
    ]  # fmt: skip


ANSWER = HERE.parents[1] / "frontend/static/frontend/receipt/answer.js"


def file_case(content: Made, outputs: list[Case]) -> Case:
    return {"envelope": content.signed(KEY), "worker": ME, "outputs": outputs}


def test_a_file_is_found_by_its_download_url_and_by_its_path() -> None:
    right_ones, wrong_ones = [], []
    for content in (made(), ODD):
        rows = status(content, whole=True)["outputs"]
        for row, (path, body) in zip(rows, content.files.items(), strict=True):
            right = {"download_url": row["download_url"], "data": data(body)}
            elsewhere = {**right, "download_url": "https://x.example:1" + row["download_url"]}
            cases = [right, elsewhere]
            if path.decode("utf-8", "replace") == row["path"]:
                cases.append({"path": row["path"], "data": data(body)})
            right_ones += [file_case(content, [case]) for case in cases]
            wrong = [
                {**right, "data": data(body + b"x")}, {**right, "data": data(b"\1" + body[1:])},
                {**right, "download_url": row["download_url"] + "x"},
                {**right, "download_url": row["download_url"].replace("job-0", "job-1")},
            ]  # fmt: skip
            wrong_ones += [file_case(content, [case]) for case in wrong]
    assert {kind(one) for one in judged(right_ones)} == {"holds"}
    assert {kind(one) for one in judged(wrong_ones)} == {"differs"}


def test_the_steps_are_sentences_and_say_what_was_not_compared() -> None:
    content = made(ODD.files, job={"nonce": "n 1"})
    rows = status(content, whole=True)["outputs"]
    first = {"download_url": rows[0]["download_url"], "data": data(content.files[b"a b"])}
    [answer] = judged([
        {**file_case(content, [first]), "jobId": vectors.JOB, "nonce": "n 1",
         "status": status(content), "logs": {"stdout": data(content.stdout)}},
    ])  # fmt: skip
    told = [(step["name"], step["ok"]) for step in answer["steps"]]
    assert told == [
        ("signature", True), ("job", True), ("nonce", True), ("stdout", True), ("stderr", None),
        ("answer", True), ("file", True), ("file", None),
    ]  # fmt: skip
    assert answer["ok"]
    for step in answer["steps"]:
        assert step["detail"].endswith(".") and step["detail"].isprintable(), step
    assert f"{len(rows) - 1} of {len(rows)} files" in answer["steps"][-1]["detail"]
    assert f"{ME[:6]}…" in answer["steps"][0]["detail"]


def test_no_sentence_shows_a_name_as_something_else() -> None:
    paths = [b"\x1b[2J\n", "\u202egnp.exe".encode(), b"\xff", b"a\\xff", "a\u3000b".encode()]
    content = made(dict.fromkeys(paths, b"x"))
    rows = status(content, whole=True)["outputs"]
    outputs = [{"download_url": row["download_url"], "data": data(b"y")} for row in rows]
    outputs.append({"path": "\u202e no such file", "data": ""})
    [answer] = judged([file_case(content, outputs)])
    for step in answer["steps"]:
        assert step["detail"].isprintable(), step


def test_behind_a_signature_that_does_not_hold_nothing_is_said() -> None:
    content = made()
    signed = content.signed()
    signed["payload"] = data(payload(content.statement).replace(b"12345", b"12346"))
    [answer] = judged([{**answer_case(content, status(content)), "envelope": signed}])
    assert [step["name"] for step in answer["steps"]] == ["signature"]
    assert not answer["ok"]


# ---- a real job


def test_all_that_a_real_server_answers_about_a_job_is_as_signed(tmp_path: Path) -> None:
    server = Server("--no-quotas", "--worker-key", make_key(tmp_path / "worker.pem"))
    try:
        id = server.start({"main.py": CODE}, nonce="n 1")
        whole = server.finish(id)
        plain, listed = server.get(f"/status/{id}"), server.get(f"/outputs/{id}")["outputs"]
        logs = {
            name: data(server.request("GET", f"/logs/{id}?stream={name}", Accept="text/plain")[1])
            for name in ("stdout", "stderr")
        }
        outputs = [
            {"download_url": row["download_url"],
             "data": data(server.request("GET", row["download_url"])[1])}
            for row in listed
        ]  # fmt: skip
        asked = {
            "envelope": server.request("GET", f"/receipt/{id}")[1].decode(),
            "worker": server.get("/health")["worker_id"], "jobId": id, "nonce": "n 1",
            "logs": logs, "outputs": outputs,
        }  # fmt: skip
    finally:
        assert server.end() == 0, server.banner
    tampered = [{**outputs[0], "data": data(b"another")}, *outputs[1:]]
    cases = [
        {**asked, "status": whole},
        {**asked, "status": plain},
        {**asked, "status": {**whole, "cpu_seconds": whole["cpu_seconds"] + 1}},
        {**asked, "status": whole, "outputs": tampered},
        {**asked, "nonce": "n 2"},
    ]
    for by in ("subtle", "noble"):
        answers = judged(cases, by)
        wrong = [
            [step["name"] for step in answer["steps"] if step["ok"] is False] for answer in answers
        ]
        assert wrong == [[], [], ["answer"], ["file"], ["nonce"]], answers
        assert all(step["ok"] for step in answers[0]["steps"]), answers[0]
        assert len(answers[0]["steps"]) == len(outputs) + 6
