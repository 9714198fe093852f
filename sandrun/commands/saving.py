"""Outputs become files below a folder here, and nowhere else, whatever they are called and whatever
lies in the folder.
"""

import os

from sandrun.errors import SandrunError
from sandrun.result import Output

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
# No link is followed out of the folder, and a pipe that lies there keeps nobody waiting.
_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK


def make(folder: str) -> None:
    """So that it is known to be there before anything is run."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise SandrunError(f"{folder} cannot be made: {error.strerror}.") from None


def save(folder: str, output: Output) -> str:
    """The path of its file."""
    *above, name = output.parts
    path = os.path.join(folder, *output.parts)
    try:
        here = os.open(folder, _FOLDER)
        try:
            for part in above:
                here = _enter(here, part)
            with open(os.open(name, _FILE, 0o644, dir_fd=here), "wb") as file:
                file.write(output.bytes)
        finally:
            os.close(here)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no name of a file"
        raise SandrunError(f"{path} cannot be written: {why}.") from None
    return path


def _enter(here: int, part: str) -> int:
    """The folder `part` in it, which is closed."""
    try:
        os.mkdir(part, 0o755, dir_fd=here)
    except FileExistsError:
        pass
    below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=here)
    os.close(here)
    return below
