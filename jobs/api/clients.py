"""Who asks, how often they may, and what they hear about their quota.

Request rates are django-ratelimit's; what a job costs is the quota's (jobs/quota.py).
"""

import functools
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.http import HttpRequest, HttpResponse
from django_ratelimit.core import get_usage

from jobs.api.site import Site, site_of
from jobs.conf import Config
from jobs.errors import TooMany
from jobs.quota import HOUR, MINUTE, Standing

_WITH_PORT = re.compile(r"\[([0-9a-fA-F:.%\w]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+")

View = Callable[..., Awaitable[HttpResponse]]
Network = IPv4Network | IPv6Network


@functools.cache
def networks(names: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ip_network(name) for name in names)


def client_of(request: HttpRequest) -> str:
    """The client of `request`, as `client_name` has it."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
    return client_at(request.META["REMOTE_ADDR"], forwarded, site_of(request).config)


def client_in(scope: Mapping[str, Any], config: Config) -> str:
    """The same of a connection's ASGI scope."""
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    return client_at(scope["client"][0], forwarded.decode("latin-1"), config)


def client_at(peer: str, forwarded: str, config: Config) -> str:
    """The same of a connection from `peer` with that X-Forwarded-For."""
    return client_name(address_of(peer, forwarded, networks(config.trust_proxy)))


def address_of(peer: str, forwarded: str, proxies: Sequence[Network]) -> str:
    """Where a request comes from: the peer, or what the proxies that we trust say of it.

    Each proxy adds its own peer at the right end of X-Forwarded-For. So it is read from the right,
    as far as trusted proxies have written it; left of that stands whatever the client likes.
    """
    hops = [hop.strip() for hop in forwarded.split(",") if hop.strip()]
    address = peer
    while hops and is_trusted(address, proxies):
        hop = hops.pop()
        if _parse(hop) is None:
            break
        address = hop
    return address


def is_trusted(address: str, proxies: Sequence[Network]) -> bool:
    if not proxies:
        return False
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in proxies)


def client_name(address: str) -> str:
    """The address; IPv6 by /64, which one customer has whole; IPv4 in IPv6 as IPv4."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, 64), strict=False))
    return str(parsed or address)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    if found := _WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def rated(setting: str) -> Callable[[View], View]:
    """Refuse a client that calls the view more often than the rate in `setting` allows.

    get_usage and not the package's decorator, which cannot wrap a coroutine; and not the cache's
    async calls, which do not count atomically.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        async def count_first(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            config = site_of(request).config
            count(view.__name__, client_of(request), getattr(config, setting), config)
            return await view(request, *args, **kwargs)

        return count_first

    return decorate


def count(group: str, client: str, rate: str, config: Config) -> None:
    """One more request of `client` to `group`. Raises TooMany."""
    if config.quotas:
        _sweep_counters()
        if refusal := over_rate(group, rate, client, count=True):
            raise refusal


def over_rate(group: str, rate: str, client: str, count: bool = False) -> TooMany | None:
    """What one more request of `client` to the view `group` hears; with `count` it is one."""
    usage = get_usage(
        None, group=group, key=lambda group, request: client, rate=rate, increment=count
    )
    if not usage or usage["count"] + (not count) <= usage["limit"]:
        return None
    # The window's last second still belongs to it.
    return TooMany(f"Too many requests: {rate} are allowed", usage["time_left"] + 1)


_swept = time.monotonic()


def _sweep_counters() -> None:
    """Once a minute: the cache keeps what is over until it is full, and it holds who asked."""
    global _swept
    if time.monotonic() - _swept < MINUTE:
        return
    _swept = time.monotonic()
    cache = caches[settings.RATELIMIT_USE_CACHE]
    if isinstance(cache, Counters):
        cache.sweep()


class Counters(LocMemCache):
    """The cache of the request rates; one that forgets what is over."""

    def sweep(self) -> None:
        now = time.time()
        with self._lock:
            for key, end in list(self._expire_info.items()):
                if end is not None and end <= now:
                    self._delete(key)


def quota_headers(site: Site, client: str) -> dict[str, str]:
    """RateLimit and RateLimit-Policy, as the draft of the IETF's HTTPAPI group has them."""
    if not site.config.quotas:
        return {}
    stand = site.engine.quota.standing(client)
    free = max(0, stand.concurrent_limit - stand.active)
    return {
        "RateLimit-Policy": f'"cpu";q={math.ceil(stand.cpu_limit)};w={MINUTE:.0f}, '
        f'"hourly";q={stand.hourly_limit};w={HOUR:.0f}, '
        f'"concurrent";q={stand.concurrent_limit};qu="concurrent-requests"',
        "RateLimit": f'"cpu";r={math.floor(stand.cpu_left)};t={math.ceil(stand.cpu_full_in)}, '
        f'"hourly";r={stand.hourly_left};t={math.ceil(stand.hourly_next_in)}, '
        f'"concurrent";r={free}',
    }


def refused_body(stand: Standing) -> dict[str, object]:
    """What earlier clients read in the body of a 429."""
    return {"cpu_available": round(stand.cpu_left, 2), "active_jobs": stand.active}
