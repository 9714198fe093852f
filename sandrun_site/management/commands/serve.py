"""`manage.py serve`: the web process. Unprivileged; it gets the launcher's socket from the keeper,
whose descriptor number is in SANDRUN_LAUNCHER_FD, and that of the signer's, where there is a worker
key, in SANDRUN_SIGNER_FD. Started by hand as root, it becomes the keeper.
"""

import asyncio
import gc
import os
import socket
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from django.conf import settings
from django.core.checks.registry import registry
from django.core.management.base import BaseCommand

from jobs import conf
from jobs.api.channel import reactor
from jobs.api.middleware import ANY_ADDRESS
from jobs.api.server import Server
from jobs.api.site import Site
from jobs.api.sockets import welcome
from jobs.identity import Identity
from sandbox.apps import TAG as MACHINE
from sandbox.channel import LAUNCHER_FD, SIGNER_FD
from sandbox.errors import SandboxError
from sandrun_site.asgi import door
from sandrun_site.wiring import open_site

SETTINGS = "--settings=sandrun_site.settings"  # said once more: the keeper passes no other variable
BACKLOG = 4096  # a full queue drops who comes next, who then asks again after a second
_ANY = ("", "0.0.0.0", "::")


class Command(BaseCommand):
    help = "Serve jobs. Needs root, which only the keeper and the launcher keep."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, default=8443, help="0: any free one")
        parser.add_argument(
            "--no-quotas",
            action="store_true",
            help="do not limit what a client may have: for a trusted network",
        )
        parser.add_argument(
            "--trust-proxy",
            action="append",
            default=[],
            metavar="CIDR",
            help="believe X-Forwarded-For from this network; may be given several times",
        )
        parser.add_argument(
            "--allow-origin",
            action="append",
            default=[],
            metavar="ORIGIN",
            help="let pages of this web site (https://name) use the server; may be given several "
            "times",
        )
        parser.add_argument(
            "--metrics",
            default="",
            metavar="HOST:PORT",
            help="answer Prometheus there, apart from the clients",
        )

    def get_check_kwargs(self, options: dict[str, Any]) -> dict[str, Any]:
        """All but what the machine is like: `sandrun doctor` and `manage.py check` tell that."""
        return {"tags": sorted(registry.tags_available() - {MACHINE})}

    def handle(self, *args: Any, **options: Any) -> None:
        self.use(options)
        self.serve(options["host"], options["port"], quotas=not options["no_quotas"])

    def use(self, options: dict[str, Any]) -> None:
        """Options that stand for a setting; they take its place."""
        names = ("trust_proxy", "allow_origin", "metrics")
        settings.SANDRUN |= {name: options[name] for name in names if options[name]}

    def serve(self, host: str, port: int, quotas: bool) -> None:
        """Serve until a signal comes."""
        launcher, signer = (os.environ.pop(name, "") for name in (LAUNCHER_FD, SIGNER_FD))
        if not launcher:
            _become_keeper()
        try:
            config = conf.read(settings.SANDRUN)
            config = msgspec.structs.replace(config, quotas=config.quotas and quotas)
        except ValueError as error:
            _exit(str(error))
        if not _is_memory(tempfile.gettempdir()):
            _exit(f"{tempfile.gettempdir()} is on a disk; TMPDIR must be a tmpfs")
        channel = _inherited(LAUNCHER_FD, launcher)
        identity = Identity(_inherited(SIGNER_FD, signer)) if signer else None
        listener = _listen(host, port)
        scraped = _listen_for_metrics(config.metrics)
        loop = reactor._asyncioEventloop
        asyncio.set_event_loop(loop)
        try:
            if identity:
                loop.run_until_complete(identity.start())
            site = loop.run_until_complete(open_site(channel, config, _hosts(host), identity))
        except SandboxError as error:
            _exit(f"no sandbox can be had, so nothing is served; the step that failed: {error}")
        if scraped:
            self.stdout.write(f"Metrics are at {_url(*scraped.getsockname()[:2])}/metrics\n")
        self._greet(site, _url(host, listener.getsockname()[1]))
        server = Server(door(site), listener, site.engine, welcome(site))
        if scraped:
            from jobs.api import metrics  # only here: it loads a library

            metrics.listen(scraped, server)
        # What is loaded now stays: whenever all garbage was collected, everybody would wait 40 ms
        # for a look at it. The second time tells the collector how little is left.
        gc.collect()
        gc.freeze()
        gc.collect()
        server.run()

    def _greet(self, site: Site, url: str) -> None:
        """What to try, and last the line that says that all is ready, which programs wait for."""
        self.stdout.write(
            f"Runs {', '.join(site.interpreters) or 'nothing: no interpreter was found'}.\n"
            f"  a file:    echo 'print(6*7)' > main.py; curl --data-binary @main.py {url}/run\n"
            f"  a folder:  tar czf job.tar.gz *; curl -F files=@job.tar.gz "
            f'-F \'manifest={{"entrypoint":"main.py"}}\' "{url}/submit?wait=30"\n'
            f"  a browser: {url}\n"
            f"Sandrun is ready on {url}\n"
        )
        self.stdout.flush()


def _become_keeper() -> NoReturn:
    if os.geteuid() != 0:
        _exit("isolating jobs needs root: sudo script/server")
    words = [word for word in sys.argv[1:] if word != SETTINGS]
    isolated = [sys.executable, "-I", "-m"]
    # Not manage.py, which is there in a checkout only.
    serve = [*isolated, "django", *words, SETTINGS]
    os.execv(sys.executable, [*isolated, "sandbox.keeper", "--", *serve])


def _inherited(name: str, text: str) -> socket.socket:
    """The socket that the keeper gave us."""
    try:
        end = socket.socket(fileno=int(text))
        end.set_inheritable(False)
    except (ValueError, OSError):
        _exit(f"{name} is not the descriptor of a socket; start with script/server")
    return end


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else "there is no such port"
        _exit(f"cannot listen on {host} port {port}: {why}")
    listener.setblocking(False)
    return listener


def _listen_for_metrics(address: str) -> socket.socket | None:
    host, _, port = address.rpartition(":")
    return _listen(host.strip("[]"), int(port)) if address else None


def _url(host: str, port: int) -> str:
    name = "127.0.0.1" if host in _ANY else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def _hosts(host: str) -> tuple[str, ...]:
    """The names that a request may call us by: the configured ones, and what we listen on."""
    if host in _ANY:
        return (*settings.ALLOWED_HOSTS, ANY_ADDRESS)
    return (*settings.ALLOWED_HOSTS, f"[{host}]" if ":" in host else host.lower())


def _is_memory(folder: str) -> bool:
    """Whether nothing that is written there reaches a disk."""
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4]  # spaces in it are escaped, and the last mount wins
        inside = point == "/" or f"{folder}/".startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind in ("tmpfs", "ramfs")


def _exit(sentence: str) -> NoReturn:
    sys.exit(f"sandrun: {sentence}")
