"""Keys by which receipts are believed: which texts are one, and which of those are safe."""

import base64
import re

from nacl.bindings import crypto_core_ed25519_is_valid_point

from sandrun.errors import NotVerified
from sandrun.strict import Malformed, from_base64

_P = 2**255 - 19
_EIGHT = int.from_bytes(
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"
)
# The heights (y) of the eight points of small order, and beyond the field 0 and 1 once more. With
# such a key a signature can be made for every message without any secret; OpenSSL and Node take it.
SMALL_ORDER = frozenset(
    (y | sign << 255).to_bytes(32, "little")
    for y in (0, 1, _P - 1, _P, _P + 1, _EIGHT, _P - _EIGHT)
    for sign in (0, 1)
)

_PEM = re.compile(
    r"\s*-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+)-----END PUBLIC KEY-----\s*", re.ASCII
)
_ED25519 = bytes.fromhex("302a300506032b6570032100")  # SubjectPublicKeyInfo, up to the key


def is_worker_id(text: str) -> bool:
    """Whether it has the form of one: the base64 of 32 bytes."""
    return re.fullmatch(r"[A-Za-z0-9+/]{43}=", text) is not None


def public_key(worker: object) -> bytes:
    """The 32 bytes of a worker id. Raises NotVerified("bad_key")."""
    try:
        key = from_base64(worker)
    except Malformed as error:
        raise _bad(f"it {error}; a worker id is 44 characters of base64", worker) from None
    if len(key) != 32:
        raise _bad(f"it has {len(key)} bytes, and an Ed25519 key has 32", worker)
    if key in SMALL_ORDER:
        raise _bad("it is of small order: anybody can sign in its name", worker)
    # Also refuses other texts for the same point, and keys with a part of small order, about whose
    # signatures libraries differ.
    if not crypto_core_ed25519_is_valid_point(key):
        raise _bad("it is no point of the group, or not written in the one right way", worker)
    return key


def worker_id_in(text: str) -> str:
    """The worker id that a file holds, as it is or as a PEM public key."""
    if "PRIVATE KEY" in text:
        raise _bad("the file holds a private key; pin the public key, or the worker id")
    if found := _PEM.fullmatch(text):
        try:
            key = from_base64("".join(found[1].split()))
        except Malformed as error:
            raise _bad(f"the PEM's content {error}") from None
        if len(key) != 44 or not key.startswith(_ED25519):
            raise _bad("the PEM holds a key of another kind than Ed25519")
        return base64.b64encode(key[12:]).decode()
    if is_worker_id(text.strip()):
        return text.strip()
    raise _bad("the file holds neither a worker id (44 characters) nor one PEM public key")


def _bad(why: str, key: object = None) -> NotVerified:
    which = "This key" if key is None else f"The key {ascii(key)[:60]}"
    return NotVerified("bad_key", f"{which} cannot be used: {why}.")
