"""Reference: the plainest readers of what the product reads cleverly, to hold them against each
other. Slow where that makes them simple, written from the format and not from the product's code.
"""

import io
import tarfile
import zipfile
from typing import Any

# --- globs -----------------------------------------------------------------------------------

Token = tuple[str, Any]


def glob_takes(pattern: str, path: str) -> bool:
    """By keeping the set of all places that the pattern so far can have come to."""
    places = {0}
    for kind, value in _tokens(pattern):
        places = {after for place in places for after in _after(kind, value, path, place)}
    return len(path) in places


def _tokens(pattern: str) -> list[Token]:
    pattern = pattern.removeprefix("./")
    if pattern.endswith("/"):
        pattern = pattern.rstrip("/") + "/**"
    elif "/" not in pattern:
        pattern = "**/" + pattern
    tokens: list[Token] = []
    rest = pattern
    begins = True  # a name
    while rest:
        stars = len(rest) - len(rest.lstrip("*"))
        if stars >= 2 and begins and rest[stars : stars + 1] == "/":
            tokens.append(("folders", None))
            rest = rest[stars + 1 :]
            continue  # and a name begins
        if stars:
            tokens.append(("all" if stars > 1 else "star", None))
            rest = rest[stars:]
            begins = False
            continue
        if rest[0] == "[" and (found := _set(rest)):
            (negated, inner), rest = found
            tokens.append(("set", (negated, inner)))
            begins = False
            continue
        tokens.append(("one", None) if rest[0] == "?" else ("char", rest[0]))
        begins = rest[0] == "/"
        rest = rest[1:]
    return tokens


def _set(text: str) -> tuple[tuple[bool, str], str] | None:
    """A set at the beginning of `text`, and what follows it; None when it has no end."""
    negated = text[1:2] in ("!", "^")
    first = 2 if negated else 1
    end = text.find("]", first + 1)
    return ((negated, text[first:end]), text[end + 1 :]) if end > 0 else None


def _after(kind: str, value: Any, path: str, place: int) -> set[int]:
    if kind == "all":
        return set(range(place, len(path) + 1))
    if kind == "folders":
        return {place} | {at + 1 for at in range(place, len(path)) if path[at] == "/"}
    if kind == "star":
        slash = path.find("/", place)
        return set(range(place, (len(path) if slash < 0 else slash) + 1))
    char = path[place : place + 1]
    if not char or (kind != "char" and char == "/"):
        return set()
    if kind == "char" and char != value:
        return set()
    if kind == "set" and _in_set(value[1], char) == value[0]:
        return set()
    return {place + 1}


def _in_set(inner: str, char: str) -> bool:
    while inner:
        if inner[1:2] == "-" and len(inner) > 2:
            if inner[0] <= char <= inner[2]:
                return True
            inner = inner[3:]
        else:
            if inner[0] == char:
                return True
            inner = inner[1:]
    return False


# --- multipart -------------------------------------------------------------------------------


def multipart(body: bytes, boundary: bytes) -> list[tuple[bytes, bytes]] | None:
    """(head, content) of every part as RFC 2046 cuts them; None for what it does not allow."""
    if not body.startswith(b"--" + boundary):
        return None
    parts: list[tuple[bytes, bytes]] = []
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]
    for piece in pieces:
        if piece.startswith(b"--"):
            return parts
        head, blank, content = piece.partition(b"\r\n\r\n")
        if not blank or not piece.startswith(b"\r\n"):
            return None
        parts.append((head[2:], content))
    return None


# --- archives --------------------------------------------------------------------------------


def tar_files(data: bytes) -> list[tuple[str, bytes]]:
    """(name, content) of every file, by tarfile with the whole archive at hand."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return [
            (info.name, file.read())
            for info in tar
            if not info.isdir() and (file := tar.extractfile(info)) is not None
        ]


def zip_files(data: bytes) -> list[tuple[str, bytes]] | None:
    """(name, content) of every file, by zipfile; None where it means something else by the bytes:
    it decodes names, guesses a prefix, and knows no folder but by its slash, otherwise than we.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        if any("\\" in info.orig_filename or "\0" in info.orig_filename for info in infos):
            return None
        return [
            (info.filename, archive.read(info))
            for info in infos
            if not info.filename.endswith("/") and info.external_attr >> 28 != 4
        ]
