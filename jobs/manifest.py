"""Manifest: what the client asks for. `read` takes the JSON as it came, `settle` makes it definite
against the uploaded files, the runtimes and the limits of this server.

Everything wrong is a Rejected with one sentence; nothing here waits, and nothing here is slow,
whatever the bytes are.
"""

import difflib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from sys import getsizeof
from typing import NamedTuple, NoReturn

import msgspec
from msgspec import UNSET, UnsetType

from jobs.errors import InvalidManifest
from jobs.faults import Faults, pointer
from jobs.similar import did_you_mean, nearest
from sandbox.feed import ROOM
from sandbox.runtimes import Runtime

MANIFEST_BYTES = 256 * 1024  # so that ARGUMENT_BYTES fit, with quotes between them
ARGUMENTS = 1000
ARGUMENT_BYTES = 128 * 1024  # with the environment: far below what execve refuses
PATTERNS = 100
PATH_BYTES = 1024
MIN_MEMORY_MB = 16
MIN_CPU_SECONDS = 0.01
MEMORY_MB = 512  # when nothing is asked for
TIMEOUT_SECONDS = 300

# What a manifest may say some day. A job that needs one of these would only fail later.
_NOT_YET = {
    "requirements": "dependencies are not installed yet; upload what the job needs with it",
    "gpu": "jobs get no gpu yet",
}
_ALSO_CALLED = {
    "command": "entrypoint",
    "main": "entrypoint",
    "language": "interpreter",
    "runtime": "interpreter",
    "arguments": "args",
    "environment_variables": "env",
    "input": "stdin",
    "files": "outputs",
    "time_limit": "timeout",
    "memory_limit": "memory_mb",
}
NO_ENVIRONMENT = (None, "", "default")  # what earlier clients call having none

ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
ENV_REFUSED = r"LD_.*|GLIBC_TUNABLES|PATH|MALLOC_.*"  # change what is run
NONCE_LETTERS = 128
_NONCE = re.compile(rf"[ -~]{{0,{NONCE_LETTERS}}}")
_ENV_NAME = re.compile(ENV_NAME, re.ASCII)
_ENV_REFUSED = re.compile(ENV_REFUSED, re.ASCII)


