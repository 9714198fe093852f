"""What is wrong in a manifest, all of it at once, and where: so it is mended in one go."""

from jobs.errors import InvalidManifest

FAULTS = 8  # told at once
_LETTERS = 60  # of a name in a pointer


def pointer(*path: str | int) -> str:
    """To a key (RFC 6901); to what holds it, when its name is long or no text."""
    found = ""
    for name in map(str, path):
        if len(name) > _LETTERS or not name.isprintable():
            break
        found += "/" + name.replace("~", "~0").replace("/", "~1")
    return found


class Faults:
    """Gathers what is wrong, so that whoever wrote it hears all at once: `with` it around each
    check, and `tell` at the end.
    """

    def __init__(self) -> None:
        self.found: list[InvalidManifest] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, InvalidManifest):
            return False
        self.found.append(error.with_traceback(None))  # whose frames would hold us, in a cycle
        if len(self.found) == FAULTS:
            self.tell()
        return True

    def tell(self) -> None:
        """Raises the first, with all that are known."""
        if self.found:
            raise self._as_one() from None

    def _as_one(self) -> InvalidManifest:
        first, *more = self.found
        details = f"{first.details} {len(more)} more: see errors." if more else first.details
        found = InvalidManifest(first.sentence, details.lstrip())
        found.faults = tuple(fault for one in self.found for fault in one.faults)
        return found
