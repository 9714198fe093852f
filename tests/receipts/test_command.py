"""`sandrun verify`, as it is typed: each exit code with its sentence, and never a traceback."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandrun import __main__ as command
from tests.receipts.making import (
    KEY,
    OTHER,
    STDERR,
    Made,
    envelope,
    made,
    payload,
    status,
    worker_id,
)

SANDRUN = Path(sys.executable).with_name("sandrun")
ME = worker_id()


def run(*arguments: str | bytes | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [SANDRUN, "verify", *arguments], capture_output=True, timeout=60, **options
    )


def refused(code: int, *arguments: str | bytes | Path, **options: Any) -> str:
    """The sentence."""
    done = run(*arguments, **options)
    said = done.stderr.decode()
    assert (done.returncode, done.stdout) == (code, b""), said
    assert said.startswith("sandrun verify: ") and said.endswith(".\n") and said.count("\n") == 1
    assert said[:-1].isprintable()
    return said


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a receipt and all that it speaks of."""
    return laid_out(tmp_path, made(job={"nonce": "n 1"}))


def laid_out(place: Path, content: Made) -> Path:
    (place / "receipt").write_text(json.dumps(content.signed()))
    (place / "status").write_text(json.dumps(status(content, whole=True)))
    (place / "stdout").write_bytes(content.stdout)
    (place / "stderr").write_bytes(content.stderr)
    (place / "files").mkdir()
    for path, data in content.files.items():
        target = os.fsencode(place / "files") + b"/" + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(os.fsdecode(target)).write_bytes(data)
    return place


def everything(place: Path) -> list[str | Path]:
    return [
        "--key", ME, "--files", place / "files", "--stdout", place / "stdout",
        "--stderr", place / "stderr", "--job", "job-0123456789abcdef0123456789abcdef",
        "--nonce", "n 1",
    ]  # fmt: skip


def test_what_holds_is_told_with_exit_code_0(place: Path) -> None:
    for receipt in ("receipt", "status"):
        done = run(place / receipt, *everything(place))
        assert (done.returncode, done.stderr) == (0, b"")
        told = done.stdout.decode()
        for words in (
            f"signed by  {ME}", "(as asked)", "'n 1' (as asked)", "completed, exit code 0",
            "0.012345 s of CPU in 0.023456 s, 7.3 MiB at most", "memory_bytes 536870912",
            '"memory": "v2"', "2026-11-23T17:00:00Z", "python3 3.11.7", "results/out.txt 4 bytes",
            "plot%201.png", "2 with 8 bytes (compared)",
        ):  # fmt: skip
            assert words in told, (words, told)
        assert told.count("(compared)") == 3
        assert ("each of its fields" in told) == (receipt == "status")


def test_what_was_not_compared_is_told_too(place: Path) -> None:
    told = run(place / "receipt", "--key", ME).stdout.decode()
    assert "(compared)" not in told and "(as asked)" not in told
    assert told.count("(not compared: --") == 3


def test_the_receipt_may_come_from_standard_input(place: Path) -> None:
    for receipt in ("receipt", "status"):
        done = run("-", "--key", ME, input=(place / receipt).read_bytes())
        assert done.returncode == 0, done.stderr
    assert "not JSON" in refused(5, "-", "--key", ME, stdin=subprocess.DEVNULL)


def test_json_has_what_was_signed_and_what_was_compared(place: Path) -> None:
    told = json.loads(run(place / "status", "--key", ME, "--json").stdout)
    assert told["verified"] is True and told["worker"] == ME
    assert told["checked"] == {
        "answer": True, "files": False, "job": False, "nonce": False, "stderr": True,
        "stdout": True,
    }  # fmt: skip
    assert told["statement"] == made(job={"nonce": "n 1"}).statement
    done = run(place / "status", "--key", worker_id(OTHER), "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["verified"], told["kind"]) == (1, False, "other_key")
    assert f"sandrun verify: {told['error']}\n" == done.stderr.decode()
    done = run(place / "none", "--key", ME, "--json")
    assert (done.returncode, json.loads(done.stdout)["kind"]) == (2, "usage")


def test_keys_are_worker_ids_or_files_with_one(place: Path) -> None:
    der = bytes.fromhex("302a300506032b6570032100") + bytes(KEY.verify_key)
    pem = (
        f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"
    )
    for text in (pem, ME, f"{ME}\n"):
        (place / "key").write_text(text)
        assert run(place / "receipt", "--key", place / "key").returncode == 0
    done = run(place / "receipt", "--key", worker_id(OTHER), "--key", place / "key")
    assert done.returncode == 0


# ---- each exit code


def test_1_another_key_or_content(place: Path) -> None:
    assert ME in refused(1, place / "receipt", "--key", worker_id(OTHER))
    content = json.loads((place / "receipt").read_text())
    content["payload"] = made().signed()["payload"]
    (place / "receipt").write_text(json.dumps(content))
    assert "does not hold" in refused(1, place / "receipt", "--key", ME)
    (place / "receipt").write_text(json.dumps(made(key=OTHER).signed(KEY)))
    assert "signed it" in refused(1, place / "receipt", "--key", ME)


def test_2_usage_and_what_cannot_be_read(place: Path) -> None:
    for arguments in ([], ["--key"], ["x", "y"], ["x", "--fil", "y"]):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, b"") and b"usage:" in done.stderr
    odd = b"a\n\x1b[2J\xff"
    for path in (place / "none", place, place / "receipt/x", odd, "x" * 300, "/proc/self/mem"):
        refused(2, path, "--key", ME)
        refused(2, place / "receipt", "--key", ME, "--stdout", path)
    for path in (place / "none", place / "receipt", odd):
        refused(2, place / "receipt", "--key", ME, "--files", path)


