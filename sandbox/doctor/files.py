"""Files: what a machine tells of itself, read below a root that tests replace."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


def text_of(root: Path, path: str) -> str | None:
    """The file's text; None when this machine has no such file."""
    try:
        return (root / path).read_text(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def number_of(root: Path, path: str) -> int | None:
    text = text_of(root, path)
    return None if text is None else int(text)


def children_of(root: Path, path: str) -> list[Path]:
    try:
        return sorted((root / path).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


Version = tuple[int, ...]


def version_of(text: str) -> Version:
    """The numbers that a version begins with: "6.1.0-37-amd64" is (6, 1, 0)."""
    found = re.match(r"\d+(\.\d+)*", text)
    if not found:
        raise ValueError(f"{text!r} is no version")
    return tuple(map(int, found[0].split(".")))


class Mount(NamedTuple):
    point: str
    kind: str
    options: list[str]  # of the mount, then of the file system


def mounts(root: Path) -> Iterator[Mount]:
    for line in (text_of(root, "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        words, kinds = left.split(), right.split()
        yield Mount(words[4], kinds[0], words[5].split(",") + kinds[2].split(","))
