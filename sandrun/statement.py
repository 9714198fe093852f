"""What a receipt of version 1 says, field by field: which fields there must be, and of what form.
Fields that it does not know are left alone: they are signed too, and a later version may have more.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from sandrun.strict import LARGEST, Malformed, from_base64

TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:sandrun:receipt:v1"
LOGS = ("stdout", "stderr")
OUTPUTS = "outputs/"

_YEAR_10000 = 253402300800  # in UNIX seconds; calendars end there

Check = Callable[[object, str], None]  # raises Malformed with the name of the field


def _must(holds: bool, where: str, what: str) -> None:
    if not holds:
        raise Malformed(f"is not right: {where} is not {what}")


def _text(value: object, where: str) -> None:
    _must(isinstance(value, str), where, "text")


def _truth(value: object, where: str) -> None:
    _must(isinstance(value, bool), where, "true or false")


def _count(value: object, where: str) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST
    _must(whole, where, "a whole number from 0 to 2**53 - 1")


def _time(value: object, where: str) -> None:
    _count(value, where)
    _must(isinstance(value, int) and value < _YEAR_10000, where, "a time in UNIX seconds")


def _object(value: object, where: str) -> None:
    _must(isinstance(value, Mapping), where, "an object")


def _matches(pattern: str, what: str) -> Check:
    def check(value: object, where: str) -> None:
        found = isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII)
        _must(bool(found), where, what)

    return check


def _one_of(*words: str) -> Check:
    return lambda value, where: _must(value in words, where, f"one of {', '.join(words)}")


def _or_null(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def _each(check: Check) -> Check:
    def check_all(value: object, where: str) -> None:
        _must(isinstance(value, list), where, "a list")
        assert isinstance(value, list)
        for index, item in enumerate(value):
            check(item, f"{where}[{index}]")

    return check_all


def _fields(**checks: Check) -> Check:
    def check(value: object, where: str) -> None:
        _object(value, where)
        assert isinstance(value, Mapping)
        for name, field in checks.items():
            inner = f"{where}.{name}" if where else name
            if name not in value:
                raise Malformed(f"is not right: {inner} is missing")
            field(value[name], inner)

    return check


_SHA256 = _matches(r"[0-9a-f]{64}", "a SHA-256 in lower-case hex")
_check = _fields(
    _type=_one_of(TYPE),
    predicateType=_one_of(PREDICATE_TYPE),
    subject=_each(_fields(name=_text, digest=_fields(sha256=_SHA256), annotations=_object)),
    predicate=_fields(
        worker=_matches(r"[A-Za-z0-9+/]{43}=", "a worker id"),
        job=_fields(
            id=_matches(r"[!-~]+", "a job id"),
            nonce=_or_null(_matches(r"[ -~]{1,128}", "1 to 128 printable ASCII characters")),
            created=_time, started=_or_null(_time), ended=_time, expires=_time,
        ),
        input=_fields(sha256=_SHA256, stdin=_or_null(_fields(bytes=_count, sha256=_SHA256))),
        environment=_text,
        interpreter=_fields(name=_text, version=_text),
        limits=_fields(
            cpu_millis=_count, cpu_usec=_count, descriptors=_count, disk_bytes=_count,
            inodes=_count, log_bytes=_count, memory_bytes=_count, tasks=_count, wall_usec=_count,
        ),
        walls=_or_null(_object),
        verdict=_fields(
            status=_one_of("completed", "failed"), reason=_or_null(_text),
            exit_code=_or_null(_count), signal=_or_null(_count),
            stage=_or_null(_one_of("compile", "run")), limits_hit=_each(_text),
            error=_or_null(_text),
        ),
        usage=_fields(cpu_usec=_count, memory_peak_bytes=_count, wall_usec=_count),
        logs=_fields(
            stdout=_fields(bytes=_count, dropped=_count),
            stderr=_fields(bytes=_count, dropped=_count),
        ),
        outputs=_fields(bytes=_count, files=_count, truncated=_truth),
        warnings=_each(_text),
    ),
)  # fmt: skip
_check_log = _fields(bytes=_count)
_check_output = _fields(bytes=_count, mode=_matches(r"[0-7]{4}", "four octal digits"), type=_text)


def check(statement: object) -> dict[str, Any]:
    """The statement, whose fields are all there and agree with each other. Raises Malformed."""
    _check(statement, "")
    assert isinstance(statement, dict)
    by_name: dict[str, Any] = {}
    for subject in statement["subject"]:
        name = subject["name"]
        _must(name not in by_name, f"subject {name!a}", "there once")
        if name in ("logs/stdout", "logs/stderr"):
            _check_log(subject["annotations"], f"{name!a}: annotations")
        else:
            _check_output(subject["annotations"], f"{name!a}: annotations")
            path_of(name)
        by_name[name] = subject["annotations"]["bytes"]
    predicate = statement["predicate"]
    for stream in LOGS:
        _must(f"logs/{stream}" in by_name, f"logs/{stream}", "among the subjects")
        kept, log = by_name.pop(f"logs/{stream}"), predicate["logs"][stream]
        _must(log["bytes"] == kept + log["dropped"], f"logs.{stream}", "what its subject says")
    outputs = predicate["outputs"]
    _must(outputs["files"] == len(by_name), "outputs.files", "the number of the outputs")
    _must(outputs["bytes"] == sum(by_name.values()), "outputs.bytes", "the sum of the outputs")
    from_base64(predicate["worker"])
    return statement


def path_of(name: str) -> bytes:
    """The path of an output, as bytes: names of files need not be text. Every path has one name,
    and none leads out of the folder that it is in.
    """
    _must(name.startswith(OUTPUTS), f"subject {name!a}", "a log or an output")
    quoted = name.removeprefix(OUTPUTS)
    path = unquote_to_bytes(quoted)
    _must(quote(path) == quoted, f"subject {name!a}", "the percent-encoded name of a path")
    safe = b"\0" not in path and {b"", b".", b".."}.isdisjoint(path.split(b"/"))
    _must(safe, f"subject {name!a}", "the name of a file within the job's folder")
    return path
