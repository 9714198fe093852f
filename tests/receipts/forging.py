"""Signatures that need no secret: what a verifier must not believe."""

import base64
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.bindings import crypto_scalarmult_ed25519_base_noclamp

from tests.receipts.making import pae

ORDER = 2**252 + 27742317777372353535851937790883648493  # of the group


def forged(key: bytes, body: Callable[[str], bytes]) -> tuple[bytes, bytes, str]:
    """(payload, signature, worker id) for a key of small order, as OpenSSL accepts it.

    R = rB and S = r hold whenever the hash is a multiple of the key's order, which is at most 8.
    """
    worker = base64.b64encode(key).decode()
    payload = body(worker)
    for r in range(1, 500):
        scalar = r.to_bytes(32, "little")
        signature = crypto_scalarmult_ed25519_base_noclamp(scalar) + scalar
        if openssl_holds(key, payload, signature):
            return payload, signature, worker
    raise AssertionError("OpenSSL refuses this key by now")


def openssl_holds(key: bytes, payload: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, pae(payload))
    except (InvalidSignature, ValueError):
        return False
    return True
