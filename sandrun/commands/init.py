"""`sandrun init`: a job.json for a folder, with what can be told from the files in it."""

import json
import os
from collections.abc import Sequence

from sandrun.commands.options import Parser, add_json
from sandrun.commands.terminal import Terminal, say
from sandrun.errors import SandrunError

_INTERPRETERS = {
    ".py": "python3", ".js": "node", ".mjs": "node", ".cjs": "node", ".sh": "bash", ".bash": "bash",
    ".rb": "ruby", ".pl": "perl", ".php": "php", ".lua": "lua", ".go": "go", ".rs": "rust",
    ".java": "java", ".c": "c", ".cpp": "cpp", ".cc": "cpp", ".cxx": "cpp", ".r": "Rscript",
}  # fmt: skip
_USUAL = ("main", "index", "run", "app")


def parser() -> Parser:
    made = Parser("init", "Write a job.json, which says how the folder is to be run.")
    made.add_argument("folder", metavar="DIR", nargs="?", default=".", help="else this one")
    made.add_argument("-e", "--entrypoint", metavar="PATH", help="what is started")
    add_json(made, "print it too")
    return made


def main(arguments: Sequence[str]) -> int:
    asked = parser().parse_args(arguments)
    entrypoint = asked.entrypoint or _entrypoint(asked.folder)
    if not os.path.isfile(os.path.join(asked.folder, entrypoint)):
        raise SandrunError(f"There is no {entrypoint} in {asked.folder}.")
    manifest = {"entrypoint": entrypoint}
    if interpreter := _INTERPRETERS.get(os.path.splitext(entrypoint)[1].lower()):
        manifest["interpreter"] = interpreter
    path = os.path.join(asked.folder, "job.json")
    text = json.dumps(manifest, indent=2)
    try:
        with open(path, "x") as file:
            file.write(f"{text}\n")
    except FileExistsError:
        raise SandrunError(f"{path} is there already, and stays as it is.") from None
    except OSError as error:
        raise SandrunError(f"{path} cannot be written: {error.strerror}.") from None
    if asked.json:
        say(text)
    Terminal().tell(f"wrote {path}: runs {entrypoint}. Now: sandrun run {asked.folder}")
    return 0


def _entrypoint(folder: str) -> str:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise SandrunError(f"Cannot read {folder}: {error.strerror}.") from None
    programs = [name for name in names if os.path.splitext(name)[1].lower() in _INTERPRETERS]
    for usual in _USUAL:
        for name in programs:
            if os.path.splitext(name)[0].lower() == usual:
                return name
    if len(programs) == 1:
        return programs[0]
    found = f"there are {', '.join(programs)}" if programs else "there is no program"
    raise SandrunError(f"In {folder} {found}: --entrypoint says which one is started.")
