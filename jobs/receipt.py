"""Receipt: the signed statement about a job that is over, as a DSSE envelope. docs/receipts.md is
its specification.
"""

import base64
from typing import NamedTuple

import msgspec

PAYLOAD_TYPE = "application/vnd.in-toto+json"  # the signer puts it before what it signs
MEDIA_TYPE = "application/vnd.dsse.envelope.v1+json"


class Receipt(NamedTuple):
    """One envelope, as it is served."""

    envelope: bytes  # JSON
    signature: str  # base64


def seal(statement: bytes, worker_id: str, signature: bytes) -> Receipt:
    """`statement` with its `signature`, as anybody can check it."""
    text = base64.b64encode(signature).decode()
    envelope = {
        "payload": base64.b64encode(statement).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": worker_id, "sig": text}],
    }
    return Receipt(msgspec.json.encode(envelope), text)
