"""All outputs as one archive: what is in it, what never is, and what making it costs."""

import asyncio
import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import unittest
import zipfile
import zlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any
from unittest.mock import patch

from jobs.archives import FORMATS, LEVEL, PIECE, STEP, stream, zip_name
from jobs.memory import MemoryFile
from sandbox.model import Output

MTIME = 1_700_000_000  # 2023-11-14 22:13:20 UTC

NAMES = (
    "a.txt",
    "folder/b.txt",
    "-rf",
    "line\nbreak 'quoted' \"twice\"",
    "größe/文.txt",
    "n" * 200,
    "/".join(["deep" * 20] * 12),
    "ü" * 120,
    "100%.txt",
)


class Watched(MemoryFile):
    """Remembers who read how much of it; `on_read` happens before every read."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()
        self.bytes_read = 0
        self.on_read: Callable[[], object] = lambda: None

    def read(self, offset: int, size: int) -> bytes:
        self.on_read()
        data = super().read(offset, size)
        self.threads.add(threading.get_ident())
        self.bytes_read += len(data)
        return data


_compressobj = zlib.compressobj


class Packer:
    """A compressobj that remembers who used it."""

    threads: set[int] = set()

    def __init__(self, *args: Any, **named: Any) -> None:
        self._real = _compressobj(*args, **named)

    def compress(self, data: bytes) -> bytes:
        self.threads.add(threading.get_ident())
        return self._real.compress(data)

    def flush(self) -> bytes:
        self.threads.add(threading.get_ident())
        return self._real.flush()


def pack(files: dict[str, bytes], mode: int = 0o644) -> tuple[Watched, list[Output]]:
    """`files` as the collector leaves them."""
    memory, outputs, offset = Watched(), [], 0
    for path, content in files.items():
        memory.write(content)
        digest = hashlib.sha256(content).hexdigest()
        outputs.append(Output(path, offset, len(content), digest, mode))
        offset += len(content)
    memory.seal()
    return memory, outputs


async def whole(form: str, memory: MemoryFile, outputs: Sequence[Output], at: int = MTIME) -> bytes:
    return b"".join([piece async for piece in stream(form, memory, outputs, at)])


def archive(form: str, files: dict[str, bytes], mode: int = 0o644, at: int = MTIME) -> bytes:
    return asyncio.run(whole(form, *pack(files, mode), at))


def untar(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar]
        return {name: file.read() for name, file in files if file}


def unzip(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


OPEN = {"tar.gz": untar, "zip": unzip}


def system(*command: str, data: bytes) -> bytes:
    """What a program that knows nothing of us says about `data`; fails when it complains."""
    with MemoryFile() as memory:
        memory.write(data)
        path = f"/proc/{os.getpid()}/fd/{memory.fd}"
        done = subprocess.run(
            [word.replace("ARCHIVE", path) for word in command],
            capture_output=True,
            env=os.environ | {"LC_ALL": "C.UTF-8", "TZ": "UTC"},
        )
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout


def tar_list(data: bytes) -> bytes:
    return system("tar", "tzf", "ARCHIVE", "--force-local", "--quoting-style=literal", data=data)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def incompressible(megabytes: int) -> tuple[Watched, list[Output]]:
    memory, digest = Watched(), hashlib.sha256()
    for _ in range(megabytes):
        part = os.urandom(1 << 20)
        digest.update(part)
        memory.write(part)
    memory.seal()
    return memory, [Output("random.bin", 0, megabytes << 20, digest.hexdigest(), 0o644)]


class Contents(unittest.TestCase):
    def test_every_name_and_every_byte_comes_back(self) -> None:
        files = {name: os.urandom(n * 300) + bytes(n * 700) for n, name in enumerate(NAMES)}
        for form in FORMATS:
            with self.subTest(form):
                self.assertEqual(OPEN[form](archive(form, files)), files)

    def test_sizes_around_blocks_and_steps_come_back(self) -> None:
        sizes = (0, 1, 511, 512, 513, STEP - 1, STEP, STEP + 1, 3 * STEP)
        files = {f"{size}": os.urandom(size) for size in sizes}
        for form in FORMATS:
            with self.subTest(form):
                self.assertEqual(OPEN[form](archive(form, files)), files)

    def test_no_outputs_are_a_valid_empty_archive(self) -> None:
        for form in FORMATS:
            with self.subTest(form):
                self.assertEqual(OPEN[form](archive(form, {})), {})
        self.assertEqual(tar_list(archive("tar.gz", {})), b"")

    def test_a_thousand_small_files_come_back(self) -> None:
        files = {f"{n % 10}/{n}.txt": b"%d" % n for n in range(1000)}
        for form in FORMATS:
            with self.subTest(form):
                self.assertEqual(OPEN[form](archive(form, files)), files)

    def test_tar_reads_what_we_write(self) -> None:
        data = archive("tar.gz", dict.fromkeys(NAMES, b"content"))
        self.assertEqual(tar_list(data), "".join(f"{name}\n" for name in sorted(NAMES)).encode())
        self.assertEqual(system("tar", "xzOf", "ARCHIVE", data=data), b"content" * len(NAMES))

    def test_zip_test_finds_no_fault(self) -> None:
        for files in ({}, dict.fromkeys(NAMES, b"content")):
            data = archive("zip", files)
            said = system(sys.executable, "-m", "zipfile", "-t", "ARCHIVE", data=data)
            self.assertEqual(said, b"Done testing\n")

    def test_equal_outputs_are_equal_bytes_in_whatever_order_they_come(self) -> None:
        files = {name: name.encode() * 100 for name in NAMES}
        for form in FORMATS:
            with self.subTest(form):
                memory, outputs = pack(files)
                turned = asyncio.run(whole(form, memory, outputs[::-1]))
                self.assertEqual(turned, archive(form, files))
                self.assertEqual(list(OPEN[form](turned)), sorted(NAMES))

    def test_no_piece_is_large_or_empty(self) -> None:
        async def sizes(form: str) -> list[int]:
            made = stream(form, *incompressible(3), MTIME)
            return [len(piece) async for piece in made]

        for form in FORMATS:
            with self.subTest(form):
                found = asyncio.run(sizes(form))
                self.assertEqual((max(found), min(found) > 0), (PIECE, True))

    def test_both_compress_at_the_level_that_was_chosen(self) -> None:
        text = b"".join(b"%d,%d\n" % (n, n * n) for n in range(20_000))
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
        expected = len(packer.compress(text) + packer.flush())
        for form in FORMATS:
            with self.subTest(form):
                self.assertAlmostEqual(len(archive(form, {"t": text})), expected, delta=400)

    def test_a_file_too_large_for_plain_zip_becomes_zip64(self) -> None:
        files = {"large": os.urandom(3000), "small": b"small"}
        with patch("zipfile.ZIP64_LIMIT", 1000):
            data = archive("zip", files)
        self.assertEqual(data[28:30], b"\x14\0")  # the first header has room for sizes of 64 bits
        self.assertIn(b"PK\6\6", data)  # and the end has its record
        self.assertEqual(unzip(data), files)


class Headers(unittest.TestCase):
    def test_tar_entries_belong_to_nobody_and_have_the_given_time(self) -> None:
        with tarfile.open(fileobj=io.BytesIO(archive("tar.gz", {"é" * 99: b"1"}))) as tar:
            [info] = tar.getmembers()
        self.assertEqual((info.uid, info.gid, info.uname, info.gname), (0, 0, "", ""))
        self.assertEqual((info.mtime, info.mode, info.isreg()), (MTIME, 0o644, True))

    def test_the_gzip_header_says_neither_name_nor_time(self) -> None:
        self.assertEqual(archive("tar.gz", {"a": b"1"})[:8], b"\x1f\x8b\x08\0\0\0\0\0")

    def test_zip_entries_have_the_given_time_as_far_as_zip_knows_it(self) -> None:
        for at, year in ((MTIME, 2023), (0, 1980), (-1, 1980), (1 << 40, 2107)):
            with zipfile.ZipFile(io.BytesIO(archive("zip", {"a": b"1"}, at=at))) as made:
                self.assertEqual(made.infolist()[0].date_time[0], year)

    def test_tar_entries_have_any_time(self) -> None:
        for at in (0, -1, 1 << 40):
            with tarfile.open(fileobj=io.BytesIO(archive("tar.gz", {"a": b"1"}, at=at))) as tar:
                self.assertEqual(tar.getmembers()[0].mtime, at)

    def test_of_a_mode_only_executable_or_not_remains(self) -> None:
        for mode, kept in (
            (0o644, 0o644),
            (0o755, 0o755),
            (0o611, 0o644),
            (0o6777, 0o755),
            (0o1666, 0o644),
            (stat.S_IFLNK | 0o777, 0o755),
            (stat.S_IFBLK | 0o4660, 0o644),
            (stat.S_IFDIR | 0o700, 0o755),
        ):
            with self.subTest(oct(mode)):
                with tarfile.open(fileobj=io.BytesIO(archive("tar.gz", {"a": b"1"}, mode))) as tar:
                    [info] = tar.getmembers()
                self.assertEqual((info.type, info.mode), (tarfile.REGTYPE, kept))
                with zipfile.ZipFile(io.BytesIO(archive("zip", {"a": b"1"}, mode))) as made:
                    [entry] = made.infolist()
                self.assertEqual(entry.external_attr, (stat.S_IFREG | kept) << 16)


class Names(unittest.TestCase):
    raw = (b"caf\xe9.txt", b"\xff" * 150 + b"/\xfe" * 10, "é".encode() + b"\xe9", b"a\\\xe9\n")

    def test_a_name_that_is_not_utf8_is_its_raw_bytes_in_tar(self) -> None:
        data = archive("tar.gz", {os.fsdecode(name): name for name in self.raw})
        self.assertEqual(tar_list(data), b"".join(name + b"\n" for name in sorted(self.raw)))
        self.assertEqual(
            {os.fsencode(name): content for name, content in untar(data).items()},
            {name: name for name in self.raw},
        )

    def test_a_zip_name_is_text_that_leads_nowhere_else_on_windows(self) -> None:
        for path, name in (
            ("größe/文\n'\".txt", "größe/文\n'\".txt"),
            (os.fsdecode(b"caf\xe9.txt"), "caf%E9.txt"),
            (os.fsdecode(b"\xff/\xfe"), "%FF/%FE"),
            ("..\\..\\evil.exe", "..%5C..%5Cevil.exe"),
            ("\\\\host\\share", "%5C%5Chost%5Cshare"),
            ("C:/evil.exe", "C%3A/evil.exe"),
            ("12:30.txt", "12:30.txt"),
            ("100%.txt", "100%.txt"),
            ("50%2F50", "50%252F50"),
        ):
            with self.subTest(path):
                self.assertEqual(zip_name(path), name)
                self.assertEqual(unzip(archive("zip", {path: b"1"})), {name: b"1"})

    def test_different_paths_have_different_zip_names(self) -> None:
        atoms = ("%", "F", "f", "5", "2", "C", ":", "\\", "\udcff")
        paths = {a + b + c + d for a in atoms for b in atoms for c in atoms for d in atoms}
        paths |= {zip_name(path) for path in paths}
        self.assertEqual(len({zip_name(path) for path in paths}), len(paths))

    def test_text_in_zip_is_marked_as_utf8(self) -> None:
        with zipfile.ZipFile(io.BytesIO(archive("zip", {"größe": b""}))) as made:
            self.assertEqual(made.infolist()[0].flag_bits & 0x800, 0x800)


class Refused(unittest.TestCase):
    def refuses(self, memory: MemoryFile, outputs: Sequence[Output]) -> None:
        """Before a single piece, and the memory is given back."""
        for form in FORMATS:
            again = memory.again()
            with self.assertRaises(ValueError):
                stream(form, again, outputs, MTIME)
            self.assertTrue(closed(again))

    def test_paths_that_lead_out_or_are_no_files(self) -> None:
        for path in (
            *("", "/", "/etc/passwd", "//etc/passwd", ".", "..", "../a", "a/..", "a/../../b"),
            *("a/", "a//b", "./a", "a/./b", "a\0b", "\0"),
            *("\ud800", "a\udc2fb", "\udc2e\udc2e/a"),  # these stand for no byte
        ):
            with self.subTest(repr(path)):
                self.refuses(*pack({"fine": b"1", path: b"2"}))

    def test_the_same_path_twice(self) -> None:
        memory, [output] = pack({"a": b"1"})
        self.refuses(memory, [output, output])

    def test_bytes_outside_the_memory(self) -> None:
        memory, [output] = pack({"a": b"12345"})
        for offset, size in ((0, 6), (5, 1), (-1, 2), (2, -1), (10**18, 0)):
            with self.subTest((offset, size)):
                self.refuses(memory, [output._replace(offset=offset, size=size)])

    def test_another_form(self) -> None:
        memory, outputs = pack({"a": b"1"})
        with self.assertRaises(KeyError):
            stream("rar", memory, outputs, MTIME)
        self.assertTrue(closed(memory))


class Slow:
    """Holds every read of `memory` until `go_on`; says then whether the memory is still there."""

    def __init__(self, memory: Watched) -> None:
        self.loop = asyncio.get_running_loop()
        self.reading, self.go_on = asyncio.Event(), threading.Event()
        self.was_open: bool | None = None
        self._memory = memory
        memory.on_read = self._hold

    def _hold(self) -> None:
        self.loop.call_soon_threadsafe(self.reading.set)
        self.go_on.wait(5)
        self.was_open = not closed(self._memory)


def closed(memory: MemoryFile) -> bool:
    try:
        return memory.fd < 0
    except ValueError:
        return True


class Making(unittest.IsolatedAsyncioTestCase):
    async def test_the_memory_is_given_back_at_the_end(self) -> None:
        for form in FORMATS:
            memory, outputs = pack({"a": bytes(STEP * 3)})
            await whole(form, memory, outputs)
            self.assertTrue(closed(memory))

    async def test_the_memory_is_given_back_when_the_reader_stops_early(self) -> None:
        for form in FORMATS:
            before = open_fds()
            for pieces in range(1, 4):
                made = stream(form, *incompressible(3), MTIME)
                for _ in range(pieces):
                    await anext(made)
                self.assertEqual(open_fds(), before + 1)
                await made.aclose()
                self.assertEqual(open_fds(), before)

    async def test_a_stream_that_was_never_read_holds_nothing_when_it_is_dropped(self) -> None:
        for form in FORMATS:
            before = open_fds()
            made: AsyncGenerator[bytes, None] | None = stream(form, *pack({"a": b"1"}), MTIME)
            self.assertEqual(open_fds(), before + 1)
            made = None
            self.assertEqual(open_fds(), before)
            await stream(form, *pack({"a": b"1"}), MTIME).aclose()
            self.assertEqual((made, open_fds()), (None, before))

    async def test_a_cancelled_reader_waits_for_the_step_that_reads(self) -> None:
        for form in FORMATS:
            memory, outputs = pack({"a": bytes(STEP)})
            slow = Slow(memory)
            reader = asyncio.ensure_future(whole(form, memory, outputs))
            await asyncio.wait_for(slow.reading.wait(), 5)
            reader.cancel()
            slow.loop.call_soon(slow.go_on.set)  # when the reader has noticed
            with self.assertRaises(asyncio.CancelledError):
                await reader
            self.assertEqual((slow.was_open, closed(memory)), (True, True))

    async def test_the_job_may_give_its_own_descriptor_back_meanwhile(self) -> None:
        for form in FORMATS:
            content = os.urandom(3 * STEP)
            memory, outputs = pack({"a": content})
            made = stream(form, memory.again(), outputs, MTIME)
            data = await anext(made)
            memory.close()
            data += b"".join([piece async for piece in made])
            self.assertEqual(OPEN[form](data), {"a": content})

    async def test_reading_and_compressing_happen_outside_of_the_loop(self) -> None:
        for form in FORMATS:
            memory, outputs = pack({"a": bytes(3 * STEP), "b": b"1"})
            with patch("zlib.compressobj", Packer), patch.object(Packer, "threads", set()) as used:
                await whole(form, memory, outputs)
                made = stream(form, *pack({"a": bytes(3 * STEP)}), MTIME)
                await anext(made)
                await made.aclose()  # zip compresses what is left
            self.assertTrue(used and memory.threads)
            self.assertNotIn(threading.get_ident(), used | memory.threads)

    async def test_nothing_is_prepared_for_a_client_that_does_not_read(self) -> None:
        for form in FORMATS:
            memory, outputs = incompressible(8)
            made = stream(form, memory, outputs, MTIME)
            self.assertEqual(memory.bytes_read, 0)
            got = 0
            while memory.bytes_read < 8 * STEP:
                got += len(await anext(made))
                self.assertLessEqual(memory.bytes_read, got + 2 * STEP)
                self.assertEqual(asyncio.all_tasks(), {asyncio.current_task()})
            await made.aclose()

    async def test_a_file_of_60_mb_never_lies_in_memory(self) -> None:
        for form in FORMATS:
            memory, outputs = incompressible(60)
            with MemoryFile() as kept:
                tracemalloc.start()
                try:
                    async for piece in stream(form, memory, outputs, MTIME):
                        kept.write(piece)
                    peak = tracemalloc.get_traced_memory()[1]
                finally:
                    tracemalloc.stop()
                self.assertLess(peak, 12 * STEP)  # about 5 of them are seen
                self.assertGreater(kept.size, 60 * STEP)
                self.assertEqual(sha256_of_first(form, kept), outputs[0].sha256)


def sha256_of_first(form: str, memory: MemoryFile) -> str:
    with open(os.dup(memory.fd), "rb") as source:
        source.seek(0)
        if form == "zip":
            with zipfile.ZipFile(source) as made, made.open(made.infolist()[0]) as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        with tarfile.open(fileobj=source) as tar:
            file = tar.extractfile(tar.getmembers()[0])
            assert file
            return hashlib.file_digest(file, "sha256").hexdigest()
