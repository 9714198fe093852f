"""Config: the SANDRUN settings, read once, checked, with their units; handed on as a value."""

import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated

import msgspec
from msgspec import Meta

from sandbox.cgroups import MISSABLE

MIB = 1024 * 1024

Rate = Annotated[str, Meta(pattern=r"^[1-9]\d{0,6}/([1-9]\d{0,3})?[smhd]$")]

_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")


def memory_mb(share: float) -> int:
    """Of the machine's memory, in MiB."""
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MIB * share)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an operator may choose. Each field is also read from the variable SANDRUN_<FIELD>."""

    # jobs that run at once
    slots: Annotated[int, Meta(ge=1, le=1024)] = 2 * (os.cpu_count() or 1)
    # memory that all running jobs may ask for together; the next one waits
    running_memory_mb: Annotated[int, Meta(ge=16, le=1 << 24)] = max(512, memory_mb(1 / 2))
    # jobs that wait; more are answered with 503
    queue_length: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    # seconds in line after which a job is given up
    queue_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 3600
    # bytes of uploads, logs and outputs held for all jobs together; more are answered with 503
    held_bytes: Annotated[int, Meta(ge=200 * MIB, le=1 << 40)] = (
        min(2048, max(200, memory_mb(1 / 4))) * MIB
    )
    # of these, what one client may hold
    client_held_bytes: Annotated[int, Meta(ge=1024 * 1024, le=1 << 40)] = (
        min(512, max(150, memory_mb(1 / 16))) * MIB
    )
    # bytes of one upload
    upload_bytes: Annotated[int, Meta(ge=64 * 1024, le=1024 * MIB)] = 100 * MIB
    # bytes kept of stdout, and of stderr
    log_bytes: Annotated[int, Meta(ge=1024, le=100 * MIB)] = 10 * MIB
    # seconds from a job's end until it is forgotten
    ttl_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    # seconds between two looks for jobs to forget
    sweep_seconds: Annotated[float, Meta(gt=0, le=60)] = 1.0
    # the most that a manifest may ask for
    timeout_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    memory_mb: Annotated[int, Meta(ge=16, le=1 << 20)] = 512
    # what one client address has: CPU time a minute, jobs that wait or run, jobs an hour
    cpu_seconds_per_minute: Annotated[float, Meta(ge=0.1, le=1_000_000)] = 10.0
    concurrent_jobs: Annotated[int, Meta(ge=1, le=100_000)] = 2
    jobs_per_hour: Annotated[int, Meta(ge=1, le=1_000_000)] = 20
    # requests of one client address to each endpoint, as django-ratelimit writes a rate: what
    # starts a job, and what reads
    submit_rate: Rate = "600/m"
    read_rate: Rate = "6000/m"
    # False (serve --no-quotas): clients are not limited
    quotas: bool = True
    # networks of proxies whose X-Forwarded-For tells the client's address
    trust_proxy: tuple[str, ...] = ()
    # web sites that may use this server from their visitors' browsers: https://name
    allow_origin: tuple[str, ...] = ()
    # connections of one client address at once; a trusted proxy may have any number
    client_connections: Annotated[int, Meta(ge=1, le=100_000)] = 200
    # seconds that a client has for the head, and for the body, of a request
    head_seconds: Annotated[float, Meta(gt=0, le=600)] = 20.0
    body_seconds: Annotated[float, Meta(gt=0, le=3600)] = 120.0
    # seconds after which a client that does not read its answer is left
    stall_seconds: Annotated[float, Meta(gt=0, le=600)] = 60.0
    # walls without which jobs may run, where the machine lacks them: names of MISSABLE
    allow_missing: tuple[str, ...] = ()
    # HOST:PORT of a listener of its own for /metrics (serve --metrics); without it there is none
    metrics: Annotated[str, Meta(pattern=r"^$|^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$")] = ""


def read(mapping: Mapping[str, object]) -> Config:
    """The Config that `mapping` describes. Raises ValueError with a sentence."""
    try:
        config = msgspec.convert(dict(mapping), Config, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"SANDRUN setting: {error}") from None
    for network in config.trust_proxy:
        try:
            ip_network(network)
        except ValueError as error:
            raise ValueError(f"SANDRUN setting: trust_proxy: {error}") from None
    for origin in config.allow_origin:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"SANDRUN setting: allow_origin: {origin!r} is not like https://name or "
                "https://name:port"
            )
    for wall in config.allow_missing:
        if wall not in MISSABLE:
            known = ", ".join(MISSABLE)
            raise ValueError(f"SANDRUN setting: allow_missing: {wall!r} is not one of {known}")
    if config.running_memory_mb < config.memory_mb:
        raise ValueError("SANDRUN setting: running_memory_mb is less than one job's memory_mb")
    return config


_LISTS = ("trust_proxy", "allow_origin", "allow_missing")


def from_environ(environ: Mapping[str, str]) -> dict[str, object]:
    """The settings that are given as SANDRUN_<FIELD> in `environ`, still unchecked."""
    given: dict[str, object] = {}
    for field in Config.__struct_fields__:
        text = environ.get(f"SANDRUN_{field.upper()}")
        if text is not None:
            words = [word.strip() for word in text.split(",") if word.strip()]
            given[field] = words if field in _LISTS else text
    return given
