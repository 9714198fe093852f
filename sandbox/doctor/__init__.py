"""Doctor: what this machine means for jobs and for the promises made about them, before anybody
runs one: a verdict a check, what it means, and the exact remedy.

    sudo .venv/bin/sandrun doctor [--json] [--strict]

`good`, `warning` (works; something outside of Sandrun weakens or records it) or `bad` (jobs would
not run, or a promise would be broken). Exit code 1 when something is bad; with --strict also when
there is a warning. A check that could not look is a warning: what nobody saw is not good.

CHECKS only read files, below a root that tests replace; Django shows them too (apps.py). TRIALS do
the real thing. No check stops the server: the launcher itself refuses what it must. A file here for
each thing that is looked at, with its checks and their numbers; words.py says what a check is.
"""

from sandbox.doctor import bugs, cgroups, kernel, memory, people, records, service
from sandbox.doctor.trials import TRIALS
from sandbox.doctor.words import BAD, GOOD, WARNING, Finding, examine

__all__ = ["BAD", "CHECKS", "GOOD", "TRIALS", "WARNING", "Finding", "examine"]

_FILES = (kernel, bugs, cgroups, memory, records, people, service)
CHECKS = tuple(sorted(check for file in _FILES for check in file.CHECKS))  # by their numbers