class Bounds(NamedTuple):
    """The most that a manifest may ask for."""

    timeout_seconds: int = 300
    memory_mb: int = 512
    ttl_seconds: int = 300


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is run, and how much it may use: checked, complete, definite."""

    entrypoint: str
    interpreter: str  # the name of a Runtime
    environment: str  # as it was asked for, or empty
    steps: int  # of how many its command consists: a compiler first, say, then the program
    args: tuple[str, ...]
    env: dict[str, str]
    stdin: str
    outputs: tuple[str, ...]  # patterns; none: whatever the job makes or changes
    timeout: int  # seconds
    memory_mb: int
    cpu_seconds: float  # 0: no limit of its own
    ttl: int  # seconds from the end until it is forgotten; 0: as this server has it
    burn_after_read: bool = False  # it is forgotten as soon as all that it left was read once
    stdin_live: bool = False  # more may be sent to its stdin while it runs
    nonce: str = ""  # comes back in the receipt
    warnings: tuple[str, ...] = ()  # what was asked and left out

    @property
    def held_bytes(self) -> int:
        """What its texts take in memory, one emoji makes each character four bytes; and what may
        wait for its program to read.
        """
        words = (self.stdin, *self.args, *self.outputs, *self.env, *self.env.values())
        return (sum(map(getsizeof, words)) if any(words) else 0) + ROOM * self.stdin_live

    def after_the_end(self) -> "Manifest":
        """What is asked of a job that is over; its texts were for its run."""
        return msgspec.structs.replace(self, args=(), env={}, stdin="", outputs=())


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest as the client wrote it, before anything is known about the upload."""

    entrypoint: str = ""
    interpreter: str | UnsetType = UNSET
    environment: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    stdin: str = ""
    stdin_live: bool = False
    outputs: list[str] = []
    timeout: int | UnsetType = UNSET
    memory_mb: int | UnsetType = UNSET
    cpu_seconds: int | float | UnsetType = UNSET
    ttl: int | UnsetType = UNSET
    burn_after_read: bool = False
    nonce: str = ""
    warnings: tuple[str, ...] = ()

    def settle(
        self, paths: Sequence[str], runtimes: Mapping[str, Runtime], bounds: Bounds
    ) -> Manifest:
        """The Manifest over the uploaded `paths`."""
        faults = Faults()
        runtime, entrypoint = None, ""
        outputs: tuple[str, ...] = ()
        with faults:
            runtime = self._named_runtime(runtimes)
        with faults:
            if self.entrypoint or not faults.found:  # by its usual name a runtime's is found
                entrypoint = self._find_entrypoint(paths, runtimes, runtime)
            if not runtime and not faults.found:
                runtime = _runtime_of(entrypoint, runtimes)
        with faults:
            _bound_words(self.args, self.env, self.outputs)
        with faults:
            if not _NONCE.fullmatch(self.nonce):
                _refuse(
                    f"nonce must be at most {NONCE_LETTERS} printable ASCII characters",
                    at=pointer("nonce"),
                )
        for name in self.env:
            with faults:
                _check_variable(name)
        for index, pattern in enumerate(self.outputs):
            with faults:
                outputs = (*outputs, _pattern(pattern, index))
        most, memory_mb = bounds.timeout_seconds, bounds.memory_mb
        numbers: dict[str, float] = {}
        for name, value, low, high, unset in (
            ("timeout", self.timeout, 1, most, min(TIMEOUT_SECONDS, most)),
            ("memory_mb", self.memory_mb, MIN_MEMORY_MB, memory_mb, min(MEMORY_MB, memory_mb)),
            ("cpu_seconds", self.cpu_seconds, MIN_CPU_SECONDS, most, 0.0),
            ("ttl", self.ttl, 1, bounds.ttl_seconds, 0),
        ):
            with faults:
                numbers[name] = _within(name, value, low, high, unset)
        faults.tell()
        assert runtime
        return Manifest(
            entrypoint=entrypoint,
            interpreter=runtime.name,
            environment=self.environment or "",
            steps=len(runtime.steps),
            args=tuple(self.args),
            env=self.env,
            stdin=self.stdin,
            stdin_live=self.stdin_live,
            outputs=outputs,
            timeout=int(numbers["timeout"]),
            memory_mb=int(numbers["memory_mb"]),
            cpu_seconds=float(numbers["cpu_seconds"]),
            ttl=int(numbers["ttl"]),
            burn_after_read=self.burn_after_read,
            nonce=self.nonce,
            warnings=self.warnings,
        )

    def _find_entrypoint(
        self, paths: Sequence[str], runtimes: Mapping[str, Runtime], named: Runtime | None
    ) -> str:
        if not self.entrypoint:
            return _guess_entrypoint(paths, runtimes, named)
        entrypoint = self.entrypoint.removeprefix("./")
        _relative("entrypoint", entrypoint, pointer("entrypoint"))
        if entrypoint not in paths:
            hint = did_you_mean([quoted(path) for path in nearest(entrypoint, paths)])
            hint = hint or "The upload has no similar file."
            sentence = f"entrypoint {quoted(entrypoint)} is not in the upload"
            _refuse(sentence, hint, pointer("entrypoint"))
        return entrypoint

    def _named_runtime(self, runtimes: Mapping[str, Runtime]) -> Runtime | None:
        """What interpreter or environment names; both together must name the same."""
        named = None
        if not isinstance(self.interpreter, UnsetType):
            named = _runtime("interpreter", self.interpreter, runtimes)
        if self.environment in NO_ENVIRONMENT:
            return named
        assert self.environment
        environment = _runtime("environment", self.environment, runtimes)
        if named and named != environment:
            _refuse(
                f"environment {quoted(self.environment)} runs {environment.name}, "
                f"and interpreter says {named.name}",
                "Leave one of them out.",
                pointer("environment"),
            )
        return environment


def _guess_entrypoint(
    paths: Sequence[str], runtimes: Mapping[str, Runtime], named: Runtime | None
) -> str:
    usual = [runtime.entrypoint for runtime in runtimes.values() if runtime.entrypoint]
    if named:
        usual = [named.entrypoint]
    elif "main.py" in usual:  # first, as the earlier system looked for it first
        usual = ["main.py", *usual]
    for name in usual:
        if name and name in paths:
            return name
    if len(paths) == 1:
        return paths[0]
    _refuse(
        "No entrypoint specified",
        'Name it in the manifest ({"entrypoint": "your_file.py"}) '
        f"or call it one of: {', '.join(dict.fromkeys(filter(None, usual))) or 'nothing'}.",
        pointer("entrypoint"),
    )


