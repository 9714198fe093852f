"""Django system checks: the SANDRUN settings make sense."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from jobs import conf


@register("sandrun")
def check_settings(app_configs: object, **kwargs: Any) -> Sequence[CheckMessage]:
    """sandrun.E001: a setting is unknown, of the wrong type or out of its range."""
    try:
        conf.read(settings.SANDRUN)
    except ValueError as error:
        return [Error(str(error), id="sandrun.E001")]
    return []
