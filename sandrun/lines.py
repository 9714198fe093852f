"""What a job prints, cut into lines: of each stream for itself, as both go on."""

import base64
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
        self._rest = dict.fromkeys(STREAMS, b"")

    def put(self, frame: Mapping[str, Any]) -> Iterator[LogLine]:
        """The lines that end in a frame of a log."""
        stream, data = frame["type"], data_of(frame)
        left = len(data)  # bytes of the frame behind the line
        *lines, self._rest[stream] = (self._rest[stream] + data).split(b"\n")
        ends = [at + 1 for at, byte in enumerate(data) if byte == 10]
        for line, end in zip(lines, ends, strict=True):
            yield LogLine(
                stream, line.decode("utf-8", "replace"), frame["t"], frame["seq"] - left + end
            )

    def end(self, seq: int, time: float, *streams: StreamName) -> Iterator[LogLine]:
        """What is left without an end."""
        for stream in streams or STREAMS:
            if rest := self._rest[stream]:
                self._rest[stream] = b""
                yield LogLine(stream, rest.decode("utf-8", "replace"), time, seq)
