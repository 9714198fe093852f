"""The worker's key file: an Ed25519 key as an unencrypted PKCS#8 PEM, as OpenSSL writes it.

    sandrun keygen FILE           makes one, which nobody else can read, and never over another
    sandrun keygen --show FILE    prints the worker id of one that exists

The PEM is read here, in two dozen lines, and not by a library: the signer would hold that in memory
that is never swapped (README.md, "The signer").
"""

import argparse
import base64
import binascii
import contextlib
import os
import re
import resource
import signal
import stat
import sys
from typing import NoReturn

from nacl import bindings

_MOST_BYTES = 16 * 1024
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_ED25519 = bytes.fromhex("2b6570")
_OTHERS = {
    "2a864886f70d010101": "an RSA",
    "2a864886f70d01010a": "an RSA-PSS",
    "2a8648ce3d0201": "an elliptic curve (EC)",
    "2b6571": "an Ed448",
    "2b656e": "an X25519",
    "2b656f": "an X448",
}
_INTEGER, _BYTES, _OID, _SEQUENCE = 0x02, 0x04, 0x06, 0x30
_ATTRIBUTES, _PUBLIC, _PUBLIC_WRAPPED = 0xA0, 0x81, 0xA1
_MAKE = "sandrun keygen makes one"


class KeyRefused(Exception):
    """A sentence, without the file's name, that says what is wrong with it and what to do."""


# --- the file ----------------------------------------------------------------------------------


def make(path: str) -> bytes:
    """Write a new key to `path`; its public key. Raises KeyRefused, and then nothing is left."""
    public, secret = bindings.crypto_sign_keypair()
    try:
        # O_EXCL: never over a key, nor through a link; the mode is right from the first instant.
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        raise KeyRefused(_why_not_made(error)) from None
    try:
        os.fchmod(fd, 0o600)  # a umask may have taken even our own right
        view = memoryview(_pem(secret[: bindings.crypto_sign_SEEDBYTES]))
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    except BaseException as error:  # a signal too: half a key is none
        with contextlib.suppress(OSError):
            os.unlink(path)
        if isinstance(error, OSError):
            raise KeyRefused(
                f"cannot be written: {error.strerror}; nothing is left of it"
            ) from None
        raise
    finally:
        os.close(fd)
    return bytes(public)


def _why_not_made(error: OSError) -> str:
    if isinstance(error, FileExistsError):
        return "exists already, and a key is never overwritten: name another file"
    if isinstance(error, FileNotFoundError):
        return "would lie in a folder that does not exist: make the folder first"
    return f"cannot be made: {error.strerror}"


def _pem(seed: bytes) -> bytes:
    """PKCS#8 (RFC 8410): version 0, Ed25519, the seed in two wrappings."""
    der = bytes.fromhex("302e020100300506032b657004220420") + seed
    return b"-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n" % base64.b64encode(der)


