"""The reverse proxies of integrations/, as they are but for addresses and certificate: a job over
TLS through each, from a client that calls the server by its public name."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.client import Client, check
from tests.journeys.server import REPOSITORY, Server, eventually

NAME = "sandrun.example.org"
RATE = 30


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANDRUN_ALLOWED_HOSTS", NAME)
        patch.setenv("SANDRUN_SUBMIT_RATE", f"{RATE}/h")
        server = Server("--trust-proxy", "127.0.0.1/32")
    try:
        yield server
    finally:
        assert server.end() == 0, server.banner


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        + ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},DNS:localhost"]
        + ["-keyout", str(key), "-out", str(cert)],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return cert, key


@contextmanager
def started(argv: list[str], port: int, home: Path) -> Iterator[None]:
    log = home / "said"
    with open(log, "wb") as said:
        proxy = subprocess.Popen(
            argv, stdout=said, stderr=said, env={"HOME": str(home), "PATH": "/usr/sbin:/usr/bin"}
        )
    try:
        assert eventually(lambda: listens(port), 15), log.read_text()
        yield
    finally:
        proxy.terminate()
        proxy.wait(10)
    said_then = log.read_text()
    assert "127.0.0.1:" not in said_then and "/status/" not in said_then, said_then


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def through(port: int, cert: Path, addresses: tuple[str, str]) -> None:
    context = ssl.create_default_context(cafile=str(cert))
    client = Client(f"https://localhost:{port}", f"{NAME}:{port}", context)
    check(client)
    large = client.run("import os; print(os.path.getsize('padding'))", padding=30 << 20)
    assert large["stdout"] == f"{30 << 20}\n", large
    # The guard still sees the name and the Origin that the browser sent.
    own = status(port, context, f"{NAME}:{port}", f"https://{NAME}:{port}")
    assert own in (400, 415), own  # let in, to be told that there is no file
    assert status(port, context, f"{NAME}:{port}", "https://elsewhere.example") == 403
    # A name that is not ours gets no job in, whoever refuses it: Caddy answers 200 with nothing.
    assert status(port, context, "elsewhere.example", None) in (200, 400)

    # Each client has a rate of its own, by the address that the proxy appended: none invents one.
    greedy, other = addresses
    for _ in range(RATE):
        assert status(port, context, f"{NAME}:{port}", None, greedy) != 429
    assert status(port, context, f"{NAME}:{port}", None, greedy) == 429
    assert status(port, context, f"{NAME}:{port}", None, greedy, forwarded="192.0.2.9") == 429
    assert status(port, context, f"{NAME}:{port}", None, other) != 429


def status(
    port: int,
    context: ssl.SSLContext,
    host: str,
    origin: str | None,
    source: str = "127.0.0.1",
    forwarded: str | None = None,
) -> int:
    """What a POST of nothing useful is answered."""
    connection = http.client.HTTPSConnection(
        "localhost", port, timeout=20, context=context, source_address=(source, 0)
    )
    headers = {"Host": host, "Content-Type": "application/json"}
    if origin:
        headers["Origin"] = origin
    if forwarded:
        headers["X-Forwarded-For"] = forwarded
    connection.request("POST", "/submit", b"{}", headers)
    answer = connection.getresponse()
    connection.close()
    return answer.status


def test_a_job_through_nginx(
    server: Server, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    port = free_port()
    site = (REPOSITORY / "integrations/nginx/sandrun.conf").read_text()
    for old, new in {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "server 127.0.0.1:8443": f"server 127.0.0.1:{server.port}",
        "/etc/ssl/sandrun/fullchain.pem": str(certificate[0]),
        "/etc/ssl/sandrun/privkey.pem": str(certificate[1]),
    }.items():
        assert old in site
        site = site.replace(old, new)
    (tmp_path / "site.conf").write_text(site)
    bodies = tmp_path / "bodies"
    main = tmp_path / "nginx.conf"
    main.write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ client_body_temp_path {bodies}; proxy_temp_path {bodies};\n"
        f"access_log {tmp_path}/access; include {tmp_path}/site.conf; }}\n"
    )
    nginx = [shutil.which("nginx") or "/usr/sbin/nginx", "-p", str(tmp_path), "-c", str(main)]
    subprocess.run([*nginx, "-t"], check=True)
    with started(nginx, port, tmp_path):
        # Whoever wants to keep a body finds no folder to do it: 30 MB pass all the same.
        shutil.rmtree(bodies)
        through(port, certificate[0], ("127.0.0.2", "127.0.0.3"))
    assert not (tmp_path / "access").exists() or not (tmp_path / "access").read_text()


def test_a_job_through_caddy(
    server: Server, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    port = free_port()
    site = (REPOSITORY / "integrations/caddy/Caddyfile").read_text()
    for old, new in {
        "{\n\t# No access": "{\n\tadmin off\n\tauto_https disable_redirects\n\t# No access",
        f"\n{NAME} {{": f"\n{NAME}:{port} {{\n\ttls {certificate[0]} {certificate[1]}",
        "127.0.0.1:8443": f"127.0.0.1:{server.port}",
    }.items():
        assert old in site
        site = site.replace(old, new)
    (tmp_path / "Caddyfile").write_text(site)
    caddy = [shutil.which("caddy") or "/usr/bin/caddy", "run", "--adapter", "caddyfile"]
    with started([*caddy, "--config", str(tmp_path / "Caddyfile")], port, tmp_path):
        through(port, certificate[0], ("127.0.0.4", "127.0.0.5"))
