"""What a Python program says about itself at its top (PEP 723): how it is to be run.

# /// script
# dependencies = ["numpy"]
# [tool.sandrun]
# timeout = 60
# ///
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sandrun.commands.options import did_you_mean
from sandrun.errors import SandrunError

_OPEN, _CLOSE = "# /// script", "# ///"


class Header(NamedTuple):
    manifest: Mapping[str, Any]  # as in [tool.sandrun]
    dependencies: tuple[str, ...]


def read(code: bytes) -> Header:
    """Raises SandrunError for what cannot be meant."""
    table = _table(code.decode("utf-8", "replace"))
    tool = table.get("tool", {})
    asked = tool.get("sandrun", {}) if isinstance(tool, dict) else {}
    if not isinstance(asked, dict):
        raise SandrunError("In # /// script: [tool.sandrun] must be a table.")
    for name, value in asked.items():
        if name not in _KEYS:
            near = did_you_mean(name, list(_KEYS)) or f" It knows {', '.join(_KEYS)}."
            raise SandrunError(f"In # /// script: [tool.sandrun] has no {name!a}.{near}")
        what, fits = _KEYS[name]
        if not fits(value):
            raise SandrunError(f"In # /// script: {name} must be {what}.")
    dependencies = table.get("dependencies", [])
    return Header(asked, tuple(dependencies) if _is_texts(dependencies) else ())


def _table(text: str) -> dict[str, Any]:
    blocks = list(_blocks(text.splitlines()))
    if len(blocks) > 1:
        raise SandrunError("There are two # /// script blocks; one must go.")
    if not blocks:
        return {}
    import tomllib

    try:
        return tomllib.loads(blocks[0])
    except tomllib.TOMLDecodeError as error:
        raise SandrunError(f"In # /// script: no TOML: {error}.") from None


def _blocks(lines: list[str]) -> list[str]:
    """Each goes to the last # /// of the comment that it is in; one that has none is no block."""
    found = []
    at = 0
    while at < len(lines):
        at += 1
        if lines[at - 1] != _OPEN:
            continue
        end = at
        while end < len(lines) and (lines[end] == "#" or lines[end].startswith("# ")):
            end += 1
        inside = lines[at:end]
        if _CLOSE in inside:
            last = len(inside) - 1 - inside[::-1].index(_CLOSE)
            found.append("\n".join(line[2:] for line in inside[:last]))
            at += last + 1
    return found


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_table_of_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


_KEYS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "timeout": ("a whole number of seconds", _is_whole),
    "memory_mb": ("a whole number of megabytes", _is_whole),
    "cpu_seconds": ("a number of seconds", _is_number),
    "ttl": ("a whole number of seconds", _is_whole),
    "args": ("a list of texts", _is_texts),
    "env": ("a table of texts", _is_table_of_texts),
    "outputs": ("a list of texts", _is_texts),
    "interpreter": ("a text", lambda value: isinstance(value, str)),
}
