"""Debian's Chromium, a real server, and pages that fail their test for what no page may do."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.ground import Faults
from tests.journeys.server import Server, make_key

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
PHONE = {"width": 390, "height": 844}

NewPage = Callable[..., Page]


@pytest.fixture(scope="package")  # not longer: while it is there, asyncio.run works nowhere
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say(f"there is no {CHROMIUM}: script/setup --tests installs it on Debian")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=os.geteuid() != 0, args=FLAGS
        )
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all: it signs, and counts no quotas. A test that ends its server starts its own."""
    key = make_key(tmp_path_factory.mktemp("key") / "worker.pem")
    server = Server("--no-quotas", "--worker-key", key)
    try:
        yield server
    finally:
        assert server.end() == 0, server.banner


@pytest.fixture
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    """`origins.add` a server that the test starts itself; `allow` what it brings about."""
    faults = Faults()
    if "server" in request.fixturenames:
        faults.origins.add(request.getfixturevalue("url"))
    return faults


@pytest.fixture
def new_page(browser: Browser, faults: Faults) -> Iterator[NewPage]:
    """Opens watched pages, each in a profile of its own; takes what Browser.new_context does."""
    contexts = []

    def new(**options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(20_000)
        contexts.append(context)
        faults.watch(context)
        return context.new_page()

    yield new
    for context in contexts:
        faults.look(context)
        context.close()
    faults.check()


@pytest.fixture
def page(new_page: NewPage) -> Page:
    return new_page()


@pytest.fixture
def dark_phone(new_page: NewPage) -> Page:
    return new_page(
        viewport=PHONE, color_scheme="dark", reduced_motion="reduce", has_touch=True, is_mobile=True
    )
