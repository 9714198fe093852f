"""The page's own addresses: the front door, the link of a job, and what a browser without
JavaScript sends. What is shown there is the page's (frontend/), told what the API would tell.

The owner_token of a job that was begun by a form is in the document that answers it, in the buttons
that end the job, and nowhere else. So a form is answered with the job itself and not by a redirect:
an address would go into histories and to whoever it is shown to, and there is no cookie.
"""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from jobs.api import wire
from jobs.api.clients import View, quota_headers, rated
from jobs.api.errors import Refusal, answer
from jobs.api.parameters import accepts, methods
from jobs.api.site import Site, site_of
from jobs.api.uploads import BODY_KEY, FORM_BYTES, OWNER_BYTES, Form, body_of, fields_of, form_of
from jobs.api.views import END_SECONDS, take, wait_for, wait_with_client
from jobs.api.wire import reply
from jobs.errors import Rejected, UnknownJob
from jobs.memory import MemoryFile
from sandbox.errors import SandboxError

Page = Callable[..., Awaitable[HttpResponse]]  # frontend.views.page says what it may be told

FIRST_SECONDS = 3  # for the job of a form to be over; most are
MORE_SECONDS = 20  # for who asks to wait on
TYPED = ("language", "code", "args", "stdin")
OWNED = ("owner_token", "do")


def front_door(page: Page) -> View:
    """GET /: `page` for a browser, the server's JSON for everybody else."""

    @methods("GET")
    @rated("read_rate")
    async def index(request: HttpRequest) -> HttpResponse:
        if accepts(request, "text/html"):
            response = await page(request, languages=list(site_of(request).interpreters))
        else:
            response = reply(wire.server(site_of(request)))
        response["Vary"] = "Accept"
        return response

    return index


def job_link(page: Page) -> View:
    """/j/ID. GET: the job, to be read, which does not count as having read it: a browser with
    JavaScript shows what it fetches instead. For programs: /status. POST: its owner's buttons.
    """

    @methods("GET", "POST")
    async def link(request: HttpRequest, job_id: str) -> HttpResponse:
        if request.method == "POST":
            return await _told(page, request, partial(owned, job_id=job_id))
        if accepts(request, "text/html"):
            response = await _told(page, request, partial(read, job_id=job_id))
        else:
            response = await elsewhere(request, job_id)
        response["Vary"] = "Accept"
        return response

    @rated("read_rate")
    async def read(request: HttpRequest, job_id: str) -> HttpResponse:
        if request.GET.get("server"):  # it is there, if it is anywhere
            return await page(request)
        site = site_of(request)
        return await page(request, job=wire.brief(site.engine, site.engine.store.find(job_id)))

    @rated("read_rate")
    async def elsewhere(request: HttpRequest, job_id: str) -> HttpResponse:
        site_of(request).engine.store.find(job_id)
        return HttpResponseRedirect(f"/status/{job_id}")

    @rated("submit_rate")
    async def owned(request: HttpRequest, job_id: str) -> HttpResponse:
        """Show, cancel or delete it: what the page's buttons for its owner do."""
        with body_of(request, OWNER_BYTES) as body:
            sent = fields_of(body, request.META.get("CONTENT_TYPE", ""), OWNED)
        engine = site_of(request).engine
        job = engine.store.find(job_id)
        token = sent.get("owner_token", "")
        engine.check_owner(job, token or None)
        if (do := sent.get("do")) == "delete":
            engine.delete(job, cut=True)
            return await page(request, gone=_gone(engine.store.find, job_id))
        if do == "cancel":
            engine.cancel(job)
        elif do != "show":
            raise Rejected("do must be show, cancel or delete")
        await wait_for(job, END_SECONDS if do == "cancel" else MORE_SECONDS)
        return await page(request, job=wire.brief(engine, job), owner_token=token)

    return link


def form(page: Page) -> View:
    """POST /form: run what was typed into the page's form, and show it to its owner."""

    @methods("POST")
    async def typed(request: HttpRequest) -> HttpResponse:
        sent: dict[str, str] = {}

        async def act(request: HttpRequest) -> HttpResponse:
            body = request.scope[BODY_KEY] = body_of(request, FORM_BYTES)
            sent.update(fields_of(body, request.META.get("CONTENT_TYPE", ""), TYPED))
            return await run_form(request, sent)  # may refuse, but has what was typed

        return await _told(page, request, act, sent)

    @rated("submit_rate")
    async def run_form(request: HttpRequest, sent: dict[str, str]) -> HttpResponse:
        site = site_of(request)

        def read(body: MemoryFile, request: HttpRequest, site: Site) -> Form:
            return form_of(body, sent, site.runtimes)

        job = await take(request, site, read)
        await wait_with_client(site, job, FIRST_SECONDS)
        told = {"job": wire.brief(site.engine, job), "owner_token": job.owner_token}
        response = await page(request, **told)
        for name, value in quota_headers(site, job.client).items():
            response[name] = value
        response["Location"] = f"/j/{job.id}"
        return response

    return typed


async def _told(
    page: Page,
    request: HttpRequest,
    act: Callable[[HttpRequest], Awaitable[HttpResponse]],
    typed: dict[str, str] | None = None,
) -> HttpResponse:
    """The answer of `act`; when it refuses, the page says so, with what was typed."""
    site = site_of(request)
    try:
        return await act(request)
    except (Rejected, SandboxError) as error:
        refusal = answer(error, request)
    assert isinstance(refusal, Refusal)
    problem = json.loads(refusal.content)
    about: dict[str, Any] = {"problem": problem, "typed": typed, "status": refusal.status_code}
    response = await page(request, languages=list(site.interpreters), **about)
    for name, value in refusal.headers.items():
        response.headers.setdefault(name, value)
    site.engine.figures.refused[refusal.reason] += 1  # which the Guard does for those in JSON
    return response


def _gone(find: Callable[[str], object], job_id: str) -> str:
    """What its owner hears of a job that was deleted, once it was looked for again."""
    try:
        find(job_id)
    except UnknownJob:
        return "Deleted. We looked for it again: it is not found."
    raise AssertionError("a deleted job is there")
