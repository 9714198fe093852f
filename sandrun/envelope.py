"""The DSSE envelope: bytes, and who has signed them. What the bytes say is not read here: nobody
has to trust a parser before a signature holds.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from sandrun.errors import NotVerified
from sandrun.key import is_worker_id
from sandrun.strict import Malformed, from_base64, from_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PAYLOAD_BYTES = 64 << 20
SIGNATURES = 16


class Signature(NamedTuple):
    keyid: str  # who it is said to be by; whoever sends it can write that
    text: str  # base64


class Envelope(NamedTuple):
    payload: bytes
    signatures: tuple[Signature, ...]

    @classmethod
    def read(cls, envelope: object) -> "Envelope":
        """One as JSON, or as the object that JSON is. Raises NotVerified("not_a_receipt")."""
        try:
            return cls._read(envelope)
        except Malformed as error:
            raise NotVerified("not_a_receipt", f"This is not a receipt: it {error}.") from None

    @classmethod
    def _read(cls, envelope: object) -> "Envelope":
        if isinstance(envelope, bytes | str):
            if len(envelope) > 2 * PAYLOAD_BYTES:
                raise Malformed("is too large")
            envelope = from_json(envelope)
        if not isinstance(envelope, Mapping):
            raise Malformed("is not a JSON object")
        for name in ("payload", "payloadType", "signatures"):
            if name not in envelope:
                raise Malformed(f"has no {name}")
        # The type is signed too; another one is another kind of message by the same key.
        if (found := envelope["payloadType"]) != PAYLOAD_TYPE:
            raise Malformed(f"has the payloadType {ascii(found)[:100]}, and not {PAYLOAD_TYPE}")
        payload = _decoded("payload", envelope["payload"])
        if len(payload) > PAYLOAD_BYTES:
            raise Malformed(f"is too large: its payload has more than {PAYLOAD_BYTES} bytes")
        found = envelope["signatures"]
        if not isinstance(found, list) or not 1 <= len(found) <= SIGNATURES:
            raise Malformed(f"has no list of 1 to {SIGNATURES} signatures")
        return cls(payload, tuple(map(_signature, found)))

    def signed_by(self, pinned: Sequence[bytes]) -> dict[str, str]:
        """The signature of each pinned key that has signed this, by worker id. DSSE lets several
        sign: those of others count neither for nor against, nor do keyids. Raises NotVerified.
        """
        if not pinned:
            how = "Pin the key (--key) of a worker that you know from elsewhere."
            raise NotVerified("no_key", f"No key is pinned. {self._claim()} {how}")
        kind, size = PAYLOAD_TYPE.encode(), len(self.payload)
        message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, size, self.payload)
        workers = {_worker_id(key): VerifyKey(key) for key in pinned}
        signed = {
            worker: signature.text
            for signature in self.signatures
            for worker, key in workers.items()
            if _holds(key, message, base64.b64decode(signature.text))
        }
        if signed:
            return signed
        if workers.keys().isdisjoint(signature.keyid for signature in self.signatures):
            raise NotVerified("other_key", f"No pinned key has signed this. {self._claim()}")
        sentence = "The signature does not hold: this is not what the pinned key has signed."
        raise NotVerified("signature", sentence)

    def _claim(self) -> str:
        """Only what has the form of a worker id is repeated."""
        claimed = [one.keyid for one in self.signatures if is_worker_id(one.keyid)]
        who = " and ".join(dict.fromkeys(claimed)) or "nobody"
        return f"The receipt itself names {who}, which proves nothing."


def _worker_id(key: bytes) -> str:
    return base64.b64encode(key).decode()


def _holds(key: VerifyKey, message: bytes, signature: bytes) -> bool:
    try:
        key.verify(message, signature)
    except BadSignatureError:
        return False
    return True


def _signature(one: object) -> Signature:
    if not isinstance(one, Mapping) or "sig" not in one:
        raise Malformed('has a signature without "sig"')
    if len(_decoded("signature", one["sig"])) != 64:
        raise Malformed("has a signature that is not 64 bytes long")
    keyid = one.get("keyid")
    return Signature(keyid if isinstance(keyid, str) else "", one["sig"])


def _decoded(name: str, text: object) -> bytes:
    try:
        return from_base64(text)
    except Malformed as error:
        raise Malformed(f"has a {name} that {error}") from None
