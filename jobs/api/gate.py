"""Gate: whether a client has read enough of what was written to it."""

import asyncio

from twisted.internet import interfaces
from zope.interface import implementer


@implementer(interfaces.IPushProducer)
class Gate:
    """Closed while the client does not read what was written already."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()

    def pauseProducing(self) -> None:
        self.open.clear()

    def resumeProducing(self) -> None:
        self.open.set()

    stopProducing = resumeProducing