def _runtime_of(entrypoint: str, runtimes: Mapping[str, Runtime]) -> Runtime:
    """What its extension tells."""
    for runtime in runtimes.values():
        if any(entrypoint.lower().endswith(extension) for extension in runtime.extensions):
            return runtime
    _refuse(
        f"no interpreter is named, and none can be told from {quoted(entrypoint)}",
        f"Name one of: {', '.join(runtimes)}.",
        pointer("interpreter"),
    )


_MUST_BE = {
    "entrypoint": "a string, the path of the file to run",
    "interpreter": "a string, the name of a language",
    "environment": "a string, the name of an environment",
    "args": "a list of strings",
    "env": "an object of strings",
    "stdin": "a string",
    "stdin_live": "true or false",
    "outputs": "a list of strings",
    "timeout": "a whole number of seconds",
    "memory_mb": "a whole number of megabytes",
    "cpu_seconds": "a number of seconds",
    "ttl": "a whole number of seconds",
    "burn_after_read": "true or false",
    "nonce": "a string",
}


def read(raw: bytes | None, below: bytes | None = None) -> Asked:
    """The manifest in `raw`, its shape and every string checked; what it does not say is taken
    from `below`, the upload's job.json.
    """
    table = _load(raw) if raw is not None else {}
    if below is not None:
        table = _load_below(below, alone=raw is None) | {
            name: value for name, value in table.items() if value != ""
        }
    known = {name: table[name] for name in _MUST_BE if name in table}
    faults = Faults()
    for name, value in known.items():
        with faults:
            _check_type(name, value)
            _check_text((name,), value)
    warnings = _warnings(table, faults)
    faults.tell()
    return msgspec.structs.replace(msgspec.convert(known, Asked), warnings=warnings)


def _load_below(raw: bytes, alone: bool) -> dict[str, object]:
    """The job.json. Beside a manifest it may be anything: it counts if it names an entrypoint."""
    try:
        table = _load(raw)
    except InvalidManifest:
        if alone:
            raise
        return {}
    return table if alone or "entrypoint" in table else {}


def _load(raw: bytes) -> dict[str, object]:
    """The JSON object. One parser, one pass: what is checked is what is used."""
    if len(raw) > MANIFEST_BYTES:
        _refuse(f"the manifest is larger than {MANIFEST_BYTES // 1024} KiB")
    try:
        table = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except UnicodeDecodeError:
        _refuse("the manifest is not UTF-8 text")
    except json.JSONDecodeError as error:
        _refuse("the manifest is not valid JSON", f"{error.msg} (line {error.lineno}).")
    except RecursionError:
        _refuse("the manifest is nested too deeply")
    except ValueError:  # an integer of thousands of digits
        _refuse("the manifest has a number that is too long")
    if not isinstance(table, dict):
        _refuse("the manifest must be a JSON object")
    return table


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Two readers of the same bytes may take different ones of two equal keys.
    table = dict(pairs)
    if len(table) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        _refuse(f"the manifest names the key {quoted(twice)} twice")
    return table


def _no_constant(name: str) -> NoReturn:
    _refuse(f"the manifest holds {name}, which is not JSON")


def _check_type(name: str, value: object) -> None:
    try:
        msgspec.convert({name: value}, Asked)
    except msgspec.ValidationError:
        at: list[str | int] = [name]
        if name in ("args", "outputs") and isinstance(value, list):
            at += [index for index, item in enumerate(value) if not isinstance(item, str)][:1]
        elif name == "env" and isinstance(value, dict):
            at += [key for key, item in value.items() if not isinstance(item, str)][:1]
        _refuse(f"{name} must be {_MUST_BE[name]}", at=pointer(*at))


