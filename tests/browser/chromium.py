"""The browser that pages are tested in."""

from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
MISSING = f"""\
Pages were not tested: there is no browser at {CHROMIUM}.
To test them, install Chromium (Debian: apt-get install chromium) and run this again."""
