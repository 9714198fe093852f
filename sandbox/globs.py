"""Globs: which files the manifest's `outputs` ask for. Pure.

`*` and `?` stay within a name, `**` crosses folders, `[a-c]` and `[!a]` are sets, a trailing `/`
takes a whole folder. A pattern without a slash matches a name in any folder, as old clients of
the service expect of "*.png".
"""

import re
from collections.abc import Callable, Iterable


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether any of the patterns takes a path (relative, '/'-separated)."""
    expressions = [re.compile(translate(pattern), re.DOTALL) for pattern in patterns]
    return lambda path: any(expression.fullmatch(path) for expression in expressions)


def translate(pattern: str) -> str:
    """The regular expression of one pattern; it never tries a place twice.

    A star takes as little as it can, for good (an atomic group): what follows it may begin at
    the first place that fits, since the next star takes whatever that leaves. Only the last one
    has to reach the end. A pattern of many stars would otherwise take for ever.
    """
    pattern = pattern.removeprefix("./")
    if pattern.endswith("/"):
        pattern = pattern.rstrip("/") + "/**"  # a whole folder
    elif "/" not in pattern:
        pattern = "**/" + pattern  # a name in any folder
    gaps = [""]  # what "**" takes, before each part
    parts = [[""]]  # the parts between two "**", each as the pieces between two "*"
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if char == "*":
            end = index
            while end < len(pattern) and pattern[end] == "*":
                end += 1
            if end - index == 1:
                parts[-1].append("")
            elif pattern[end : end + 1] == "/" and pattern[:index][-1:] in ("", "/"):
                gaps.append("(?:.*?/)??")  # "a/**/b" takes a/b too
                parts.append([""])
                end += 1
            else:
                gaps.append(".*?")
                parts.append([""])
            index = end
            continue
        if char == "[":
            first = index + (2 if pattern[index + 1 : index + 2] in ("!", "^") else 1)
            end = pattern.find("]", first + 1)  # a "]" in the first place is one of the set
            if end > 0:
                parts[-1][-1] += _set(pattern[index + 1 : end])
                index = end + 1
                continue
        parts[-1][-1] += "[^/]" if char == "?" else re.escape(char)
        index += 1
    *inner, last = [
        gap + pieces[0] + "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1])
        + "".join(f"[^/]*?{piece}" for piece in pieces[1:][-1:])
        for gap, pieces in zip(gaps, parts, strict=True)
    ]  # fmt: skip
    return "".join(f"(?>{part})" for part in inner) + last


def _set(inner: str) -> str:
    """[...] as a regular expression that never takes a slash; a reversed range takes nothing."""
    negated = inner[:1] in ("!", "^")
    inner = inner[1:] if negated else inner
    parts = []
    index = 0
    while index < len(inner):
        low = inner[index]
        if inner[index + 1 : index + 2] == "-" and index + 2 < len(inner):
            high = inner[index + 2]
            if low <= high:
                parts.append(f"{re.escape(low)}-{re.escape(high)}")
            index += 3
        else:
            parts.append(re.escape(low))
            index += 1
    chars = "".join(parts)
    if not chars:
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{chars}]"
