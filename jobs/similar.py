"""Which of the names that exist somebody may have meant. Both sides come from strangers, and the
comparison is quadratic in a name's length: what it may cost is bounded (3 ms for 10,000 names).
"""

import difflib
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from itertools import islice

NEAREST = 3  # names in one hint
_LETTERS = 40  # of a name that is compared
_LOOKED_AT = 1000  # names, and so many of them are compared letter by letter:
_COMPARED = 10


def nearest(asked: str, names: Iterable[str]) -> list[str]:
    """The files of `names` that are called like `asked`, in whatever folder; else the most similar
    ones; none when none is.
    """
    names = list(names)
    base = asked.rpartition("/")[2]
    below = f"/{base}"
    same = (name for name in names if name == base or name.endswith(below))
    if found := list(islice(same, NEAREST)):
        return found
    asked = asked.lower()
    if len(asked) > _LETTERS:
        return []
    letters = set(asked)
    short = {name.lower(): name for name in names[:_LOOKED_AT] if len(name) <= _LETTERS}
    likely = nsmallest(_COMPARED, short, key=lambda name: len(letters.symmetric_difference(name)))
    return [short[name] for name in difflib.get_close_matches(asked, likely, NEAREST)]


def did_you_mean(names: Sequence[str]) -> str:
    """The question, or nothing."""
    return f"Did you mean {' or '.join(names)}?" if names else ""
