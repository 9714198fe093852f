"""What a job is, and its doors. Django is imported in api/, apps.py and checks.py only."""
