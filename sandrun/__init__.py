"""What users import and type. Stands alone: imports no other room, no Django; knows no Linux.

import sandrun
print(sandrun.run("print(6 * 7)").stdout)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandrun.client import AsyncClient as AsyncClient
    from sandrun.client import AsyncJob as AsyncJob
    from sandrun.client import Client as Client
    from sandrun.client import Job as Job
    from sandrun.client import run as run
    from sandrun.errors import ConnectionFailed as ConnectionFailed
    from sandrun.errors import InvalidJob as InvalidJob
    from sandrun.errors import JobFailed as JobFailed
    from sandrun.errors import JobNotFound as JobNotFound
    from sandrun.errors import NotOwner as NotOwner
    from sandrun.errors import NotVerified as NotVerified
    from sandrun.errors import RateLimited as RateLimited
    from sandrun.errors import Refused as Refused
    from sandrun.errors import SandrunError as SandrunError
    from sandrun.errors import WaitTimeout as WaitTimeout
    from sandrun.result import LogLine as LogLine
    from sandrun.result import Output as Output
    from sandrun.result import Result as Result
    from sandrun.result import Usage as Usage

__version__ = "0.1.0"

_HOMES = {
    "sandrun.client": ("AsyncClient", "AsyncJob", "Client", "Job", "run"),
    "sandrun.errors": (
        "ConnectionFailed", "InvalidJob", "JobFailed", "JobNotFound", "NotOwner", "NotVerified",
        "RateLimited", "Refused", "SandrunError", "WaitTimeout",
    ),
    "sandrun.result": ("LogLine", "Output", "Result", "Usage"),
}  # fmt: skip
__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    """Each is imported when it is asked for: a command that needs none of them starts sooner."""
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    if name in ("errors", "project", "receipt"):
        return import_module(f"sandrun.{name}")
    raise AttributeError(f"module 'sandrun' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
