"""What the tests in the browser stand on: what no page may do, axe, and a stage for one module."""

import re
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response, WebError

from tests.journeys.server import Server

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()
KEPT = {"theme"}  # the keys that localStorage may have
# An answer with an error status, which the console tells of too, is nothing wrong by itself: the
# page asks for jobs that are gone. Where it was for a part of the page, `_answered` says so.
STATUS = re.compile(r"^Failed to load resource: the server responded with a status of ")
PARTS = {"script", "stylesheet", "image", "font", "media", "manifest"}
TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => console.error(
  `policy: ${event.effectiveDirective} forbids ${event.blockedURI} ${event.sample}`.trim()))
"""


class Faults:
    """What went wrong in a test's pages. At its end any that was not allowed fails it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.origins: set[str] = set()  # those of the test's servers
        self._allowed: list[str] = []

    def allow(self, pattern: str) -> None:
        """The test brings such a fault about: a regular expression for a part of its text."""
        self._allowed.append(pattern)

    def watch(self, context: BrowserContext) -> None:
        context.add_init_script(TELL_VIOLATIONS)
        context.on("console", self._console)
        context.on("weberror", self._thrown)
        context.on("request", self._request)
        context.on("response", self._answered)
        context.on("page", lambda page: page.on("websocket", lambda ws: self._visit(ws.url)))

    def look(self, context: BrowserContext) -> None:
        """At what the pages have left behind."""
        state = context.storage_state(indexed_db=True)
        self.seen += [f"cookie {cookie['name']}" for cookie in state["cookies"]]
        for origin in state["origins"]:
            keys = {item["name"] for item in origin["localStorage"]}
            self.seen += [f"localStorage has {key}" for key in sorted(keys - KEPT)]
            self.seen += [f"indexedDB has {db['name']}" for db in origin.get("indexedDB", [])]

    def check(self) -> None:
        left = [
            fault
            for fault in self.seen
            if not any(re.search(pattern, fault) for pattern in self._allowed)
        ]
        if left:
            pytest.fail("the browser tells of faults:\n" + "\n".join(left), pytrace=False)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "assert") and not STATUS.match(message.text):
            place = message.location
            self.seen.append(f"console: {message.text} ({place['url']}:{place['lineNumber']})")

    def _thrown(self, error: WebError) -> None:
        self.seen.append(f"uncaught: {error.error.stack or error.error}")

    def _request(self, request: Request) -> None:
        self._visit(request.url)

    def _visit(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss"):
            scheme = parts.scheme.replace("ws", "http")
            if f"{scheme}://{parts.netloc}" not in self.origins:
                self.seen.append(f"request to elsewhere: {url}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and response.request.resource_type in PARTS:
            self.seen.append(f"{response.status} for a part of the page: {response.url}")


def axe(page: Page, within: str | None = None, **options: Any) -> None:
    """Fails on whatever axe finds in the page, or within one element, also in shadow roots."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE)
    found = page.evaluate(
        "([within, options]) => axe.run(within ?? document, options)",
        [within, {"resultTypes": ["violations"], **options}],
    )
    told = [
        f"{rule['id']} ({rule['impact']}): {rule['help']}\n"
        + "\n".join(
            f"  {node['target']} {node['html'][:200]}\n    {node['failureSummary']}"
            for node in rule["nodes"]
        )
        for rule in found["violations"]
    ]
    assert not told, "axe finds:\n" + "\n".join(told)


def stage(page: Page, server: Server, body: str) -> str:
    """Shows a document with this body, under the policy and the styles of the real page, from its
    own origin. The folder of its modules, for import() in page.evaluate.
    """
    status, content, headers = server.request("GET", "/", Accept="text/html")
    assert status == 200, status
    text = content.decode()
    styles = "".join(re.findall(r'<link rel="stylesheet"[^>]*>', text))
    script = re.search(r'<script type="module" src="([^"]+/)[^"/]+"', text)
    assert script, text
    address = f"http://127.0.0.1:{server.port}/stage"
    document = (
        f'<!doctype html><html lang="en"><head><title>Stage</title>{styles}</head>'
        f"<body><main><h1>Stage</h1>{body}</main></body></html>"
    )
    page.route(
        address,
        lambda route: route.fulfill(
            body=document,
            content_type="text/html; charset=utf-8",
            headers={"Content-Security-Policy": headers["content-security-policy"]},
        ),
    )
    page.goto(address)
    return script.group(1)
