"""Runtimes: how a file in some language becomes a Command. Each is a small TOML file in
`runtimes/`, so that an operator adds one without code.

Many interpreters size their heap and their threads by the machine, which a job must not see: the
kernel then kills a program that had garbage to spare. So the words of a runtime may hold
placeholders, filled from the entrypoint and from the limits of the job.
"""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from sandbox.model import MIB, Command, Limits

PATH = "/usr/local/bin:/usr/bin:/bin"  # what jobs see
HOME = "/tmp"  # writable, and not the work directory: caches are no outputs
BASE_ENV = {"PATH": PATH, "HOME": HOME, "LANG": "C.UTF-8"}
_DEFAULT: Final = Limits()
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class Runtime(NamedTuple):
    """One way to run an entrypoint. `steps` hold {file}; the last takes the arguments."""

    name: str
    aliases: tuple[str, ...]
    extensions: tuple[str, ...]  # ".py"; the first runtime that names one is inferred from it
    entrypoint: str  # the file looked for when the manifest names none: "main.py", or ""
    probe: tuple[str, ...]  # prints the version on its first line, run inside a sandbox at start
    steps: tuple[tuple[str, ...], ...]
    env: Mapping[str, str]

    def command(
        self,
        entrypoint: str,
        args: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        limits: Limits = _DEFAULT,
    ) -> Command:
        """The Command that runs `entrypoint` (a path below the work directory) with `args`."""
        values = {**_of_file(entrypoint), **_of_limits(limits)}
        steps = tuple(tuple(_fill(word, values) for word in step) for step in self.steps)
        return Command(
            steps=(*steps[:-1], steps[-1] + args), env={**self.environment(limits), **(env or {})}
        )

    def version_command(self, limits: Limits) -> Command:
        """The Command that prints the version, and shows that the runtime works at all."""
        values = _of_limits(limits)
        words = tuple(_fill(word, values) for word in self.probe)
        return Command((words,), self.environment(limits))

    def environment(self, limits: Limits) -> dict[str, str]:
        """What the program finds in its environment when the job asks for nothing."""
        values = _of_limits(limits)
        return {**BASE_ENV, **{name: _fill(value, values) for name, value in self.env.items()}}


def load(folder: Path = Path(__file__).parent / "runtimes") -> dict[str, Runtime]:
    """Every runtime of the folder by name, in the order of the file names."""
    runtimes = {}
    for path in sorted(folder.glob("*.toml")):
        runtime = _parse(path.stem, tomllib.loads(path.read_text()))
        runtimes[runtime.name] = runtime
    return runtimes


def _of_file(entrypoint: str) -> dict[str, str]:
    """./entrypoint, so that a name that begins with '-' is no option; its folder; and that folder
    with all above it up to the work directory, as compilers like to be told where to look."""
    path = PurePosixPath(entrypoint)
    folders = ["./" + str(folder) if folder.name else "." for folder in path.parents]
    return {"file": "./" + entrypoint, "folder": folders[0], "folders": ":".join(folders)}


def _of_limits(limits: Limits) -> dict[str, str]:
    """Whole numbers. The heap is what garbage may fill: a quarter of the memory, and 64 MB where
    there are as many, is left to the interpreter itself, its stacks and the files of the job."""
    memory = limits.memory_bytes // MIB
    heap = max(memory - max(64, memory // 4), memory // 4, 1)
    cpus = max(1, math.ceil(limits.cpus))
    return {"memory_mb": str(memory), "heap_mb": str(heap), "cpus": str(cpus)}


_ALWAYS = frozenset(_of_limits(_DEFAULT))
_IN_STEPS = _ALWAYS | frozenset(_of_file("file"))


def _fill(word: str, values: Mapping[str, str]) -> str:
    """Once over the word: a value that looks like a placeholder stays what it is."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], word)


def _check(words: Iterable[str], known: frozenset[str]) -> None:
    for word in words:
        unknown = set(_PLACEHOLDER.findall(word)) - known
        if unknown:
            raise ValueError(f"unknown placeholder {sorted(unknown)}; here are {sorted(known)}")


def _parse(name: str, table: dict[str, object]) -> Runtime:
    fields = {"aliases", "extensions", "entrypoint", "probe", "steps", "env"}
    unknown = set(table) - fields
    steps, entrypoint, env = table.get("steps"), table.get("entrypoint", ""), table.get("env", {})
    try:
        if unknown or not table.get("probe") or not isinstance(steps, list) or not all(steps):
            raise ValueError(f"needs probe and steps; knows {sorted(fields)}")
        if not steps or not isinstance(entrypoint, str) or not isinstance(env, dict):
            raise ValueError("steps is a list of lists, entrypoint a string, env a table")
        _check((word for step in steps for word in _words(step)), _IN_STEPS)
        _check((*_words(table["probe"]), *map(str, env.values())), _ALWAYS)
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
