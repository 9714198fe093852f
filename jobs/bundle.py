"""Bundle: what was uploaded, as the sandbox takes it. Here nobody looks into an archive: it is told
by its name and its first bytes, and read inside a sandbox. Loose files are laid end to end, hashed
on the way, in a thread.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, NoReturn

from jobs.errors import InvalidUpload
from jobs.manifest import MANIFEST_BYTES, quoted
from jobs.memory import MemoryFile, in_thread
from sandbox.errors import BundleRefused
from sandbox.model import Bundle, Inspection, Member

Inspect = Callable[[int], Awaitable[Inspection]]

FILES = 1000
NAME_BYTES = 255  # of one component, as every Linux file system has it
PATH_BYTES = 1024
DEPTH = 64  # components, as in archives

# Not 1970: zip files cannot say a date before 1980. Always the same: the same files, the same job.
_MTIME_NS = 946_684_800 * 10**9  # 2000-01-01

_ARCHIVES = (".tar.gz", ".tgz", ".zip", ".tar")
_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\3\4", b"PK\5\6")  # the latter is an empty one
_USTAR = (257, b"ustar")

# The one-file form of the earlier web page and MCP server.
_LISTED = b"----Tar\nPath:"
_LISTED_HEAD = re.compile(rb"----Tar\nPath:[ \t]*([^\n]*)\n(?:Size:[^\n]*\n)?\n")
_LISTED_HEAD_BYTES = 4096


class Part(NamedTuple):
    """One uploaded file: bytes [start, start + size) of `source`, under the name it came with."""

    name: str
    source: MemoryFile
    start: int
    size: int

    def peek(self, size: int) -> bytes:
        return self.source.read(self.start, min(size, self.size))


class Upload(NamedTuple):
    """A Bundle with the memory that it lies in, and its job.json if there is one."""

    bundle: Bundle
    memory: MemoryFile
    job_json: bytes | None

    @property
    def paths(self) -> list[str]:
        return [member.path for member in self.bundle.members]


async def receive(parts: Sequence[Part], inspect: Inspect) -> Upload:
    """The Upload that `parts` are, whose bytes move: the body is of no use after. Raises Rejected;
    SandboxError when the inspection failed.
    """
    if not parts:
        raise InvalidUpload(
            "No files uploaded", "Send at least one form part named 'files' with a file name."
        )
    if any(_is_archive(part, alone=len(parts) == 1) for part in parts):
        return await _receive_archive(parts, inspect)
    return await in_thread(sum(part.size for part in parts), _pack, parts)


async def _receive_archive(parts: Sequence[Part], inspect: Inspect) -> Upload:
    if len(parts) > 1:
        raise InvalidUpload("Send either one archive or loose files, not both")
    memory = await in_thread(parts[0].size, _move, parts[0])
    with memory.closed_on_error():
        try:
            found = await inspect(memory.fd)
        except BundleRefused as refusal:
            raise InvalidUpload(str(refusal)) from None
    return Upload(Bundle("archive", memory.fd, found.members), memory, found.job_json)


def _is_archive(part: Part, alone: bool) -> bool:
    """By the name; by the first bytes where the name says nothing. Refuses what only seems one."""
    name = part.name.lower()
    head = part.peek(512)
    if head.startswith(_LISTED):
        return False  # the old page calls this job.tar.gz
    gzip, zip_ = head.startswith(_GZIP), head.startswith(_ZIP)
    tar = head[_USTAR[0] :].startswith(_USTAR[1])
    if name.endswith(_ARCHIVES[:2]) and not gzip:
        raise InvalidUpload(
            f"{quoted(part.name)} is not a gzip-compressed tar archive",
            "tar czf makes one; an archive that is not compressed is named .tar.",
        )
    if name.endswith(".zip") and not zip_:
        raise InvalidUpload(f"{quoted(part.name)} is not a zip archive")
    return name.endswith(_ARCHIVES) or (alone and "." not in name and (gzip or zip_ or tar))


def _move(part: Part) -> MemoryFile:
    memory = MemoryFile()
    with memory.closed_on_error():
        memory.take(part.source, part.start, part.size)
        return memory.seal()


def _pack(parts: Sequence[Part]) -> Upload:
    """Loose files, one after another."""
    if len(parts) > FILES:
        _refuse(f"more than {FILES} files; send a tar.gz or zip")
    parts = [_unlist(part) for part in parts]
    parts = [part._replace(name=clean_path(part.name)) for part in parts]
    check_places([part.name for part in parts])
    job_json = next(
        (part.peek(MANIFEST_BYTES + 1) for part in parts if part.name == "job.json"), None
    )
    memory = MemoryFile()
    with memory.closed_on_error():
        members = tuple(_append(part, memory) for part in parts)
        return Upload(Bundle("loose", memory.seal().fd, members), memory, job_json)


def _append(part: Part, memory: MemoryFile) -> Member:
    digest = hashlib.sha256()
    for chunk in part.source.spend(part.start, part.size):
        digest.update(chunk)
        memory.write(chunk)
    return Member(part.name, part.size, _MTIME_NS, 0o644, digest.hexdigest())


def _unlist(part: Part) -> Part:
    """The file inside the old text form; its Size counts characters and is not used."""
    head = part.peek(_LISTED_HEAD_BYTES)
    if not head.startswith(_LISTED):
        return part
    found = _LISTED_HEAD.match(head)
    if not found:
        _refuse("the upload begins like '----Tar' text but has no Path and empty line after it")
    try:
        name = found[1].strip().decode()
    except UnicodeDecodeError:
        _refuse("the Path of the '----Tar' text is not UTF-8")
    return Part(name, part.source, part.start + found.end(), part.size - found.end())


def clean_path(name: str) -> str:
    """`name` without './' and doubled slashes, as in archives: a place below the work directory."""
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        _refuse(f"the file name {quoted(name)} is not UTF-8")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if len(raw) > PATH_BYTES or any(len(part.encode()) > NAME_BYTES for part in parts):
        _refuse(f"the file name {quoted(name)} is too long")
    drive = parts and parts[0][1:2] == ":"
    if name.startswith("/") or name.endswith(("/", "/.")) or not parts or drive:
        _refuse(f"the file name {quoted(name)} is not the relative path of a file")
    if ".." in parts:
        _refuse(f"the file name {quoted(name)} leads out of the work directory")
    if len(parts) > DEPTH:
        _refuse(f"the file name {quoted(name)} lies more than {DEPTH} folders deep")
    if "\\" in name:
        _refuse(f"the file name {quoted(name)} holds a backslash")
    for char in name:
        if not char.isprintable():
            _refuse(f"the file name {quoted(name)} holds the unprintable U+{ord(char):04X}")
    return "/".join(parts)


def check_places(paths: Sequence[str]) -> None:
    """Each place is taken once."""
    taken = set(paths)
    if len(taken) != len(paths):
        _refuse("two files have the same name")
    for path in paths:
        while "/" in path:
            path = path.rpartition("/")[0]
            if path in taken:
                _refuse(f"{quoted(path)} is both a file and a folder")


def _refuse(sentence: str) -> NoReturn:
    raise InvalidUpload(sentence)
