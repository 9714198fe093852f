"""Targets: one function for each thing that parses what strangers send. Each takes any bytes, and
raises only for a fault: an exception that the parser does not promise, a property that is broken,
or more work than so few bytes may cause. test_fuzz.py calls them in CI, `script/fuzz` for longer.
"""

import array
import contextlib
import gzip
import hashlib
import ipaddress
import json
import os
import re
import socket
import time
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from django.http import QueryDict

from jobs import bundle
from jobs import manifest as manifests
from jobs.api import clients, downloads, middleware, uploads
from jobs.bundle import Part
from jobs.errors import InvalidUpload, Rejected
from jobs.manifest import Bounds
from jobs.memory import MemoryFile
from sandbox import (
    channel,
    members,
    runtimes,
    unpack,
)
from sandbox import (
    globs as product_globs,
)
from sandbox import (
    launcher as launchers,
)
from sandbox.errors import BundleRefused
from sandbox.model import Inspection, Limits, Member
from tests.fuzz import door, reference
from tests.fuzz.cell import DISK_BYTES, cell
from tests.sandbox.test_bundle import Zipped, zip_of

Target = Callable[[bytes], None]

slowness = 1.0  # how much slower code runs than it does for users: the coverage of a fuzzer costs
_CPU_SECONDS = 1.0  # for a parser over one input; an honest one takes milliseconds
_RUNTIMES = runtimes.load()
_PATHS = ["main.py", "src/run.sh", "a b/\u00fc.js", "data.csv"]
_BOUNDS = Bounds(300, 512, 300)


class Fault(AssertionError):
    """What a target was made to find."""


def check(true: object, message: str) -> None:
    if not true:
        raise Fault(message)


@contextlib.contextmanager
def bounded(seconds: float = _CPU_SECONDS) -> Iterator[None]:
    """The block takes no more than so much CPU time; the clock of the wall says nothing here."""
    began = time.process_time()
    yield
    used = time.process_time() - began
    check(used <= seconds * slowness, f"it took {used:.1f} s of CPU time")


_WORDS_OF_PROGRAMMERS = re.compile(
    r"Traceback|Error\b|Exception|<class|<built-in|object at 0x|None"
)


def is_sentence(text: str) -> bool:
    """For whoever sent the bytes: short, printable, without the words of a programmer."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", text)  # what is quoted came with the bytes
    return 5 < len(text) < 400 and text.isprintable() and not _WORDS_OF_PROGRAMMERS.search(bare)


def rejected(refusal: Rejected) -> None:
    check(is_sentence(refusal.sentence), f"no sentence: {refusal.sentence!r}")
    details = refusal.details
    check(details.isprintable() and len(details) < 1000, f"odd details: {details!r}")
    for fault in getattr(refusal, "faults", ()):
        check(fault.detail.isprintable() and len(fault.detail) < 1000, f"odd: {fault.detail!r}")
        check(fault.pointer.isprintable() and len(fault.pointer) < 300, f"odd: {fault.pointer!r}")
    # A response can always be made of it.
    check(f"{refusal.sentence}{details}".encode(), "no text")


# --- the manifest ----------------------------------------------------------------------------


def manifest(data: bytes) -> None:
    """The manifest, and behind a NUL the upload's job.json."""
    raw, nul, below = data.partition(b"\0")
    only_below = nul and raw == b"-"
    try:
        with bounded():
            asked = manifests.read(None if only_below else raw, below if nul else None)
            settled = asked.settle(_PATHS, _RUNTIMES, _BOUNDS)
    except Rejected as refusal:
        rejected(refusal)
        return
    _is_runnable(settled)
    if not nul:
        _says_what_json_says(raw, settled)


