"""The fuzzer's own process, started by script/fuzz: coverage guides it through one target.

`python -m tests.fuzz TARGET [options of libFuzzer] [folders]` fuzzes, and
`python -m tests.fuzz --keep TARGET FOLDER...` writes into the kept corpus those few inputs of the
folders that together reach the most.
"""

import hashlib
import sys
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).with_name("corpus")
MOST_FILES, MOST_BYTES = 7, 3000  # of one target's kept corpus, and of one of its files
SLOWNESS = 20.0  # what is instrumented for coverage takes longer

Arc = tuple[str, int, int]


def fuzz(name: str, options: list[str]) -> None:
    import atheris

    # What was imported before is not instrumented: nothing of the product may have been.
    with atheris.instrument_imports(include=["sandbox", "jobs", "tarfile", "gzip"]):
        from tests.fuzz import targets
    targets.slowness = SLOWNESS
    # When it merges, libFuzzer starts itself again, by its first word and through a shell.
    again = f"{sys.executable} -m tests.fuzz {name}"
    atheris.Setup([again, *options], targets.TARGETS[name])
    atheris.Fuzz()


def keep(name: str, folders: list[str]) -> None:
    """Greedily: first the input that goes the most ways, then what adds the most to it."""
    from tests.fuzz import targets

    target = targets.TARGETS[name]
    kept = CORPUS / name
    inputs = {
        file.read_bytes()
        for folder in [*folders, str(kept)]
        for file in sorted(Path(folder).glob("*"))
        if file.stat().st_size <= MOST_BYTES
    }
    target(b"")  # what is only done once is nobody's merit
    ways: dict[bytes, set[Arc]] = {}
    for data in inputs:
        try:
            ways[data] = _arcs(target, data)
        except Exception as fault:  # a finding, not a thing to keep: to be mended first
            print(f"{name}: {data!r}: {fault!r}", file=sys.stderr)
    chosen: list[bytes] = []
    seen: set[Arc] = set()
    while len(chosen) < MOST_FILES and ways:
        best = max(ways, key=lambda data: (len(ways[data] - seen), -len(data), data))
        if not ways[best] - seen:
            break
        seen |= ways.pop(best)
        chosen.append(best)
    # Lines do not tell all ways apart: what room is left is for those that say the most.
    chosen += sorted(ways, key=len, reverse=True)[: MOST_FILES - len(chosen)]
    kept.mkdir(parents=True, exist_ok=True)
    for file in kept.iterdir():
        file.unlink()
    for data in chosen:
        (kept / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    print(f"{name}: {len(chosen)} of {len(inputs)} inputs are kept, {sum(map(len, chosen))} bytes")


def _arcs(target: Any, data: bytes) -> set[Arc]:
    """Every step from line to line of the product that the input makes."""
    arcs: set[Arc] = set()
    ours = (str(ROOT / "sandbox"), str(ROOT / "jobs"))

    def enter(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(ours):
            return None
        last = 0

        def step(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal last
            if event == "line":
                arcs.add((frame.f_code.co_filename, last, frame.f_lineno))
                last = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return arcs


if __name__ == "__main__":
    if sys.argv[1] == "--keep":
        keep(sys.argv[2], sys.argv[3:])
    else:
        fuzz(sys.argv[1], sys.argv[2:])
