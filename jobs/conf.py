"""Config: the SANDRUN settings, read once, checked, with their units; handed on as a value."""

import os
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

MIB = 1024 * 1024


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an operator may choose. Each field is also read from the variable SANDRUN_<FIELD>."""

    # jobs that run at once
    slots: Annotated[int, Meta(ge=1, le=1024)] = 2 * (os.cpu_count() or 1)
    # jobs that wait; more are answered with 503
    queue_length: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    # bytes of uploads, logs and outputs held for all jobs together; more are answered with 503
    held_bytes: Annotated[int, Meta(ge=200 * MIB, le=1 << 40)] = 2048 * MIB
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
    # submissions of one client address, as django-ratelimit writes a rate
    submit_rate: Annotated[str, Meta(pattern=r"^[1-9]\d{0,6}/([1-9]\d{0,3})?[smhd]$")] = "600/m"
    # False (serve --no-quotas): clients are not limited
    quotas: bool = True
    # seconds that a client has for the head, and for the body, of a request
    head_seconds: Annotated[float, Meta(gt=0, le=600)] = 20.0
    body_seconds: Annotated[float, Meta(gt=0, le=3600)] = 120.0
    # seconds after which a client that does not read its answer is left
    stall_seconds: Annotated[float, Meta(gt=0, le=600)] = 60.0


def read(mapping: Mapping[str, object]) -> Config:
    """The Config that `mapping` describes. Raises ValueError with a sentence."""
    try:
        return msgspec.convert(dict(mapping), Config, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"SANDRUN setting: {error}") from None


def from_environ(environ: Mapping[str, str]) -> dict[str, object]:
    """The settings that are given as SANDRUN_<FIELD> in `environ`, still unchecked."""
    names = {f"SANDRUN_{field.upper()}": field for field in Config.__struct_fields__}
    return {field: environ[name] for name, field in names.items() if name in environ}
