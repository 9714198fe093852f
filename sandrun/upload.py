"""What is submitted: code, files or a folder, with a manifest, as the body of one request."""

import base64
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sandrun.errors import SandrunError
from sandrun.http import Body
from sandrun.project import MAX_UPLOAD_BYTES, Entry, Project, collect, pack, read, too_large

Content = str | bytes | os.PathLike[str]  # text, bytes, or the path of a file that has them
_JSON_BYTES = 256 << 10  # larger uploads go as an archive
_STDIN_BYTES = 32 << 10  # larger ones, and what is no text, are sent while the job runs
_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_SHEBANG = re.compile(rb"#!\s*(\S+)(?:\s+(?:-S\s+)?(\S+))?")
# What code without a name is called: compilers go by that, others by their interpreter alone.
_NAMES = {
    "": "main.py", "default": "main.py",
    "python": "main.py", "python3": "main.py", "node": "main.js",
    "javascript": "main.js", "bash": "main.sh", "sh": "main.sh", "c": "main.c", "gcc": "main.c",
    "cpp": "main.cpp", "c++": "main.cpp", "g++": "main.cpp", "go": "main.go", "golang": "main.go",
    "rust": "main.rs", "rs": "main.rs", "rustc": "main.rs", "java": "Main.java",
}  # fmt: skip


@dataclass(frozen=True)
class Upload:
    body: Body
    stdin: bytes | None  # to be sent while the job runs


def upload(
    code: str | bytes | None,
    files: Mapping[str, Content] | None,
    path: str | os.PathLike[str] | Project | None,
    stdin: str | bytes | None,
    manifest: Mapping[str, Any],
) -> Upload:
    """`manifest`: its keys, None for what is not said. Raises SandrunError."""
    asked = {name: value for name, value in manifest.items() if value is not None}
    if code is not None and path is not None:
        raise SandrunError("Either code= or path=, not both; files= may come with each")
    if code is None and path is None and not files:
        raise SandrunError("Nothing to run: code=, path= or files= is needed")
    feed = _stdin(stdin, asked)
    contents = {name: _content(content) for name, content in (files or {}).items()}
    if code is not None:
        data = _bytes(code) if isinstance(code, str) else code
        _add(contents, asked.setdefault("entrypoint", _name(data, asked)), data)
    if isinstance(path, Project) or (path is not None and os.path.isdir(path)):
        found = path if isinstance(path, Project) else collect(path)
        return Upload(_folder(found, contents, asked), feed)
    if path is not None:
        name, data = os.path.basename(os.fspath(path)), _read(path)
        if name.endswith(_ARCHIVES):
            if contents:
                raise SandrunError("files= cannot be added to an archive")
            return Upload(_form(name, data, asked), feed)
        asked.setdefault("entrypoint", name)
        if "." not in name:
            _heed_first_line(data, asked)
        _add(contents, name, data)
    if sum(map(len, contents.values())) <= _JSON_BYTES:
        return Upload(_json(contents, asked), feed)
    return Upload(_form("files.tar.gz", pack(_entries(contents)), asked), feed)


def _stdin(stdin: str | bytes | None, asked: dict[str, Any]) -> bytes | None:
    """Says in the manifest what the program reads; what is not said there is to be sent later."""
    if stdin is None:
        return None
    data = _bytes(stdin) if isinstance(stdin, str) else stdin
    try:
        if len(data) <= _STDIN_BYTES:
            asked["stdin"] = data.decode()
            return None
    except UnicodeDecodeError:
        pass
    asked["stdin_live"] = True
    return data


def _name(code: bytes, asked: dict[str, Any]) -> str:
    """What the file is called that holds the code, whose first line may say what runs it."""
    _heed_first_line(code, asked)
    named = asked.get("interpreter") or asked.get("environment") or ""
    return _NAMES.get(named, "main")


def _heed_first_line(code: bytes, asked: dict[str, Any]) -> None:
    """What #! says runs it, unless something else says so."""
    said = asked.get("interpreter") or asked.get("environment")
    if not said and (found := _SHEBANG.match(code[:256])):
        word = found[2] if found[1].endswith(b"/env") and found[2] else found[1]
        asked["interpreter"] = re.sub(r"[0-9.]+$", "", os.path.basename(word).decode("latin-1"))


def _content(content: Content) -> bytes:
    if isinstance(content, str):
        return _bytes(content)
    return content if isinstance(content, bytes) else _read(content)


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise SandrunError(f"What is to be sent is no text: {error.reason}") from None


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SandrunError(f"Cannot read {os.fspath(path)!r}: {why}") from None


def _add(contents: dict[str, bytes], name: str, data: bytes) -> None:
    if name in contents:
        raise SandrunError(f"There are two files named {name!r}")
    contents[name] = data


def _folder(found: Project, contents: Mapping[str, bytes], asked: Mapping[str, Any]) -> Body:
    if twice := {entry.path for entry in found.entries} & contents.keys():
        raise SandrunError(f"{min(twice)!r} is in the folder and in files=")
    if found.size > 10 * MAX_UPLOAD_BYTES:  # nothing packs source so small: not even read
        raise SandrunError(too_large(found))
    packed = pack(itertools.chain(read(found), _entries(contents)))
    if len(packed) > MAX_UPLOAD_BYTES:
        raise SandrunError(too_large(found))
    return _form("project.tar.gz", packed, asked)


def _entries(contents: Mapping[str, bytes]) -> Iterator[tuple[Entry, bytes]]:
    for name, data in contents.items():
        yield Entry(name, len(data), 0o644), data


def _json(contents: Mapping[str, bytes], asked: Mapping[str, Any]) -> Body:
    files: dict[str, str | dict[str, str]] = {}
    for name, data in contents.items():
        try:
            files[name] = data.decode()
        except UnicodeDecodeError:
            files[name] = {"base64": base64.b64encode(data).decode()}
    whole = json.dumps({"files": files, "manifest": asked}).encode()
    return Body("application/json", [whole], len(whole))


def _form(name: str, archive: bytes, asked: Mapping[str, Any]) -> Body:
    boundary = os.urandom(16).hex()
    kind = "Content-Disposition: form-data; name="
    begin = (
        f'--{boundary}\r\n{kind}"manifest"\r\n\r\n{json.dumps(dict(asked))}\r\n'
        f'--{boundary}\r\n{kind}"files"; filename="{quote(name)}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    end = f"\r\n--{boundary}--\r\n".encode()
    pieces = [begin, archive, end]
    return Body(f"multipart/form-data; boundary={boundary}", pieces, sum(map(len, pieces)))
