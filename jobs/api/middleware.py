"""The guard in front of every request, and the headers on every response. One native coroutine:
each synchronous middleware would cost a hop into a thread.

What it stops: a web page anywhere that makes its visitor's browser post jobs to a Sandrun on the
visitor's own machine or network (foreign Origin, cross-site Sec-Fetch-Site), or that gives its own
name our address to read the answers (Host). Sites named in the setting allow_origin are at home.
"""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.request import split_domain_port, validate_host
from django.utils.cache import patch_vary_headers

from jobs.api.errors import Refusal, answer
from jobs.api.site import Site, site_of
from jobs.errors import Foreign, Rejected

GetResponse = Callable[[HttpRequest], Awaitable[HttpResponse]]

ANY_ADDRESS = "<address>"  # among hosts: whatever is a number; a rebound name never is

_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
# What a page of an allowed origin may send; never cookies.
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "authorization, content-type, idempotency-key, last-event-id",
    "Access-Control-Max-Age": "600",
    "Access-Control-Allow-Private-Network": "true",
}

_OTHER_SITES = (
    "Requests from other web sites are refused",
    "An operator lets one in with --allow-origin https://its.name.",
)
_OWN_SITES = ("same-origin", "none")  # none: typed into the address bar

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
}


class Guard:
    """Middleware: refuse what `refusal` refuses, answer what went wrong, harden every response."""

    async_capable = True
    sync_capable = False

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        site = site_of(request)
        origin = request.META.get("HTTP_ORIGIN")
        invited = origin in site.config.allow_origin
        handshake = "websocket" in request.META.get("HTTP_UPGRADE", "").lower()
        refused = refusal_of(
            site,
            request.method or "",
            lambda name: request.META.get(f"HTTP_{name.upper().replace('-', '_')}"),
            handshake,
        )
        if handshake and not refused:  # the server opens the others (jobs/api/sockets.py)
            refused = Rejected(
                "No WebSocket can be opened so",
                "GET /stream/{job_id} over HTTP/1.1, with a Sec-WebSocket-Key and version 13.",
            )
        if refused:
            response = answer(refused)
        elif invited and request.method == "OPTIONS":
            response = HttpResponse(status=204, headers=_PREFLIGHT)
        else:
            response = await self.get_response(request)
        if isinstance(response, Refusal):
            site.engine.figures.refused[response.reason] += 1
        if site.config.allow_origin:
            patch_vary_headers(response, ("Origin",))
        if invited:
            response["Access-Control-Allow-Origin"] = origin
            response["Access-Control-Expose-Headers"] = "*"
        for name, value in HEADERS.items():
            response.setdefault(name, value)
        if response.status_code in (204, 304):
            del response.headers["Content-Type"]  # Django's: a cache would take it for the file's
        elif not response.streaming:
            response.setdefault("Content-Length", str(len(response.content)))
        return response

    async def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        try:
            return answer(error, request)
        finally:
            # It came through a thread, and the frames there would hold it and the request with it
            # until the garbage is collected.
            error.__traceback__ = None


def refusal_of(
    site: Site, method: str, header: Callable[[str], str | None], handshake: bool
) -> Rejected | None:
    """Why `site` refuses a request with these headers, or None."""
    origin = header("Origin")
    invited = origin in site.config.allow_origin
    return refusal(
        method,
        header("Host") or "",
        None if invited else origin,
        None if invited else header("Sec-Fetch-Site"),
        site.hosts,
        handshake,
    )


def refusal(
    method: str,
    host: str,
    origin: str | None,
    fetch_site: str | None,
    hosts: tuple[str, ...],
    handshake: bool = False,
) -> Rejected | None:
    """Why a request with these headers is not for us, or None. The `handshake` of a WebSocket is
    a GET, but no browser hides from another web site what comes after it.
    """
    name, _ = split_domain_port(host)
    if not name or not _is_ours(name, hosts):
        return Rejected(
            "This server does not know itself by that Host",
            "An operator adds names with SANDRUN_ALLOWED_HOSTS.",
        )
    if method in _SAFE and not handshake:
        return None
    if origin is not None and not _is_same_host(origin, host):
        return Foreign(*_OTHER_SITES)
    if fetch_site is not None and fetch_site not in _OWN_SITES:
        return Foreign(*_OTHER_SITES)
    return None


def _is_ours(name: str, hosts: tuple[str, ...]) -> bool:
    if validate_host(name, hosts):
        return True
    try:
        return ANY_ADDRESS in hosts and bool(ip_address(name.strip("[]")))
    except ValueError:
        return False


def _is_same_host(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
