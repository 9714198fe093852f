"""A launcher for a checkout() (LS-01) whose calls can be made to fail, one at a time: the file
`fault` of the checkout says which, as "KIND STEP", and is read again for every sandbox.

    python -I -m tests.attacks.faults FD PARENTS       instead of sandbox.launcher
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox import inside, launcher
from tests.sandbox.faulty import AT_START, OUTSIDE, fail

# Open before the launcher moves to where no path leads to it.
_FILE = os.open(Path(__file__).resolve().parents[2] / "fault", os.O_RDONLY | os.O_CLOEXEC)
_START = launcher.Launcher._start
_wanted: list[str] = []  # kind and step of the sandbox that is being made


def _read() -> None:
    _wanted[:] = os.pread(_FILE, 100, 0).decode().split(" ", 1)


def _start(self: launcher.Launcher, id: int, kind: str, *rest: Any) -> list[int]:
    _read()
    if _wanted and _wanted[0] != kind:
        _wanted.clear()
    return _START(self, id, kind, *rest)


def _wrapped(step: str, do: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        return fail() if _wanted[1:] == [step] else do(*args, **options)

    return call


def main() -> None:
    _read()
    for step, (owner, name) in (OUTSIDE | AT_START).items():
        setattr(owner, name, _wrapped(step, getattr(owner, name)))
    inside.STEPS[:] = [(step, _wrapped(step, do)) for step, do in inside.STEPS]
    launcher.Launcher._start = _start  # type: ignore[method-assign]
    launcher.main()


if __name__ == "__main__":
    main()
