"""One server a module, which signs, and its address."""

import base64
import subprocess
from collections.abc import Iterator

import pytest

from tests.journeys.server import Server, make_key


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_key(tmp_path_factory.mktemp("key") / "worker.pem")


@pytest.fixture(scope="module")
def server(key: str) -> Iterator[Server]:
    server = Server("--no-quotas", "--worker-key", key)
    try:
        yield server
    finally:
        assert server.end() == 0, server.banner


@pytest.fixture(scope="module")
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def worker(key: str) -> str:
    """The worker id, from the key itself."""
    der = subprocess.run(
        ["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    return base64.b64encode(der[-32:]).decode()
