"""A person without JavaScript: types code into the form of the front page, sees what comes of it,
takes the files, ends and deletes the job. Driven as a text browser is: by what the documents say.
"""

import subprocess
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import urljoin

import pytest

from tests.journeys.server import Server, eventually, form

BROWSER = {"Accept": "text/html,application/xhtml+xml"}


class Button(NamedTuple):
    name: str
    value: str
    text: str


class Document(HTMLParser):
    """What a text browser makes of a document: its text, links, and the one form that it has."""

    def __init__(self, status: int, text: str, headers: dict[str, str]) -> None:
        super().__init__()
        self.status, self.headers, self.source = status, headers, text
        self.action = self.method = self.kind = self.text = ""
        self.fields: dict[str, str] = {}
        self.buttons: list[Button] = []
        self.links: dict[str, str] = {}
        self.languages: list[str] = []
        self.refreshes = False
        self._open: list[tuple[str, dict[str, str]]] = []
        self._before = 0
        head, _, body = text.partition('<div id="app">')  # what is in there, a script has filled
        self.feed(head + body[max(0, body.find("<noscript>")) :])

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        about = {name: value or "" for name, value in attributes}
        if tag == "form":
            assert not self.action, "two forms"
            self.action, self.method, self.kind = about["action"], about["method"], about["enctype"]
        elif tag == "input":
            self.fields[about["name"]] = about["value"]
        elif tag == "meta" and about.get("http-equiv") == "refresh":
            self.refreshes = True
        elif tag in ("textarea", "option", "button", "a", "select"):
            self._open.append((tag, about))
            self._before = len(self.text)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1][0] != tag:
            return
        _, about = self._open.pop()
        said = self.text[self._before :]
        if tag == "textarea":
            self.fields[about["name"]] = said.removeprefix("\n")
        elif tag == "option":
            self.languages.append(said.strip())
            if "selected" in about or len(self.languages) == 1:
                self.fields["language"] = said.strip()
        elif tag == "button":
            self.buttons.append(Button(about.get("name", ""), about.get("value", ""), said))
        elif tag == "a":
            self.links[said] = about["href"]


class Reader:
    """A browser without JavaScript, of the kind that says where it comes from."""

    def __init__(self, server: Server, **headers: str) -> None:
        self.server, self.headers = server, headers

    def open(self, path: str) -> Document:
        status, body, headers = self.server.request("GET", path, **BROWSER)
        return Document(status, body.decode(), headers)

    def send(self, page: Document, button: str = "Run", **typed: str) -> Document:
        """Press that button of the form, with these fields filled in."""
        assert (page.method, page.kind) == ("post", "multipart/form-data")
        pressed = next(one for one in page.buttons if one.text == button)
        fields = {**page.fields, **typed} | ({pressed.name: pressed.value} if pressed.name else {})
        kind, body = fields_form(fields)
        headers = {"Content-Type": kind, **BROWSER, **self.headers}
        status, answer, fields = self.server.request(
            "POST", urljoin("/", page.action), body, **headers
        )
        return Document(status, answer.decode(), fields)

    def run(self, **typed: str) -> Document:
        """Type that into the front page, and wait for the end."""
        page = self.send(self.open("/"), **typed)
        while any(button.text == "Wait for more" for button in page.buttons):
            page = self.send(page, "Wait for more")
        assert page.status == 200, page.source
        return page


def fields_form(fields: dict[str, str]) -> tuple[str, bytes]:
    """As browsers send them: with CRLF, whatever was typed."""
    kind, body = form({}, None)
    boundary = kind.partition("boundary=")[2]
    parts = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        + value.replace("\n", "\r\n").encode()
        + b"\r\n"
        for name, value in fields.items()
    )
    return kind, b"".join(parts) + body


@pytest.fixture
def reader(server: Server) -> Reader:
    return Reader(server)