def _is_runnable(settled: manifests.Manifest) -> None:
    """Everything that execve, cgroups and globs will be given is what they take."""
    check(settled.entrypoint in _PATHS, "an entrypoint beside the upload")
    check(settled.interpreter in _RUNTIMES, "a runtime that is not there")
    check(1 <= settled.timeout <= _BOUNDS.timeout_seconds, f"timeout {settled.timeout}")
    check(16 <= settled.memory_mb <= _BOUNDS.memory_mb, f"memory {settled.memory_mb}")
    cpu = settled.cpu_seconds
    check(cpu == 0 or 0.01 <= cpu <= _BOUNDS.timeout_seconds, f"cpu {cpu}")
    check(0 <= settled.ttl <= _BOUNDS.ttl_seconds, f"ttl {settled.ttl}")
    for number in (settled.timeout, settled.memory_mb, settled.ttl):
        check(type(number) is int, f"{number!r} is no whole number")
    command = _RUNTIMES[settled.interpreter].command(
        settled.entrypoint, settled.args, settled.env, Limits()
    )
    words = [*command.steps[-1], *command.env, *command.env.values(), *settled.outputs]
    for word in [*words, settled.stdin]:
        check("\0" not in word and word.encode() is not None, f"no word: {word!r}")
    check(sum(map(len, words)) < 256 * 1024, "more words than execve takes")
    for name in settled.env:
        check(name and "=" not in name and not name.startswith("LD_"), f"env {name!r}")
    for pattern in settled.outputs:
        outside = pattern.startswith("/") or ".." in pattern.split("/")
        check(not outside and len(pattern.encode()) <= 1024, f"pattern {pattern!r}")
    with bounded():
        product_globs.matcher(settled.outputs)("a/b")


def _says_what_json_says(raw: bytes, settled: manifests.Manifest) -> None:
    said = json.loads(raw)
    for name in (
        "args",
        "env",
        "stdin",
        "stdin_live",
        "timeout",
        "memory_mb",
        "cpu_seconds",
        "ttl",
    ):
        if name in said:
            value = getattr(settled, name)
            value = list(value) if isinstance(value, tuple) else value
            check(value == said[name], f"{name} is {value!r}, and was {said[name]!r}")
    known = set(manifests._MUST_BE) | set(manifests._NOT_YET)
    check(set(said) <= known, f"unknown keys were taken: {set(said) - known}")


# --- what is uploaded ------------------------------------------------------------------------


