"""Django behind one door. Made by `door` for a Site, and only run by our own server
(`manage.py serve`): the bounds on uploads and slow clients are there.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

from jobs.api import errors, sockets
from jobs.api.site import SCOPE_KEY, Site
from jobs.api.uploads import BODY_KEY
from jobs.job import Forgotten

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def door(site: Site) -> Application:
    """The ASGI application of `site`."""
    doors = ProtocolTypeRouter(
        {"http": get_asgi_application(), "websocket": URLRouter(sockets.urlpatterns)}
    )

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
