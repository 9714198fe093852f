"""JSON and base64 that can be read in one way only. Readers differ in what they make of a key that
comes twice, of NaN, of large numbers and half characters, and of padding that is no padding: what
is signed must mean the same to all of them, so none of it is accepted.
"""

import base64
import json
import math
import re
from typing import NoReturn

LARGEST = 2**53 - 1  # up to here JavaScript tells integers apart

_HALVES = re.compile(r"\\u[dD][89a-fA-F]")  # also of whole characters: then it is looked at closely


class Malformed(ValueError):
    """What is wrong, to be read after the name of what was read: "is not UTF-8"."""


def from_json(data: bytes | str, *, decimals: bool = False) -> object:
    """The value; floats only with `decimals`. Raises Malformed."""
    try:
        text = data if isinstance(data, str) else data.decode()
        value: object = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_decimal if decimals else _no_decimal,
            parse_constant=_no_constant,
        )
        if _HALVES.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise Malformed("is not UTF-8") from None
    except UnicodeEncodeError:
        raise Malformed("contains half a character (a lone surrogate)") from None
    except json.JSONDecodeError as error:
        raise Malformed(f"is not JSON ({error})") from None
    except RecursionError:
        raise Malformed("is nested too deeply") from None
    return value


def from_base64(text: object) -> bytes:
    """The bytes of standard, padded base64, of which no other text is the encoding."""
    if not isinstance(text, str):
        raise Malformed("is not text")
    try:
        data = base64.b64decode(text)  # skips what is no base64
    except ValueError:
        raise Malformed("is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise Malformed("is not the standard base64 of its bytes")
    return data


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise Malformed(f"has the key {name[:100]!a} twice")
        found[name] = value
    return found


def _integer(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > LARGEST:
        raise Malformed("has an integer of 2**53 or more")
    return int(digits)


def _decimal(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise Malformed("has a number that is too large")
    return number


def _no_decimal(_: str) -> NoReturn:
    raise Malformed("has a number that is no integer")


def _no_constant(word: str) -> NoReturn:
    raise Malformed(f"has {word}, which is not JSON")
