"""A copy of this repository that starts servers and tests of its own: what is broken in it, to see
whether anybody notices, is broken nowhere else.

    with checkout() as path:
        ...  # path/script/server, path/.venv/bin/python -m pytest
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Neither history nor what is made anew.
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis")


@contextmanager
def checkout() -> Iterator[Path]:
    """Where the copy lies; gone afterwards. It has the working tree's files as they are now, and
    a .venv that runs them and needs nothing to be installed."""
    with tempfile.TemporaryDirectory(prefix="sandrun-checkout-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        shutil.copytree(REPOSITORY, path, ignore=_LEFT_OUT, copy_function=_copy, dirs_exist_ok=True)
        _environment(REPOSITORY / ".venv", path)
        yield path


def _environment(source: Path, path: Path) -> None:
    """As script/setup would make it for `path`. Its files are the repository's own, by hard links:
    so the few that differ are put in their places, never written to."""
    target = path / ".venv"
    # The copy of a link to the interpreter must be that link: Python finds its home by it.
    shutil.copytree(source, target, symlinks=True, copy_function=_link)
    made_for = (source / "made-for").read_text()
    assert made_for.startswith(f"{REPOSITORY} "), "the environment is some other checkout's"
    _put(target / "made-for", made_for.replace(f"{REPOSITORY} ", f"{path} ", 1))
    sites = list(target.glob("lib/python3*/site-packages/sandrun.pth"))
    assert sites, "the environment does not name its checkout"
    for site in sites:
        _put(site, f"{path}\n")


def _copy(source: str, target: str) -> None:
    with suppress(FileNotFoundError):  # an editor's or a tool's, gone before it was read
        shutil.copy2(source, target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EROFS):
            raise
        shutil.copy2(source, target, follow_symlinks=False)  # on another file system


def _put(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)
