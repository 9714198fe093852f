"""`manage.py runserver [addr:port]`: the same as `serve`, for hands that are used to Django."""

import re
import sys
from argparse import ArgumentParser
from typing import Any

from sandrun_site.management.commands import serve

_ADDRPORT = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):)?(?P<port>\d{1,5})")


class Command(serve.Command):
    help = "The same as serve, with the address as Django's runserver takes it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("addrport", nargs="?", default="127.0.0.1:8443", help="[address:]port")
        parser.add_argument("--no-quotas", action="store_true", help="see serve --help")
        parser.add_argument("--metrics", default="", help="see serve --help")
        for name in ("--trust-proxy", "--allow-origin"):
            parser.add_argument(name, action="append", default=[], help="see serve --help")

    def handle(self, *args: Any, **options: Any) -> None:
        found = _ADDRPORT.fullmatch(options["addrport"])
        if not found:
            sys.exit(f"sandrun: {options['addrport']!r} is not a port or address:port")
        host = (found["host"] or "127.0.0.1").strip("[]")
        self.use(options)
        self.serve(host, int(found["port"]), quotas=not options["no_quotas"])
