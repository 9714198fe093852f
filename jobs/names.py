"""The names of files, which on Linux are bytes and need not be text: where we hold one as str,
bytes that are no UTF-8 are surrogates (PEP 383).
"""

from urllib.parse import quote


def raw_path(path: str) -> bytes:
    """The bytes that the job named its file with."""
    return path.encode("utf-8", "surrogateescape")


def encoded(path: str) -> str:
    """As in a URL, the same for the same bytes and never for others: what is signed."""
    return quote(raw_path(path))


def shown(path: str) -> str:
    """`path` as text; what is no text is written as an escape."""
    return raw_path(path).decode("utf-8", "backslashreplace")
