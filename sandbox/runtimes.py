"""Runtimes: how a file in some language becomes a Command. Each is a small TOML file in
`runtimes/`, so that an operator adds one without code.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sandbox.model import Command

PATH = "/usr/local/bin:/usr/bin:/bin"  # what jobs see
HOME = "/tmp"  # writable, and not the work directory: caches are no outputs
BASE_ENV = {"PATH": PATH, "HOME": HOME, "LANG": "C.UTF-8"}


class Runtime(NamedTuple):
    """One way to run an entrypoint. `steps` hold {entrypoint}; the last takes the arguments."""

    name: str
    aliases: tuple[str, ...]
    extensions: tuple[str, ...]  # ".py"; the first runtime that names one is inferred from it
    entrypoint: str  # the file looked for when the manifest names none: "main.py", or ""
    probe: tuple[str, ...]  # prints the version on its first line, run inside a sandbox at start
    steps: tuple[tuple[str, ...], ...]
    env: Mapping[str, str]

    def command(
        self, entrypoint: str, args: tuple[str, ...] = (), env: Mapping[str, str] | None = None
    ) -> Command:
        """The Command that runs `entrypoint` (a path below the work directory) with `args`.

        `{file}` becomes ./entrypoint, so that a name that begins with '-' is no option.
        """
        steps = tuple(
            tuple(word.replace("{file}", "./" + entrypoint) for word in step) for step in self.steps
        )
        return Command(
            steps=(*steps[:-1], steps[-1] + args), env={**BASE_ENV, **self.env, **(env or {})}
        )


def load(folder: Path = Path(__file__).parent / "runtimes") -> dict[str, Runtime]:
    """Every runtime of the folder by name, in the order of the file names."""
    runtimes = {}
    for path in sorted(folder.glob("*.toml")):
        runtime = _parse(path.stem, tomllib.loads(path.read_text()))
        runtimes[runtime.name] = runtime
    return runtimes


def _parse(name: str, table: dict[str, object]) -> Runtime:
    fields = {"aliases", "extensions", "entrypoint", "probe", "steps", "env"}
    unknown = set(table) - fields
    steps, entrypoint, env = table.get("steps"), table.get("entrypoint", ""), table.get("env", {})
    try:
        if unknown or not table.get("probe") or not isinstance(steps, list) or not all(steps):
            raise ValueError(f"needs probe and steps; knows {sorted(fields)}")
        if not steps or not isinstance(entrypoint, str) or not isinstance(env, dict):
            raise ValueError("steps is a list of lists, entrypoint a string, env a table")
        return Runtime(
            name=name,
            aliases=_words(table.get("aliases")),
            extensions=_words(table.get("extensions")),
            entrypoint=entrypoint,
            probe=_words(table["probe"]),
            steps=tuple(_words(step) for step in steps),
            env={str(k): str(v) for k, v in env.items()},
        )
    except ValueError as error:
        raise ValueError(f"runtimes/{name}.toml: {error}") from error


def _words(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"a list of strings is needed, not {value!r}")
    return tuple(value)
