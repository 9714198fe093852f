"""Every state of the page, in light on a desk and in dark on a phone: axe finds nothing wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.ground import Faults, axe
from tests.browser.states import STATES, World
from tests.journeys.server import Server

pytestmark = pytest.mark.long  # 58 of them take four minutes: run by name


@pytest.fixture
def world(server: Server, tmp_path: Path, faults: Faults) -> Iterator[World]:
    world = World(server, tmp_path, faults)
    yield world
    world.end()


@pytest.mark.parametrize("name", STATES)
def test_axe_finds_nothing_in_light(page: Page, world: World, name: str) -> None:
    STATES[name](page, world)
    axe(page)
    page.goto("about:blank")  # whose server is about to end


@pytest.mark.parametrize("name", STATES)
def test_axe_finds_nothing_in_dark_on_a_phone(dark_phone: Page, world: World, name: str) -> None:
    STATES[name](dark_phone, world)
    axe(dark_phone)
    wide = dark_phone.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "the page scrolls sideways"
    dark_phone.goto("about:blank")
