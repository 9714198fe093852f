"""The one place where exceptions become responses: the fields of RFC 9457 beside those that earlier
clients read, nothing of ours inside, and nothing of the request in our log.
"""

import logging
from collections.abc import Mapping

from django.conf import settings
from django.core.exceptions import SuspiciousOperation, TooManyFieldsSent
from django.http import HttpRequest, HttpResponse

from jobs import errors
from jobs.api import wire
from jobs.api.clients import client_of, quota_headers, refused_body
from jobs.api.site import site_of
from sandbox.errors import SandboxError

log = logging.getLogger(__name__)

_STATUS: dict[type[errors.Rejected], int] = {
    errors.TooLarge: 413,
    errors.UnsupportedUpload: 415,
    errors.UnknownJob: 404,
    errors.UnknownFile: 404,
    errors.Unsigned: 404,
    errors.Foreign: 403,
    errors.NotOwner: 403,
    errors.NotOver: 409,
    errors.InFlight: 409,
    errors.KeyReused: 422,
    errors.StdinClosed: 409,
    errors.StdinElsewhere: 409,
    errors.TooMany: 429,
    errors.OverQuota: 429,
    errors.StdinFull: 503,
    errors.Full: 503,
    errors.Unready: 503,
}
_BEARER = {"WWW-Authenticate": "Bearer"}


class Refusal(HttpResponse):
    """A response that the Guard counts by its reason."""

    reason: errors.Reason


def answer(error: BaseException, request: HttpRequest | None = None) -> HttpResponse:
    """The response for whatever went wrong with `request`, if it came so far."""
    if isinstance(error, errors.Rejected):
        more: dict[str, object] = {}
        headers = {}
        if isinstance(error, errors.Wait):
            more["retry_after"] = error.retry_after
            headers["Retry-After"] = str(error.retry_after)
        if isinstance(error, errors.InvalidManifest) and error.faults:
            more["errors"] = [fault._asdict() for fault in error.faults]
        if isinstance(error, errors.NotOwner) and not error.has_token:
            return refuse(401, error.sentence, error.reason, error.details, _BEARER)
        if isinstance(error, errors.OverQuota | errors.TooMany) and request is not None:
            site, client = site_of(request), client_of(request)
            more |= refused_body(site.engine.quota.standing(client))
            headers |= quota_headers(site, client)
        return refuse(_status(error), error.sentence, error.reason, error.details, headers, more)
    if isinstance(error, SandboxError):
        sentence = f"The sandbox failed at the step {error.step}; nothing was run"
        return refuse(503, sentence, "sandbox_error", "", {"Retry-After": "5"}, {"retry_after": 5})
    if isinstance(error, SuspiciousOperation):  # too many query parameters, say
        return refuse(400, _sentence(error), "invalid_request")
    report(error)
    return refuse(500, "The server failed; this is our fault", "internal")


def refuse(
    status: int,
    sentence: str,
    reason: errors.Reason,
    details: str = "",
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, object] | None = None,
) -> HttpResponse:
    """An error's response."""
    body = {**wire.problem(status, sentence, reason, details), **(more or {})}
    response = Refusal(wire.encode(body), status=status, content_type=wire.PROBLEM, headers=headers)
    response.reason = reason
    return response


def report(error: BaseException) -> None:
    """Where a fault of ours came from: frames and type, never a message, an id or an address."""
    bare = Exception(type(error).__name__).with_traceback(error.__traceback__)
    log.error("a request failed by a fault of ours", exc_info=bare)


def not_found(request: HttpRequest, exception: object = None) -> HttpResponse:
    return refuse(404, "Not found", "unknown_path")


def bad_request(request: HttpRequest, exception: object = None) -> HttpResponse:
    return refuse(400, "Bad request", "invalid_request")


def server_error(request: HttpRequest) -> HttpResponse:
    return refuse(500, "The server failed; this is our fault", "internal")


def _sentence(error: SuspiciousOperation) -> str:
    if isinstance(error, TooManyFieldsSent):
        return f"More than {settings.DATA_UPLOAD_MAX_NUMBER_FIELDS} query parameters"
    return "The request is malformed"


def _status(error: errors.Rejected) -> int:
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 400)
