"""The files of static/, read and compressed once, at start: a path in a URL opens nothing.

All stand below one name made of all their bytes, so that a browser may keep each for ever, and the
imports between modules, which are relative, lead to those of the same make.
"""

import gzip
import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "static"
SCRIPT = "text/javascript; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
TYPES = {
    ".js": SCRIPT,
    ".mjs": SCRIPT,
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".txt": TEXT,
}
EXAMPLES = "frontend/examples/"  # programs for the editor, never for the browser

# What a module cannot do without, as opposed to what it may load later by import().
_IMPORT = re.compile(
    r"""^\s*(?:import|export)\s*(?:[\w$*{}\s,]*?\bfrom\s*)?["'](\.{1,2}/[^"']+)["']""", re.MULTILINE
)


class Body(NamedTuple):
    """Bytes of an answer, and the tag that names them."""

    content: bytes
    etag: str


class Asset(NamedTuple):
    """One file; `packed` where gzip makes it smaller."""

    type: str
    plain: Body
    packed: Body | None


def read(folder: Path) -> dict[str, Asset]:
    """Every file below `folder`, by its path there, but those that no browser asks for."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and (kind := _type(name)):
            content = path.read_bytes()
            packed = gzip.compress(content, mtime=0)
            smaller = _body(packed) if len(packed) < len(content) else None
            found[name] = Asset(kind, _body(content), smaller)
    return found


def _type(name: str) -> str | None:
    if name.rpartition("/")[2].startswith(".") or name.endswith(".pyc"):
        return None
    return TEXT if name.startswith(EXAMPLES) else TYPES.get(posixpath.splitext(name)[1])


def _body(content: bytes) -> Body:
    return Body(content, f'"{hashlib.sha256(content).hexdigest()}"')


def version(files: Mapping[str, Asset]) -> str:
    """A name for exactly these files."""
    named = "".join(f"{name}\n{asset.type}\n{asset.plain.etag}\n" for name, asset in files.items())
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def needs(files: Mapping[str, Asset], name: str) -> list[str]:
    """The modules that the module `name` cannot do without, nearest first. A browser learns of
    each only when it has read the one before, unless the document names them all.
    """
    found = [name]
    for module in found:  # which grows meanwhile
        found += [one for one in dict.fromkeys(_imports(files, module)) if one not in found]
    return found[1:]


def _imports(files: Mapping[str, Asset], module: str) -> Iterator[str]:
    text = files[module].plain.content.decode()
    for place in _IMPORT.findall(text):
        name = posixpath.normpath(posixpath.join(posixpath.dirname(module), place))
        if name in files and files[name].type == SCRIPT:
            yield name


FILES = read(FOLDER)
VERSION = version(FILES)
