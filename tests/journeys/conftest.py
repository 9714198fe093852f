"""One server a module."""

from collections.abc import Iterator

import pytest

from tests.journeys.server import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("--no-quotas")
    try:
        yield server
    finally:
        assert server.end() == 0, server.banner
