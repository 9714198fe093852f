"""NotVerified: why a receipt does not prove what was asked of it."""

from typing import Literal

Kind = Literal[
    "not_a_receipt",  # malformed, of another type, or too large
    "no_key",  # the caller pinned none
    "bad_key",  # a key that no signature can be believed by
    "other_key",  # signed, it says, by somebody who was not pinned
    "signature",  # these bytes are not what a pinned key signed
    "worker",  # the statement names another worker than the one that signed it
    "job",
    "nonce",
    "differs",  # a file, a log or an answer is not what the receipt says
]


class NotVerified(Exception):
    """`kind` is for programs, the message is a sentence for people."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind: Kind = kind
