"""Ranges: which part of a file a request asks for (RFC 9110, 13 and 14), and whether it has it
already.
"""

import re
from typing import NamedTuple

from django.http import HttpRequest

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_TAG = re.compile(r'(?:W/)?("[^"]*")')


class Range(NamedTuple):
    """Bytes [start, stop) of a file."""

    start: int
    stop: int


def has_it(request: HttpRequest, etag: str) -> bool:
    """Whether the client has the file with this tag (If-None-Match)."""
    known = request.META.get("HTTP_IF_NONE_MATCH", "")
    return known.strip() == "*" or etag in _TAG.findall(known)


def asked(request: HttpRequest, size: int, etag: str) -> Range | None:
    """The part of `size` bytes that is asked for; None for all of them, which is also the answer to
    several parts at once and to what is no range. Empty when it lies behind the end.
    """
    found = _RANGE.fullmatch(request.META.get("HTTP_RANGE", "").strip())
    condition = request.META.get("HTTP_IF_RANGE")
    if request.method != "GET" or not found or (condition is not None and condition != etag):
        return None
    first, last = found.groups()
    if not first:
        return Range(max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return Range(int(first), min(int(last) + 1, size) if last else size)
