"""Registers the site, so that Django finds the commands `serve` and `runserver`."""

from django.apps import AppConfig


class SandrunSiteConfig(AppConfig):
    name = "sandrun_site"
