"""What a line of a .gitignore means, as git means it."""

import re
from collections.abc import Iterable
from typing import NamedTuple

_CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "digit": "0-9", "lower": "a-z", "upper": "A-Z",
    "space": r"\s", "xdigit": "0-9A-Fa-f",
}  # fmt: skip


class Rule(NamedTuple):
    ignores: bool  # or, with "!", not
    only_folders: bool
    by_name: bool  # in whatever folder
    pattern: "re.Pattern[str]"

    def matches(self, path: str, is_folder: bool) -> bool:
        """Whether it names `path` itself; what is below a folder that it names, it does not."""
        if self.only_folders and not is_folder:
            return False
        asked = path.rpartition("/")[2] if self.by_name else path
        return self.pattern.fullmatch(asked) is not None


def rules(lines: Iterable[str]) -> list[Rule]:
    """The last that matches counts."""
    return [rule for line in lines if (rule := _rule(line))]


def _rule(line: str) -> Rule | None:
    line = re.sub(r"(?<!\\)((?:\\\\)*)[ ]+$", r"\1", line.removesuffix("\r"))
    if not line or line.startswith("#"):
        return None
    ignores = not line.startswith("!")
    line = line if ignores else line[1:]
    only_folders = line.endswith("/")
    line = line[:-1] if only_folders else line
    by_name = "/" not in line
    pattern = _pattern(line.removeprefix("/"))
    return Rule(ignores, only_folders, by_name, pattern) if pattern else None


_TOKEN = re.compile(
    r"(?P<deep>(?:^|(?<=/))\*\*+(?:/|$))|(?P<stars>\*+)|(?P<one>\?)"
    r"|\[(?P<not>[!^]?+)(?P<set>\]?+(?:\[:\w+:\]|\\.|[^\]\\])*)\]|\\(?P<quoted>.)|(?P<plain>[^\[\\])",
    re.DOTALL,
)


def _pattern(text: str) -> "re.Pattern[str] | None":
    """None: it can match nothing."""
    made, at = [], 0
    while at < len(text):
        if not (found := _TOKEN.match(text, at)):
            return None
        at = found.end()
        if found["deep"]:
            made.append("(?:.*/)?" if found["deep"].endswith("/") else ".*")
        elif found["stars"]:
            made.append("[^/]*")
        elif found["one"]:
            made.append("[^/]")
        elif found["set"] is not None:
            made.append(_set(found["set"], bool(found["not"])))
        else:
            made.append(re.escape(found["quoted"] or found["plain"]))
    return re.compile("".join(made), re.DOTALL) if made else None


def _set(text: str, negated: bool) -> str:
    inner = ""
    for name, first, last in re.findall(r"\[:(\w+):\]|(\\.|.)(?:-(\\.|[^\]]))?", text, re.DOTALL):
        if name:
            inner += _CLASSES.get(name, "")
        elif not last:
            inner += re.escape(first[-1])
        else:  # of a range that runs backwards git takes the first
            end = last[-1] if first[-1] <= last[-1] else first[-1]
            inner += f"{re.escape(first[-1])}-{re.escape(end)}"
    if negated:
        return f"[^/{inner}]"
    return f"(?!/)[{inner}]" if inner else "(?!)"
