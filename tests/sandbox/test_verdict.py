"""One verdict, always the same for the same facts. Pure."""

import itertools

import pytest

from sandbox.errors import SandboxError
from sandbox.model import Verdict
from sandbox.verdict import Facts, decide, limits_hit

EXIT_0, EXIT_3, EXIT_255 = 0, 3 << 8, 255 << 8
KILLED, CRASHED, CRASHED_WITH_CORE = 9, 11, 11 | 0x80

TABLE: list[tuple[str, Facts, Verdict]] = [
    ("ended well", Facts(None, 0, 0, (), EXIT_0), Verdict("exit", 0)),
    ("ended badly", Facts(None, 0, 0, (), EXIT_3, 2), Verdict("exit", 3, None, 2)),
    ("the largest code", Facts(None, 0, 0, (), EXIT_255), Verdict("exit", 255)),
    ("killed itself", Facts(None, 0, 0, (), KILLED), Verdict("signal", None, 9)),
    ("crashed", Facts(None, 0, 0, (), CRASHED), Verdict("signal", None, 11)),
    ("crashed with a core", Facts(None, 0, 0, (), CRASHED_WITH_CORE), Verdict("signal", None, 11)),
    ("out of time", Facts("timeout", 0, 0, (), None, 1), Verdict("timeout", None, 9, 1)),
    ("out of cpu", Facts("cpu", 0, 0, (), None), Verdict("cpu", None, 9)),
    ("out of quota", Facts("cpu_quota", 0, 0, (), None), Verdict("cpu_quota", None, 9)),
    ("cancelled", Facts("cancelled", 0, 0, (), None), Verdict("cancelled", None, 9)),
    ("out of memory", Facts("memory", 1, 0, (), None), Verdict("memory", None, 9)),
    ("out of memory by our word", Facts("memory", 0, 0, (), None), Verdict("memory", None, 9)),
    ("a child ran out of memory", Facts(None, 1, 0, (), EXIT_0), Verdict("memory", None, 9)),
    ("memory, then time", Facts("timeout", 2, 0, (), None), Verdict("memory", None, 9)),
    ("memory, then cancelled", Facts("cancelled", 1, 0, (), None), Verdict("memory", None, 9)),
    ("memory took pid 1", Facts(None, 1, 0, (), None), Verdict("memory", None, 9)),
    ("ended before the kill", Facts("timeout", 0, 0, (), EXIT_0), Verdict("exit", 0)),
    ("failed before the kill", Facts("cancelled", 0, 0, (), EXIT_3), Verdict("exit", 3)),
    ("refused tasks end nothing", Facts(None, 0, 9, ("disk",), EXIT_0), Verdict("exit", 0)),
]


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_the_verdict_of_facts(row: tuple[str, Facts, Verdict]) -> None:
    assert decide(row[1]) == row[2]


@pytest.mark.parametrize("cause", [None, "shutdown", "abandoned", "", "exit", "TIMEOUT"])
def test_an_end_that_nothing_explains_is_our_fault(cause: str | None) -> None:
    with pytest.raises(SandboxError, match="unexplained"):
        decide(Facts(cause, 0, 0, (), None))


def test_every_verdict_has_either_a_code_or_a_signal() -> None:
    causes = (None, "timeout", "memory", "cpu", "cancelled", "cpu_quota")
    statuses = (None, EXIT_0, EXIT_3, KILLED, CRASHED)
    for cause, kills, status in itertools.product(causes, (0, 1), statuses):
        if cause is None and not kills and status is None:
            continue
        verdict = decide(Facts(cause, kills, 0, (), status))
        assert (verdict.exit_code is None) != (verdict.signal is None), (cause, kills, status)
        assert (verdict.exit_code is not None) == (verdict.reason == "exit")


@pytest.mark.parametrize(
    ("facts", "hit"),
    [
        (Facts(None, 0, 0, (), EXIT_0), ()),
        (Facts(None, 0, 3, (), EXIT_0), ("tasks",)),
        (Facts(None, 0, 0, ("inodes", "disk"), EXIT_3), ("disk", "inodes")),
        (Facts("timeout", 0, 1, ("disk",), None), ("timeout", "tasks", "disk")),
        (Facts("cpu", 0, 0, (), None), ("cpu",)),
        (Facts("timeout", 1, 0, (), None), ("memory",)),
        (Facts("cancelled", 0, 0, (), None), ()),
        (Facts("cpu_quota", 0, 0, (), None), ()),
        (Facts("timeout", 0, 0, (), EXIT_0), ()),
    ],
)
def test_the_limits_that_were_reached(facts: Facts, hit: tuple[str, ...]) -> None:
    assert limits_hit(facts, decide(facts)) == hit
