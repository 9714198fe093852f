"""What a job prints, cut into lines: of each stream for itself, as both go on."""

import base64
import codecs
from collections.abc import Iterator, Mapping
from typing import Any

from sandrun.result import LogLine, StreamName

STREAMS: tuple[StreamName, ...] = ("stdout", "stderr")


def data_of(frame: Mapping[str, Any]) -> bytes:
    """The bytes in a frame of a log."""
    if "base64" in frame:
        return base64.b64decode(frame["base64"])
    text: str = frame["data"]
    return text.encode()


class Lines:
    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: decoder("replace") for stream in STREAMS}
        self._rest = dict.fromkeys(STREAMS, "")

    def put(self, frame: Mapping[str, Any]) -> Iterator[LogLine]:
        """The lines that end in a frame of a log."""
        stream = frame["type"]
        text = self._rest[stream] + self._decoders[stream].decode(data_of(frame))
        *lines, self._rest[stream] = text.split("\n")
        for line in lines:
            yield LogLine(stream, line, frame["t"], frame["seq"])

    def end(self, seq: int, time: float) -> Iterator[LogLine]:
        """What is left without an end."""
        for stream in STREAMS:
            if rest := self._rest[stream] + self._decoders[stream].decode(b"", final=True):
                yield LogLine(stream, rest, time, seq)
