"""script/page: writes the page as plain files, which any file server hands out and which speak to a
Sandrun server elsewhere. Links of jobs are #job=ID there: nobody would answer to /j/ID.
"""

import argparse
import re
import sys
from pathlib import Path

import django
from django.conf import settings

from frontend import assets, policy

LOCAL = "http://localhost:8443"


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/page", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to; it is made, and must be empty or ours")
    parser.add_argument("--server", default=LOCAL, metavar="URL", help=f"whom to ask ({LOCAL})")
    asked = parser.parse_args()
    settings.configure(
        INSTALLED_APPS=["frontend"],
        TEMPLATES=[
            {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}
        ],
    )
    django.setup(set_prefix=False)
    from frontend import views  # noqa: PLC0415 (needs settings)

    server = views.origin(asked.server.rstrip("/"))
    if not server:
        parser.error("--server must be like https://name or https://name:port")
    folder: Path = asked.folder
    if folder.exists() and any(folder.iterdir()) and not _is_ours(folder):
        parser.error(f"{folder} has other files in it")
    for name in assets.FILES:
        place = folder / "static" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(assets.FILES[name].plain.content)
    about = {"static": "static/", "links": "#job=", "policy": policy.content(server, served=False)}
    (folder / "index.html").write_text(views.document({"server": server, **about}))
    print(f"{folder} speaks to {server}, which must have been started with --allow-origin")
    print("and the address under which these files are handed out, as browsers show it:")
    print(f"  python3 -m http.server -b 127.0.0.1 -d {folder} 8000")
    print("  script/server --allow-origin http://127.0.0.1:8000")
    return 0


def _is_ours(folder: Path) -> bool:
    """Whether an earlier call wrote what is there."""
    try:
        text = (folder / "index.html").read_text()
    except OSError:
        return False
    return bool(re.search('name="sandrun-server"', text))


if __name__ == "__main__":
    sys.exit(main())
