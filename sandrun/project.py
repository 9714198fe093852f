"""A folder as it is uploaded: what is in it, what is left out, and the archive of it.

Left out is what .gitignore and .sandrunignore name, what nobody means to send, and what looks like
a secret: the server may be a stranger's. `!name` in a .sandrunignore brings a file back.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sandrun.errors import SandrunError
from sandrun.ignoring import Rule, rules

IGNORE_FILES = (".gitignore", ".sandrunignore")
NEVER = (
    ".git/", ".hg/", ".svn/", ".venv/", "venv/", "node_modules/", "__pycache__/", "*.pyc", ".tox/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".DS_Store",
)  # fmt: skip
SECRET = (  # in whatever case
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", ".aws/", ".ssh/", ".gnupg/", ".netrc", ".npmrc", ".pypirc", ".git-credentials",
    "credentials.json", "**/.docker/config.json", "**/.kube/config", ".envrc", "*.env", ".pgpass",
    ".htpasswd", "*.jks", "*.keystore", "*.ppk", "*.kdbx", "*.tfstate", ".azure/",
    "**/.config/gcloud/", ".vault-token", "**/.streamlit/secrets.toml",
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
        walk.folder("", list(_rules_above(top)))
        walk.follow_links()
    except OSError as error:
        raise SandrunError(f"Cannot read {error.filename}: {error.strerror}") from None
    if not walk.entries:
        raise SandrunError(f"{top} has no file to send")
    entries = sorted(walk.entries)
    return Project(top, entries, walk.ignored, sorted(walk.withheld), sorted(walk.strange))


class _Given(NamedTuple):
    """Rules, with the folder below the top that they are in, or the way to the top from theirs."""

    folder: str
    prefix: str
    is_ours: bool
    rules: list[Rule]

    def seen(self, path: str) -> str:
        """`path` as they see it."""
        return self.prefix + path.removeprefix(self.folder)


class _Walk:
    def __init__(self, top: str) -> None:
        self._top = top
        self._real = os.path.realpath(top)
        self._never, self._secret = rules(NEVER), rules(SECRET)
        self.links: list[str] = []
        self.entries: list[Entry] = []
        self.withheld: list[str] = []
        self.strange: list[str] = []
        self.ignored = 0

    def folder(self, below: str, given: "list[_Given]") -> None:
        """`given`: the rules of the folders above."""
        here = os.path.join(self._top, below)
        given = given + [_Given(below, "", *found) for found in _rules_in(here)]
        with os.scandir(here) as found:
            names = sorted(found, key=lambda entry: entry.name)
        for found_entry in names:
            path = f"{below}{found_entry.name}"
            is_folder = found_entry.is_dir(follow_symlinks=False)
            ignored, brought_back = False, False
            for rule in reversed(given):
                said = _says(rule.rules, rule.seen(path), is_folder)
                if said is not None:
                    ignored, brought_back = said, rule.is_ours and not said
                    break
            if ignored or (not brought_back and _says(self._never, path, is_folder)):
                self.ignored += 1
            elif not brought_back and _says(self._secret, path.lower(), is_folder):
                self.withheld.append(path + "/" * is_folder)
            elif is_folder:
                self.folder(f"{path}/", given)
            elif found_entry.is_symlink():
                self.links.append(path)
            else:
                self._file(path, found_entry)

    def follow_links(self) -> None:
        """A link is sent as a copy of what it leads to, if that is sent too."""
        sent = {entry.path: entry for entry in self.entries}
        for link in self.links:
            target = os.path.relpath(os.path.realpath(os.path.join(self._top, link)), self._real)
            if entry := sent.get(target.replace(os.sep, "/")):
                self.entries.append(entry._replace(path=link))
            else:
                self.strange.append(link)

    def _file(self, path: str, found: "os.DirEntry[str]") -> None:
        status = found.stat()
        if not stat.S_ISREG(status.st_mode):
            self.strange.append(path)
            return
        mode = 0o755 if status.st_mode & 0o100 else 0o644
        self.entries.append(Entry(path, status.st_size, mode))


def _rules_above(top: str) -> Iterator[_Given]:
    """Of the folders above, up to that in which the repository begins, if `top` is in one."""
    above, found = os.path.realpath(top), []
    prefix = ""
    while not os.path.exists(os.path.join(above, ".git")):
        above, name = os.path.split(above)
        if not name:
            return
        prefix = f"{name}/{prefix}"
        found.append((above, prefix))
    for folder, path in reversed(found):
        for is_ours, given in _rules_in(folder):
            yield _Given("", path, is_ours, given)


def _rules_in(folder: str) -> Iterator[tuple[bool, list[Rule]]]:
    """Of a .gitignore and a .sandrunignore in it; True: it is ours."""
    for name in IGNORE_FILES:
        try:
            with open(os.path.join(folder, name), "rb") as file:
                text = file.read().removeprefix(b"\xef\xbb\xbf").decode("latin-1")
        except (FileNotFoundError, IsADirectoryError):
            continue
        yield name == IGNORE_FILES[1], rules(text.split("\n"))


def _says(given: Sequence[Rule], path: str, is_folder: bool) -> bool | None:
    """Whether it is ignored; None: nothing is said of it. To git a letter is a byte."""
    asked = os.fsencode(path).decode("latin-1")
    for rule in reversed(given):
        if rule.matches(asked, is_folder):
            return rule.ignores
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
