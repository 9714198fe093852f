"""What a user does: runs a job on a real server, downloads what came out, and lets `sandrun verify`
compare all of it with the receipt, under the key that the operator told."""

import base64
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandrun.errors import NotVerified
from sandrun.receipt import verify
from tests.journeys.server import Server, make_key
from tests.journeys.test_live import Job
from tests.receipts.test_agreement import Case, judged

SANDRUN = Path(sys.executable).with_name("sandrun")
# Names with spaces, quotes, umlauts in both forms, escapes, percent signs, and no UTF-8.
CODE = rb"""
import os, sys
for name in (b"a b", "\u00fc".encode(), "u\u0308".encode(), b"\xff\xfe", b"\x1b[2J\n", b"%41",
             b"'\"`$", b"deep/er/e st.csv", b"__proto__", b"-rf", b"empty.png"):
    os.makedirs(os.path.dirname(name) or b".", exist_ok=True)
    open(name, "wb").write(b"" if b"empty" in name else name)
os.chmod("a b", 0o755)
os.write(1, b"out \xe2\x82"); os.write(2, b"err\r\n")
sys.exit(3)
"""


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_key(tmp_path_factory.mktemp("key") / "worker.pem"))


@pytest.fixture(scope="module")
def server(key: Path) -> Iterator[Server]:
    server = Server("--no-quotas", "--worker-key", str(key), env={"SANDRUN_LOG_BYTES": 4096})
    yield server
    assert server.end() == 0, server.banner


@pytest.fixture(scope="module")
def pinned(key: Path) -> Path:
    """The public half, as OpenSSL writes it."""
    public = key.with_name("public.pem")
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    return public


def run(server: Server, code: bytes, query: str = "") -> dict[str, Any]:
    """What /run as JSON answers."""
    status, body, _ = server.request(
        "POST", f"/run?interpreter=python3{query}", code, Accept="application/json"
    )
    assert status == 200, body
    return dict(json.loads(body))


def checked(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SANDRUN, "verify", *arguments], capture_output=True, text=True)


def test_all_that_was_downloaded_is_what_was_signed(
    server: Server, pinned: Path, tmp_path: Path
) -> None:
    answer = run(server, CODE, "&nonce=lab+7")
    job = answer["job_id"]
    (tmp_path / "run.json").write_text(json.dumps(answer))
    for name, path in (
        ("status.json", f"/status/{job}"), ("receipt.json", f"/receipt/{job}"),
        ("stdout", f"/logs/{job}?stream=stdout"), ("stderr", f"/logs/{job}?stream=stderr"),
        ("all.tar.gz", f"/download/{job}"), ("all.zip", f"/download/{job}?format=zip"),
    ):  # fmt: skip
        status, body, _ = server.request("GET", path)
        assert status == 200
        (tmp_path / name).write_bytes(body)
    (tmp_path / "files").mkdir()
    subprocess.run(["tar", "-xzf", "../all.tar.gz"], cwd=tmp_path / "files", check=True)
    asked = ["--key", pinned, "--job", job, "--nonce", "lab 7", "--files", tmp_path / "files",
             "--stdout", tmp_path / "stdout", "--stderr", tmp_path / "stderr"]  # fmt: skip
    for name in ("run.json", "status.json", "receipt.json"):
        done = checked(tmp_path / name, *asked)
        assert (done.returncode, done.stderr) == (0, ""), name
        assert "failed, reason exit, exit code 3" in done.stdout
        assert done.stdout.count("(compared)") == 3 and done.stdout.count("(as asked)") == 2
    said = json.loads(checked(tmp_path / "receipt.json", "--key", pinned, "--json").stdout)
    modes = {one["name"]: one["annotations"].get("mode") for one in said["statement"]["subject"]}
    assert modes["outputs/a%20b"] == "0755" and modes["outputs/%FF%FE"] == "0644"
    (tmp_path / "files/a b").write_bytes(b"a c")
    assert checked(tmp_path / "receipt.json", *asked).returncode == 4
    assert zipfile.ZipFile(io.BytesIO((tmp_path / "all.zip").read_bytes())).testzip() is None


def test_a_cut_log_is_compared_with_what_was_kept(
    server: Server, pinned: Path, tmp_path: Path
) -> None:
    answer = run(server, b"print('a' * 4000 + 'b' * 4000 + 'c' * 4000)")
    assert answer["logs"]["stdout_dropped_bytes"] > 0
    (tmp_path / "run.json").write_text(json.dumps(answer))
    done = checked(tmp_path / "run.json", "--key", pinned)
    assert done.returncode == 0, done.stderr
    assert "of 12001 were not kept" in done.stdout
    answer["logs"]["stdout"] = answer["logs"]["stdout"].replace("ac", "abc")
    (tmp_path / "run.json").write_text(json.dumps(answer))
    assert checked(tmp_path / "run.json", "--key", pinned).returncode == 4


def test_the_end_of_a_stream_is_what_was_signed(server: Server, pinned: Path) -> None:
    worker = server.get("/health")["worker_id"]
    job = Job(server, "import time; time.sleep(0.3); [open(f'{n:0150}', 'w') for n in range(200)]")
    with job.watch(server) as watching:
        end = next(one for one in watching.frames() if one["type"] == "end")["result"]
    assert end["outputs_complete"] is False and end["receipt"] is None
    receipt = verify(server.request("GET", f"/receipt/{job.id}")[1], [worker], job_id=job.id)
    receipt.check_status(end)
    end["outputs"][3]["sha256"] = "0" * 64
    with pytest.raises(NotVerified, match=r"outputs\[3\]\.sha256"):
        receipt.check_status(end)


def test_the_envelope_is_made_as_the_document_says(server: Server) -> None:
    answer = run(server, CODE)
    payload = base64.b64decode(answer["receipt"]["payload"])
    statement = json.loads(payload)
    plain = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert payload == plain.encode()
    names = [subject["name"] for subject in statement["subject"]]
    assert names[:2] == ["logs/stderr", "logs/stdout"] and len(set(names)) == len(names) == 13


def test_the_verifiers_of_others_hold_what_a_server_signed(server: Server, tmp_path: Path) -> None:
    worker = server.get("/health")["worker_id"]
    answers = [run(server, code, "&nonce=n%22") for code in (CODE, b"print(1)", b"1/0")]
    cases = [
        Case(json.dumps(answer["receipt"]), worker, answer["job_id"], 'n"', "real")
        for answer in answers
    ]
    swapped = [json.loads(case.text) for case in cases]
    for one, other in zip(swapped, [*swapped[1:], swapped[0]], strict=True):
        one["signatures"] = other["signatures"]
    cases += [cases[n]._replace(text=json.dumps(one)) for n, one in enumerate(swapped[:2])]
    assert [answers for _, answers in judged(cases, tmp_path)] == [(True,) * 4] * 3 + [
        (False,) * 4
    ] * 2
