"""What the server hands a browser beside the API: the page without JavaScript, and the page that is
pointed at another server.
"""

import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser.conftest import NewPage
from tests.browser.ground import Faults
from tests.journeys.server import REPOSITORY, Server


def test_without_javascript_code_is_run_and_deleted(new_page: NewPage, url: str) -> None:
    page = new_page(java_script_enabled=False)
    page.goto(url)
    page.fill("#plain textarea[name=code]", "print(6 * 7)\nopen('x.txt', 'w').write('x')")
    page.click("#plain button")
    while page.locator("button[value=show]").count():
        page.click("button[value=show]")
    assert "exit code 0" in page.inner_text("#plain [role=status]")
    assert page.inner_text("#plain pre >> nth=0") == "42\n"
    link = page.get_attribute("#plain form + p a", "href")
    page.click("button[value=delete]")
    assert "it is not found" in page.inner_text("#plain [role=status]")
    answer = page.goto(f"{url}{link}")
    assert answer and answer.status == 404
    assert "Job not found" in page.inner_text("#plain [role=alert]")


def test_without_javascript_a_link_renews_itself_until_the_end(
    new_page: NewPage, server: Server, url: str
) -> None:
    code = b"import sys; print('begun', flush=True); sys.stdin.read(); print('ended')"
    status, made = server.submit({"main.py": code}, {"stdin_live": True})
    assert status == 200
    job = made["job_id"]
    page = new_page(java_script_enabled=False)
    page.goto(f"{url}/j/{job}")
    page.wait_for_selector("pre:has-text('begun')")
    bearer = {"Authorization": f"Bearer {made['owner_token']}"}
    assert server.request("POST", f"/jobs/{job}/stdin?end=1", b"", **bearer)[0] == 200
    page.wait_for_selector("pre:has-text('ended')")
    page.wait_for_selector("[role=status]:has-text('exit code 0')")


def test_with_javascript_nothing_of_that_is_there(new_page: NewPage, url: str) -> None:
    page = new_page()
    page.goto(url)
    assert page.locator("#plain").count() == 0
    assert page.evaluate("document.querySelector('[http-equiv=refresh]')") is None


def test_the_page_speaks_to_the_server_that_it_came_from(new_page: NewPage, url: str) -> None:
    page = new_page()
    page.goto(url)
    told = page.evaluate(RUN, url)
    assert told["frames"][-1] == told["events"] == "end" and told["gone"] == 200
    assert page.frames[-1].inner_text("p") == "hi"


@pytest.fixture
def other(url: str, faults: Faults) -> Iterator[Server]:
    """Another server, which has invited the one at `url`."""
    server = Server("--no-quotas", "--allow-origin", url)
    faults.origins.add(f"http://127.0.0.1:{server.port}")
    try:
        yield server
    finally:
        assert server.end() == 0, server.banner


RUN = """async (there) => {
  const told = {};
  const ask = (path, options) => fetch(there + path, options);
  const files = {"main.py": "print(6 * 7); open('x.html', 'w').write('<p>hi')"};
  const body = JSON.stringify({files, manifest: {timeout: 60}});
  const headers = {"Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID()};
  const taken = await ask("/submit", {method: "POST", headers, body});
  told.quota = taken.headers.has("RateLimit") || taken.headers.has("Location");
  const job = await taken.json();
  const socket = new WebSocket(there.replace("http", "ws") + "/stream/" + job.job_id, "sandrun.v1");
  told.frames = await new Promise((yes, no) => {
    const frames = [];
    socket.onmessage = (event) => frames.push(JSON.parse(event.data).type);
    socket.onerror = no;
    socket.onclose = () => yes(frames);
  });
  told.events = await new Promise((yes, no) => {
    const events = new EventSource(there + "/logs/" + job.job_id + "?follow=1&format=sse");
    events.addEventListener("end", () => { events.close(); yes("end"); });
    events.onerror = no;
  });
  const output = (await (await ask("/outputs/" + job.job_id)).json()).outputs[0];
  const file = await ask(output.download_url, {headers: {Range: "bytes=0-2"}});
  told.file = [file.status, await file.text(), file.headers.get("Content-Range")];
  told.tag = file.headers.get("ETag") === `"${output.sha256}"`;
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.src = there + output.download_url.replace("/download/", "/preview/");
  const loaded = new Promise((yes) => { frame.onload = yes; });
  document.body.append(frame);
  await loaded;
  const missing = await ask("/status/none");
  told.missing = [missing.status, (await missing.json()).reason];
  const bearer = {Authorization: "Bearer " + job.owner_token};
  told.gone = (await ask("/jobs/" + job.job_id, {method: "DELETE", headers: bearer})).status;
  return told;
}"""


def test_the_page_speaks_to_another_server_that_has_invited_it(
    new_page: NewPage, url: str, other: Server
) -> None:
    there = f"http://127.0.0.1:{other.port}"
    page = new_page()
    page.route("**/main.js", lambda route: route.fulfill(body="", content_type="text/javascript"))
    page.goto(f"{url}/?server={there}")
    assert page.get_attribute("meta[name=sandrun-server]", "content") == there
    told = page.evaluate(RUN, there)
    assert told.pop("frames")[-1] == "end"
    assert told == {
        "quota": True,
        "events": "end",
        "file": [206, "<p>", "bytes 0-2/5"],
        "tag": True,
        "missing": [404, "unknown_job"],
        "gone": 200,
    }
    assert page.frames[-1].inner_text("p") == "hi"


def test_without_that_the_page_reaches_no_other_server(
    new_page: NewPage, url: str, other: Server, faults: Faults
) -> None:
    faults.allow("connect-src|Content Security Policy|Failed to fetch|violates")
    page = new_page()
    page.goto(url)
    there = f"http://127.0.0.1:{other.port}"
    assert page.evaluate("(url) => fetch(url).then(() => 1, (e) => e.name)", there) == "TypeError"


class Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, faults: Faults) -> Iterator[tuple[Path, str]]:
    """A folder that a plain file server hands out, and its address."""
    site = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=tmp_path))
    thread = threading.Thread(target=site.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{site.server_address[1]}"
    faults.origins.add(url)
    yield tmp_path, url
    site.shutdown()
    site.server_close()
    thread.join()


def test_as_plain_files_the_page_speaks_to_a_server_that_has_invited_them(
    new_page: NewPage, folder: tuple[Path, str], faults: Faults
) -> None:
    path, url = folder
    server = Server("--no-quotas", "--allow-origin", url)
    there = f"http://127.0.0.1:{server.port}"
    faults.origins.add(there)
    try:
        for _ in range(2):  # the second writes over the first
            command = [REPOSITORY / "script/page", path / "a b", "--server", there]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        page = new_page()
        page.route(
            "**/main.js", lambda route: route.fulfill(body="", content_type="text/javascript")
        )
        page.goto(f"{url}/a%20b/")
        assert page.get_attribute("meta[name=sandrun-server]", "content") == there
        assert page.get_attribute("meta[name=sandrun-links]", "content") == "#job="
        assert page.evaluate("document.styleSheets.length") >= 1
        assert page.evaluate(RUN, there)["gone"] == 200
    finally:
        assert server.end() == 0, server.banner


def test_plain_files_are_written_over_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    for options in ([tmp_path], [tmp_path / "new", "--server", "ftp://x"]):
        done = subprocess.run(
            [REPOSITORY / "script/page", *options], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2 and "script/page: error: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
