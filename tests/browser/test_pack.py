"""What the page packs, Python's tarfile and the server read as it was meant."""

import base64
import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.browser.ground import stage
from tests.journeys.server import Server

PACK = """async ([modules, files]) => {
  const { pack } = await import(`${modules}pack.js`);
  window.told = [];
  const blob = await pack(files, { onProgress: (...numbers) => told.push(numbers) });
  return [blob.type, btoa(Array.from(new Uint8Array(await blob.arrayBuffer()),
    (byte) => String.fromCharCode(byte)).join(""))];
}"""
NAMES = [
    "a.py",
    "src/pkg/module.py",
    "d/" * 60 + "deep.py",  # over 100 characters, in folders that the old header could hold
    "x" * 100,
    "y" * 101,
    "z" * 200 + ".csv",
    "naïve/日本語 🎈.txt",
    "ü" * 60,  # fewer than 100 characters, more than 100 bytes
    "with space and 'quotes'",
]


def packed(page: Page, server: Server, files: list[dict[str, Any]]) -> bytes:
    kind, content = page.evaluate(PACK, [stage(page, server, ""), files])
    assert kind == "application/gzip"
    return base64.b64decode(content)


def members(archive: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for info in tar:
            body = tar.extractfile(info)
            assert body, info
            found[info.name] = info, body.read()
    return found


class TestPacked:
    def test_every_name_comes_out_as_it_went_in(self, page: Page, server: Server) -> None:
        files = [{"path": name, "data": f"this is {name}\n"} for name in NAMES]
        found = members(packed(page, server, files))
        for name, (info, _) in found.items():  # which says that it is UTF-8
            long = len(name) > 100
            assert ("path" in info.pax_headers) == (long or not name.isascii()), name
        assert {name: body.decode() for name, (_, body) in found.items()} == {
            name: f"this is {name}\n" for name in NAMES
        }

    def test_nothing_of_the_machine_is_in_it(self, page: Page, server: Server) -> None:
        files = [
            {"path": "b.sh", "data": "#!/bin/sh\n", "executable": True},
            {"path": "a.txt", "data": "a"},
            {"path": "ü", "data": ""},
        ]
        archive = packed(page, server, files)
        found = members(archive)
        assert list(found) == ["a.txt", "b.sh", "ü"]
        assert [info.mode for info, _ in found.values()] == [0o644, 0o755, 0o644]
        for info, _ in found.values():
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
        assert packed(page, server, files[::-1]) == archive
        assert archive[4:8] == b"\0\0\0\0"  # gzip's own time

    def test_what_is_packed_may_be_text_bytes_or_a_file(self, page: Page, server: Server) -> None:
        modules = stage(page, server, "")
        data = page.evaluate_handle(
            """() => [
              { path: "text", data: "ü\\n" },
              { path: "bytes", data: new Uint8Array([0, 255, 10, 13]) },
              { path: "file", data: new File([new Uint8Array(3_000_000).fill(120)], "other name") },
              { path: "none", data: "" },
            ]"""
        )
        _, content = page.evaluate(PACK, [modules, data])
        found = {name: body for name, (_, body) in members(base64.b64decode(content)).items()}
        assert found == {
            "text": "ü\n".encode(),
            "bytes": b"\0\xff\n\r",
            "file": b"x" * 3_000_000,
            "none": b"",
        }
        told = page.evaluate("told")
        assert told == sorted(told)
        assert {total for _, total in told} == {3_000_007}
        assert told[-1][0] == 3_000_007
        assert len(told) >= 4  # in the middle of a file too

    def test_nothing_at_all_is_an_archive_too(self, page: Page, server: Server) -> None:
        archive = packed(page, server, [])
        assert members(archive) == {}
        assert len(gzip.decompress(archive)) == 1024

    def test_a_file_that_is_gone_meanwhile_is_named(
        self, page: Page, server: Server, tmp_path: Path
    ) -> None:
        modules = stage(page, server, "<label>Files <input type='file'></label>")
        file = tmp_path / "data.csv"
        file.write_text("before")
        page.set_input_files("input", file)
        file.unlink()
        said = page.evaluate(
            """async (modules) => {
              const { pack } = await import(`${modules}pack.js`);
              const [data] = document.querySelector("input").files;
              return pack([{ path: "a", data: "x" }, { path: "b/data.csv", data }])
                .catch((error) => error.message);
            }""",
            modules,
        )
        assert said == "b/data.csv cannot be read. Was it changed or deleted meanwhile?"

    def test_the_server_runs_what_was_packed(self, page: Page, server: Server) -> None:
        deep = "d/" * 60 + "deep.txt"
        modules = stage(page, server, "")
        status = page.evaluate(
            """async ([modules, files, manifest]) => {
              const { pack } = await import(`${modules}pack.js`);
              const form = new FormData();
              form.append("files", await pack(files), "project.tar.gz");
              form.append("manifest", JSON.stringify(manifest));
              const answer = await fetch("/submit?wait=30", { method: "POST", body: form });
              return answer.json();
            }""",
            [
                modules,
                [
                    {"path": "main.sh", "data": f"./tool.sh; cat '日本 語.txt' {deep}\n"},
                    {"path": "tool.sh", "data": "#!/bin/sh\necho tool\n", "executable": True},
                    {"path": "日本 語.txt", "data": "unicode\n"},
                    {"path": deep, "data": "deep\n"},
                ],
                {"entrypoint": "main.sh", "interpreter": "sh"},
            ],
        )
        assert status["logs"]["stdout"] == "tool\nunicode\ndeep\n", status
