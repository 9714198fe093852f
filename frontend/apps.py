"""Registers the room, for Django to find its templates; reads its files before anybody asks."""

from django.apps import AppConfig


class FrontendConfig(AppConfig):
    name = "frontend"

    def ready(self) -> None:
        from frontend import assets  # noqa: F401, PLC0415
