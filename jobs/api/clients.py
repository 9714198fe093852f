"""Who asks, and how often. Rates only, by django-ratelimit; what a job costs is another matter."""

import functools
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django_ratelimit.core import get_usage

from jobs.api.site import site_of
from jobs.errors import TooMany

View = Callable[..., Awaitable[HttpResponse]]


def client_of(request: HttpRequest) -> str:
    """The peer's address: IPv6 by /64, which one customer has whole; IPv4 in IPv6 as IPv4.

    No header can change it: whoever connects to us writes headers as they please.
    """
    address = ipaddress.ip_address(request.META["REMOTE_ADDR"].partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def rated(view: View) -> View:
    """Refuse a client that calls `view` more often than the setting submit_rate allows.

    get_usage and not the package's decorator, which cannot wrap a coroutine; and not the cache's
    async calls, which do not count atomically.
    """

    @functools.wraps(view)
    async def count_first(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        config = site_of(request).config
        if config.quotas:
            usage = get_usage(
                request,
                group="submit",
                key=lambda group, request: client_of(request),
                rate=config.submit_rate,
                increment=True,
            )
            if usage and usage["should_limit"]:
                raise TooMany(
                    f"Too many requests: {config.submit_rate} are allowed", usage["time_left"]
                )
        return await view(request, *args, **kwargs)

    return count_first