def _check_text(at: tuple[str | int, ...], value: object) -> None:
    """No NUL, which would end a string for the kernel; no half of a character pair."""
    if isinstance(value, str):
        if "\0" in value:
            _refuse(f"{at[0]} holds a NUL character", at=pointer(*at))
        try:
            value.encode()
        except UnicodeEncodeError:
            _refuse(f"{at[0]} holds half of a UTF-16 surrogate pair", at=pointer(*at))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_text((*at, index), item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text((*at, key), key)
            _check_text((*at, key), item)


def _warnings(table: Mapping[str, object], faults: Faults) -> tuple[str, ...]:
    """What is left out, said. What would be missed is refused, and so is what nobody knows."""
    warnings = []
    for name, value in table.items():
        if name in _MUST_BE or (name in _NOT_YET and not value):
            continue
        with faults:
            if name not in _NOT_YET:
                _refuse_key(name)
            if not isinstance(value, dict) or value.get("required") is not False:
                _refuse(f"{name} is not offered: {_NOT_YET[name]}", at=pointer(name))
            warnings.append(f"{name} is ignored: {_NOT_YET[name]}")
    return tuple(warnings)


def _refuse_key(name: str) -> NoReturn:
    known = [*_MUST_BE, *_NOT_YET]
    close = [_ALSO_CALLED.get(name, ""), *difflib.get_close_matches(name[:40], known, 1)]
    meant = next(filter(None, close), None)
    hint = f"Did you mean {meant}?" if meant else f"Known are: {', '.join(_MUST_BE)}."
    _refuse(f"unknown key {quoted(name)} in the manifest", hint, pointer(name))


def _runtime(what: str, name: str, runtimes: Mapping[str, Runtime]) -> Runtime:
    """Exactly a name or an alias: never a path, a command line or another spelling."""
    for runtime in runtimes.values():
        if name == runtime.name or name in runtime.aliases:
            return runtime
    words = [word for runtime in runtimes.values() for word in (runtime.name, *runtime.aliases)]
    close = difflib.get_close_matches(name[:40].lower(), words, 1)
    meant = f"Did you mean {close[0]}? " if close else ""
    known = f"Known here: {', '.join(runtimes)}."
    _refuse(f"unknown {what} {quoted(name)}", meant + known, pointer(what))


def _within(name: str, value: float | UnsetType, low: float, high: float, unset: float) -> float:
    if isinstance(value, UnsetType):
        return unset
    if not low <= value <= high:  # also refuses infinity
        _refuse(f"{name} must be from {low:g} to {high:g}", at=pointer(name))
    return value


def _bound_words(args: Sequence[str], env: Mapping[str, str], outputs: Sequence[str]) -> None:
    for key, count, most in (
        ("args", len(args), ARGUMENTS),
        ("env", len(env), ARGUMENTS),
        ("outputs", len(outputs), PATTERNS),
    ):
        if count > most:
            _refuse(f"{key} has {count} entries; {most} are taken", at=pointer(key))
    total = sum(len(word.encode()) + 1 for word in args)
    total += sum(len(name) + len(value.encode()) + 2 for name, value in env.items())
    if total > ARGUMENT_BYTES:
        sentence = f"args and env together are larger than {ARGUMENT_BYTES // 1024} KiB"
        _refuse(sentence, "Send them as a file.", pointer("args" if args else "env"))


def _check_variable(name: str) -> None:
    at = pointer("env", name)
    if not _ENV_NAME.fullmatch(name):
        _refuse(f"env name {quoted(name)} is not a name of letters, digits and '_'", at=at)
    if _ENV_REFUSED.fullmatch(name):
        _refuse(f"env may not set {quoted(name)}, which changes what is run", at=at)


def _pattern(pattern: str, index: int) -> str:
    """A glob below the work directory."""
    pattern = pattern.removeprefix("./")
    _relative("outputs pattern", pattern.removesuffix("/"), pointer("outputs", index))
    return pattern


def _relative(what: str, path: str, at: str) -> None:
    if not path:
        _refuse(f"{what} is empty", at=at)
    if len(path.encode()) > PATH_BYTES:
        _refuse(f"{what} is longer than {PATH_BYTES} bytes", at=at)
    if path.startswith("/") or ".." in path.split("/"):
        _refuse(f"{what} {quoted(path)} must be a path inside the upload", at=at)


def quoted(text: str) -> str:
    """`text` as part of a sentence: short, printable."""
    shown = text if len(text) <= 60 else text[:59] + "…"
    return "".join(char if char.isprintable() else "?" for char in f"'{shown}'")


def _refuse(sentence: str, details: str = "", at: str | None = None) -> NoReturn:
    raise InvalidManifest(sentence, details, at)
