"""Registers the room with Django. Starts nothing: every manage.py command comes through here."""

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "jobs"

    def ready(self) -> None:
        from jobs import checks  # noqa: F401, registers them
