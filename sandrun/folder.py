"""A folder of downloaded outputs, compared with a receipt: every file of it is there with its
content, and there is nothing else, be it an empty folder. No link is followed, nothing but regular
files is opened, and nothing is read into memory as a whole.
"""

import os
import stat
from bisect import bisect_left
from collections.abc import Iterator
from urllib.parse import quote

from sandrun.errors import NotVerified
from sandrun.receipt import Receipt

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO would wait for ever


def check_folder(receipt: Receipt, folder: str) -> None:
    """Raises NotVerified("differs"), or OSError for what cannot be read."""
    missing = set(receipt.outputs)
    for path, parent, name in _walk(folder, sorted(missing)):
        if path not in receipt.outputs:
            _refuse(path, "is not among the outputs of the receipt")
        _check_file(receipt, path, parent, name)
        missing.discard(path)
    if missing:
        _refuse(min(missing), "is missing")


def _walk(top: str, outputs: list[bytes]) -> Iterator[tuple[bytes, int, bytes]]:
    """(path, open parent, name) of everything that is no folder."""
    waiting = [b""]
    while waiting:
        prefix = waiting.pop()
        opened = _open_folder(top, prefix)
        try:
            with os.scandir(opened) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    path = prefix + name
                    if not entry.is_dir(follow_symlinks=False):
                        yield path, opened, name
                    elif _any_below(path + b"/", outputs):
                        waiting.append(path + b"/")
                    else:
                        _refuse(path, "is a folder in which the receipt has no output")
        finally:
            os.close(opened)


def _any_below(folder: bytes, outputs: list[bytes]) -> bool:
    at = bisect_left(outputs, folder)
    return at < len(outputs) and outputs[at].startswith(folder)


def _open_folder(top: str, prefix: bytes) -> int:
    """Step by step: a link put in its place is followed nowhere but above."""
    opened = os.open(top, _FOLDER & ~os.O_NOFOLLOW)
    for name in prefix.split(b"/")[:-1]:
        try:
            below = os.open(name, _FOLDER, dir_fd=opened)
        finally:
            os.close(opened)
        opened = below
    return opened


def _check_file(receipt: Receipt, path: bytes, parent: int, name: bytes) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        _refuse(path, "is not a regular file")
    with open(os.open(name, _FILE, dir_fd=parent), "rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            _refuse(path, "is not a regular file")
        expected = receipt.outputs[path].content.size
        if found.st_size != expected:  # told before ten gigabytes are read
            _refuse(path, f"has {found.st_size} bytes, and {expected} in the receipt")
        receipt.check_file(path, file)


def _refuse(path: bytes, why: str) -> None:
    raise NotVerified("differs", f"{quote(path)} {why}.")
