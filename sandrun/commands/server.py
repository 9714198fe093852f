"""Which server is asked: --server, $SANDRUN_SERVER, the project's, the user's, this machine's."""

import os
from typing import Any

from sandrun.client import SERVER, Client
from sandrun.commands.options import Usage
from sandrun.commands.terminal import Terminal
from sandrun.errors import Refused, SandrunError

PATIENCE = 60.0


def connect(given: str | None, terminal: Terminal, wait: bool = True) -> Client:
    """`wait`: where the server is at its limit, for a minute."""

    def on_pause(seconds: float, error: Refused) -> None:
        terminal.status(f"Asking again in {seconds:.0f} s: {error}")

    return Client(_address(given, terminal), patience=PATIENCE if wait else 0, on_pause=on_pause)


def _address(given: str | None, terminal: Terminal) -> str:
    chosen = given or os.environ.get("SANDRUN_SERVER")
    return chosen or _of_project(terminal) or _of_user() or SERVER


def _of_project(terminal: Terminal) -> str | None:
    """[tool.sandrun] server in the nearest pyproject.toml that says one. Who looks is told: it may
    be a stranger's project.
    """
    try:
        folder = os.getcwd()
    except OSError:
        return None
    while True:
        path = os.path.join(folder, "pyproject.toml")
        tool = _read(path).get("tool")
        ours = tool.get("sandrun") if isinstance(tool, dict) else None
        if isinstance(ours, dict) and (found := _server_in(ours, path)):
            terminal.tell(f"the server is {found}, says {path}")
            return found
        if (above := os.path.dirname(folder)) == folder:
            return None
        folder = above


def _of_user() -> str | None:
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    path = os.path.join(home, "sandrun", "config.toml")
    return _server_in(_read(path), path)


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError:
        return {}
    if b"server" not in text:  # nor does it matter whether it is TOML
        return {}
    import tomllib

    try:
        return tomllib.loads(text.decode())
    except ValueError as error:
        raise SandrunError(f"{path} is no TOML: {error}. --server goes without it.") from None


def _server_in(table: dict[str, Any], path: str) -> str | None:
    found = table.get("server")
    if found is not None and not isinstance(found, str):
        raise Usage(f"In {path}, server must be the address of one, in quotes.")
    return found
