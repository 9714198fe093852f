"""What comes in, as a Form: multipart/form-data, JSON with the files inside, or plain code.

Multipart is read where it lies: the body is one MemoryFile, a part is a range of it. Our own
reader, since the usual ones hold an upload several times over, write it to disk, or cut the folders
off the names. It runs in a thread; the event loop never sees the bytes.
"""

import base64
import difflib
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

import msgspec
from django.http import HttpRequest, QueryDict

from jobs.bundle import Part
from jobs.errors import InvalidManifest, InvalidUpload, Rejected, TooLarge, UnsupportedUpload
from jobs.faults import pointer
from jobs.manifest import MANIFEST_BYTES, NO_ENVIRONMENT, quoted
from jobs.memory import CHUNK, MemoryFile
from sandbox.runtimes import Runtime

BODY_KEY = "sandrun.body"  # where our server leaves the body in the scope; whoever serves closes it

STDIN_BYTES = 64 * 1024  # of one piece for the stdin of a running job
FORM_BYTES = 1024 * 1024  # of what is typed into the page's form
OWNER_BYTES = 4 * 1024  # of what its buttons say

PARTS = 1100  # a few more than files are taken: the sentence about files is the better one
HEAD_BYTES = 8 * 1024  # of one part
FILE_FIELDS = ("files", "file", "files[]")

_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER = re.compile(r';[ \t]*([\w!#$%&\'*+.^`|~-]+)=("(?:[^"\\]|\\.)*"|[^;"\s]*)[ \t]*')
_ESCAPED = re.compile(r'\\(["\\])')
KEY = r"^[!-~]{1,255}$"
_PLAIN_ENCODINGS = ("binary", "8bit", "7bit")


_JSON_BYTES = 4 * 1024 * 1024  # nothing else runs while it is parsed: larger uploads are forms
_NO_RUNTIME = "python3"  # for code that says nothing about itself
_SHEBANG = re.compile(rb"#!\s*(\S+)(?:\s+(?:-S\s+)?(\S+))?")


class Form(NamedTuple):
    """What was sent: the files, and the manifest if there was one."""

    files: list[Part]
    manifest: bytes | None

    def digest(self) -> bytes:
        """Of what was sent, however it was packed. Slow for large files: call it in a thread."""
        whole = hashlib.sha256(repr(self.manifest).encode())
        for part in self.files:
            one = hashlib.sha256()
            for piece in part.source.chunks(part.start, part.size):
                one.update(piece)
            whole.update(repr((part.name, one.digest())).encode())
        return whole.digest()


def key_of(request: HttpRequest) -> str | None:
    """The Idempotency-Key. Raises Rejected."""
    key: str | None = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not re.fullmatch(KEY, key):
        raise Rejected(
            "An Idempotency-Key has 1 to 255 letters, digits or signs, and no spaces",
            "A random UUID is a good one.",
        )
    return key


def body_of(request: Any, limit_bytes: int) -> MemoryFile:
    """The body of `request`, for the caller to close. Our server hands it over; any other one lets
    us read it.
    """
    if request.META.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() != "identity":
        raise UnsupportedUpload("The body is compressed (Content-Encoding); send it as it is")
    body = request.scope.get(BODY_KEY)
    if body is None:
        body = MemoryFile()
        with body.closed_on_error():
            while piece := request.read(CHUNK):
                body.write(piece)
            if body.size > limit_bytes:
                raise too_large(limit_bytes)
    assert isinstance(body, MemoryFile)
    return body


def too_large(limit_bytes: int) -> TooLarge:
    mb = limit_bytes // (1024 * 1024)
    return TooLarge(f"Request exceeds {f'{mb}MB' if mb else f'{limit_bytes // 1024}KB'} limit")


def read_form(body: MemoryFile, content_type: str) -> Form:
    """The Form in `body`. Slow for large bodies: call it in a thread."""
    if content_type.partition(";")[0].strip().lower() == "application/json":
        return _read_json(body)
    files: list[Part] = []
    manifest: bytes | None = None
    for field, name, start, size in _parts(body, _boundary(content_type)):
        if field == "manifest":
            if manifest is not None:
                raise InvalidManifest("two parts are named 'manifest'")
            manifest = body.read(start, min(size, MANIFEST_BYTES + 1))
        elif name:
            if field not in FILE_FIELDS:
                _refuse(f"a file is in a part named {quoted(field)}", "Its name must be 'files'.")
            files.append(Part(name, body, start, size))
        elif name is None and field in FILE_FIELDS:
            _refuse("a part named 'files' has no file name", "curl: -F files=@main.py, with an @.")
        elif difflib.get_close_matches(field[:40], ("manifest",)):
            _refuse("a part is named almost like 'manifest'")
    return Form(files, manifest)


# ---- JSON


