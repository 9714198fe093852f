"""A launcher with one fault, for the tests: `faulty.py KIND STEP FD PARENTS`.

The shipped launcher has no switch for this; here the calls are wrapped from outside.
"""

import errno
import sys
from collections.abc import Callable
from typing import Any

from sandbox import cgroups, inside, launcher, linux, privileges, template


def fail(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EPERM, "injected")


def _only_for(kind: str, do: Callable[[inside.Start], None]) -> Callable[[inside.Start], None]:
    def step(start: inside.Start) -> None:
        if start.kind == kind:
            fail()
        do(start)

    return step


OUTSIDE: dict[str, tuple[object, str]] = {
    "cgroup": (cgroups.Parents, "create"),
    "tmpfs": (linux, "detached_tmpfs"),
    "pipes": (launcher, "_ends"),
    "clone": (linux, "clone3"),
    "uid map": (launcher, "_write_map"),
    "network namespace": (launcher.Networks, "enter"),
}
AT_START: dict[str, tuple[object, str]] = {
    "privileges": (privileges, "check"),
    "seccomp build": (launcher, "build_filter"),
    "template": (template, "build"),
}


def main() -> None:
    kind, step = sys.argv[1:3]
    del sys.argv[1:3]
    if step in OUTSIDE or step in AT_START:
        setattr(*(OUTSIDE | AT_START)[step], fail)
    else:
        names = [name for name, _ in inside.STEPS]
        index = names.index(step)
        inside.STEPS[index] = (step, _only_for(kind, inside.STEPS[index][1]))
    launcher.main()


if __name__ == "__main__":
    main()
