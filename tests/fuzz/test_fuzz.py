"""What parses strangers' bytes, under inputs that nobody wrote: each target with the same examples
on every run, so that CI says the same twice, then the kept corpus of the coverage-guided fuzzer,
and what honest people send, which comes out as it went in. `script/fuzz` looks further.
"""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from sandbox import channel, untar
from tests.fuzz import strategies
from tests.fuzz.cell import DISK_BYTES
from tests.fuzz.strategies import Bomb, Packed, Sent
from tests.fuzz.targets import TARGETS, _form, archive
from tests.sandbox.test_protocol import Wire

CORPUS = Path(__file__).with_name("corpus")
MORE = int(os.environ.get("FUZZ_EXAMPLES", "0"))  # times as many, and others each time


def examples(number: int) -> settings:
    return settings(
        max_examples=number * (MORE or 1),
        derandomize=not MORE,
        database=None,
        deadline=None,  # of the clock on the wall; the targets count CPU time
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        # The smallest example is worth its search to a person; explaining it traces every line.
        phases=[phase for phase in Phase if phase is not Phase.explain],
    )


EXAMPLES: dict[str, tuple[SearchStrategy[bytes], int]] = {
    "manifest": (strategies.manifests, 400),
    "json_body": (strategies.json_bodies, 150),
    "run_form": (strategies.run_forms, 150),
    "multipart": (strategies.multiparts, 250),
    "upload": (strategies.uploads, 200),
    "tar": (strategies.tar_files, 60),
    "tar_mended": (strategies.tar_crafted, 150),
    "gzipped": (strategies.gzip_files, 60),
    "zipped": (strategies.zip_files, 150),
    "zip_built": (strategies.zip_recipes, 200),
    "globs": (strategies.globs, 250),
    "packet": (strategies.packets, 150),
    "limits": (strategies.limits, 250),
    "launcher": (strategies.talks, 100),
    "addresses": (strategies.addresses, 300),
    "guard": (strategies.guards, 200),
    "names": (strategies.names, 80),
    "dispositions": (strategies.dispositions, 150),
    "request": (strategies.requests, 120),
    "runtime": (strategies.runtimes, 80),
}


def test_every_target_has_examples_and_a_corpus() -> None:
    assert set(EXAMPLES) == set(TARGETS) == {folder.name for folder in CORPUS.iterdir()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_almost_right_input_is_no_fault_of_ours(name: str) -> None:
    strategy, number = EXAMPLES[name]

    @examples(number)
    @given(strategy)
    def hold(data: bytes) -> None:
        TARGETS[name](data)

    hold()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_finds_no_fault(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for file in inputs:
        TARGETS[name](file.read_bytes())


def test_the_corpus_stays_small() -> None:
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    assert len(files) < 150 and sum(file.stat().st_size for file in files) < 300_000


# --- what honest people send -----------------------------------------------------------------


@examples(100)
@given(strategies.packed)
def test_what_was_packed_is_what_is_unpacked(packed: Packed) -> None:
    said = archive(packed.data)  # which compares it with the files that were written
    assert isinstance(said, dict), said
    found = {path: (size, mode) for path, size, _, mode, _ in said["members"]}
    assert found == {
        path: (len(content), 0o755 if mode & 0o100 else 0o644)
        for path, (content, mode, _) in packed.files.items()
    }
    if not packed.data.startswith(b"PK"):  # zips say local times, to two seconds
        times = {path: mtime_ns for path, _, mtime_ns, _, _ in said["members"]}
        assert times == {path: mtime * 10**9 for path, (_, _, mtime) in packed.files.items()}


@examples(100)
@given(strategies.sent_forms)
def test_a_form_is_read_as_it_was_sent(form: Sent) -> None:
    read = _form(form.body, f'multipart/form-data; boundary="{form.boundary.decode()}"')
    assert read is not None
    assert [(part.name, part.peek(1 << 20)) for part in read.files] == form.files


# --- bombs -----------------------------------------------------------------------------------


@pytest.fixture
def inflated(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many bytes came out of gzip since it was asked last."""
    counts = [0]

    class Counted(gzip.GzipFile):
        def read(self, size: int | None = -1) -> bytes:
            chunk = super().read(size)
            counts[0] += len(chunk)
            return chunk

    monkeypatch.setattr(untar.gzip, "GzipFile", Counted)

    def ask() -> int:
        count, counts[0] = counts[0], 0
        return count

    return ask


@pytest.mark.parametrize("kind", [b"0", b"5", b"7", b"S", b"x", b"g", b"L", b"K", b"?"])
def test_no_bomb_is_inflated_beyond_what_a_job_may_store(
    inflated: Callable[[], int], kind: bytes
) -> None:
    for size, mb in ((0, 60), (7 << 20, 60), (39 << 20, 60), (1 << 32, 42)):
        archive(Bomb(size, kind, mb).data)  # which bounds its CPU time and its memory
        assert inflated() <= DISK_BYTES + (32 << 20) + (1 << 20)


# --- a real launcher -------------------------------------------------------------------------

Packets = list[bytes]


@examples(8)
@given(
    st.lists(strategies.honest | strategies.messages, max_size=6),
    st.binary(max_size=40) | strategies.messages,
)
def test_any_talk_with_a_launcher_leaves_no_process(talk: Packets, last: bytes) -> None:
    wire = Wire()
    try:
        wire.waiting(1)
        for packet in [*talk, last, b"enough"]:
            try:
                wire.web.send(packet)
            except (BrokenPipeError, ConnectionResetError):
                break
        said = set()
        try:
            while True:
                said.add(wire.hear()["op"])
        except channel.ProtocolError:
            pass
        assert said <= {"launched", "limited", "failed", "ended"}, said
        assert wire.gone(5), f"it does not go after {json.dumps([str(p) for p in talk])}"
    finally:
        wire.close()