def _read_json(body: MemoryFile) -> Form:
    """{"files": {path: text or {"base64": text}}, "manifest": {...}}."""
    if body.size > _JSON_BYTES:
        raise TooLarge(
            f"JSON is taken up to {_JSON_BYTES // (1024 * 1024)}MB",
            "Send larger files as multipart/form-data.",
        )
    raw = body.read(0, body.size)
    try:
        asked = msgspec.json.decode(raw, type=_Json)
        contents = msgspec.json.decode(asked.files, type=dict[str, str | _Base64])
        # What is not text in a manifest, or too long a number, has sentences of its own there.
        json.loads(raw.decode(errors="replace"), object_pairs_hook=_once, parse_int=str)
    except msgspec.ValidationError:
        _refuse(
            'the body must be like {"files": {"main.py": "print(1)", "data": {"base64": "AAH/"}}, '
            '"manifest": {}}'
        )
    except (msgspec.DecodeError, ValueError, RecursionError):
        _refuse("the body is not valid JSON")
    files = []
    for path, content in contents.items():
        start = body.size
        files.append(Part(path, body, start, body.write(_content(content))))  # behind the JSON
    manifest = bytes(asked.manifest)
    return Form(files, None if manifest in (b"", b"null") else manifest)


def _once(pairs: list[tuple[str, object]]) -> None:
    """Of two equal keys one reader takes the first and another the last: neither is meant."""
    if len(dict(pairs)) != len(pairs):
        _refuse("the body names the same key twice")


class _Base64(msgspec.Struct, forbid_unknown_fields=True):
    base64: str


class _Json(msgspec.Struct, forbid_unknown_fields=True):
    """The shape is checked as it is read: what has another one is refused at its first byte."""

    files: msgspec.Raw  # {path: text or {"base64": text}}
    manifest: msgspec.Raw = msgspec.Raw(b"")


def _content(value: str | _Base64) -> bytes:
    if isinstance(value, str):
        return value.encode()
    try:
        return base64.b64decode(value.base64, validate=True)
    except ValueError:
        _refuse("a file's base64 is damaged")


# ---- the body is the code


def read_run(body: MemoryFile, query: QueryDict, runtimes: Mapping[str, Runtime]) -> Form:
    """The one file that `body` is, with the manifest that `query` is."""
    if not body.size:
        _refuse("the body is empty; it is the code to run")
    table: dict[str, object] = {}
    for name, values in query.lists():
        if name in ("args", "outputs"):
            table[name] = values
        elif len(values) > 1:
            raise InvalidManifest(f"{quoted(name)} is given twice", pointer=pointer(name))
        elif name != "wait":
            table[name] = _typed(name, values[0])
    if table.get("environment") in NO_ENVIRONMENT and "interpreter" not in table:
        table["interpreter"] = _shebang(body.read(0, 256), runtimes) or _NO_RUNTIME
    path = _usual_name(table.get("interpreter", table.get("environment")), runtimes)
    if table.setdefault("entrypoint", path) != path:
        at = pointer("entrypoint")
        raise InvalidManifest("the code has no other name", "Leave 'entrypoint' out.", at)
    return Form([Part(path, body, 0, body.size)], msgspec.json.encode(table))


def _usual_name(named: object, runtimes: Mapping[str, Runtime]) -> str:
    """How the one file of a runtime that is `named` so is called."""
    runtime = next((r for r in runtimes.values() if named == r.name or named in r.aliases), None)
    suffix = runtime.extensions[0] if runtime and runtime.extensions else ""
    return (runtime.entrypoint if runtime else "") or f"main{suffix}"


_NUMBERS = ("timeout", "memory_mb", "cpu_seconds", "ttl")
_FLAGS = ("burn_after_read", "stdin_live")


def _typed(name: str, text: str) -> object:
    """What `text` means; if nothing, the text, about which the manifest has its own sentence."""
    if name in _FLAGS:
        return {"1": True, "true": True, "0": False, "false": False}.get(text, text)
    return _number(text) if name in _NUMBERS else text


def _number(text: str) -> object:
    if re.fullmatch(r"[0-9]{1,15}", text):
        return int(text)
    return float(text) if re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}", text) else text


def _shebang(head: bytes, runtimes: Mapping[str, Runtime]) -> str | None:
    """The runtime that the first line names: #!/bin/bash, #!/usr/bin/env node."""
    found = _SHEBANG.match(head.split(b"\n", 1)[0])
    if not found:
        return None
    name = found[1].rpartition(b"/")[2]
    if name == b"env":
        name = found[2] or b""
    word = name.decode("latin-1")
    return next((r.name for r in runtimes.values() if word == r.name or word in r.aliases), None)


# ---- the page's form


def fields_of(body: MemoryFile, content_type: str, names: Sequence[str]) -> dict[str, str]:
    """A form's fields, of these names and each once; line ends as everywhere but in forms."""
    found: dict[str, str] = {}
    for field, _, start, size in _parts(body, _boundary(content_type)):
        if field not in names or field in found:
            known = f"Its fields are {', '.join(names)}, each once."
            _refuse(f"the form has a field {quoted(field)}", known)
        try:
            found[field] = body.read(start, size).decode().replace("\r\n", "\n")
        except UnicodeDecodeError:
            _refuse(f"what is in the field {field} is not UTF-8")
    return found