def open_file(path: str) -> int:
    """A descriptor of the key file at `path`, once nobody but root and us can read or change it.

    Raises KeyRefused. O_NONBLOCK: a FIFO is told from a file, not waited for.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if os.path.islink(path):
            raise KeyRefused("is a link: name the file itself") from None
        raise KeyRefused(f"cannot be opened: {error.strerror}") from None
    try:
        _check(os.fstat(fd))  # of what is open: the name may be another file's by now
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise KeyRefused("is no regular file")
    if found.st_uid not in (0, os.geteuid()):
        raise KeyRefused(f"belongs to uid {found.st_uid}, who could read and change it: chown it")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise KeyRefused(f"is open to others (mode {mode:04o}): chmod 600, and think of a new key")
    if found.st_nlink != 1:
        # Who may write to the folder could have put another key of root's there, by hard link.
        raise KeyRefused(f"has {found.st_nlink} names (hard links): copy it to a file of its own")


def read(fd: int) -> tuple[bytes, bytes]:
    """(public, secret) of the key file behind `fd`, as libsodium has them. Raises KeyRefused."""
    text = bytearray()
    try:
        while len(text) <= _MOST_BYTES and (piece := os.read(fd, _MOST_BYTES)):
            text += piece
    except OSError as error:
        raise KeyRefused(f"cannot be read: {error.strerror}") from None
    if len(text) > _MOST_BYTES:
        raise KeyRefused(f"is too large for a key: {_MAKE}")
    return parse(bytes(text))


def worker_id(public: bytes) -> str:
    """How a worker is named: the base64 of its public key."""
    return base64.b64encode(public).decode()


# --- the PEM -----------------------------------------------------------------------------------


def parse(text: bytes) -> tuple[bytes, bytes]:
    """(public, secret) of a PEM. Raises KeyRefused, which never says what is in it."""
    blocks = _BLOCK.findall(text)
    if not blocks:
        if b"-----BEGIN" in text:
            raise KeyRefused("is cut off or damaged: there is no -----END to its -----BEGIN")
        if text[:1] == b"\x30":
            raise KeyRefused("is DER, not PEM: openssl pkey -inform DER -in FILE -out NEW")
        raise KeyRefused(f"is no PEM key: {_MAKE}")
    if len(blocks) > 1:
        raise KeyRefused(f"has {len(blocks)} PEM blocks: it must be one private key, alone")
    label, body = blocks[0]
    if label == b"ENCRYPTED PRIVATE KEY" or b"ENCRYPTED" in body:
        raise KeyRefused(
            "is encrypted, and nobody types a password: openssl pkey -in FILE -out NEW"
        )
    if label != b"PRIVATE KEY":
        raise KeyRefused(f"holds {label.decode()}, not a PRIVATE KEY (PKCS#8): {_MAKE}")
    try:
        return _ed25519(base64.b64decode(b"".join(body.split()), validate=True))
    except (binascii.Error, ValueError):
        raise KeyRefused("is damaged: it is no PKCS#8 private key") from None


def _ed25519(der: bytes) -> tuple[bytes, bytes]:
    """(public, secret) of PKCS#8 (RFC 5958). Raises KeyRefused, ValueError for no such thing."""
    whole, nothing = _field(der, _SEQUENCE)
    version, rest = _field(whole, _INTEGER)
    algorithm, rest = _field(rest, _SEQUENCE)
    oid, parameters = _field(algorithm, _OID)
    if oid != _ED25519:
        raise KeyRefused(f"holds {_OTHERS.get(oid.hex(), 'another')} key, not Ed25519: {_MAKE}")
    wrapped, rest = _field(rest, _BYTES)
    seed, after = _field(wrapped, _BYTES)
    if version not in (b"\0", b"\1") or nothing or parameters or after:
        raise ValueError
    if len(seed) != bindings.crypto_sign_SEEDBYTES:
        raise ValueError
    public, secret = bindings.crypto_sign_seed_keypair(seed)
    while rest:
        tag = rest[0]
        content, rest = _field(rest, tag)
        # Some writers wrap the public key once more than the standard says.
        if tag in (_PUBLIC, _PUBLIC_WRAPPED) and content[-len(public) :] != public:
            raise KeyRefused("is damaged: the public key in it is another's")
        if tag not in (_ATTRIBUTES, _PUBLIC, _PUBLIC_WRAPPED):
            raise ValueError
    return bytes(public), bytes(secret)


def _field(der: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the field at the beginning, and what follows it. Raises ValueError."""
    if len(der) < 2 or der[0] != tag:
        raise ValueError
    start, length = 2, der[1]
    if length >= 0x80:  # so many bytes hold the length
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    if len(der) < start + length:
        raise ValueError
    return der[start : start + length], der[start + length :]


# --- the command -------------------------------------------------------------------------------


def main() -> None:
    """`sandrun keygen`; exit code 1 and a sentence when it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="sandrun keygen", allow_abbrev=False,
        description="Make the key with which a worker signs its receipts.",
    )  # fmt: skip
    parser.add_argument("--show", action="store_true", help="print the worker id of this key")
    parser.add_argument("file", metavar="FILE", help="PKCS#8 PEM of an Ed25519 key")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))  # 0 would not keep one from a pipe
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, _stop)
    try:
        told = _shown(given.file) if given.show else _made(given.file)
    except KeyRefused as error:
        _exit(f"{given.file} {error}.")
    try:
        sys.stdout.buffer.write(told)  # bytes: the terminal's encoding may have no check mark
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = None  # or Python tries again, with a traceback
        _exit(f"{given.file} is good, but its worker id cannot be printed: {error.strerror}.")


def _made(path: str) -> bytes:
    """What scripts read: the two lines of the system before this one."""
    public = make(path)
    return "✅ Saved worker key to: %s\n   Worker ID: %s\n".encode() % (
        os.fsencode(path), worker_id(public).encode(),
    )  # fmt: skip


def _shown(path: str) -> bytes:
    fd = open_file(path)
    try:
        return worker_id(read(fd)[0]).encode() + b"\n"
    finally:
        os.close(fd)


def _stop(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _exit(sentence: str) -> NoReturn:
    sys.exit(f"sandrun keygen: {sentence}")


if __name__ == "__main__":
    main()
