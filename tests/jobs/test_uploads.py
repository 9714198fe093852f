"""multipart/form-data as clients send it, and as attackers do."""

import time
import unittest

from jobs.api import uploads
from jobs.api.uploads import Form, read_form
from jobs.errors import InvalidUpload, Rejected, UnsupportedUpload
from jobs.memory import MemoryFile

TYPE = "multipart/form-data; boundary=xYx"


def read(body: bytes, content_type: str = TYPE) -> Form:
    memory = MemoryFile()
    memory.write(body)
    return read_form(memory, content_type)


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    head = "\r\n".join((f"Content-Disposition: form-data; {disposition}", *headers))
    return b"--xYx\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def names(form: Form) -> list[str]:
    return [found.name for found in form.files]


END = b"--xYx--\r\n"


class Read(unittest.TestCase):
    def test_files_and_manifest(self) -> None:
        form = read(
            part('name="files"; filename="main.py"', b"print(1)\r\n", "Content-Type: text/plain")
            + part("name=manifest", b'{"timeout": 3}')
            + part('name="files"; filename="empty"', b"")
            + part('name="comment"', b"ignored")
            + END
        )
        self.assertEqual(names(form), ["main.py", "empty"])
        self.assertEqual(form.files[0].peek(100), b"print(1)\r\n")
        self.assertEqual(form.files[1].peek(100), b"")
        self.assertEqual(form.manifest, b'{"timeout": 3}')

    def test_a_manifest_may_be_sent_as_a_file(self) -> None:
        form = read(part('name="manifest"; filename="job.json"', b"{}") + END)
        self.assertEqual((form.manifest, form.files), (b"{}", []))

    def test_folders_and_letters_in_names_are_kept(self) -> None:
        form = read(
            part('name="files"; filename="a/é.py"', b"")
            + part("name=files; filename=x; filename*=UTF-8''%E2%82%AC%20a.py", b"")
            + part('name="files"; filename="a\\"b;c"', b"")
            + part("name=files; filename=src/main.py", b"")
            + part('name="files"; filename="C:\\x\\y.py"', b"")
            + END
        )
        self.assertEqual(names(form), ["a/é.py", "€ a.py", 'a"b;c', "src/main.py", "C:\\x\\y.py"])

    def test_a_boundary_across_two_pieces_is_found(self) -> None:
        head = len(part('name="files"; filename="a"', b"")) - 2
        for size in range(uploads.CHUNK - head - 12, uploads.CHUNK - head + 12):
            for content in (bytes(size), b"\r\n--xY" * (size // 6)):
                form = read(part('name="files"; filename="a"', content) + END)
                self.assertEqual(form.files[0].size, len(content))

    def test_what_looks_like_a_boundary_inside_a_line_is_content(self) -> None:
        content = b"x--xYx\n--xYx-- \r--xYx"
        form = read(part('name="files"; filename="a"', content) + END)
        self.assertEqual(form.files[0].peek(100), content)

    def test_a_form_field_left_empty_by_a_browser_is_no_file(self) -> None:
        self.assertEqual(names(read(part('name="files"; filename=""', b"") + END)), [])


class Refused(unittest.TestCase):
    def refuse(self, body: bytes, content_type: str = TYPE) -> Rejected:
        began = time.monotonic()
        with self.assertRaises(Rejected) as caught:
            read(body, content_type)
        self.assertLess(time.monotonic() - began, 1)
        return caught.exception

    def test_other_kinds_of_body(self) -> None:
        for kind in ("", "text/plain", "application/xml", "application/x-www-form-urlencoded"):
            self.assertIsInstance(self.refuse(b"{}", kind), UnsupportedUpload)

    def test_boundaries_that_are_none(self) -> None:
        for kind in (
            "multipart/form-data",
            "multipart/form-data; boundary=",
            'multipart/form-data; boundary="a b "',
            "multipart/form-data; boundary=" + "x" * 71,
            "multipart/form-data; boundary=é",
            "multipart/form-data; boundary=a; boundary=b",
            'multipart/form-data; boundary="a',
        ):
            with self.subTest(kind):
                self.assertIsInstance(self.refuse(b"--xYx--", kind), InvalidUpload)

    def test_bodies_that_are_cut_or_malformed(self) -> None:
        file = part('name="files"; filename="a"', b"x")
        for body in (
            b"",
            b"x",
            b"--xY",
            b"--xYx",
            b"--xYx\r\n",
            b"\r\n" + file + END,
            file,
            file[:-4],
            file + b"--xYxx",
            file + b"--xYx \r\n",
            b"--xYx\r\n\r\n\r\nx\r\n" + END,
            b"--xYx\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END,
            b"--xYx\r\nContent-Disposition: attachment; name=files; filename=a\r\n\r\n\r\n" + END,
            b"--xYx\r\nX: " + b"y" * (1 << 20) + b"\r\n\r\n\r\n" + END,
            part('name="files"; filename="a"', b"eA==", "Content-Transfer-Encoding: base64") + END,
            part('name="files"; filename=a"b', b"") + END,
            part("name=files; filename=a b", b"") + END,
            b"--xYx\r\nContent-Disposition: form-data; name=files; filename=a\r\n" + file + END,
            part("name=files; filename*=utf-7''a", b"") + END,
            part("name=files; filename*=UTF-8''%ff", b"") + END,
            b"--xYx\r\nContent-Disposition: form-data; name=files; filename=\xff\r\n\r\n\r\n" + END,
        ):
            with self.subTest(body[:60]):
                self.refuse(body)

    def test_a_boundary_inside_a_head_is_no_header(self) -> None:
        head = "Content-Disposition: form-data; name=files; filename="
        body = f"--a:b\r\n{head}x\r\n--a:b\r\n{head}y\r\n\r\n1\r\n--a:b--\r\n".encode()
        self.refuse(body, 'multipart/form-data; boundary="a:b"')

    def test_a_boundary_right_behind_a_head_is_no_content(self) -> None:
        self.refuse(part("name=files; filename=a", b"--xYx")[:-2] + b"\r\n" + END)

    def test_a_header_that_is_there_twice_is_refused(self) -> None:
        other = "content-disposition : form-data; name=files; filename=b"
        self.refuse(part("name=files; filename=a", b"", other) + END)

    def test_parts_in_the_wrong_place(self) -> None:
        self.refuse(part('name="files"', b"text without a file name") + END)
        self.refuse(part('name="other"; filename="a"', b"") + END)
        self.refuse(part("name=manifest", b"{}") * 2 + END)

    def test_floods_end_quickly(self) -> None:
        long = "multipart/form-data; boundary=" + "x" * 70
        self.refuse(part("name=a", b"") * 200_000 + END)
        self.refuse((b"--" + b"x" * 70 + b"\r\n") * 1_000_000, long)
        self.refuse(b"--" + b"x" * 70 + b"\r\n\r\n\r\n" + b"\r\n--xx" * 5_000_000, long)
        self.refuse(b"--xYx\r\nContent-Disposition: form-data" + b";a=b" * 2000 + b"\r\n\r\n" + END)
