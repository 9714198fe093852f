"""What a job is, and its doors. Django is imported in api/, apps.py and checks.py only."""

VERSION = "0.1.0"  # as in sandrun/__init__.py, which stands alone; a test holds both together
