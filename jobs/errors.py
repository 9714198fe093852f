"""What the caller did wrong, or has to wait for; each with one sentence for the caller.

Rejected
|- InvalidManifest     what was asked makes no sense
|- InvalidUpload       the files cannot be taken as they are
|- UnsupportedUpload   a form of upload that is not understood
|- TooLarge            more bytes than are taken
|- UnknownJob          never was, or is forgotten: both look the same
|- UnknownFile         the job left no such file
|- Unsigned            there is no receipt: no key, or it could not sign
|- StdinClosed         the program reads no more, or never would
|- StdinElsewhere      what is sent does not follow what has come
|- NotOver             what was asked for exists only after the job's end
|- InFlight            the same Idempotency-Key is being looked at
|- KeyReused           an Idempotency-Key came with something else than the first time
|- Foreign             another web site is behind the request
|- NotOwner            whoever asks cannot show that the job is theirs
|- Wait                nothing is wrong but the moment
   |- StdinFull        as much waits for the program as may
   |- Full             the queue or the memory is full
   |- Unready          nothing can run: no sandbox, or the server is ending
   |- TooMany          this client asked too often
   |- OverQuota        this client has what it may have

No HTTP here: jobs/api/errors.py knows the status codes. What the program does wrong is a Verdict;
what we do wrong is a SandboxError.
"""

from typing import Literal, NamedTuple

# Every word that a refusal may have; jobs/api/problems.md tells of each.
Reason = Literal[
    "invalid_request",
    "invalid_manifest",
    "invalid_upload",
    "unsupported_upload",
    "too_large",
    "not_owner",
    "foreign_origin",
    "unknown_job",
    "unknown_file",
    "unsigned",
    "unknown_path",
    "method_not_allowed",
    "timeout",
    "not_over",
    "in_flight",
    "key_reused",
    "stdin_closed",
    "stdin_position",
    "stdin_full",
    "invalid_range",
    "concurrent_jobs",
    "hourly_jobs",
    "cpu_quota",
    "held_bytes",
    "rate_limited",
    "queue_full",
    "busy",
    "unavailable",
    "sandbox_error",
    "internal",
]


def in_full(sentence: str, details: str) -> str:
    """Both as one text."""
    return f"{sentence.rstrip('.')}. {details}".rstrip()


class Rejected(Exception):
    """The caller's fault: a sentence, a short word for programs, and more words if they help."""

    reason: Reason = "invalid_request"

    def __init__(self, sentence: str, details: str = "") -> None:
        self.sentence = sentence
        self.details = details
        super().__init__(sentence)


class Fault(NamedTuple):
    """One thing that is wrong in a manifest, and where: a JSON pointer (RFC 6901)."""

    pointer: str
    detail: str


class InvalidManifest(Rejected):
    """`pointer`: to the key that is at fault, if it is one."""

    reason = "invalid_manifest"

    def __init__(self, sentence: str, details: str = "", pointer: str | None = None) -> None:
        super().__init__(sentence, details)
        self.faults: tuple[Fault, ...] = ()
        if pointer is not None:
            self.faults = (Fault(pointer, in_full(sentence, details)),)


class InvalidUpload(Rejected):
    reason = "invalid_upload"


class UnsupportedUpload(Rejected):
    reason = "unsupported_upload"


class TooLarge(Rejected):
    reason = "too_large"


class UnknownJob(Rejected):
    reason = "unknown_job"

    def __init__(self) -> None:
        super().__init__(
            "Job not found", "It was forgotten, or never existed; nothing is kept to tell which."
        )


class UnknownFile(Rejected):
    reason = "unknown_file"

    def __init__(self, details: str) -> None:
        super().__init__("File not found", details)


class Unsigned(Rejected):
    reason = "unsigned"


class NotOver(Rejected):
    reason = "not_over"


class InFlight(Rejected):
    reason = "in_flight"

    def __init__(self) -> None:
        super().__init__(
            "A request with this Idempotency-Key is not answered yet", "Send it again in a moment."
        )


class KeyReused(Rejected):
    reason = "key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key came with something else before",
            "Send what you sent the first time, or take a new key for a new job.",
        )


class StdinClosed(Rejected):
    reason = "stdin_closed"


class StdinElsewhere(Rejected):
    reason = "stdin_position"


class Foreign(Rejected):
    reason = "foreign_origin"


class NotOwner(Rejected):
    reason = "not_owner"

    def __init__(self, has_token: bool) -> None:
        self.has_token = has_token
        super().__init__(
            "That is not this job's owner_token"
            if has_token
            else "Only the job's owner may do this",
            "Send the owner_token of the submission's answer: 'Authorization: Bearer OWNER_TOKEN'.",
        )


class Wait(Rejected):
    """To be asked again after `retry_after` seconds."""

    reason: Reason = "busy"

    def __init__(self, sentence: str, retry_after: int, details: str = "") -> None:
        super().__init__(sentence, details)
        self.retry_after = max(1, retry_after)


class StdinFull(Wait):
    reason = "stdin_full"


class Full(Wait):
    reason = "queue_full"


class Unready(Wait):
    reason = "unavailable"


class TooMany(Wait):
    reason = "rate_limited"


class OverQuota(Wait):
    """One of the quotas; `reason` says which."""

    def __init__(self, sentence: str, reason: Reason, retry_after: int, details: str = "") -> None:
        super().__init__(sentence, retry_after, details)
        self.reason = reason
