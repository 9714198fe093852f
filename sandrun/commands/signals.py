"""Ctrl-C, SIGTERM and a terminal that was closed: the first is a KeyboardInterrupt, the second ends
this process at once.
"""

import os
import signal
from types import FrameType
from typing import Self

_HELD_SECONDS = 2.0


class Interrupts:
    def __init__(self) -> None:
        self._came = 0
        self._held = False

    @property
    def exit_code(self) -> int:
        return 128 + (self._came or signal.SIGINT)

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or in the background
                signal.signal(number, self._on_signal)
        signal.signal(signal.SIGALRM, self._on_alarm)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def hold(self) -> None:
        """While something is asked whose answer must not be lost: a job that nobody knows of cannot
        be cancelled. Whoever comes now is heard at the next `check`, or after two seconds.
        """
        self._held = True

    def check(self) -> None:
        if self._came:
            self.release()

    def release(self) -> None:
        self._held = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._came:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._came:
            os._exit(128 + number)
        self._came = number
        if not self._held:
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, _HELD_SECONDS)

    def _on_alarm(self, *_: object) -> None:
        if self._held:
            raise KeyboardInterrupt
