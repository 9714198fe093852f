"""The pages behind the `type` of an error: each is a section of problems.md beside
this file."""

from pathlib import Path

from django.http import HttpRequest, HttpResponse

from jobs.api import wire
from jobs.api.clients import rated
from jobs.api.parameters import methods
from jobs.api.views import not_found

_DOCUMENT = Path(__file__).with_name("problems.md")


def _pages() -> dict[str, str]:
    _, *sections = _DOCUMENT.read_text().split("\n## ")
    return {section.partition("\n")[0]: section.strip() for section in sections}


PAGES = _pages()  # by reason: read once, so that no path in a URL opens anything


@methods("GET")
@rated("read_rate")
async def listed(request: HttpRequest) -> HttpResponse:
    """Every reason, with the first paragraph of its page."""
    paragraphs = {reason: page.split("\n\n")[1] for reason, page in PAGES.items()}
    text = "\n\n".join(f"/problems/{reason}\n{first}" for reason, first in paragraphs.items())
    return HttpResponse(f"{text}\n", content_type=wire.TEXT)


@methods("GET")
@rated("read_rate")
async def page(request: HttpRequest, reason: str) -> HttpResponse:
    if reason not in PAGES:
        return await not_found(request)
    return HttpResponse(f"{PAGES[reason]}\n", content_type=wire.TEXT)