def json_body(data: bytes) -> None:
    """A body of application/json: files and manifest in one."""
    form = _form(data, "application/json")
    if form is None:
        return
    said = json.loads(data.decode("utf-8", "surrogateescape"))
    check([part.name for part in form.files] == list(said["files"]), "other files than json has")
    for part, content in zip(form.files, said["files"].values(), strict=True):
        got = part.peek(part.size)
        if isinstance(content, str):
            check(got == content.encode(), f"{part.name!r} has other bytes")
        else:
            stripped = content["base64"].rstrip("=")
            check(len(got) == len(stripped) * 3 // 4, f"{part.name!r} has other bytes")
    if form.manifest is not None:
        # Taken as it stands, also where it is not UTF-8: whoever reads it refuses that.
        asked = json.loads(form.manifest.decode("utf-8", "surrogateescape"))
        check(asked == said["manifest"], "another manifest than json has")
    _receive(form.files)


def run_form(data: bytes) -> None:
    """A body that is code, behind a line that is the query."""
    query, _, code = data.partition(b"\n")
    with contextlib.suppress(Rejected), MemoryFile() as body:
        body.write(code)
        try:
            with bounded():
                form = uploads.read_run(body, QueryDict(query), _RUNTIMES)
                check(form.manifest is not None and len(form.files) == 1, "not one file")
                check(form.files[0].peek(len(code) + 1) == code, "other code")
                settled = manifests.read(form.manifest).settle(
                    [form.files[0].name], _RUNTIMES, _BOUNDS
                )
        except Rejected as refusal:
            rejected(refusal)
            raise
        check(settled.entrypoint == form.files[0].name, "another entrypoint than the code")
        _PATHS.append(settled.entrypoint)
        try:
            _is_runnable(settled)
        finally:
            _PATHS.pop()


def multipart(data: bytes) -> None:
    """multipart/form-data, behind a line that is the Content-Type."""
    content_type, _, body = data.partition(b"\n")
    kind = content_type.decode("latin-1")
    form = _form(body, kind)
    if kind.partition(";")[0].strip().lower() == "application/json":
        return
    for piece in (1, 7):  # however the reader cuts it, and however it came
        with _reading_in_pieces(kind, piece):
            other = _form(body, kind, piece)
        check(_said(other) == _said(form), f"in pieces of {piece} it says {_said(other)}")
    if form is None:
        return
    parts = reference.multipart(body, uploads._boundary(kind))
    check(parts is not None, "this is no multipart, and was taken")
    for part in form.files:
        # The same bytes are the content of a part whose head names a file.
        content = part.peek(part.size)
        heads = [head.lower() for head, other in parts or [] if other == content]
        found = any(b"filename" in head for head in heads)
        check(found, f"{part.name!r} holds {content!r}, which is no part's content")
    named = sum(b"filename" in head.lower() for head, _ in parts or [])
    check(len(form.files) <= named, "more files than parts")
    _receive(form.files)


def upload(data: bytes) -> None:
    """One file: its name, a NUL, and its bytes, which may be an archive or the old text form."""
    name, _, content = data.partition(b"\0")
    with MemoryFile() as body:
        body.write(content)
        _receive([Part(name.decode("utf-8", "surrogateescape"), body, 0, len(content))])


@contextlib.contextmanager
def _reading_in_pieces(kind: str, more: int) -> Iterator[None]:
    """The reader's own piece is just longer than what it looks for: all borders are tried."""
    chunk = uploads.CHUNK
    try:
        with contextlib.suppress(Rejected):
            uploads.CHUNK = len(uploads._boundary(kind)) + 4 + more  # type: ignore[misc]
        yield
    finally:
        uploads.CHUNK = chunk  # type: ignore[misc]


def _form(data: bytes, content_type: str, piece: int = 0) -> uploads.Form | None:
    """The Form, or None when it was refused; written to memory in pieces."""
    body = MemoryFile()
    for start in range(0, len(data), piece or len(data) or 1):
        body.write(data[start : start + (piece or len(data))])
    try:
        with bounded():
            form = uploads.read_form(body, content_type)
    except Rejected as refusal:
        rejected(refusal)
        return None
    for part in form.files:
        check(0 <= part.start and part.start + part.size <= body.size, "a part beside the body")
    return form


def _said(form: uploads.Form | None) -> object:
    """What a Form says, to compare."""
    if form is None:
        return None
    return form.manifest, [(part.name, part.start, part.size) for part in form.files]


def _receive(parts: list[Part]) -> None:
    """What submit makes of the files: one archive, or files laid end to end."""
    before = [(part.name, part.peek(part.size)) for part in parts]
    try:
        with bounded():
            received = _at_once(bundle.receive(parts, _inspect))
    except Rejected as refusal:
        rejected(refusal)
        return
    with received.memory:
        check(channel.sealed(received.bundle.fd), "the upload can still be changed")
        if received.bundle.form == "archive":
            held = os.pread(received.bundle.fd, len(before[0][1]) + 1, 0)
            check(len(before) == 1 and held == before[0][1], "another archive than was sent")
            return
        listed = [_text_form(name, content) for name, content in before]
        offset, paths = 0, set()
        for member, (name, content) in zip(received.bundle.members, listed, strict=True):
            held = os.pread(received.bundle.fd, member.size, offset)
            offset += member.size
            check(held == content, f"{member.path!r} holds other bytes than were sent")
            check(member.sha256 == hashlib.sha256(held).hexdigest(), "another hash")
            check(_plain(name) == member.path, f"{name!r} became {member.path!r}")
            check(members.clean_path(member.path) == member.path, "no path of an archive")
            paths.add(member.path)
        _are_places(sorted(paths), len(listed))


def _text_form(name: str, content: bytes) -> tuple[str, bytes]:
    """The file inside the old text form, or the file as it is."""
    if not content.startswith(b"----Tar\nPath:"):
        return name, content
    lines = content.split(b"\n")
    skip = 3 if lines[2] == b"" else 4
    return lines[1][5:].strip().decode(), b"\n".join(lines[skip:])


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _are_places(paths: list[str], count: int) -> None:
    """Each a place of its own below the work directory."""
    check(len(set(paths)) == count, "two files at one place")
    folders = {path.rpartition("/")[0] for path in paths}
    check(not folders & set(paths), "a file that is a folder")
    for path in paths:
        parts = path.split("/")
        raw = os.fsencode(path)
        check(not {"", ".", ".."} & set(parts), f"{path!r} leads elsewhere")
        check(len(raw) <= 1024 and b"\0" not in raw and len(parts) <= 64, f"{path!r}")


async def _inspect(archive: int) -> Inspection:
    said = unpack.inspect(archive, DISK_BYTES)
    rows = tuple(Member(*row) for row in said["members"])
    text = said["job_json"]
    return Inspection(rows, None if text is None else text.encode("latin-1"))


def _at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of what never waits."""
    try:
        work.send(None)
    except StopIteration as result:
        return result.value
    work.close()
    raise Fault("it waits")


# --- archives --------------------------------------------------------------------------------

# What only inspect says: it comes first, and a job whose upload it refused is never unpacked.
_ONLY_INSPECT = (
    "The archive holds no files.",
    "The archive unpacks to more than",
    "The names in the archive are too long",
    "job.json has ",
)


def tar(data: bytes) -> None:
    """A tar, packed or not; in gzip it says the same."""
    plain = archive(data)
    if data[:2] != b"\x1f\x8b" and data[:4] not in (b"PK\3\4", b"PK\5\6"):
        packed = archive(gzip.compress(data, 1, mtime=0))
        same = packed == plain or isinstance(packed, str) and isinstance(plain, str)
        check(same, f"plain: {plain}\npacked: {packed}")
        if isinstance(plain, dict):
            _agrees(plain, [(name, data) for name, data in reference.tar_files(data)])


def tar_mended(data: bytes) -> None:
    """The same with the checksum of every header made right, so that what it says is read."""
    tar(mended(data))


def mended(data: bytes) -> bytes:
    tar = bytearray(data)
    at = 0
    while at + 512 <= len(tar):
        header = tar[at : at + 512]
        if any(header):
            header[148:156] = b" " * 8
            tar[at + 148 : at + 156] = b"%06o\0 " % sum(header)
            with contextlib.suppress(ValueError):
                size = int(header[124:135].strip(b" \0") or b"0", 8)
                at += max(0, min(size, len(tar))) // 512 * 512 + (512 if size % 512 else 0)
        at += 512
    return bytes(tar)


def gzipped(data: bytes) -> None:
    """A gzip as it is, damaged or not: never more comes out of it than a job may store."""
    said = archive(b"\x1f\x8b" + data)
    if isinstance(said, dict):
        plain = gzip.decompress(b"\x1f\x8b" + data)
        check(len(plain) <= DISK_BYTES + (32 << 20), f"{len(plain)} bytes came out of it")
        _agrees(said, reference.tar_files(plain))


def zipped(data: bytes) -> None:
    """A zip: any bytes behind the first four."""
    _zip(b"PK\3\4" + data)


def zip_built(data: bytes) -> None:
    """A zip that is whole but for what the bytes say: claims that differ from what is there."""
    _zip(built(data))


def _zip(data: bytes) -> None:
    said = archive(data)
    if not isinstance(said, dict):
        return
    try:
        found = reference.zip_files(data)
    except (UnicodeDecodeError, NotImplementedError):
        return  # a name that only its flag calls UTF-8; a version or flag that changes nothing here
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        harmless = "Corrupt extra field" in str(error)  # one that nobody needs
        check(harmless, f"zipfile does not read what we take: {error}")
        return
    if found is not None:
        contents = [hashlib.sha256(content).hexdigest() for _, content in found]
        check(
            contents == [row[4] for row in said["members"]],
            f"zipfile has {[name for name, _ in found]}, and we {said['members']}",
        )


class Dice:
    """Choices made by bytes; none left: the first choice always."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def byte(self) -> int:
        byte, self._data = self._data[:1], self._data[1:]
        return byte[0] if byte else 0

    def one(self, *choices: Any) -> Any:
        return choices[self.byte() % len(choices)]

    def bytes(self) -> bytes:
        size = self.byte() % 64
        taken, self._data = self._data[:size], self._data[size:]
        return taken


def built(data: bytes) -> bytes:
    dice = Dice(data)
    members = []
    for number in range(dice.byte() % 6):
        content = dice.bytes() * dice.one(1, 1, 1, 200)
        lies: dict[str, Any] = {}
        for where in ("table", "local"):
            if dice.byte() % 4 == 3:
                field = dice.one("flags", "method", "crc", "packed", "size", "name", "disk")
                claim = dice.one(0xFFFFFFFF, int.from_bytes(dice.bytes()[:4], "little"))
                short = field in ("flags", "method", "disk")
                value = claim & 0xFFFF if short else claim
                name = dice.one(b"g%d" % number, dice.bytes())
                lies[where] = {field: name if field == "name" else value}
        more: dict[str, Any] = {}
        if dice.byte() % 8 == 7:
            more["offset"] = dice.byte()
        if dice.byte() % 8 == 7:
            more["packed"] = dice.bytes()
        if dice.byte() % 8 == 7:
            more["extra"] = dice.bytes()
        members.append(
            Zipped(
                dice.one(b"f%d" % number, b"d/%d" % number, b"a", b"a/b", b"../x", dice.bytes()),
                content,
                method=dice.one(8, 0, 8, 0, dice.byte()),
                flags=dice.one(0x800, 0, 8, dice.byte() << 8 | dice.byte()),
                mode=dice.one(0o100644, 0o100755, 0o40755, 0, 0o120777, dice.byte() << 8),
                maker=dice.one(3, 0, 19, dice.byte()),
                when=(dice.byte() << 8 | dice.byte(), dice.byte() << 8 | dice.byte()),
                **lies,
                **more,
            )
        )
    end: dict[str, Any] = {}
    if dice.byte() % 8 == 7:
        end[dice.one("count", "size", "offset", "disk")] = dice.byte()
    if dice.byte() % 8 == 7:
        end["comment"] = dice.bytes()
    prefix, behind = dice.one(b"", b"PK\3\4" + dice.bytes()), dice.one(b"", dice.bytes())
    zipped: bytes = zip_of(*members, prefix=prefix, behind=behind, **end)
    return zipped + dice.one(b"", bytes(dice.byte()), dice.bytes())


def archive(data: bytes) -> dict[str, Any] | str:
    """What inspect says of an archive, its listing or a sentence, after it was also unpacked."""
    fd = channel.memfd("archive", data)
    try:
        began = time.process_time()
        said: dict[str, Any] | str
        try:
            said = unpack.inspect(fd, DISK_BYTES)
        except BundleRefused as refusal:
            said = str(refusal)
        used = time.process_time() - began
        check(used <= 2 * _CPU_SECONDS * slowness, f"inspect took {used:.1f} s of CPU time")
        answer = cell().try_archive(fd)
    finally:
        os.close(fd)
    check(answer["fault"] is None, f"in the cell: {answer['fault']}")
    check(answer["inspected"] == said, f"first {said}, then {answer['inspected']}")
    check(answer["beside"] == [], f"written beside the work directory: {answer['beside']}")
    if isinstance(said, str):
        check(is_sentence(said) and said.endswith("."), f"no sentence: {said!r}")
        only_here = said.startswith(_ONLY_INSPECT)
        unpacked = answer["unpacked"]
        check(only_here or isinstance(unpacked, str), f"{said} But it was unpacked.")
        if isinstance(unpacked, str):
            check(is_sentence(unpacked), f"no sentence: {unpacked!r}")
        return said
    check(answer["unpacked"] is True, f"inspected, but: {answer['unpacked']}")
    rows = said["members"]
    check(sorted(rows) == answer["found"], f"said {rows}\nfound {answer['found']}")
    check(len(rows) <= members.MAX_MEMBERS, "too many members")
    check(sum(row[1] for row in rows) <= DISK_BYTES, "more than a job may store")
    check({row[3] for row in rows} <= {0o644, 0o755}, "a mode of the archive's own")
    _are_places([row[0] for row in rows], len(rows))
    return said


def _agrees(said: dict[str, Any], found: list[tuple[str, bytes]]) -> None:
    listed = [(row[0], row[4]) for row in said["members"]]
    other = [(_plain(name), hashlib.sha256(content).hexdigest()) for name, content in found]
    check(listed == other, f"another reader has {other}, and we {listed}")


# --- globs -----------------------------------------------------------------------------------


def globs(data: bytes) -> None:
    """A pattern, and behind NULs the paths that it is held against."""
    pattern, *paths = data.decode("utf-8", "surrogateescape").split("\0")
    if len(pattern) > 1024:
        return
    with bounded():
        takes = product_globs.matcher([pattern])
        for path in paths[:8]:
            takes(path[:4096])
    for path in paths[:8]:
        expected = reference.glob_takes(pattern, path[:300])
        check(takes(path[:300]) == expected, f"{pattern!r} on {path[:300]!r} is not {expected}")


# --- the launcher's protocol -----------------------------------------------------------------


class _Packet(NamedTuple):
    """How one packet is sent."""

    text: bytes
    descriptors: int


def packet(data: bytes) -> None:
    """One packet, with as many descriptors as its first byte says and fewer or more allowed."""
    first, text = data[:1] or b"\0", data[1:]
    sent, allowed = first[0] % 8, first[0] // 8 % 5
    before = _descriptors()
    ours, theirs = channel.pair()
    with ours, theirs:
        theirs.setblocking(False)
        _send(ours, _Packet(text[:70_000], sent))
        try:
            with bounded():
                message, fds = channel.receive(theirs, allowed)
        except channel.ProtocolError as error:
            check(str(error), "nothing is said")
        else:
            check(sent == len(fds) <= allowed, f"{len(fds)} descriptors")
            same = json.dumps(message) == json.dumps(json.loads(text))
            check(isinstance(message, dict) and same, f"{text!r} became {message}")
            for fd in fds:
                os.close(fd)
    check(_descriptors() == before, "a descriptor is left open")


def limits(data: bytes) -> None:
    """The limits of a launch."""
    try:
        asked = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        with bounded():
            clamped = launchers.clamp(asked)
    except channel.ProtocolError:
        return
    for name, value in clamped._asdict().items():
        least, most = getattr(launchers._LEAST, name), getattr(launchers._MOST, name)
        check(least <= value <= most, f"{name} is {value}")
        check(type(value) is type(getattr(Limits(), name)), f"{name} is {value!r}")
        wish = asked.get(name)
        within = wish is not None and least <= wish <= most
        check(not within or value == type(value)(wish), f"{name}: {wish} became {value}")


def launcher(data: bytes) -> None:
    """What web may say to a launcher that is full, packet after packet: an answer that it knows,
    or the end of the connection.
    """
    _dead()
    before = _descriptors()
    ours, theirs = channel.pair()
    with ours, theirs:
        deaf = _full_launcher(theirs)
        for text in data.split(b"\x1e")[:20]:
            ours.setblocking(False)
            _send(ours, _Packet(text[:70_000], 0))
            try:
                with bounded():
                    deaf._hear()
            except channel.ProtocolError:
                break
            with contextlib.suppress(BlockingIOError):
                while True:
                    answer, _ = channel.receive(ours)
                    check(answer["op"] in ("failed", "limited"), f"the answer is {answer}")
    check(_descriptors() == before, "a descriptor is left open")


class _Cgroup:
    """Of a child that has died and was not buried yet."""

    def kill(self) -> None:
        pass

    restart_cpu_clock = kill

    def limit(self, limits: Limits) -> None:
        check(limits == launchers.clamp(limits._asdict()), "limits beyond what is granted")


class _Space:
    """The workspace of a run that ended."""

    def close(self) -> None:
        pass


def _full_launcher(web: socket.socket) -> launchers.Launcher:
    """The real one, but that it has no room for any more sandboxes: it is all here but the kernel's
    part, of which tests/sandbox has a process."""
    full = object.__new__(launchers.Launcher)
    web.setblocking(False)
    full._web = web
    child = launchers.Child(1, "run", launchers.FIRST_UID, Limits())
    child.pidfd = _dead()
    child.cgroup = _Cgroup()  # type: ignore[assignment]
    full._children = {1: child}
    kept: dict[int, Any] = dict.fromkeys(range(2, launchers.MAX_SANDBOXES + 40), (0, _Space()))
    full._kept = kept
    full._uids = set()
    return full


_the_dead: list[int] = []


def _dead() -> int:
    """A pidfd of nobody any more."""
    if not _the_dead:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        _the_dead.append(os.pidfd_open(pid))
        os.waitpid(pid, 0)
    return _the_dead[0]


def _send(end: socket.socket, packet: _Packet) -> None:
    rights = array.array("i", [0] * packet.descriptors).tobytes()
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if packet.descriptors else []
    end.sendmsg([packet.text], control)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- headers ---------------------------------------------------------------------------------


_PROXIES = clients.networks(("127.0.0.0/8", "10.1.0.0/16", "::1/128", "2001:db8::/32"))


def addresses(data: bytes) -> None:
    """The peer's address, and X-Forwarded-For behind a line end."""
    peer, _, forwarded = data.decode("latin-1").partition("\n")
    with bounded():
        told = clients.address_of(peer, forwarded, _PROXIES)
        name = clients.client_name(told)
    chain = [*(hop.strip() for hop in forwarded.split(",") if hop.strip()), peer]
    check(told in chain, f"{told!r} is nobody's word")
    if not clients.is_trusted(peer, _PROXIES):
        check(told == peer, f"{peer!r} is no proxy of ours, and was believed: {told!r}")
    if told != peer:
        at = max(place for place, hop in enumerate(chain) if hop == told)
        check(_is_address(told), f"{told!r} is no address")
        unknown = [hop for hop in chain[at + 1 :] if not clients.is_trusted(hop, _PROXIES)]
        check(not unknown, f"{told!r} was told by {unknown}")
    if _is_address(told):
        check(name.isascii() and len(name) < 50, f"a client is called {name!r}")
        network = ipaddress.ip_network(name)
        check(str(network).removesuffix("/32") == name, f"{name!r} has two spellings")
        check(network.prefixlen == (64 if network.version == 6 else 32), name)


def _is_address(text: str) -> bool:
    """Also with a port or a zone."""
    if found := re.fullmatch(r"\[([\w:.%]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+", text):
        text = found[1] or found[2]
    try:
        return bool(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return False


def guard(data: bytes) -> None:
    """Method, Host, Origin and Sec-Fetch-Site, a line each; an empty one is not there."""
    method, host, origin, site, *_ = [*data.decode("latin-1").split("\n"), "", "", ""]
    ours = ("localhost", ".example.org", middleware.ANY_ADDRESS)
    with bounded():
        refusal = middleware.refusal(method, host, origin or None, site or None, ours)
    if refusal:
        rejected(refusal)
        return
    name = re.sub(r":\d*$", "", host).lower().rstrip(".")
    known = name in ("localhost", "example.org") or name.endswith(".example.org")
    check(known or _is_address(name), f"{host!r} is taken for ours")
    if method not in ("GET", "HEAD", "OPTIONS", "TRACE"):
        same = not origin or origin.lower().split("://", 1)[-1].split("/")[0] == host.lower()
        check(same, f"a page of {origin!r} may post to {host!r}")
        check(site in ("", "same-origin", "none"), f"a page of another site ({site!r}) may post")


def names(data: bytes) -> None:
    """The name of an output in Content-Disposition: one header, and the name comes back."""
    with bounded():
        header = downloads.disposition(data)
    check(header.isascii() and header.isprintable(), f"{header!r} is more than a header")
    kind, parameters = uploads._parameters(header)
    check(kind == "attachment" and set(parameters) == {"filename", "filename*"}, header)
    name = data.rsplit(b"/", 1)[-1]
    back = unquote_to_bytes(parameters["filename*"].removeprefix("UTF-8''"))
    check(back == name, f"{name!r} comes back as {back!r}")


def dispositions(data: bytes) -> None:
    """The head of one part of an upload."""
    try:
        with bounded():
            field, name = uploads._describe(data)
    except InvalidUpload as refusal:
        rejected(refusal)
        return
    said = data.decode()
    check("form-data" in said.lower() and "name" in said.lower(), f"{data!r} names a part")
    for word in (field, name or ""):
        check("\n" not in word or "\n" in said.replace("\r\n", "") or "%" in said, f"{word!r}")


def request(data: bytes) -> None:
    """A whole request, head and body, to the real views: an answer in form, and never our fault."""
    with bounded(3 * _CPU_SECONDS):
        answer = door.opened().ask(data)
    if answer is None:
        return
    check(200 <= answer.status < 500, f"{answer.status}: {answer.body!r}")
    headers = {name.lower(): value for name, value in answer.headers}
    check(len(headers) == len(answer.headers), f"a header twice: {answer.headers}")
    for name, value in headers.items():
        check(not re.search(rb"[\r\n\0]", name + value), f"{name!r}: {value!r}")
    for wanted in middleware.HEADERS:
        check(wanted.lower().encode() in headers, f"{wanted} is not there")
    if answer.status >= 400 and not data.startswith(b"HEAD "):
        said = json.loads(answer.body)
        check(said["status"] == answer.status, f"{said}")
        check(is_sentence(said["error"]), f"no sentence: {said['error']!r}")


# --- what an operator writes -----------------------------------------------------------------


def runtime(data: bytes) -> None:
    """A runtime's TOML: read, or refused with its name; what was read can make a command."""
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return
    try:
        with bounded():
            read = runtimes._parse("some", table)
    except ValueError as error:
        check(str(error).startswith("runtimes/some.toml: "), f"whose fault? {error}")
        return
    read.command("a/b.x", ("arg",), {"A": "b"}, Limits())
    read.version_command(Limits())


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        manifest, json_body, run_form, multipart, upload,
        tar, tar_mended, gzipped, zipped, zip_built,
        globs, packet, limits, launcher,
        addresses, guard, names, dispositions, request, runtime,
    )
}  # fmt: skip

__all__ = ["TARGETS", "Dice", "Fault"]
