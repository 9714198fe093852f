"""Makes Django ready before tests import its parts; `manage.py test` has done so already."""

import django

django.setup()
