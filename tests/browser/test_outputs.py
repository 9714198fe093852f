"""Outputs, shown in a real browser: each kind, and that none of them runs or reaches anything."""

import base64
import io
import json
import struct
import wave
import zlib
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.ground import Faults, axe, stage
from tests.journeys.server import Server

OPEN = """async (folder) => {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = `${folder}log.css`;
  await new Promise((done) => { link.onload = done; document.head.append(link); });
  const { preview } = await import(`${folder}preview.js`);
  window.urls = [];
  const { createObjectURL, revokeObjectURL } = URL;
  URL.createObjectURL = (blob) => {
    window.urls.push(createObjectURL(blob));
    return window.urls.at(-1);
  };
  URL.revokeObjectURL = (url) => {
    window.urls = window.urls.filter((one) => one !== url);
    revokeObjectURL(url);
  };
  window.asked = [];
  window.show = async (output, data) => {
    const fetchBytes = async (one, { first } = {}) => {
      window.asked.push(first ?? null);
      if (data === null) throw new Error("The server cannot be reached.");
      return Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)).slice(0, first);
    };
    const previewUrl = ({ path }) => `/preview/job-1/${path}`;
    const element = await preview(output, { fetchBytes, previewUrl, document });
    document.getElementById("box").replaceChildren(element);
  };
}"""


@pytest.fixture
def box(page: Page, server: Server) -> Page:
    folder = stage(page, server, '<div id="box"></div>')
    page.evaluate(OPEN, folder)
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    return page


def show(box: Page, name: str, data: bytes | None, **more: Any) -> None:
    size = 1 if data is None else len(data)
    output = {"name": name, "path": name, "size": size, "sha256": "ab" * 32, "type": "other"}
    said = None if data is None else base64.b64encode(data).decode()
    box.evaluate("([output, data]) => window.show(output, data)", [{**output, **more}, said])


