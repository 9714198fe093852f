"""How the words of a command line are read: the parser of every command, and values with units."""

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from sandrun.errors import SandrunError

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_MEGABYTES = {"": 1.0, "k": 1 / 1024, "m": 1.0, "g": 1024.0}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


class Usage(SandrunError):
    """The command line asks for what cannot be."""


class Parser(argparse.ArgumentParser):
    """Its errors are a Usage: the exit code 2 may be the job's."""

    def __init__(self, name: str, what: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"sandrun {name}", description=what, epilog=epilog, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        hint = f"See {self.prog} --help."
        if "unrecognized arguments" in message and self.prog == "sandrun run":
            hint = f"What the program is to get goes behind --. {hint}"
        raise Usage(f"{message[:1].upper()}{message[1:]}. {hint}")


def add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--server", metavar="URL", help="the server (or $SANDRUN_SERVER)")


def add_json(parser: argparse.ArgumentParser, what: str = "print JSON") -> None:
    parser.add_argument("--json", action="store_true", help=what)


def add_own_words(parser: argparse.ArgumentParser) -> None:
    """How much Sandrun itself says."""
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto",
        help="of Sandrun's own words; the job's are as it prints them",
    )  # fmt: skip


def split(arguments: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Our words, and the program's, which follow the first --; None without it."""
    words = list(arguments)
    if "--" not in words:
        return words, None
    at = words.index("--")
    return words[:at], words[at + 1 :]


def seconds(text: str) -> float:
    """90, 90s, 1.5m, 1h."""
    return _measure(text, _SECONDS, "a time like 90s or 2m")


def whole_seconds(text: str) -> int:
    return _whole(seconds(text), text, "seconds")


def megabytes(text: str) -> int:
    """512, 512M, 1G."""
    return _whole(_measure(text.lower().removesuffix("b"), _MEGABYTES, "a size like 512M"), text,
                  "megabytes")  # fmt: skip


def _measure(text: str, units: dict[str, float], like: str) -> float:
    found = _NUMBER.fullmatch(text)
    if not found or found[2].lower() not in units:
        raise argparse.ArgumentTypeError(f"{text!a} is not {like}")
    return float(found[1]) * units[found[2].lower()]


def _whole(number: float, text: str, of: str) -> int:
    if number != int(number):
        raise argparse.ArgumentTypeError(f"{text!a} is no whole number of {of}")
    return int(number)


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A sentence, or nothing."""
    import difflib

    near = difflib.get_close_matches(word, known, 2)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def add_job(parser: argparse.ArgumentParser, many: bool = False) -> None:
    parser.add_argument("job", metavar="ID", nargs="+" if many else None, help="job-...")
