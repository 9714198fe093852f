"""Every state that the page can be in, brought about on a real server: for axe, and for the
pictures in docs/ (script/screenshots).
"""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, Route, expect

from tests.browser.ground import Faults
from tests.browser.shown import Shown
from tests.journeys.server import Server

FOREVER = "import time\nprint('begun', flush=True)\nwhile True: time.sleep(1)\n"
FAILS = "rows = [1, 2, 3]\n\nprint('reading', len(rows), 'rows')\nprint(rows[3])\n"


class World:
    """A server that signs and grants all, and others that a state asks for."""

    def __init__(self, server: Server, folder: Path, faults: Faults) -> None:
        self.url = f"http://127.0.0.1:{server.port}"
        self.folder = folder
        self.faults = faults
        self._servers: list[Server] = []

    def start(self, *options: str, **settings: int) -> Server:
        server = Server(*options, env={f"SANDRUN_{name}": it for name, it in settings.items()})
        self._servers.append(server)
        self.faults.origins.add(url_of(server))
        return server

    def end(self) -> None:
        for server in self._servers:
            server.end()


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


State = Callable[[Page, World], None]
STATES: dict[str, State] = {}


def state(do: State) -> State:
    STATES[do.__name__] = do
    return do


@state
def ready(page: Page, world: World) -> None:
    Shown(page, world.url)


