"""The API as an OpenAPI document: what every operation takes, and every answer that it can give.
GET /openapi.json serves it, docs/api.md is written from it, and the tests hold the server to it.
What Config bounds, it says with this server's numbers.
"""

import functools
import hashlib

from django.http import HttpRequest, HttpResponse

from jobs.api import ranges, wire
from jobs.api.clients import rated
from jobs.api.openapi.answers import ANSWERS
from jobs.api.openapi.notation import Object, headers, refusals_in
from jobs.api.openapi.operations import paths
from jobs.api.openapi.requests import FORM, UPLOAD, manifest_of
from jobs.api.parameters import methods
from jobs.api.site import site_of
from jobs.conf import Config


@methods("GET")
@rated("read_rate")
async def openapi(request: HttpRequest) -> HttpResponse:
    """GET /openapi.json."""
    site = site_of(request)
    names = (name for one in site.runtimes.values() for name in (one.name, *one.aliases))
    content, etag = _written(site.config, tuple(names))
    fields = {"ETag": etag, "Cache-Control": "no-cache"}
    if ranges.has_it(request, etag):
        return HttpResponse(status=304, headers=fields)
    return HttpResponse(content, content_type=wire.JSON, headers=fields)


@functools.lru_cache(maxsize=1)
def _written(config: Config, names: tuple[str, ...]) -> tuple[bytes, str]:
    """The document and its ETag."""
    content = wire.encode(document(config, names))
    return content, f'"{hashlib.sha256(content).hexdigest()}"'


def document(config: Config, names: tuple[str, ...]) -> Object:
    """The whole; `names` are those that a manifest may call its interpreter."""
    manifest = manifest_of(config, names)
    operations = paths(config, manifest)
    return {
        "openapi": "3.1.1",
        "info": {"title": "Sandrun", "version": "1", "summary": _SUMMARY, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": operations,
        "components": {
            "schemas": {"Manifest": manifest, "Upload": UPLOAD, "Form": FORM, **ANSWERS},
            "responses": refusals_in(operations),
            "headers": headers(config),
            "securitySchemes": {
                "ownerToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The owner_token of the submission's answer.",
                }
            },
        },
    }


_SUMMARY = "Code in, results out, then everything disappears."
_ABOUT = """\
Send code, get what it prints and makes. There are no accounts: whoever knows a job_id may read the
job, and whoever has its owner_token may cancel and delete it.

HEAD is answered wherever GET is. Other methods hear 405 with Allow. Errors are
application/problem+json; `error` is a sentence, `reason` a word for programs.

From web pages of other sites only those that the operator has invited may ask (CORS); for all
others whatever changes something, and every WebSocket, is refused with 403, and a Host that is not
the server's with 400."""
_TAGS = {
    "server": "What this server is, and how it is",
    "submission": "A job's beginning",
    "job": "One job, for whoever knows its id",
    "owner": "One job, for whoever has its owner_token",
}
