"""Members (inside): what anything in an archive may be, whoever packed it.

A zip and a tar say differently where a file goes and what it is; what is allowed is one. So the
limits, the places that members take and the sentences of refusal are here, and the readers differ
in nothing but their format.
"""

import os
from collections.abc import Iterator

from sandbox.errors import BundleRefused

MAX_MEMBERS = 10_000
MAX_PATH_BYTES = 1024
MAX_DEPTH = 64
CHUNK = 1 << 20  # bytes that a reader holds of a content

Head = tuple[str, int, int, int]  # path, size, mtime_ns, mode
Entry = tuple[Head, Iterator[bytes] | None]  # None: a folder


class Places:
    """What is taken so far, by as many members as are allowed."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = {""}
        self._count = 0

    def take(self, name: str, folder: bool) -> str:
        """The clean path; refuses two members that want the same place."""
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise too_many()
        path = clean_path(name)
        if folder:
            if path in self._files:
                raise BundleRefused(
                    f"{shown(name)} is in the archive twice, as a file and as a folder."
                )
            self._take_folders(name, path)
            return path
        if not path:
            raise BundleRefused(f"{shown(name)} is no name for a file.")
        if path in self._files or path in self._folders:
            raise BundleRefused(f"{shown(name)} is in the archive twice.")
        self._files.add(path)
        self._take_folders(name, path.rpartition("/")[0])
        return path

    def _take_folders(self, name: str, path: str) -> None:
        while path not in self._folders:
            if path in self._files:
                raise BundleRefused(f"{shown(name)} lies below a file of the archive.")
            self._folders.add(path)
            path = path.rpartition("/")[0]


def too_many() -> BundleRefused:
    return BundleRefused(f"The archive has more than {MAX_MEMBERS} members.")


def too_large(disk_bytes: int) -> BundleRefused:
    return BundleRefused(f"The archive unpacks to more than {disk_bytes >> 20} MB.")


def a_link(name: str, remedy: str) -> BundleRefused:
    return BundleRefused(f"{shown(name)} is a link; pack what it points to ({remedy}).")


def neither_file_nor_folder(name: str) -> BundleRefused:
    return BundleRefused(f"{shown(name)} is neither a file nor a folder.")


def clean_path(name: str) -> str:
    """The member's path without './' and doubled slashes; '' for the root itself.

    Raises BundleRefused for every way to leave the work directory or to name nothing.
    """
    if len(os.fsencode(name)) > MAX_PATH_BYTES:
        raise BundleRefused(f"A path is longer than {MAX_PATH_BYTES} bytes.")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    drive = parts and parts[0][1:2] == ":"
    if name.startswith("/") or "\\" in name or "\0" in name or drive:
        raise BundleRefused(f"{shown(name)} is not a relative path.")
    if ".." in parts:
        raise BundleRefused(f"{shown(name)} leads out of the work directory.")
    if len(parts) > MAX_DEPTH:
        raise BundleRefused(f"{shown(name)} lies more than {MAX_DEPTH} folders deep.")
    if any(len(os.fsencode(part)) > 255 for part in parts):
        raise BundleRefused("A name is longer than 255 bytes.")
    return "/".join(parts)


def shown(name: str) -> str:
    """A hostile name in a sentence: quoted, escaped, short."""
    text = ascii(name)
    return text if len(text) <= 100 else text[:97] + "..."


def slices(fd: int, offset: int, size: int, piece: int = CHUNK) -> Iterator[bytes]:
    """Content that stands in the upload as it is."""
    end = offset + size
    while offset < end:
        chunk = os.pread(fd, min(piece, end - offset), offset)
        if not chunk:
            raise BundleRefused("The upload is shorter than it says.")
        offset += len(chunk)
        yield chunk
