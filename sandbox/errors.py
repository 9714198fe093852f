"""What can go wrong that is not the program's own doing.

SandboxError        ours: a step of the isolation failed; names the step
BundleRefused       the caller's: the uploaded bytes cannot be unpacked; one sentence

What the program does wrong is neither: it is a Verdict, a value.
"""

import os


class SandboxError(Exception):
    """Our fault: `step` did not succeed, so nothing of the job ran (or ran on)."""

    def __init__(self, step: str, errno: int = 0, detail: str = "") -> None:
        self.step = step
        self.errno = errno
        self.detail = detail or (os.strerror(errno) if errno else "")
        super().__init__(f"{step}: {self.detail}" if self.detail else step)


class BundleRefused(Exception):
    """The caller's fault: a sentence that says what is wrong with the upload and what to do."""
