"""Makes Django ready before the targets import what is built on it, and gives hypothesis a folder
that git ignores."""

import os
from pathlib import Path

import django

ROOT = Path(__file__).resolve().parents[2]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandrun_site.settings")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / ".hypothesis_cache"))
django.setup()