def test_code_is_typed_run_and_taken(reader: Reader) -> None:
    front = reader.open("/")
    assert {"python3", "sh"} <= set(front.languages)
    page = reader.run(
        language="sh",
        code='#!/bin/sh\nread line\nprintf "%s|" "$line" "$@"\n'
        'echo "<b>&" >&2\necho 42 >"Ü <i>.txt"\n',
        args="one 'two words' \"\"",
        stdin="typed\nmore",
    )
    assert "typed|one|two words||" in page.text and "<b>&" in page.text
    assert "Finished after" in page.text and "exit code 0" in page.text
    assert "Deleted in 4:5" in page.text and not page.refreshes
    _, file, _ = reader.server.request("GET", page.links["Ü <i>.txt"])
    assert file == b"42\n"
    job = page.links["A link for reading it"].removeprefix("/j/")
    assert reader.server.get(f"/status/{job}")["status"] == "completed"


def test_who_has_the_link_reads_and_cannot_end(reader: Reader) -> None:
    mine = reader.run(code="print('hi')")
    theirs = reader.open(mine.links["A link for reading it"])
    assert (theirs.status, theirs.action, theirs.fields) == (200, "", {})
    assert "hi" in theirs.text and "exit code 0" in theirs.text
    token = mine.fields["owner_token"]
    assert len(token) >= 20 and mine.source.count(token) == 1 and token not in theirs.source
    assert not any(token in value for value in (*mine.links.values(), *mine.headers.values()))


def test_its_owner_deletes_it_and_hears_that_it_is_gone(reader: Reader) -> None:
    mine = reader.send(reader.open("/"), code="print('hi')")
    gone = reader.send(mine, "Delete now")
    assert gone.status == 200 and "it is not found" in gone.text
    link = reader.open(mine.headers["location"])
    assert (link.status, link.action) == (404, "/form") and "Job not found" in link.text
    again = reader.send(mine, "Delete now")
    assert again.status == 404 and "Job not found" in again.text


def test_a_job_that_goes_on_is_shown_while_it_does_and_cancelled(reader: Reader) -> None:
    code = "import time\nprint('begun', flush=True)\ntime.sleep(100)"
    mine = reader.send(reader.open("/"), code=code)
    assert not mine.refreshes
    link = mine.headers["location"]
    reader.server.wait_for_log(link.removeprefix("/j/"), "begun")
    theirs = reader.open(link)
    assert theirs.refreshes and "begun" in theirs.text and "Running for 0:" in theirs.text
    ended = reader.send(mine, "Cancel")
    assert "Cancelled after" in ended.text
    assert [button.text for button in ended.buttons] == ["Delete now"]
    assert not reader.open(mine.headers["location"]).refreshes


def test_who_waits_for_more_sees_its_end(reader: Reader) -> None:
    code = "import time\ntime.sleep(4)\nprint('late')"
    mine = reader.send(reader.open("/"), code=code)
    assert not mine.text.count("exit code")
    ended = reader.send(mine, "Wait for more")
    assert "late" in ended.text and "exit code 0" in ended.text
    assert "it is not found" in reader.send(ended, "Delete now").text


def test_what_is_wrong_is_said_and_what_was_typed_comes_back(reader: Reader) -> None:
    front = reader.open("/")
    for typed, said in (
        ({"code": "\n x<\n</textarea>", "args": "it's"}, "a quote in the arguments is not closed"),
        ({"code": "x", "language": "cobol"}, "cobol"),
        ({"code": " \n"}, "there is no code"),
    ):
        page = reader.send(front, **typed)
        assert page.status == 400 and said in page.text, page.source
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for name, value in typed.items():
            if name != "language":
                assert page.fields[name] == value
    better = reader.send(page, code="print('now')")
    assert better.status == 200 and "Job not" not in better.text


def test_quotas_are_those_of_every_submission() -> None:
    server = Server(env={"SANDRUN_CONCURRENT_JOBS": 1, "SANDRUN_SUBMIT_RATE": "3/m"})
    try:
        reader = Reader(server)
        first = reader.send(reader.open("/"), code="import time; time.sleep(60)")
        assert "ratelimit" in first.headers
        page = reader.send(reader.open("/"), code="print('kept')")
        assert page.status == 429 and page.fields["code"] == "print('kept')"
        assert int(page.headers["retry-after"]) >= 1 and "concurrent" in page.text.lower()
        reader.send(reader.open("/"), code="x")
        page = reader.send(reader.open("/"), code="print('kept')")
        assert page.status == 429 and "Too many requests" in page.text
        assert page.fields["code"] == "print('kept')"
    finally:
        assert server.end() == 0, server.banner


