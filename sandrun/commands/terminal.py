"""What is written: the job's bytes as they are, and what Sandrun itself says, on stderr, to whoever
sits before a terminal, or when something went wrong.
"""

import errno
import os
import select

from sandrun.errors import SandrunError

_NAMES = {1: "Standard output", 2: "Standard error"}
_RED, _FAINT = "31", "2"


class Unwritable(SandrunError):
    """Standard output or error takes no more."""

    def __init__(self, fd: int, error: OSError) -> None:
        super().__init__(f"{_NAMES[fd]} cannot be written: {error.strerror}.")
        self.is_pipe = error.errno == errno.EPIPE  # nobody reads: | head


def put(fd: int, data: bytes) -> None:
    """All of it, to 1 or 2. Raises Unwritable."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # whoever shares it with us made it so
            select.select([], [fd], [])
        except OSError as error:
            raise Unwritable(fd, error) from None


def say(text: str) -> None:
    """A line of an answer, on stdout."""
    put(1, text.encode("utf-8", "backslashreplace") + b"\n")


class Terminal:
    """stderr, and what is known of stdout. `status` is a line that is gone before the first byte of
    the job, and for whoever is no terminal never there.
    """

    def __init__(self, quiet: bool = False, color: str = "auto") -> None:
        self.is_live = os.isatty(2) and not quiet
        self._is_quiet = quiet
        paints = (
            self.is_live and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )
        self._paints = color == "always" or (color == "auto" and paints)
        self._status = False  # stands there
        self._hushed = False
        self._open = {fd: False for fd in (1, 2) if os.isatty(fd)}  # inside of a line

    def status(self, text: str) -> None:
        if not self.is_live or self._hushed:
            return
        try:
            width = os.get_terminal_size(2).columns or 80
        except OSError:
            width = 80
        self._own(f"\r\x1b[K{plain(text)[: max(width - 1, 20)]}")
        self._status = True

    def clear(self) -> None:
        if self._status:
            self._status = False
            self._own("\r\x1b[K")

    def job(self, fd: int, data: bytes) -> None:
        """Bytes of the job. Raises Unwritable."""
        self.clear()
        self._hushed = True
        put(fd, data)
        if fd in self._open and data:
            self._open[fd] = not data.endswith(b"\n")

    def tell(self, text: str) -> None:
        """A line for who looks."""
        if self.is_live:
            self._line(text, _FAINT)

    def note(self, text: str) -> None:
        """A line that also a script has to hear, unless it said --quiet."""
        if not self._is_quiet:
            self._line(text, _FAINT)

    def warn(self, text: str) -> None:
        """A line for everybody: something went wrong, or would be missed."""
        self._line(text, _RED)

    def _line(self, text: str, color: str) -> None:
        self.clear()
        if any(self._open.values()):
            self._own("\n")
            self._open = dict.fromkeys(self._open, False)
        name = f"\x1b[{color}msandrun:\x1b[0m" if self._paints else "sandrun:"
        self._own(f"{name} {plain(text)}\n")

    def _own(self, text: str) -> None:
        try:
            put(2, text.encode("utf-8", "backslashreplace"))
        except Unwritable:
            pass  # there is nobody to tell


def plain(text: str) -> str:
    """`text` without what a terminal would act on, or what would be seen as something else."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def some(names: list[str], most: int = 5) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
