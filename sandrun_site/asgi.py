"""Django behind one door. Made by `door` for a Site, and only run by our own server
(`manage.py serve`): the bounds on uploads and slow clients are there.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import django
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.handlers.asgi import ASGIHandler

from jobs.api import errors, sockets
from jobs.api.site import SCOPE_KEY, Site
from jobs.api.uploads import BODY_KEY
from jobs.job import Forgotten

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Handler(ASGIHandler):
    """Django's, but for the exception by which it learns that a client has left, as each does in
    the end. The exception and the request hold each other, and with it the connection and what was
    not read of the answer, until the garbage is collected: fifty who hang up, 3 MB.
    """

    async def listen_for_disconnect(self, receive: Receive) -> None:
        await receive()  # after the body nothing else comes


def door(site: Site) -> Application:
    """The ASGI application of `site`."""
    django.setup(set_prefix=False)
    doors = ProtocolTypeRouter({"http": Handler(), "websocket": URLRouter(sockets.urlpatterns)})

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scope[SCOPE_KEY] = site
        try:
            await doors(scope, receive, send)
        except Forgotten:
            raise  # the answer breaks off: nobody's fault
        except Exception as error:
            errors.report(error)
            raise
        finally:
            if body := scope.pop(BODY_KEY, None):
                body.close()  # now, not when the garbage is collected: it may be 100 MB

    return application
