"""Django's settings, and ours (SANDRUN, see jobs/conf.py). There is no database, no session, no
account, no cookie and no access log, and no variable of the environment can turn DEBUG on.
"""

import os
import secrets

from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries

from jobs import conf

SANDRUN = conf.from_environ(os.environ)

DEBUG = False
SECRET_KEY = secrets.token_urlsafe(50)  # signs nothing that outlives the process
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"] + [
    name for name in os.environ.get("SANDRUN_ALLOWED_HOSTS", "").split(",") if name
]

INSTALLED_APPS = [
    "sandrun_site",  # before daphne: both have a runserver
    "daphne",
    "channels",
    "jobs",
    "sandbox",
    "frontend",
    "django_ratelimit",
]
MIDDLEWARE = ["jobs.api.middleware.Guard"]
ROOT_URLCONF = "sandrun_site.urls"
APPEND_SLASH = False
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES: dict[str, object] = {}
USE_TZ = True
USE_I18N = False

_LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
CACHES = {
    "default": {"BACKEND": _LOCMEM},
    # Of its own and large: a full cache forgets counters, so that a limited client is free again.
    "ratelimit": {
        "BACKEND": "jobs.api.clients.Counters",
        "LOCATION": "ratelimit",
        "OPTIONS": {"MAX_ENTRIES": 1_000_000},
    },
}
RATELIMIT_USE_CACHE = "ratelimit"
# Both doubt that LocMemCache counts for several processes; there is one.
SILENCED_SYSTEM_CHECKS = ["django_ratelimit.E003", "django_ratelimit.W001"]

# Our server hands bodies over in memory (jobs/api/request.py); from others Django would spool them.
FILE_UPLOAD_MAX_MEMORY_SIZE = 1 << 40
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]

# Without a database its per-request handlers are a fifth of the work of a request.
request_started.disconnect(reset_queries)
request_started.disconnect(close_old_connections)
request_finished.disconnect(close_old_connections)

# Django and Daphne write paths, so job ids, into these; our own faults come from jobs.api.errors.
_SILENT = {"handlers": ["nothing"], "propagate": False}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line"},
        "nothing": {"class": "logging.NullHandler"},
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {name: _SILENT for name in ("django.request", "django.security", "daphne")},
}

TEST_RUNNER = "sandrun_site.testing.PytestRunner"
