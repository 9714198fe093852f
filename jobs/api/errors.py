"""The one place where exceptions become responses: {"error", "details"?, "reason"}, nothing of ours
inside, and nothing of the request in our log.
"""

import logging

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse

from jobs import errors
from jobs.api.wire import reply
from sandbox.errors import SandboxError

log = logging.getLogger(__name__)

_STATUS: dict[type[errors.Rejected], int] = {
    errors.TooLarge: 413,
    errors.UnsupportedUpload: 415,
    errors.UnknownJob: 404,
    errors.UnknownFile: 404,
    errors.Foreign: 403,
    errors.TooMany: 429,
    errors.Full: 503,
    errors.Unready: 503,
}


def answer(error: BaseException) -> HttpResponse:
    """The response for whatever went wrong."""
    if isinstance(error, errors.Wait):
        body = _body(error) | {"retry_after": error.retry_after}
        return reply(body, _status(error), {"Retry-After": str(error.retry_after)})
    if isinstance(error, errors.Rejected):
        return reply(_body(error), _status(error))
    if isinstance(error, SandboxError):
        sentence = f"The sandbox failed at the step {error.step}; nothing was run"
        return reply({"error": sentence, "reason": "sandbox_error"}, 503, {"Retry-After": "5"})
    if isinstance(error, SuspiciousOperation):  # too many query parameters, say
        return reply({"error": "Bad request", "reason": "invalid_request"}, 400)
    report(error)
    return reply({"error": "The server failed; this is our fault", "reason": "internal"}, 500)


def report(error: BaseException) -> None:
    """Where a fault of ours came from: frames and type, never a message, an id or an address."""
    bare = Exception(type(error).__name__).with_traceback(error.__traceback__)
    log.error("a request failed by a fault of ours", exc_info=bare)


def not_found(request: HttpRequest, exception: object = None) -> HttpResponse:
    return reply({"error": "Not found", "reason": "unknown_path"}, 404)


def bad_request(request: HttpRequest, exception: object = None) -> HttpResponse:
    return reply({"error": "Bad request", "reason": "invalid_request"}, 400)


def server_error(request: HttpRequest) -> HttpResponse:
    return reply({"error": "The server failed; this is our fault", "reason": "internal"}, 500)


def _status(error: errors.Rejected) -> int:
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 400)


def _body(error: errors.Rejected) -> dict[str, object]:
    body: dict[str, object] = {"error": error.sentence, "reason": error.reason}
    return body | {"details": error.details} if error.details else body
