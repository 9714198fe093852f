"""Registers the room with Django, and the doctor's cheap checks as system checks: `manage.py check`
shows what the machine lacks. Under a tag of their own, which `serve` leaves out at every start.
"""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning, register

TAG = "machine"


class SandboxConfig(AppConfig):
    name = "sandbox"

    def ready(self) -> None:
        register(check_machine, TAG)


def check_machine(app_configs: object, **kwargs: Any) -> Sequence[CheckMessage]:
    """sandrun.E1xx for what is bad, sandrun.W1xx for a warning; its checks have the numbers."""
    from sandbox import doctor  # here: the server starts without it

    kinds = {doctor.BAD: (Error, "E"), doctor.WARNING: (Warning, "W")}
    messages = []
    for check, finding in zip(doctor.CHECKS, doctor.examine(doctor.CHECKS), strict=True):
        if finding.verdict in kinds:
            kind, letter = kinds[finding.verdict]
            sentence = f"{finding.name}: {finding.found}. {finding.meaning}"
            messages.append(kind(sentence, finding.remedy, id=f"sandrun.{letter}{check.number}"))
    return messages
