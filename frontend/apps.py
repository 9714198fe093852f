"""Registers the room, so that Django finds its template."""

from django.apps import AppConfig


class FrontendConfig(AppConfig):
    name = "frontend"
