"""Hands out the page, and its files.

The page is one document. A browser with JavaScript gets all else from the API; for one without, the
document itself shows what its door was told of a job or a refusal (see `page`).
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.cache import get_conditional_response

from frontend import assets, policy, words

STATIC = f"/static/{assets.VERSION}/"
ENTRY = "frontend/main.js"
STYLES = ("frontend/style.css", "frontend/log.css")
USUAL = "python3"  # the language of who has not chosen one
KEPT_FOR_EVER = "public, max-age=31536000, immutable"

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_SERVER = re.compile(rf"https?://(?=.{{1,253}}(:|$)){_LABEL}(\.{_LABEL})*(:[1-9]\d{{0,4}})?")


async def page(
    request: HttpRequest,
    *,
    languages: Sequence[str] = (),
    job: Mapping[str, Any] | None = None,
    owner_token: str = "",
    gone: bool = False,
    problem: Mapping[str, Any] | None = None,
    typed: Mapping[str, str] | None = None,
    status: int = 200,
) -> HttpResponse:
    """The document. Without JavaScript it shows `job`, as the API tells of it, and to its owner the
    buttons; or that it is `gone`; or the form, with what is `typed` already and with the `problem`.
    """
    asked = request.GET.getlist("server")
    server = origin(asked[0] if asked else "") if len(asked) < 2 else None
    if server is None:
        wrong = {"error": "?server= must be like https://name or https://name:port"}
        content = document({"problem": wrong, "is_dead": True})
        return HttpResponse(content, status=400, headers=_headers(""))
    told = {
        "languages": languages,
        "job": words.told(job) if job else None,
        "owner_token": owner_token,
        "gone": gone,
        "problem": problem,
        "typed": typed or {"language": USUAL},
    }
    return HttpResponse(
        document({"server": server, **told}), status=status, headers=_headers(server)
    )


def asset(not_found: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> Any:
    """A view: a file of static/, or what `not_found` says to every other name."""

    async def look(request: HttpRequest, name: str) -> HttpResponse:
        version, _, path = name.partition("/")
        known = assets.FILES.get(path) if version == assets.VERSION else None
        if known is None:
            return await not_found(request)
        headers = {"Cache-Control": KEPT_FOR_EVER}
        body = known.plain
        if known.packed:
            headers["Vary"] = "Accept-Encoding"
            if _takes_gzip(request.META.get("HTTP_ACCEPT_ENCODING", "")):
                body = known.packed
                headers["Content-Encoding"] = "gzip"
        headers["ETag"] = body.etag
        response = HttpResponse(body.content, content_type=known.type, headers=headers)
        found = get_conditional_response(request, etag=body.etag, response=response)
        assert isinstance(found, HttpResponse)
        return found

    return look


def document(told: Mapping[str, object]) -> str:
    scripts = assets.needs(assets.FILES, ENTRY)
    about = {"static": STATIC, "links": "/j/", "entry": ENTRY, "styles": STYLES, "modules": scripts}
    return str(render_to_string("frontend/index.html", {**about, **told}))


def _headers(server: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy.content(server),
        "Permissions-Policy": policy.PERMISSIONS,
    }


def origin(text: str) -> str | None:
    """The server that is so called, empty for this one; None when it is no origin.

    Nothing but a name, in the letters of a name: it goes into a header. Not an IPv6 address, which
    a Content-Security-Policy cannot name.
    """
    if text and not _SERVER.fullmatch(text):
        return None
    port = text.rpartition(":")[2]
    return None if port.isdigit() and int(port) > 65535 else text


def _takes_gzip(accepted: str) -> bool:
    """Whether gzip is among what Accept-Encoding names, and not with q=0."""
    for item in accepted.lower().split(","):
        name, _, weight = (word.strip() for word in item.partition(";"))
        if name == "gzip":
            return not re.fullmatch(r"q\s*=\s*0(\.0*)?", weight)
    return False
