"""docs/receipts.md is true: its code runs as it stands and agrees with the test vectors, which are
what we verify, and are what their script writes."""

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from sandrun.errors import NotVerified
from sandrun.receipt import verify
from tests.receipts import vectors

DOCUMENT = vectors.FOLDER.with_suffix(".md")
BLOCKS = re.findall(r"(?m)^```(\w*)\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL)
VECTORS: list[dict[str, Any]] = json.loads((vectors.FOLDER / "vectors.json").read_text())
# The programs take one key, and tell whose job it is, not whether that was asked for.
SHORT = [
    (vector["name"], vector["envelope"], vector["keys"][0],
     vector["expected"] in ("holds", "job", "nonce"))
    for vector in VECTORS
    if len(vector["keys"]) == 1 and not vector["strict"]
]  # fmt: skip


def block(language: str, name: str = "verify") -> str:
    """The code block of a language with these words in it."""
    [found] = [text for kind, text in BLOCKS if kind == language and f"{name}." in text]
    return str(found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of docs/receipts/, where the document's commands work."""
    return Path(shutil.copytree(vectors.FOLDER, tmp_path / "receipts"))


def test_the_files_are_what_their_script_writes() -> None:
    written = vectors.files()
    found = {
        str(path.relative_to(vectors.FOLDER)): path.read_bytes()
        for path in vectors.FOLDER.rglob("*")
        if path.is_file()
    }
    assert found == written


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_each_vector_is_judged_as_it_says(vector: dict[str, Any]) -> None:
    try:
        receipt = verify(
            vector["envelope"], vector["keys"], job_id=vector["job"], nonce=vector["nonce"]
        )
    except NotVerified as error:
        assert error.kind == vector["expected"], error
        return
    assert vector["expected"] == "holds"
    for name, data in vector.get("outputs", {}).items():
        receipt.check_file(unquote_to_bytes(name), b64decode(data))
    assert len(receipt.outputs) == len(vector.get("outputs", receipt.outputs))
    for stream, data in vector.get("logs", {}).items():
        receipt.check_log(stream, b64decode(data))


def test_the_vectors_have_each_kind_of_refusal() -> None:
    kinds = {vector["expected"] for vector in VECTORS}
    assert kinds == {
        "holds", "no_key", "bad_key", "other_key", "signature", "worker", "job", "nonce",
        "not_a_receipt",
    }  # fmt: skip
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS) > 60
    assert [good for *_, good in SHORT].count(True) > 10


def test_every_block_of_the_document_is_run_here() -> None:
    assert [kind for kind, _ in BLOCKS] == [
        "sh", "python", "python", "js", "sh", "python",
    ]  # fmt: skip


def test_the_command_works_in_the_folder(folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    [command] = [text for kind, text in BLOCKS if kind == "sh" and text.startswith("sandrun ")]
    for receipt in ("receipt.json", "status.json"):
        done = subprocess.run(
            ["sh", "-ec", command.replace("receipt.json", receipt)],
            cwd=folder, env={"PATH": path}, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert "'lab 7' (as asked)" in done.stdout and "(compared)" in done.stdout


def test_the_functions_work_in_the_folder(folder: Path) -> None:
    (folder / "check.py").write_text(block("python", "check"))
    done = subprocess.run([sys.executable, "check.py"], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{vectors.JOB} completed 0\n"), done.stderr
    (folder / "outputs/results/out.txt").write_bytes(b"a c\n")
    done = subprocess.run([sys.executable, "check.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1 and "NotVerified: results/out.txt has another" in done.stderr


def test_the_python_code_agrees_with_the_vectors(folder: Path) -> None:
    (folder / "verify.py").write_text(block("python"))
    worker = (folder / "worker-id").read_text().strip()
    done = subprocess.run(
        [sys.executable, "-O", "verify.py", "receipt.json", worker],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "completed\n"), done.stderr
    (folder / "driver.py").write_text(
        "import json, sys, verify\n"
        "def holds(text, key):\n"
        "    try: verify.verify(text, key)\n"
        "    except Exception: return False\n"
        "    return True\n"
        "print(json.dumps([holds(*case) for case in json.load(sys.stdin)]))\n"
    )
    check(folder, [sys.executable, "-O", "driver.py"])


def test_the_node_code_agrees_with_the_vectors(folder: Path) -> None:
    (folder / "verify.mjs").write_text(block("js"))
    worker = (folder / "worker-id").read_text().strip()
    done = subprocess.run(
        ["node", "verify.mjs", "receipt.json", worker], cwd=folder, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "completed\n"), done.stderr
    (folder / "driver.mjs").write_text(
        'import { verify } from "./verify.mjs";\n'
        'import { readFileSync } from "node:fs";\n'
        "const holds = ([text, key]) => { try { verify(text, key) } catch { return false }"
        " return true };\n"
        "console.log(JSON.stringify(JSON.parse(readFileSync(0)).map(holds)));\n"
    )
    check(folder, ["node", "driver.mjs"])


def check(folder: Path, driver: list[str]) -> None:
    """That a program that reads (envelope, key) pairs holds what the vectors say."""
    done = subprocess.run(
        driver, input=json.dumps([[text, key] for _, text, key, _ in SHORT]),
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    wrong = [
        name for (name, *_, good), answer in zip(SHORT, answers, strict=True) if good != answer
    ]
    assert wrong == []


@pytest.mark.parametrize("kind", ["sh", "python", "js"])
def test_without_the_list_of_small_orders_nothing_is_verified(folder: Path, kind: str) -> None:
    (folder / "small-order.txt").unlink()
    (folder / f"verify.{kind}").write_text(block(kind))
    if kind == "js":
        (folder / "verify.js").rename(folder / "verify.mjs")
    program = {"sh": ["sh", "verify.sh"], "python": [sys.executable, "verify.python"],
               "js": ["node", "verify.mjs"]}[kind]  # fmt: skip
    done = subprocess.run(
        [*program, "receipt.json", vectors.ME],
        cwd=folder, capture_output=True, env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    assert done.returncode != 0


def test_the_shell_code_agrees_with_the_vectors(folder: Path) -> None:
    (folder / "verify.sh").write_text(block("sh"))
    for name, text, key, good in [("shown", None, vectors.ME, True), *SHORT]:
        if text is not None:
            (folder / "receipt.json").write_text(text)
        done = subprocess.run(
            ["sh", "verify.sh", "receipt.json", key],
            cwd=folder, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(folder)},
        )  # fmt: skip
        assert (done.returncode == 0) == good, (name, done)
