"""A folder as it is uploaded: what is in it, what is left out, and the archive of it.

Left out is what .gitignore and .sandrunignore name, what nobody means to send, and what looks like
a secret: the server may be a stranger's. `!name` in a .sandrunignore brings a file back.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sandrun.errors import SandrunError

if TYPE_CHECKING:
    from pathspec import PathSpec

    Rules = list[tuple[str, PathSpec[Any]]]

IGNORE_FILES = (".gitignore", ".sandrunignore")
NEVER = (
    ".git/", ".hg/", ".svn/", ".venv/", "venv/", "node_modules/", "__pycache__/", "*.pyc", ".tox/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".DS_Store",
)  # fmt: skip
SECRET = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", ".aws/", ".ssh/", ".gnupg/", ".netrc", ".npmrc", ".pypirc", ".git-credentials",
    "credentials.json", ".docker/config.json", ".kube/config",
)  # fmt: skip
MAX_UPLOAD_BYTES = 100 << 20  # the server's own limit, unless it was set otherwise


class Entry(NamedTuple):
    path: str  # below the folder, with slashes
    size: int
    mode: int


@dataclass(frozen=True)
class Project:
    root: str
    entries: Sequence[Entry]
    ignored: int  # files and folders that were named to be left out
    withheld: Sequence[str]  # what looks like a secret
    strange: Sequence[str]  # neither file nor folder, or a link that leads out

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    def largest(self, count: int = 5) -> list[Entry]:
        return sorted(self.entries, key=lambda entry: -entry.size)[:count]


def collect(root: str | os.PathLike[str]) -> Project:
    """What is in the folder `root`. Raises SandrunError."""
    top = os.fspath(root)
    if not os.path.isdir(top):
        raise SandrunError(f"{top} is no folder")
    walk = _Walk(top)
    try:
        walk.folder("", [])
    except OSError as error:
        raise SandrunError(f"Cannot read {error.filename}: {error.strerror}") from None
    if not walk.entries:
        raise SandrunError(f"{top} has no file to send")
    entries = sorted(walk.entries)
    return Project(top, entries, walk.ignored, sorted(walk.withheld), sorted(walk.strange))


class _Walk:
    def __init__(self, top: str) -> None:
        self._top = top
        self._real = os.path.realpath(top)
        self._never, self._secret = _spec(NEVER), _spec(SECRET)
        self.entries: list[Entry] = []
        self.withheld: list[str] = []
        self.strange: list[str] = []
        self.ignored = 0

    def folder(self, below: str, rules: "Rules") -> None:
        """`rules`: of the folders above, each with the folder that it was found in."""
        here = os.path.join(self._top, below)
        rules = rules + [(below, _spec(lines)) for lines in _rules_in(here)]
        with os.scandir(here) as found:
            names = sorted(found, key=lambda entry: entry.name)
        for found_entry in names:
            path = f"{below}{found_entry.name}"
            is_folder = found_entry.is_dir(follow_symlinks=False)
            asked = f"{path}/" if is_folder else path
            wanted = _wanted(asked, rules)  # None: no rule says anything
            if wanted is False or (wanted is None and self._never.match_file(asked)):
                self.ignored += 1
            elif wanted is None and self._secret.match_file(asked):
                self.withheld.append(asked)
            elif is_folder:
                self.folder(f"{path}/", rules)
            else:
                self._file(path, found_entry)

    def _file(self, path: str, found: "os.DirEntry[str]") -> None:
        if found.is_symlink():
            target = os.path.realpath(found.path)
            inside = os.path.commonpath([target, self._real]) == self._real
            if not inside or not os.path.isfile(target):
                self.strange.append(path)
                return
        status = found.stat()  # of what a link leads to, whose content is sent in its place
        if not stat.S_ISREG(status.st_mode):
            self.strange.append(path)
            return
        mode = 0o755 if status.st_mode & 0o100 else 0o644
        self.entries.append(Entry(path, status.st_size, mode))


def _rules_in(folder: str) -> Iterator[list[str]]:
    for name in IGNORE_FILES:
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                yield file.read().splitlines()
        except (FileNotFoundError, IsADirectoryError):
            continue


def _spec(lines: Iterable[str]) -> "PathSpec[Any]":
    import pathspec

    return pathspec.PathSpec.from_lines("gitignore", lines)


def _wanted(path: str, rules: "Rules") -> bool | None:
    """What the last rule that speaks of `path` says: to send it, or not."""
    for folder, spec in reversed(rules):
        said = spec.check_file(path.removeprefix(folder))
        if said.include is not None:
            return not said.include
    return None


def pack(contents: Iterable[tuple[Entry, bytes]]) -> bytes:
    """A tar.gz, the same for the same contents, whoever's they are and whenever they were made."""
    import gzip
    import io
    import tarfile

    made = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=made, mode="wb", compresslevel=1, mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for entry, data in contents:
            member = tarfile.TarInfo(entry.path)
            member.size, member.mode = len(data), entry.mode
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def read(project: Project) -> Iterator[tuple[Entry, bytes]]:
    for entry in project.entries:
        try:
            with open(os.path.join(project.root, entry.path), "rb") as file:
                yield entry, file.read()
        except OSError as error:
            raise SandrunError(f"Cannot read {error.filename}: {error.strerror}") from None


def too_large(project: Project) -> str:
    named = ", ".join(f"{entry.path} ({entry.size >> 20} MB)" for entry in project.largest())
    return (
        f"{project.root} has {project.size >> 20} MB, and a server takes "
        f"{MAX_UPLOAD_BYTES >> 20} MB. The largest files: {named}. "
        "A .sandrunignore names what is to be left out."
    )