def test_3_no_key(place: Path) -> None:
    said = refused(3, place / "receipt")
    assert f"itself names {ME}" in said and "Pin the key" in said


def test_4_another_file_log_or_field(place: Path) -> None:
    (place / "wrong").write_bytes(b"wrong")
    asked = [place / "receipt", "--key", ME]
    assert "stdout has" in refused(4, *asked, "--stdout", place / "wrong")
    assert "stderr has" in refused(4, *asked, "--stderr", place / "wrong")
    answer = status(made())
    answer["execution_metadata"]["exit_code"] = 1
    (place / "status").write_text(json.dumps(answer))
    said = refused(4, place / "status", "--key", ME)
    assert "execution_metadata.exit_code is 1, and 0 in the receipt" in said


def linked(at: Path) -> None:
    moved = at.parent.parent / "moved"
    at.rename(moved)
    at.symlink_to(moved)


def replaced(at: Path, make: Callable[[Path], object]) -> None:
    at.unlink()
    make(at)


OUT, PLOT = "results/out.txt", "plot 1.png"
# What may be done to a folder with FILES, by the words of the sentence that tells it.
CHANGES: dict[str, Callable[[Path], object]] = {
    "results/out.txt is missing": lambda at: (at / OUT).unlink(),
    "plot%201.png is missing": lambda at: (at / PLOT).unlink(),
    "results/Out.txt is not among": lambda at: (at / OUT).rename(at / "results/Out.txt"),
    "results/out.txt has 5 bytes": lambda at: (at / OUT).write_bytes(b"a b\n\n"),
    "results/out.txt has another": lambda at: (at / OUT).write_bytes(b"a c\n"),
    "results/new is not among": lambda at: (at / "results/new").touch(),
    "%0A%FF is not among": lambda at: Path(f"{at}/\n\udcff").touch(),
    "empty is a folder": lambda at: (at / "empty").mkdir(),
    "plot%201.png is a folder": lambda at: replaced(at / PLOT, Path.mkdir),
    "link is not among": lambda at: (at / "link").symlink_to(PLOT),
    "plot%201.png is not a regular": lambda at: linked(at / PLOT),
    "results is not among": lambda at: linked(at / "results"),
    "FIFO is not among": lambda at: os.mkfifo(at / "FIFO"),
    "results/out.txt is not a regular": lambda at: replaced(at / OUT, os.mkfifo),
    "results/out.txt has 10000000000 bytes": lambda at: os.truncate(at / OUT, 10**10),
}


@pytest.mark.parametrize("sentence", CHANGES)
def test_4_another_folder(place: Path, sentence: str) -> None:
    CHANGES[sentence](place / "files")
    said = refused(4, place / "receipt", "--key", ME, "--files", place / "files")
    assert sentence in said


def test_the_folder_may_be_named_by_a_link(place: Path) -> None:
    (place / "link").symlink_to("files")
    assert run(place / "receipt", "--key", ME, "--files", place / "link").returncode == 0


def test_a_folder_with_odd_names_is_compared(tmp_path: Path) -> None:
    files = {
        "ü".encode(): b"1", "u\u0308".encode(): b"2", b"\xff\n\x1b": b"3", b"a 'b' \"c\"": b"4",
        b"d/" * 300 + b"end": b"5", b"-rf": b"6", b"%41": b"7", b"d/e/f": b"",
    }  # fmt: skip
    place = laid_out(tmp_path, made(files))
    for language in ("", "C", "C.UTF-8"):
        done = run(
            place / "receipt", "--key", ME, "--files", place / "files", env={"LC_ALL": language}
        )
        assert (done.returncode, done.stderr) == (0, b"")
    files[b"d/e/f"] = b"6"
    (place / "receipt").write_text(json.dumps(made(files).signed()))
    refused(4, place / "receipt", "--key", ME, "--files", place / "files")


