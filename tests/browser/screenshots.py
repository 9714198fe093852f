"""Pictures of every state of the page, for docs/page: see script/screenshots."""

import base64
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import CHROMIUM, FLAGS, PHONE
from tests.browser.ground import Faults
from tests.browser.states import STATES, World
from tests.journeys.server import REPOSITORY, Server, make_key

FOLDER = REPOSITORY / "docs/page"
LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "dark", "has_touch": True, "is_mobile": True},
}


def picture(page: Page) -> bytes:
    page.evaluate("document.fonts.ready")
    session = page.context.new_cdp_session(page)
    taken = session.send("Page.captureScreenshot", {"format": "webp", "quality": 70})
    return base64.b64decode(taken["data"])


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server("--no-quotas", "--worker-key", make_key(Path(folder) / "worker.pem"))
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=False, args=FLAGS
        )
        for name in names or STATES:
            for look, options in LOOKS.items():
                world = World(server, Path(folder), Faults())
                context = browser.new_context(**options, reduced_motion="reduce")
                page = context.new_page()
                try:
                    STATES[name](page, world)
                    (FOLDER / f"{name}-{look}.webp").write_bytes(picture(page))
                except Exception as error:
                    print(f"{name}, {look}: {error}", file=sys.stderr)
                finally:
                    context.close()
                    world.end()
        browser.close()
        server.end()


main(sys.argv[1:])
