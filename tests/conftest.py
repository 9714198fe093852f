"""Names the settings for whatever test asks for them. Imports no Django: the sandbox's tests need
none, and a slow guest kernel runs them too."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sandrun_site.settings")