def test_5_no_receipt(place: Path) -> None:
    for text in (
        b"", b"{}", b"\x7fELF\xff\0", b"[]", b'{"receipt": null}', b'{"receipt": 7}',
        b'{"a": 1, "a": 1}', b"[" * 100_000,
        json.dumps(envelope(payload({}))).encode(), json.dumps(envelope(b"\xff")).encode(),
    ):  # fmt: skip
        (place / "receipt").write_bytes(text)
        assert "receipt" in refused(5, place / "receipt", "--key", ME)


def test_5_what_has_no_end_is_not_read_to_it(place: Path) -> None:
    os.truncate(place / "receipt", 10**10)
    for path in (place / "receipt", "/dev/zero"):
        assert "more than" in refused(5, path, "--key", ME)


def test_6_no_key_that_could_be_used(place: Path) -> None:
    (place / "pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    small = base64.b64encode(bytes(32)).decode()
    for key, word in (
        (small, "small order"), ("", "no worker id"), (place / "none", "cannot be read"),
        (place, "cannot be read"), (place / "pem", "private"), (place / "receipt", "neither"),
        (b"\x1b[2J\xff", "cannot be read"), ("/dev/zero", "neither"),
    ):  # fmt: skip
        assert word in refused(6, place / "receipt", "--key", ME, "--key", key)


def test_7_another_job_or_nonce(place: Path) -> None:
    assert "job-1" in refused(7, place / "receipt", "--key", ME, "--job", "job-1")
    assert "'n 2'" in refused(7, place / "receipt", "--key", ME, "--nonce", "n 2")
    refused(7, place / "receipt", "--key", ME, "--job", b"\x1b\xff")


# ---- how it is printed


def test_nothing_that_is_signed_reaches_the_terminal_as_it_is(tmp_path: Path) -> None:
    evil = "\x1b]0;x\x07\n  signed by  somebody\u202e\u2028\r\x9b2J\ufeff"
    content = made(
        {b"\x1b[2J\n": b""}, environment=evil, interpreter={"name": evil, "version": evil},
        walls={evil: evil, "missing": [evil]}, warnings=[evil], job={"nonce": "x (as asked)"},
        verdict={"error": evil, "reason": evil, "limits_hit": [evil]}, limits={evil: evil},
    )  # fmt: skip
    place = laid_out(tmp_path, content)
    for env in ({}, {"LC_ALL": "C"}, {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"}):
        told = run(place / "receipt", "--key", ME, env=env).stdout.decode()
        assert all(line.isprintable() for line in told.split("\n"))
        assert told.count("\n  signed by") == 1
        assert "'x (as asked)'" in told
    told = run(place / "receipt", "--key", ME, "--json").stdout.decode()
    assert told.isascii() and told.rstrip("\n").isprintable()


def test_whoever_closes_the_pipe_hears_no_complaint(place: Path) -> None:
    files = {b"%d" % n: b"" for n in range(3000)}  # more than a pipe takes
    (place / "receipt").write_text(json.dumps(made(files).signed()))
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [SANDRUN, "verify", place / "receipt", "--key", ME],
        stdout=writing, stderr=subprocess.PIPE, timeout=60,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_cannot_be_written_is_told(place: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [SANDRUN, "verify", place / "receipt", "--key", ME],
            stdout=full, stderr=subprocess.PIPE, timeout=60,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == b"sandrun verify: standard output: No space left on device.\n"


def test_closed_standard_streams_do_no_harm(place: Path) -> None:
    for closed, code in (("1", 0), ("2", 0), ("0", 0), ("0 1 2", 0)):
        shut = " ".join(f"{number}>&-" for number in closed.split())
        line = f'exec "$@" {shut}'
        done = subprocess.run(
            ["sh", "-c", line, "sh", SANDRUN, "verify", place / "receipt", "--key", ME],
            capture_output=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (code, b""), closed
    done = subprocess.run(
        ["sh", "-c", '"$@" 2>&-', "sh", SANDRUN, "verify", "-", "--key", ME],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (5, b"")


def test_it_is_a_command_among_the_others() -> None:
    assert command.COMMANDS["verify"].module == "sandrun.verify"
    done = run("--help")
    assert done.returncode == 0
    for words in (b"RECEIPT", b"--key K", b"--files DIR", b"exit codes"):
        assert words in done.stdout


def test_the_bytes_of_a_log_that_is_no_text_are_asked_for(tmp_path: Path) -> None:
    place = laid_out(tmp_path, made(stdout=b"\xff", stderr=STDERR))
    assert "no UTF-8" in refused(4, place / "status", "--key", ME)
    done = run(place / "status", "--key", ME, "--stdout", place / "stdout")
    assert done.returncode == 0, done.stderr
