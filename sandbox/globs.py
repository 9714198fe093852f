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
    """The regular expression of one pattern. Stars next to each other are one: no blow-up."""
    pattern = pattern.removeprefix("./")
    whole_folder = pattern.endswith("/")
    pattern = pattern.rstrip("/")
    anywhere = "/" not in pattern and not whole_folder
    out = ["(?:.*/)?" if anywhere else ""]
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if char == "*":
            end = index
            while end < len(pattern) and pattern[end] == "*":
                end += 1
            crosses = end - index > 1
            if (
                crosses
                and pattern[end : end + 1] == "/"
                and pattern[index - 1 : index] in ("", "/")
            ):
                out.append("(?:.*/)?")  # "a/**/b" takes a/b too
                end += 1
            else:
                out.append(".*" if crosses else "[^/]*")
            index = end
            continue
        if char == "[":
            end = pattern.find("]", index + 2)
            if end > 0:
                out.append(_set(pattern[index + 1 : end]))
                index = end + 1
                continue
        out.append("[^/]" if char == "?" else re.escape(char))
        index += 1
    return "".join(out) + ("/.*" if whole_folder else "")


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
