"""`sandrun verify`: checks a receipt, and what was downloaded with it, and says what is proven.

Whatever a receipt says is printed escaped: a terminal obeys what is printed to it.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from sandrun.errors import Kind, NotVerified
from sandrun.folder import check_folder
from sandrun.key import is_worker_id, worker_id_in
from sandrun.receipt import Log, Receipt, verify
from sandrun.status import instant
from sandrun.strict import Malformed, from_json

ANSWER_BYTES = 256 << 20  # a receipt of 64 MiB, and as much of logs
KEY_BYTES = 64 << 10

USAGE = 2
EXIT_CODES: dict[Kind, int] = {
    "signature": 1, "other_key": 1, "worker": 1, "no_key": 3, "differs": 4, "not_a_receipt": 5,
    "bad_key": 6, "job": 7, "nonce": 7,
}  # fmt: skip
_EPILOG = """\
RECEIPT is what /receipt/ID answers, or the answer of /status/ID, /submit?wait= or /run as JSON, all
fields of which are then checked too. --files is a folder with the outputs, and nothing else.

exit codes: 0 all of it holds, 1 the signature does not, or is not by a key that was pinned,
2 usage, 3 no key was pinned, 4 a file, log or field is another than what was signed,
5 not a receipt, 6 a key that cannot be used, 7 about another job, or with another nonce"""


@dataclass(frozen=True)
class Asked:
    receipt: str
    key: list[str]
    files: str | None
    stdout: str | None
    stderr: str | None
    job: str | None
    nonce: str | None
    json: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, after saying why."""
    asked = _parse(arguments)
    try:
        receipt, checked = _verify(asked)
        told = _as_json(receipt, checked) if asked.json else _account(receipt, checked)
        code, sentence = 0, ""
    except NotVerified as error:
        code, sentence = EXIT_CODES[error.kind], str(error)
        told = json.dumps({"verified": False, "kind": error.kind, "error": sentence})
    except OSError as error:
        code, sentence = USAGE, _fault(error)
        told = json.dumps({"verified": False, "kind": "usage", "error": sentence})
    except (MemoryError, RecursionError):
        code, sentence = USAGE, "This is too large to be checked here."
        told = json.dumps({"verified": False, "kind": "usage", "error": sentence})
    except KeyboardInterrupt:
        return 130
    if sentence and sys.stderr:
        print(f"sandrun verify: {sentence}", file=sys.stderr)
    if asked.json or not sentence:
        return _print(told) or code
    return code