def form_of(body: MemoryFile, typed: Mapping[str, str], runtimes: Mapping[str, Runtime]) -> Form:
    """The job that was `typed`; its code is written behind the `body` that it came in."""
    code = typed.get("code", "").encode()
    if not code.strip():
        _refuse("there is no code")
    try:
        args = shlex.split(typed.get("args", ""))
    except ValueError:
        at = pointer("args")
        raise InvalidManifest("a quote in the arguments is not closed", pointer=at) from None
    language = typed.get("language") or _shebang(code[:256], runtimes) or _NO_RUNTIME
    path = _usual_name(language, runtimes)
    table = {"interpreter": language, "entrypoint": path, "args": args}
    table["stdin"] = typed.get("stdin", "")
    start = body.size
    return Form([Part(path, body, start, body.write(code))], msgspec.json.encode(table))


# ---- multipart


def _boundary(content_type: str) -> bytes:
    kind, parameters = _parameters(content_type)
    if kind != "multipart/form-data":
        raise UnsupportedUpload(
            "Send multipart/form-data, or JSON as application/json",
            "curl: -F files=@main.py -F 'manifest={...}'",
        )
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        _refuse("the multipart boundary is missing or invalid")
    return boundary.encode()


def _parts(body: MemoryFile, boundary: bytes) -> list[tuple[str, str | None, int, int]]:
    """(field, file name, start, size) of every part."""
    end = body.size
    delimiter = b"\r\n--" + boundary
    opening = body.read(0, len(delimiter))
    if not opening.startswith(delimiter[2:]):
        _refuse("the upload does not begin with its multipart boundary")
    at = len(delimiter) - 2
    parts: list[tuple[str, str | None, int, int]] = []
    while (mark := body.read(at, 2)) == b"\r\n":
        if len(parts) >= PARTS:
            _refuse(f"more than {PARTS} parts; send a tar.gz")
        head = body.read(at, HEAD_BYTES)
        head_size = head.find(b"\r\n\r\n")
        # In the head a boundary that holds a colon would pass for one more line; right behind it,
        # where other readers see the end of a part without content, for the content's beginning.
        if head_size < 0 or delimiter in head[: head_size + 2 + len(delimiter)]:
            _refuse("a part of the upload has no end of its head, or more than 8 KiB of it")
        start = at + head_size + 4
        stop = _find(body, delimiter, start, end)
        field, name = _describe(head[2:head_size])
        parts.append((field, name, start, stop - start))
        at = stop + len(delimiter)
    if mark != b"--":
        _refuse("the upload has a malformed multipart boundary")
    return parts


def _find(body: MemoryFile, needle: bytes, start: int, end: int) -> int:
    """Where `needle` is next; pieces overlap so that it cannot hide between two of them."""
    while start < end:
        at = (piece := body.read(start, CHUNK)).find(needle)
        if at >= 0:
            return start + at
        if start + len(piece) >= end:
            break
        start += len(piece) - len(needle) + 1
    _refuse("the upload ends before its last multipart boundary")


def _describe(head: bytes) -> tuple[str, str | None]:
    """The field and the file name that the head of a part tells."""
    try:
        lines = head.decode("utf-8").split("\r\n")
    except UnicodeDecodeError:
        _refuse("a file name or field name is not UTF-8")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            _refuse("a header of a part has no colon")
        name = name.strip().lower()
        if name in headers:  # readers differ in which of the two they take
            _refuse("a header of a part is there twice")
        headers[name] = value.strip()
    encoding = headers.get("content-transfer-encoding", "binary").lower()
    if encoding not in _PLAIN_ENCODINGS:
        _refuse("a part is encoded (Content-Transfer-Encoding); send the bytes as they are")
    kind, parameters = _parameters(headers.get("content-disposition", ""))
    if kind != "form-data" or "name" not in parameters:
        _refuse("a part has no Content-Disposition with a name")
    return parameters["name"], _file_name(parameters)


def _file_name(parameters: dict[str, str]) -> str | None:
    extended = parameters.get("filename*")
    if extended is None:
        return parameters.get("filename")
    charset, _, rest = extended.partition("'")
    if charset.lower() != "utf-8":
        _refuse("a file name is in a character set other than UTF-8")
    try:
        return unquote_to_bytes(rest.partition("'")[2]).decode()
    except UnicodeDecodeError:
        _refuse("a file name is not UTF-8")


def _parameters(header: str) -> tuple[str, dict[str, str]]:
    """`kind; name="value"; ...`, each name once."""
    kind, semicolon, rest = header.partition(";")
    parameters: dict[str, str] = {}
    at, rest = 0, semicolon + rest
    while at < len(rest):
        found = _PARAMETER.match(rest, at)
        if not found or (name := found[1].lower()) in parameters:
            if rest[at:].strip("; \t") == "":
                break
            _refuse("a Content-Type or Content-Disposition is malformed")
        value = found[2]
        parameters[name] = _ESCAPED.sub(r"\1", value[1:-1]) if value[:1] == '"' else value
        at = found.end()
    return kind.strip().lower(), parameters


def _refuse(sentence: str, details: str = "") -> NoReturn:
    raise InvalidUpload(sentence, details)
