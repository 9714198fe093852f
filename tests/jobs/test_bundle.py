"""What is an archive, what is a file, and which names a file may have."""

import gzip
import hashlib
import io
import os
import tarfile
import unittest
import zipfile

from jobs import bundle
from jobs.bundle import Part, Upload
from jobs.errors import InvalidUpload, Rejected
from jobs.memory import MemoryFile
from sandbox import members
from sandbox.errors import BundleRefused
from sandbox.model import Inspection, Member

MEMBERS = (Member("main.py", 1, 0, 0o644, "00"),)


def part(name: str, content: bytes = b"x") -> Part:
    """A file in the middle of a body, as it comes."""
    body = MemoryFile()
    body.write(b"before" + content + b"after")
    return Part(name, body, 6, len(content))


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("main.py"), io.BytesIO())
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return buffer.getvalue()


class Receiving(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.inspected: list[bytes] = []
        self.refusal: Exception | None = None

    async def inspect(self, fd: int) -> Inspection:
        self.inspected.append(os.pread(fd, 1 << 20, 0))
        if self.refusal:
            raise self.refusal
        return Inspection(MEMBERS, b"{}")

    async def receive(self, *parts: Part) -> Upload:
        return await bundle.receive(parts, self.inspect)

    async def refuse(self, *parts: Part) -> Rejected:
        with self.assertRaises(Rejected) as caught:
            await self.receive(*parts)
        self.assertEqual(self.inspected, [])
        return caught.exception

    async def test_an_archive_is_only_looked_into_by_the_sandbox(self) -> None:
        for name, content in (
            ("job.tar.gz", gzip.compress(b"anything")),
            ("JOB.TGZ", gzip.compress(b"anything")),
            ("job.tar", tar()),
            ("job.tar", b"no tar at all"),
            ("job.zip", zipped("main.py")),
            ("src/JOB.Zip", b"PK\3\4 and no zip at all"),
            ("empty.zip", zipped()),
            ("blob", gzip.compress(b"x")),
            ("blob", tar()),
            ("blob", zipped("main.py")),
            ("blob", zipped()),
        ):
            with self.subTest(name):
                upload = await self.receive(part(name, content))
                self.assertEqual(self.inspected.pop(), content)
                self.assertEqual(upload.bundle.form, "archive")
                self.assertEqual(upload.bundle.members, MEMBERS)
                self.assertEqual(upload.job_json, b"{}")
                self.assertEqual(upload.memory.read(0, 1 << 20), content)

    async def test_a_refused_archive_is_the_callers_fault(self) -> None:
        self.refusal = BundleRefused("the archive holds a link")
        with self.assertRaisesRegex(InvalidUpload, "the archive holds a link"):
            await self.receive(part("job.tar.gz", gzip.compress(b"x")))

    async def test_loose_files_lie_end_to_end(self) -> None:
        upload = await self.receive(
            part("main.py", b"print(1)"), part("empty", b""), part("a/b.txt", b"text")
        )
        self.assertEqual(upload.bundle.form, "loose")
        self.assertEqual(upload.memory.read(0, 100), b"print(1)text")
        self.assertEqual(
            [(member.path, member.size, member.sha256) for member in upload.bundle.members],
            [
                ("main.py", 8, hashlib.sha256(b"print(1)").hexdigest()),
                ("empty", 0, hashlib.sha256(b"").hexdigest()),
                ("a/b.txt", 4, hashlib.sha256(b"text").hexdigest()),
            ],
        )
        self.assertIsNone(upload.job_json)

    async def test_the_bytes_cannot_change_any_more(self) -> None:
        upload = await self.receive(part("main.py"))
        with self.assertRaises(PermissionError):
            upload.memory.write(b"more")

    async def test_job_json_is_found_among_loose_files(self) -> None:
        upload = await self.receive(part("main.py"), part("job.json", b'{"timeout": 3}'))
        self.assertEqual(upload.job_json, b'{"timeout": 3}')

    async def test_a_compressed_file_beside_others_is_data(self) -> None:
        upload = await self.receive(part("main.py"), part("data.csv.gz", gzip.compress(b"x")))
        self.assertEqual(upload.paths, ["main.py", "data.csv.gz"])
        for name, content in (
            ("x.gz", gzip.compress(b"x")),
            ("book.xlsx", zipped("sheet")),
            ("job.zip.bak", zipped("main.py")),
            ("zip", b"PK are two letters"),
        ):
            self.assertEqual((await self.receive(part(name, content))).paths, [name])
        upload = await self.receive(part("main.py"), part("model", zipped("weights")))
        self.assertEqual(upload.paths, ["main.py", "model"])

    async def test_what_is_no_archive_but_is_called_one(self) -> None:
        for name, content, kind in (
            ("job.tar.gz", b"print(1)", "gzip-compressed tar"),
            ("job.zip", b"print(1)", "zip"),
            ("job.zip", b"", "zip"),
            ("job.zip", gzip.compress(b"x"), "zip"),
            ("job.zip", b"PK\7\x08PK\3\4", "zip"),
        ):
            with self.subTest(name, content=content):
                error = await self.refuse(part(name, content))
                self.assertIsInstance(error, InvalidUpload)
                self.assertIn(f"'{name}' is not a {kind} archive", error.sentence)

    async def test_an_archive_beside_other_files(self) -> None:
        for archive in (part("job.tar.gz", gzip.compress(b"x")), part("job.zip", zipped("a"))):
            error = await self.refuse(archive, part("main.py"))
            self.assertIn("either one archive or loose files", error.sentence)

    async def test_no_file(self) -> None:
        self.assertEqual((await self.refuse()).sentence, "No files uploaded")

    async def test_too_many_files(self) -> None:
        await self.refuse(*(part(f"f{n}") for n in range(1001)))

    async def test_names_that_are_no_place_in_the_work_directory(self) -> None:
        for name in (
            "../../x",
            "/etc/passwd",
            "..",
            ".",
            "a/../b",
            "./../a",
            "./",
            "a/",
            "a/.",
            "//a",
            "a\r\nX: y",
            "a\0b",
            "a\\b",
            "\x1b[31m",
            "\u202egnp.py",
            "x" * 5000,
            "x" * 256,
            "é" * 128,
            "\udcff",
        ):
            with self.subTest(name[:20]):
                error = await self.refuse(part(name))
                self.assertTrue(error.sentence.isprintable())
                self.assertLess(len(error.sentence), 200)

    async def test_names_are_cleaned_as_in_archives(self) -> None:
        upload = await self.receive(part("./a.py"), part("a//b.py"), part("././c/./d"))
        self.assertEqual(upload.paths, ["a.py", "a/b.py", "c/d"])
        await self.refuse(part("./a"), part("a"))

    async def test_the_sentence_says_what_is_wrong_with_a_name(self) -> None:
        for name, words in (
            ("/a", "'/a' is not the relative path of a file"),
            ("c:a", "'c:a' is not the relative path of a file"),  # as in an archive
            ("a/../b", "'a/../b' leads out of the work directory"),
            ("\u202egnp.py", "'?gnp.py' holds the unprintable U+202E"),
            ("a\tb", "'a?b' holds the unprintable U+0009"),
            ("a\\b", "holds a backslash"),
            ("a/" * 64 + "b", "lies more than 64 folders deep"),
            ("\udcff", "is not UTF-8"),
            ("x" * 256, "is too long"),
        ):
            with self.subTest(ascii(name[:20])):
                self.assertIn(words, (await self.refuse(part(name))).sentence)

    async def test_loose_files_lie_as_deep_as_those_of_archives(self) -> None:
        self.assertEqual(bundle.DEPTH, members.MAX_DEPTH)
        deep = "a/" * (bundle.DEPTH - 1) + "b"
        self.assertEqual((await self.receive(part(deep))).paths, [deep])

    async def test_two_files_in_one_place(self) -> None:
        await self.refuse(part("a"), part("a"))
        await self.refuse(part("a"), part("a/b"))
        await self.refuse(part("a/b/c"), part("a/b"))


class ListedText(unittest.IsolatedAsyncioTestCase):
    """The one-file form of the earlier web page: "----Tar\\nPath: X\\nSize: N\\n\\n..."."""

    async def receive(self, content: bytes) -> Upload:
        async def inspect(fd: int) -> Inspection:
            raise AssertionError("this is no archive")

        return await bundle.receive([part("job.tar.gz", content)], inspect)

    async def test_holds_one_file(self) -> None:
        upload = await self.receive(b"----Tar\nPath: main.py\nSize: 999\n\nprint('\xc3\xa9')\n\n")
        self.assertEqual(upload.paths, ["main.py"])
        self.assertEqual(upload.memory.read(0, 100), b"print('\xc3\xa9')\n\n")

    async def test_without_a_size(self) -> None:
        self.assertEqual((await self.receive(b"----Tar\nPath:a.sh\n\n")).paths, ["a.sh"])

    async def test_with_a_hostile_or_broken_head(self) -> None:
        for content in (
            b"----Tar\nPath: ../../etc/cron.d/x\nSize: 1\n\nx",
            b"----Tar\nPath: /etc/passwd\nSize: 1\n\nx",
            b"----Tar\nPath: \nSize: 1\n\nx",
            b"----Tar\nPath: \xff\nSize: 1\n\nx",
            b"----Tar\nPath: main.py",
            b"----Tar\nPath: " + b"x" * 100_000,
        ):
            with self.subTest(content[:40]), self.assertRaises(InvalidUpload):
                await self.receive(content)