@state
def uploading(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    held: list[Route] = []  # until the page is closed
    page.route(re.compile("/submit$"), lambda route: held.append(route))
    shown.run()
    shown.says(re.compile("Packing|Uploading"))


@state
def queued(page: Page, world: World) -> None:
    server = world.start("--no-quotas", SLOTS=1)
    server.wait_for_log(server.start({"main.py": FOREVER.encode()}), "begun")
    shown = Shown(page, url_of(server))
    shown.run()
    shown.says("Queued, 1st in line")


@state
def running(page: Page, world: World) -> None:
    code = (
        "import time\nkeep = bytearray(b'x') * (40 << 20)\n"
        "for n in range(600):\n    open(f'part{n % 3}.csv', 'w').write('a,b\\n1,2\\n')\n"
        "    print('epoch', n, flush=True)\n    time.sleep(0.3)\n"
    )
    shown = Shown(page, world.url)
    shown.run(code)
    expect(page.locator(".meters")).to_contain_text("Memory")
    expect(shown.log).to_contain_text("epoch 4")


@state
def finished(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    shown.run()
    shown.says("Finished in")
    expect(page.get_by_role("img", name="plot.svg")).to_be_visible()


@state
def colours(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    page.get_by_label("Example").select_option("colours")
    expect(shown.editor).to_contain_text("colours")
    shown.run()
    shown.says("Finished in")
    page.get_by_label("Times").check()


@state
def files(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    page.get_by_label("Example").select_option("files")
    expect(shown.editor).to_contain_text("Leaves files")
    shown.run()
    shown.says("Finished in")
    shown.tab("Files").click()
    expect(page.get_by_role("table")).to_be_visible()
    expect(page.get_by_role("img", name="gradient.png")).to_be_visible()


@state
def several_files(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    page.get_by_label("Example").select_option("project")
    expect(shown.editor).to_contain_text("stats")


@state
def failed(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    shown.run(FAILS)
    shown.says("Failed with exit code 1")
    expect(shown.button(re.compile("Go to line 4"))).to_be_visible()


def _limited(page: Page, world: World, code: str, words: str, timeout: str = "") -> None:
    shown = Shown(page, world.url, code)
    shown.limit("Time", timeout)
    shown.run()
    shown.says(words)


@state
def timed_out(page: Page, world: World) -> None:
    _limited(page, world, FOREVER, "time limit", "1")


@state
def out_of_memory(page: Page, world: World) -> None:
    _limited(page, world, "keep = bytearray(900 << 20)\n", "out of memory")


@state
def crashed(page: Page, world: World) -> None:
    _limited(page, world, "import os\nos.abort()\n", "Stopped by SIGABRT")


@state
def flooded(page: Page, world: World) -> None:
    flood = "for n in range(300_000):\n    print(n, 'x' * 60)\n"
    _limited(page, world, flood, "larger than is kept")


@state
def cancelled(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    shown.run(FOREVER)
    expect(shown.log).to_contain_text("begun")
    shown.run_button.click()
    shown.says("Cancelled after")


@state
def rate_limited(page: Page, world: World) -> None:
    shown = Shown(page, url_of(world.start(CPU_SECONDS_PER_MINUTE=1)))
    shown.run("while True: pass\n")
    shown.says("CPU time of this minute is used up")
    shown.run("print('again')\n")
    shown.says("Not now")


@state
def too_large(page: Page, world: World) -> None:
    Shown(page, url_of(world.start(UPLOAD_BYTES=100_000)))
    (world.folder / "big.bin").write_bytes(bytes(200_000))
    page.locator("input[type=file]").last.set_input_files(world.folder / "big.bin")
    expect(page.get_by_role("alert")).to_contain_text("over the limit")


@state
def not_taken(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    shown.limit("Time", "100000")
    shown.run()
    shown.says("Not taken")


@state
def reconnecting(page: Page, world: World) -> None:
    server = world.start()
    world.faults.allow("WebSocket connection|ERR_CONNECTION")
    shown = Shown(page, url_of(server))
    shown.run(FOREVER)
    expect(shown.log).to_contain_text("begun")
    os.kill(server.pids()["web"], signal.SIGKILL)  # asked to end, it would end the job first
    shown.says("Connection lost, reconnecting")


@state
def unreachable(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    world.faults.allow("ERR_INTERNET_DISCONNECTED")
    page.context.set_offline(True)
    shown.run()
    shown.says("Cannot reach the server")


@state
def deleting_soon(page: Page, world: World) -> None:
    Shown(page, url_of(world.start(TTL_SECONDS=50))).run()
    expect(page.get_by_text("within a minute")).to_be_visible()


@state
def expired(page: Page, world: World) -> None:
    shown = Shown(page, url_of(world.start(TTL_SECONDS=3)))
    shown.run("print('soon gone')\n")
    shown.says("gone, as promised")


@state
def unknown(page: Page, world: World) -> None:
    Shown(page, f"{world.url}/j/job-00000000000000000000000000000000").says("No such job")


@state
def deleted(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    shown.run("print('hello')\n")
    shown.says("Finished in")
    shown.button("Delete now").click()
    shown.button("Delete now", page.get_by_role("dialog")).click()
    shown.says("404 Not Found")


@state
def verified(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    shown.run()
    shown.says("Finished in")
    shown.tab("Details").click()
    shown.button("Verify").click()
    expect(page.get_by_text("All of it is as signed")).to_be_visible()


@state
def tampered(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    shown.run()
    shown.says("Finished in")
    page.route(re.compile("/download/"), lambda route: route.fulfill(body="forged"))
    shown.tab("Details").click()
    shown.button("Verify").click()
    expect(page.get_by_text("Does not match")).to_be_visible()


@state
def unsigned(page: Page, world: World) -> None:
    shown = Shown(page, url_of(world.start()))
    shown.run("print('hello')\n")
    shown.says("Finished in")
    shown.tab("Details").click()
    expect(page.get_by_text("does not sign")).to_be_visible()


@state
def helping(page: Page, world: World) -> None:
    Shown(page, world.url).button("Help").click()
    expect(page.get_by_role("dialog")).to_be_visible()


@state
def sharing(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    shown.run()
    shown.says("Finished in")
    shown.button("Share").click()
    expect(page.get_by_label("Link with the code")).to_be_visible()


@state
def deleting(page: Page, world: World) -> None:
    shown = Shown(page, world.url)
    shown.run()
    shown.says("Finished in")
    shown.button("Delete now").click()
    expect(page.get_by_role("dialog")).to_be_visible()
