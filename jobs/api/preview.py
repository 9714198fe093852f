"""An HTML output, shown: the one place where a job's bytes go out as something that a browser runs.

It runs nowhere but in a frame of our own page, or of a site that the operator has invited. There it
has no origin, so no cookies, no storage, no service worker and nothing of ours to read; and no way
out: it can fetch nothing, and where its frame may be led, the page around it says (frame-src).
"""

from collections.abc import Sequence

from django.http import HttpRequest, HttpResponse

from jobs.api.clients import rated
from jobs.api.parameters import asked_path, methods
from jobs.api.pieces import Streamed, nothing, read, read_out, then
from jobs.api.site import site_of
from jobs.errors import Rejected, TooLarge, UnknownFile
from jobs.names import encoded

MIB = 1024 * 1024
PREVIEW_BYTES = 10 * MIB
HTML = "text/html; charset=utf-8"
_NAMES = (".html", ".htm")


@methods("GET")
@rated("read_rate")
async def preview(request: HttpRequest, job_id: str, name: str) -> HttpResponse:
    """An HTML output, for a frame. Whoever has taken all of it has read it, as by /download."""
    site = site_of(request)
    job = site.engine.store.find(job_id)
    output = job.outputs.get(asked_path(request, name))
    if output is None:
        raise UnknownFile(f"All that there are, are in /outputs/{job.id}.")
    elsewhere = f"It is at /download/{job.id}/{encoded(output.path)}."
    if not output.path.lower().endswith(_NAMES):
        raise UnknownFile(f"Only .html and .htm can be shown. {elsewhere}")
    if output.size > PREVIEW_BYTES:
        most = f"Only {PREVIEW_BYTES // MIB} MB of HTML can be shown"
        raise TooLarge(most, elsewhere)
    # Opened by itself it would stand under our name in the address bar, with nothing around it to
    # keep it from leading away. Programs, and browsers on plain http, do not say where it goes.
    if request.META.get("HTTP_SEC_FETCH_DEST", "iframe") != "iframe":
        raise Rejected("This is shown in a frame of the page only", elsewhere)
    headers = {
        "Content-Length": str(output.size),
        "Content-Security-Policy": _policy(site.config.allow_origin),
        "X-Frame-Options": "SAMEORIGIN",  # browsers that know frame-ancestors do not look at it
        "X-DNS-Prefetch-Control": "off",
    }
    if request.method == "HEAD":
        return Streamed(nothing(), content_type=HTML, headers=headers)
    content = read_out(read(site, job), output.offset, output.offset + output.size)
    content = then(content, lambda: site.engine.was_read(job, [output.path]))
    return Streamed(content, content_type=HTML, headers=headers)


def _policy(invited: Sequence[str]) -> str:
    return "; ".join(
        (
            "sandbox allow-scripts",
            "default-src 'none'",
            "script-src 'unsafe-inline'",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "font-src data:",
            "media-src data: blob:",
            "form-action 'none'",
            "base-uri 'none'",
            " ".join(("frame-ancestors 'self'", *invited)),
        )
    )