def _parse(arguments: Sequence[str] | None) -> Asked:
    parser = argparse.ArgumentParser(
        prog="sandrun verify", description="Check a receipt against the key of a worker.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("receipt", metavar="RECEIPT", help="a file, or - for standard input")
    parser.add_argument(
        "--key", action="append", default=[], metavar="K",
        help="whom you trust to have run it: a worker id, or a file with one or with a PEM public "
        "key; several may be given",
    )  # fmt: skip
    parser.add_argument("--files", metavar="DIR", help="compare the outputs in this folder")
    parser.add_argument("--stdout", metavar="FILE", help="compare what was printed to stdout")
    parser.add_argument("--stderr", metavar="FILE", help="compare what was printed to stderr")
    parser.add_argument("--job", metavar="ID", help="it must be about this job")
    parser.add_argument("--nonce", metavar="N", help="it must have this nonce")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return Asked(**vars(parser.parse_args(arguments)))


def _verify(asked: Asked) -> tuple[Receipt, dict[str, bool]]:
    """The Receipt, and which of all that could be checked was."""
    envelope, answer = _read_receipt(asked.receipt)
    keys = [read_key(text) for text in asked.key]
    receipt = verify(envelope, keys, job_id=asked.job, nonce=asked.nonce)
    in_answer = answer is not None and "logs" in answer
    raw = {
        stream: _check_log(receipt, stream, path, keep=in_answer)
        for stream, path in (("stdout", asked.stdout), ("stderr", asked.stderr))
        if path is not None
    }
    if answer is not None:
        receipt.check_status(answer, **raw)
    if asked.files is not None:
        check_folder(receipt, asked.files)
    return receipt, {
        "job": asked.job is not None,
        "nonce": asked.nonce is not None,
        "answer": answer is not None,
        "files": asked.files is not None,
        "stdout": in_answer or asked.stdout is not None,
        "stderr": in_answer or asked.stderr is not None,
    }


def _read_receipt(path: str) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """The envelope, and the answer that it came in."""
    with _open(path) as file:
        text = file.read(ANSWER_BYTES + 1)
    try:
        if len(text) > ANSWER_BYTES:
            raise Malformed(f"has more than {ANSWER_BYTES} bytes")
        found = from_json(text, decimals=True)
        if not isinstance(found, dict):
            raise Malformed("is not a JSON object")
        if "receipt" in found and not isinstance(found["receipt"], dict):
            why = "the job was not over, or the server has no key"
            raise Malformed(f"has none in it: {why}")
    except Malformed as error:
        raise NotVerified("not_a_receipt", f"This is not a receipt: it {error}.") from None
    return (found["receipt"], found) if "receipt" in found else (found, None)


def _open(path: str) -> BinaryIO:
    if path == "-":
        return os.fdopen(os.dup(0), "rb")
    return open(path, "rb")


def read_key(text: str) -> str:
    """The worker id that `text` is, or names a file of. Raises NotVerified."""
    if is_worker_id(text):
        return text
    try:
        with open(text, "rb") as file:
            return worker_id_in(file.read(KEY_BYTES).decode("latin-1"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no name of a file"
        sentence = f"{_plain(text)} is no worker id (44 characters), and cannot be read: {why}."
        raise NotVerified("bad_key", sentence) from None


def _check_log(receipt: Receipt, stream: str, path: str, *, keep: bool) -> bytes | None:
    """Its bytes, if they are to be kept and compared later: as many as show what is wrong."""
    log: Log = getattr(receipt, stream)
    with open(path, "rb") as file:
        if not keep:
            receipt.check_log(stream, file)
            return None
        return file.read(log.kept.size + 1)


def _fault(error: OSError) -> str:
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    return f"{_plain(name)}: {error.strerror}." if name else f"{error.strerror}."


# ---- what is told


def _as_json(receipt: Receipt, checked: Mapping[str, bool]) -> str:
    told = {"verified": True, "worker": receipt.worker, "checked": checked}
    return json.dumps(told | {"statement": receipt.statement})


def _account(receipt: Receipt, checked: Mapping[str, bool]) -> str:
    count, size = len(receipt.outputs), sum(one.content.size for one in receipt.outputs.values())
    cut = "; a cap left others out" if receipt.truncated else ""
    rows = [
        ("signed by", receipt.worker),
        ("job", receipt.job_id + _as_asked(checked["job"])),
        # In quotes, or it could say of itself that it is as asked.
        ("nonce", "none" if receipt.nonce is None
                  else ascii(receipt.nonce) + _as_asked(checked["nonce"])),
        ("created", instant(receipt.created)),
        ("started", "never" if receipt.started is None else instant(receipt.started)),
        ("ended", instant(receipt.ended)),
        ("ran", f"{receipt.interpreter} {receipt.interpreter_version}"),
        ("in", receipt.environment or "no environment of its own"),
        ("input", f"sha256 {receipt.input_sha256}"),
        ("stdin", f"{receipt.stdin.size} bytes sent live, sha256 {receipt.stdin.sha256}"
                  if receipt.stdin else "nothing sent live"),
        ("verdict", _verdict(receipt)),
        ("used", f"{receipt.cpu_usec / 1e6:g} s of CPU in {receipt.wall_usec / 1e6:g} s, "
                 f"{receipt.memory_peak_bytes / 2**20:.1f} MiB at most"),
        ("limits", ", ".join(f"{name} {value}" for name, value in receipt.limits.items())),
        ("walls", _walls(receipt.walls)),
        *((stream, _log(log, checked[stream]))
          for stream, log in (("stdout", receipt.stdout), ("stderr", receipt.stderr))),
        ("outputs", f"{count} with {size} bytes{cut}{_done(checked['files'], '--files')}"),
        *(("output", f"{one.quoted} {one.content.size} bytes, sha256 {one.content.sha256}")
          for one in receipt.outputs.values()),
        *(("warning", warning) for warning in receipt.warnings),
    ]  # fmt: skip
    if checked["answer"]:
        rows.append(("answer", "each of its fields is what the receipt says"))
    lines = ["The signature holds. What the worker has signed:"]
    return "\n".join(lines + [f"  {name:10} {_plain(text)}" for name, text in rows])


def _as_asked(asked: bool) -> str:
    return " (as asked)" if asked else ""


def _done(checked: bool, option: str) -> str:
    return " (compared)" if checked else f" (not compared: {option})"


def _log(log: Log, checked: bool) -> str:
    cut = f"; {log.dropped} of {log.printed} were not kept" if log.dropped else ""
    told = f"{log.kept.size} bytes, sha256 {log.kept.sha256}{cut}"
    return told + _done(checked, "--stdout, --stderr")


def _verdict(receipt: Receipt) -> str:
    parts = [
        receipt.status,
        receipt.reason and f"reason {receipt.reason}",
        receipt.exit_code is not None and f"exit code {receipt.exit_code}",
        receipt.signal is not None and f"signal {receipt.signal}",
        receipt.stage and f"while {'compiling' if receipt.stage == 'compile' else 'running'}",
        receipt.limits_hit and f"limits touched: {', '.join(receipt.limits_hit)}",
        receipt.error,
    ]
    return ", ".join(part for part in parts if part)


def _walls(walls: Mapping[str, Any] | None) -> str:
    if walls is None:
        return "none: there is no result of a run"
    missing = walls.get("missing")
    return f"{json.dumps(walls)}{f'; MISSING: {json.dumps(missing)}' if missing else ''}"


def _plain(text: str) -> str:
    """`text` without what a terminal would act on, or what would be seen as something else."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _print(told: str) -> int:
    """0, also when nobody reads it to the end; USAGE when it cannot be written."""
    try:
        if sys.stdout:
            print(told, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for Python's own flush at the end
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if sys.stderr:
            print(f"sandrun verify: standard output: {error.strerror}.", file=sys.stderr)
        return USAGE
    return 0


def _run() -> NoReturn:
    if sys.stdout:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if sys.stderr:
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())


if __name__ == "__main__":
    _run()
