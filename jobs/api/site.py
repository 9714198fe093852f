"""Site: what the doors need of the house, put together once by sandrun_site/wiring.py and carried
by the ASGI scope, so that no door reaches for a global.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jobs.conf import Config
from jobs.engine import Engine
from jobs.manifest import Bounds
from sandbox.runtimes import Runtime

SCOPE_KEY = "sandrun.site"


class Interpreter(NamedTuple):
    """A runtime that works here, and the version that it told inside a sandbox."""

    runtime: Runtime
    version: str


class Site(NamedTuple):
    """One server, ready."""

    config: Config
    engine: Engine
    interpreters: Mapping[str, Interpreter]
    hosts: tuple[str, ...]  # names that a request may call us by, as in ALLOWED_HOSTS

    @property
    def bounds(self) -> Bounds:
        """The most that a manifest may ask for here."""
        config = self.config
        return Bounds(config.timeout_seconds, config.memory_mb, config.ttl_seconds)

    @property
    def runtimes(self) -> dict[str, Runtime]:
        return {name: known.runtime for name, known in self.interpreters.items()}


def site_of(request: Any) -> Site:
    """The Site that `request` came to."""
    site = request.scope[SCOPE_KEY]
    assert isinstance(site, Site)
    return site
