"""`sandrun serve`, `keygen` and `doctor`: the server's own commands, which become another process.
This package imports no other, so that a client can have it alone.
"""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from sandrun.errors import SandrunError

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SCRIPT = os.path.join(os.path.dirname(_PACKAGE), "script", "server")
_DJANGO = ("-m", "django", "serve", "--settings", "sandrun_site.settings")


def serve(arguments: Sequence[str]) -> NoReturn:
    """As script/server does, which is there in a checkout, and sets it up too."""
    if os.access(_SCRIPT, os.X_OK):
        _become(_SCRIPT, *arguments)
    _need("serve", "sandbox", "django", "daphne", "channels", "pyseccomp")
    python = (sys.executable, "-I")
    if {"-h", "--help"} & set(arguments):
        _become(*python, *_DJANGO, *arguments)
    if os.geteuid() != 0:
        raise SandrunError("Isolating jobs needs root: sudo sandrun serve.")
    _become(*python, "-m", "sandbox.keeper", "--", *python, *_DJANGO, *arguments)


def keygen(arguments: Sequence[str]) -> NoReturn:
    _need("keygen", "sandbox")
    _become(sys.executable, "-I", "-m", "sandbox.key", *arguments)


def doctor(arguments: Sequence[str]) -> NoReturn:
    _need("doctor", "sandbox", "pyseccomp")
    _become(sys.executable, "-I", "-m", "sandbox.doctor", *arguments)


def _need(name: str, *modules: str) -> None:
    if missing := [module for module in modules if not find_spec(module)]:
        raise SandrunError(
            f"sandrun {name} needs the server's part, which is not installed here "
            f"({', '.join(missing)}): pip install 'sandrun-server[server]'."
        )


def _become(*words: str) -> NoReturn:
    sys.stdout.flush()
    try:
        os.execv(words[0], words)
    except OSError as error:
        raise SandrunError(f"{words[0]} cannot be started: {error.strerror}.") from None