def png(width: int, height: int) -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = zlib.compress((b"\0" + b"\x80" * ((width + 7) // 8)) * height)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", rows) + part(b"IEND", b"")


def sound() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(1)
        out.setframerate(8000)
        out.writeframes(b"\x80" * 800)
    return file.getvalue()


SVG = b"""<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10" onload="alert(1)">
<script>alert(1); fetch("/leak")</script><image href="http://127.0.0.1:9/leak.png"/>
<rect width="20" height="10" fill="red"/></svg>"""


class TestImages:
    def test_an_image_says_its_name_and_size_and_keeps_no_address(self, box: Page) -> None:
        show(box, "plot\u202e.png", png(30, 20))
        image = box.locator("#box img")
        assert image.get_attribute("alt") == "plot\ufffd.png, 30 × 20 pixels"
        assert image.evaluate("(img) => [img.naturalWidth, img.complete]") == [30, True]
        assert box.evaluate("window.urls") == []

    def test_an_svg_is_only_an_image(self, box: Page) -> None:
        show(box, "a.svg", SVG)
        assert box.locator("#box img").get_attribute("alt") == "a.svg, 20 × 10 pixels"

    def test_what_is_no_image_is_said_to_be_none(self, box: Page) -> None:
        show(box, "a.png", b"<script>alert(1)</script>")
        assert "not an image" in box.locator("#box").inner_text()
        assert box.evaluate("window.urls") == []

    def test_an_image_of_too_many_pixels_is_not_drawn(self, box: Page) -> None:
        show(box, "bomb.png", png(20_000, 20_000))
        assert box.locator("#box img").count() == 0
        assert "20000 × 20000 pixels" in box.locator("#box").inner_text()

    def test_a_large_one_is_fetched_after_a_click(self, box: Page) -> None:
        show(box, "a.png", png(30, 20), size=10_000_001)
        assert box.evaluate("window.asked") == []
        box.get_by_role("button", name="Show (10 MB)").click()
        box.locator("#box img").wait_for()
        show(box, "a.png", png(30, 20), size=100_000_001)
        assert "SHA-256 abab" in box.locator("#box").inner_text()
        assert box.locator("#box button").count() == 0


class TestPlayers:
    def test_a_sound_has_an_address_as_long_as_it_is_in_the_page(self, box: Page) -> None:
        show(box, "a.wav", sound())
        box.evaluate("""async () => {
            const audio = document.querySelector("#box audio");
            while (!(audio.duration > 0)) await new Promise(requestAnimationFrame);
        }""")
        assert len(box.evaluate("window.urls")) == 1
        box.evaluate("document.getElementById('box').replaceChildren()")
        assert box.evaluate("window.urls") == []


class TestTables:
    def test_a_table_has_its_rows_and_says_that_there_are_more(self, box: Page) -> None:
        row = ",".join(f"c{n}" for n in range(60))
        show(box, "t.csv", "".join(f"{row}\n" for _ in range(300)).encode())
        assert box.locator("#box tr").count() == 200
        assert box.locator("#box th").count() == 50
        assert "there is more in the file" in box.locator("#box").inner_text()
        axe(box)

    def test_cells_are_text(self, box: Page) -> None:
        show(box, "t.csv", "name,note\n<img src=x onerror=alert(1)>,a\u202eb\n".encode())
        assert box.locator("#box td").all_inner_texts() == [
            "<img src=x onerror=alert(1)>",
            "a\ufffdb",
        ]
        assert "more" not in box.locator("#box").inner_text()

    def test_a_row_that_was_cut_is_not_shown(self, box: Page) -> None:
        show(box, "t.tsv", b"a,b\tc\n1\t2", size=5_000_000)
        assert box.locator("#box tr").all_inner_texts() == ["a,b\tc"]
        assert box.evaluate("window.asked") == [1_000_000]
        assert "there is more in the file" in box.locator("#box").inner_text()


class TestTexts:
    def test_json_is_laid_out_and_what_is_none_is_as_it_was(self, box: Page) -> None:
        show(box, "a.json", json.dumps({"a": [1, "<b>"]}).encode())
        assert box.locator("#box pre").inner_text() == '{\n  "a": [\n    1,\n    "<b>"\n  ]\n}'
        show(box, "a.json", b"{'a': 1}\n")
        assert box.locator("#box pre").inner_text().strip() == "{'a': 1}"

    def test_of_a_text_the_first_100_kb_are_shown(self, box: Page) -> None:
        show(box, "a.log", b"x" * 150_000, type="text")
        assert len(box.locator("#box pre").inner_text()) == 100_000
        assert box.evaluate("window.asked") == [100_000]
        assert "The first 100 kB" in box.locator("#box").inner_text()
        axe(box)

    def test_whatever_is_not_seen_is_a_mark(self, box: Page) -> None:
        show(box, "a.txt", "a\u202eb\0\tc\n\u200bd\x1b[31m".encode(), mime_type="text/plain")
        assert box.locator("#box pre").inner_text() == "a\ufffdb\u2400\tc\n\ufffdd\u241b[31m"

    def test_of_other_files_size_and_hash_are_told_and_a_click_shows_text(self, box: Page) -> None:
        show(box, "a.bin", b"\x7fELF\xff")
        assert box.locator("#box .facts").inner_text() == f"5 bytes, SHA-256 {'ab' * 32}"
        box.get_by_role("button", name="Show as text").click()
        assert box.locator("#box pre").inner_text() == "\u2421ELF\ufffd"

    def test_an_empty_file_and_one_that_does_not_come_are_said_to_be_so(self, box: Page) -> None:
        show(box, "a.txt", b"", type="text")
        assert box.locator("#box").inner_text() == "An empty file."
        show(box, "a.png", None)
        assert "The server cannot be reached." in box.locator("#box").inner_text()


class TestPages:
    def test_html_runs_after_a_click_in_a_frame_without_rights(
        self, box: Page, faults: Faults
    ) -> None:
        page = (
            "<h1>Report</h1><script>let seen = 'nothing';"
            "try { seen = parent.document.title; } catch { seen = origin; }"
            "document.querySelector('h1').textContent = seen;</script>"
        )
        box.route("**/preview/**", lambda route: route.fulfill(body=page, content_type="text/html"))
        show(box, "report.html", page.encode())
        assert box.locator("#box iframe").count() == 0
        assert box.evaluate("window.asked") == []
        box.get_by_role("button", name="Show the page").click()
        frame = box.locator("#box iframe")
        assert frame.get_attribute("sandbox") == "allow-scripts"
        assert frame.get_attribute("src") == "/preview/job-1/report.html"
        heading = box.frame_locator("#box iframe").locator("h1")
        assert heading.inner_text() == "null"
