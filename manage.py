"""Django's entry point: `manage.py serve`, `manage.py test`, `manage.py check`."""

import os
import sys
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I does not
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandrun_site.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
