"""Ruby, PHP, Lua, R, Go, Rust and Java: a real program each. script/test-languages installs them
and runs this; it is no part of every CI run."""

from __future__ import annotations

from tests.languages.running import run, said
from tests.sandbox.box import Box


def test_ruby_has_ractors_threads_and_sockets(box: Box) -> None:
    assert said(run(box, "ruby", "all.rb")) == [
        "42", "3", "14", "Timeout::Error", "forked", "3", "shell", "OPEN3", "local", "true",
        "signal", "[1,2]",
    ]  # fmt: skip


def test_php_has_processes_streams_and_fibers(box: Box) -> None:
    assert said(run(box, "php", "all.php")) == [
        "OPENED", "0", "shell", "1 paired", "local", "3", "999", ". .. b moved", "[1,2,3] same",
        "2 42",
    ]  # fmt: skip


def test_lua_has_coroutines_and_pipes(box: Box) -> None:
    lines = [line.split("\t") for line in said(run(box, "lua", "all.lua"))]
    assert lines == [
        ["1", "4", "9"], ["piped", "3"], ["9999", "true", "nil", "exit", "1"],
        ["key", "3", "false", "caught"], ["/tmp", "1970", "3", "16"],
    ]  # fmt: skip


def test_r_fits_models_and_forks_workers(box: Box) -> None:
    ran = run(box, "Rscript", "all.R")
    assert [line.strip() for line in said(ran)] == [
        "[1]  1  4  9 16", "3", "TRUE", "a b", "4 2", "shell PIPED", "TRUE", "TRUE",
    ]  # fmt: skip


def test_go_has_goroutines_a_server_and_signals(box: Box) -> None:
    assert said(run(box, "go", "all.go")) == [
        "499500", "EXECUTED", "<nil>", "exit status 3", "200 hello /there",
        "user defined signal 1", "<nil> <nil>",
        "dial tcp 127.0.0.1:80: connect: network is unreachable",
    ]  # fmt: skip


def test_rust_has_threads_processes_and_sockets(box: Box) -> None:
    assert said(run(box, "rust", "all.rs")) == [
        "36 42", "true true", "SPAWNED Some(1)", "local 99999 2",
    ]  # fmt: skip


def test_java_has_threads_watched_files_and_sockets(box: Box) -> None:
    assert said(run(box, "java", "All.java")) == [
        "204 499500", "BUILT 0 3", "new", "42 true", "local", "true true",
    ]  # fmt: skip
