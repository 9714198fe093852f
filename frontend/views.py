"""Hands out the page and its few files, read once: a path in a URL opens nothing."""

import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

FOLDER = Path(__file__).parent / "static"
KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)


async def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(_page(), headers={"Content-Security-Policy": POLICY})


def asset(not_found: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> Any:
    """A view: a file of static/, or what `not_found` says to every other name."""

    async def look(request: HttpRequest, name: str) -> HttpResponse:
        known = _assets().get(name)
        if known is None:
            return await not_found(request)
        content, kind = known
        return HttpResponse(content, content_type=kind)

    return look


@functools.cache
def _page() -> str:
    return str(render_to_string("frontend/index.html"))


@functools.cache
def _assets() -> dict[str, tuple[bytes, str]]:
    return {
        path.relative_to(FOLDER).as_posix(): (path.read_bytes(), KINDS[path.suffix])
        for path in FOLDER.rglob("*")
        if path.suffix in KINDS
    }
