"""How much memory bytes take while they move: counted by the kernel, in pages that are there."""

import asyncio
import hashlib
import os
import random
import threading
import unittest
from collections.abc import Callable
from unittest import mock

from jobs import bundle
from jobs.bundle import Part, Upload
from jobs.memory import CHUNK, MemoryFile, in_thread
from sandbox import channel, linux
from sandbox.model import Inspection

SIZE = 16 * CHUNK + 12_345
START = 4_321  # as in a form: no part begins where a page does
NOISE = random.Random(1).randbytes(SIZE)


def body(*contents: bytes) -> tuple[MemoryFile, list[Part]]:
    """A form's body, whose parts stand between other bytes."""
    memory, parts = MemoryFile(), []
    memory.write(b"h" * START)
    for number, content in enumerate(contents):
        parts.append(Part(f"f{number}", memory, memory.size, len(content)))
        memory.write(content)
        memory.write(b"b" * 77)
    return memory, parts


def allocated(memory: MemoryFile) -> int:
    return os.fstat(memory.fd).st_blocks * 512


class Moving(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.peak = 0
        self.looks = 0
        self.made: list[MemoryFile] = []

    def watch(self, source: MemoryFile) -> None:
        """Look at the memory of `source` and of what is made from now on, at its largest: before
        each piece is given up.
        """
        made, punch, init = self.made, linux.punch, MemoryFile.__init__

        def remembering(memory: MemoryFile, fd: int | None = None) -> None:
            init(memory, fd)
            if fd is None:
                made.append(memory)

        def looking(fd: int, offset: int, size: int) -> None:
            self.looks += 1
            self.peak = max(self.peak, sum(map(allocated, (source, *made))))
            punch(fd, offset, size)

        self.enter(mock.patch.object(MemoryFile, "__init__", remembering))
        self.enter(mock.patch.object(linux, "punch", looking))

    def enter(self, patch: "mock._patch[Callable[..., None]]") -> None:
        patch.start()
        self.addCleanup(patch.stop)

    async def inspect(self, fd: int) -> Inspection:
        self.inspected = os.dup(fd)
        self.addCleanup(os.close, self.inspected)
        return Inspection((), None)

    async def receive(self, parts: list[Part]) -> Upload:
        return await bundle.receive(parts, self.inspect)

    async def test_an_archive_is_never_there_twice(self) -> None:
        archive = b"\x1f\x8b" + NOISE
        source, (part,) = body(archive)
        self.watch(source)
        upload = await self.receive([part._replace(name="job.tar.gz")])
        self.assertGreaterEqual(self.looks, 16)
        self.assertLess(self.peak, SIZE + 2 * CHUNK)
        self.assertEqual(upload.memory.read(0, SIZE + 100), archive)
        self.assertTrue(channel.sealed(upload.memory.fd))

    async def test_loose_files_are_never_there_twice(self) -> None:
        contents = NOISE[: 5 * CHUNK + 1], NOISE[5 * CHUNK + 1 : 6 * CHUNK], b"", NOISE[6 * CHUNK :]
        source, parts = body(*contents)
        self.watch(source)
        upload = await self.receive(parts)
        self.assertGreaterEqual(self.looks, 16)
        self.assertLess(self.peak, SIZE + 2 * CHUNK)
        self.assertEqual(upload.memory.read(0, SIZE + 100), NOISE)
        self.assertEqual(
            [(member.size, member.sha256) for member in upload.bundle.members],
            [(len(content), hashlib.sha256(content).hexdigest()) for content in contents],
        )

    async def test_of_the_body_only_pages_at_the_edges_stay(self) -> None:
        for name, content in (("job.tar.gz", b"\x1f\x8b" + NOISE), ("main.py", NOISE)):
            with self.subTest(name):
                source, (part,) = body(content)
                await self.receive([part._replace(name=name)])
                self.assertLessEqual(allocated(source), 4 * os.sysconf("SC_PAGE_SIZE"))

    async def test_what_stands_beside_a_part_stays_as_it_was(self) -> None:
        source, parts = body(NOISE[: CHUNK + 5], b"second", NOISE[:9000])
        upload = await self.receive([parts[0], parts[2]])
        self.assertEqual(upload.memory.size, CHUNK + 5 + 9000)
        self.assertEqual(source.read(0, START), b"h" * START)
        between = source.read(START + CHUNK + 5, 77 + 6 + 77)
        self.assertEqual(between, b"b" * 77 + b"second" + b"b" * 77)
        self.assertEqual(source.read(source.size - 77, 100), b"b" * 77)

    async def test_job_json_is_read_before_it_moves(self) -> None:
        _, (part,) = body(b'{"timeout": 3}')
        upload = await self.receive([part._replace(name="job.json")])
        self.assertEqual(upload.job_json, b'{"timeout": 3}')
        self.assertEqual(upload.memory.read(0, 100), b'{"timeout": 3}')

    async def test_a_body_that_is_closed_meanwhile_costs_no_other_memory_a_byte(self) -> None:
        self.hang_up_during(lambda target, source: target.take(source, START, SIZE))
        self.hang_up_during(
            lambda target, source: [target.write(piece) for piece in source.spend(START, SIZE)]
        )

    def hang_up_during(self, move: Callable[[MemoryFile, MemoryFile], object]) -> None:
        """The number of the body's descriptor is another's before the first piece is given up."""
        (source, _), target = body(NOISE), MemoryFile()
        number, punch = source.fd, linux.punch
        others: list[MemoryFile] = []

        def hang_up(fd: int, offset: int, size: int) -> None:
            if not others:
                source.close()
                others.append(MemoryFile())
                others[0].write(b"other" * CHUNK)
            punch(fd, offset, size)

        with mock.patch.object(linux, "punch", hang_up):
            move(target, source)
        self.assertEqual(others[0].fd, number)
        self.assertEqual(others[0].read(0, 5 * CHUNK), b"other" * CHUNK)
        self.assertEqual(target.read(0, SIZE + 1), NOISE)


class Ranges(unittest.TestCase):
    def test_a_source_that_is_shorter_moves_what_it_has(self) -> None:
        for size in (0, 5, CHUNK, CHUNK + 5):
            source, target = MemoryFile(), MemoryFile()
            source.write(b"x" * size)
            self.assertEqual(b"".join(source.chunks(0, 3 * CHUNK)), b"x" * size)
            target.take(source, 0, 3 * CHUNK)
            self.assertEqual(target.size, size)
            self.assertEqual(b"".join(source.spend(0, 3 * CHUNK)), bytes(size))  # holes by now

    def test_reading_in_chunks_gives_nothing_up(self) -> None:
        source, _ = body(NOISE)
        before = allocated(source)
        self.assertEqual(b"".join(source.chunks(START, SIZE)), NOISE)
        self.assertEqual(allocated(source), before)

    def test_sealed_memory_cannot_be_moved_away(self) -> None:
        source = MemoryFile()
        source.write(b"final")
        source.seal()
        with self.assertRaises(PermissionError):
            MemoryFile().take(source, 0, 5)
        with self.assertRaises(PermissionError):
            list(source.spend(0, 5))
        self.assertEqual(source.read(0, 5), b"final")


class Threads(unittest.IsolatedAsyncioTestCase):
    async def test_a_thread_is_waited_for_however_often_one_is_cancelled(self) -> None:
        started, released, done = threading.Event(), threading.Event(), []

        def work() -> None:
            started.set()
            released.wait(5)
            done.append(True)

        task = asyncio.create_task(in_thread(SIZE, work))
        await asyncio.to_thread(started.wait, 5)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.assertFalse(task.done())
        released.set()
        with self.assertRaises(asyncio.CancelledError):
            await task
        self.assertEqual(done, [True])