def test_other_sites_send_no_form(server: Server) -> None:
    front = Reader(server).open("/")
    job = Reader(server).send(front, code="")
    ours = f"http://127.0.0.1:{server.port}"
    assert Reader(server, Origin=ours).send(front, code="print(1)").status == 200
    for origin in ("https://evil.example", "null", f"{ours}0"):
        kind, body = fields_form({"code": "print(1)"})
        for path in ("/form", "/j/x"):
            headers = {"Content-Type": kind, "Origin": origin}
            status, answer, _ = server.request("POST", path, body, **headers)
            assert status == 403 and b"foreign_origin" in answer
    assert job.status == 400


def test_programs_are_sent_to_the_status(server: Server) -> None:
    job = server.start({"main.py": b"print(1)"})
    server.finish(job)
    status, _, headers = server.request("GET", f"/j/{job}")
    assert (status, headers["location"]) == (302, f"/status/{job}")
    status, answer, headers = server.request("GET", "/j/none")
    assert status == 404 and b"unknown_job" in answer
    status, answer, headers = server.request("GET", "/j/none", **BROWSER)
    assert status == 404 and headers["content-type"] == "text/html; charset=utf-8"
    assert b'<div id="app">' in answer and b"<script" in answer


def test_what_a_job_made_is_text_that_can_be_seen(reader: Reader) -> None:
    code = (
        "import os, sys\n"
        "print('</noscript></pre><script>alert(1)</script>{{ 7 * 7 }}{% now %}')\n"
        "print('\\x1b[31mred\\x1b[0m', end=' ')\n"
        "print('\\x1b]8;;http://evil.example\\x07link\\x1b]8;;\\x07 \\u202eoverride \\0')\n"
        "sys.stdout.buffer.write(b'\\xff\\xfe')\n"
        "open('<img src=x onerror=alert(1)>\\u202e\\n.txt', 'w')\n"
        "open(b'\\xff', 'w')\n"
    )
    page = reader.run(code=code)
    assert "<script>alert" not in page.source and "<img" not in page.source
    assert "</noscript></pre><script>alert(1)</script>{{ 7 * 7 }}{% now %}" in page.text
    assert "red link \ufffdoverride \u2400" in page.text and "evil.example" not in page.text
    assert "<img src=x onerror=alert(1)>\ufffd\u240a.txt" in page.links
    assert "\\xff" in page.links
    for place in page.links.values():
        assert place.startswith("/") and not place.startswith("//")
        assert reader.server.request("GET", place, **BROWSER)[0] == 200, place


def test_of_a_long_log_the_end_is_shown(reader: Reader) -> None:
    code = "for n in range(60_000): print(n)"
    page = reader.run(code=code)
    assert "59999" in page.text and "\n20000\n" not in page.text
    assert len(page.source) < 120_000
    status, whole, _ = reader.server.request("GET", page.links["all of it"])
    assert status == 200 and whole.startswith(b"0\n1\n") and whole.endswith(b"59999\n")


def test_looking_at_a_job_does_not_count_as_having_read_it(reader: Reader) -> None:
    job = reader.server.start({"main.py": b"print(1)"}, burn_after_read=True)
    reader.server.request("GET", f"/logs/{job}?stream=stderr")  # ends no earlier than the job
    assert eventually(lambda: "exit code 0" in reader.open(f"/j/{job}").text, 20)
    assert reader.open(f"/j/{job}").status == 200
    reader.server.get(f"/status/{job}?wait=20")
    assert reader.open(f"/j/{job}").status == 404


def test_curl_is_a_browser_too(server: Server) -> None:
    done = subprocess.run(
        ["curl", "-sS", "--form-string", "code=print(6 * 7)", f"http://127.0.0.1:{server.port}/form"],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert 'name="owner_token"' in done.stdout and "<code>job-" in done.stdout
