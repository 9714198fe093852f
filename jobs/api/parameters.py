"""What a request asks beside its path: by its method, its query and its headers."""

import functools
import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from django.http import HttpRequest, HttpResponse

from jobs.api.clients import View
from jobs.api.errors import refuse
from jobs.api.site import site_of
from jobs.errors import Rejected
from jobs.job import Job

WAIT_SECONDS = 60  # the longest ?wait=


def methods(*allowed: str) -> Callable[[View], View]:
    """Answer 405 to other methods. HEAD comes with GET; our server sends no body for it."""
    if "GET" in allowed:
        allowed = (*allowed, "HEAD")

    def decorate(view: View) -> View:
        @functools.wraps(view)
        async def check_first(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method not in allowed:
                allow = {"Allow": ", ".join(allowed)}
                takes = f"This path takes {allow['Allow']}."
                return refuse(405, "Method not allowed", "method_not_allowed", takes, allow)
            return await view(request, *args, **kwargs)

        return check_first

    return decorate


def own_job(request: HttpRequest, job_id: str) -> Job:
    """The job, for whoever has its owner_token. Raises UnknownJob or NotOwner."""
    engine = site_of(request).engine
    job = engine.store.find(job_id)
    scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    engine.check_owner(job, token.strip() if scheme.lower() == "bearer" else None)
    return job


def asked_path(request: Any, name: str) -> str:
    """The path in the URL, with bytes that are not UTF-8 as the job's file names have them."""
    raw = request.scope.get("raw_path")
    if raw is None:
        return name
    return os.fsdecode(unquote_to_bytes(raw.split(b"?", 1)[0]).split(b"/", 3)[3])


def wait_seconds(request: HttpRequest) -> int:
    text = request.GET.get("wait", "0")
    if not re.fullmatch(r"[0-9]+", text):
        raise Rejected("wait must be a whole number of seconds")
    return min(int(text.lstrip("0")[:9] or "0"), WAIT_SECONDS)  # the first 9 digits say enough


def switch(request: HttpRequest, name: str) -> bool:
    """Whether ?name=1 is asked. Whoever writes "true" means it, and must not be taken for a no."""
    text: str = request.GET.get(name, "0")
    if text not in ("0", "1"):
        raise Rejected(f"{name} must be 1 or 0")
    return text == "1"


def accepts(request: HttpRequest, kind: str) -> bool:
    """True when `kind` is asked for by name, and not with q=0, which asks for anything else; */* is
    everybody's and means nothing.
    """
    for item in request.META.get("HTTP_ACCEPT", "").lower().split(","):
        name, *parameters = (word.strip() for word in item.split(";"))
        if name == kind:
            return not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return False
