"""Find the Chromium that the browser tests drive; as a program (`python tests/chromium.py`) install one where it can.

On Debian as root the distribution's package is installed. Elsewhere one sentence says how to get a browser, which is a
failure under CI=true: there, browser tests that silently do not run would be worse than a red build.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

HOW_TO_GET = (
    "No Chromium was found, so the browser tests cannot run: install one with "
    f"'{sys.executable} -m playwright install chromium', or name a Chrome or Edge in the variable CHROMIUM."
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge")
PLACES = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)


def find_chromium() -> Path | None:
    """The program named in ``CHROMIUM``, else an installed one, else the one that playwright fetched."""
    if named := os.environ.get("CHROMIUM"):
        return Path(named)
    for candidate in (*(shutil.which(name) for name in NAMES), *PLACES):
        if candidate and Path(candidate).is_file() and _starts(candidate):
            return Path(candidate)
    return _fetched_by_playwright()


def _starts(program: str) -> bool:
    # Ubuntu's chromium-browser is a script that only asks for a snap. Chrome on Windows opens a window at --version.
    if sys.platform == "win32":
        return True
    return subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0


def _fetched_by_playwright() -> Path | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return path if path.is_file() else None


def _is_debian_root() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    try:
        return platform.freedesktop_os_release().get("ID") == "debian"
    except OSError:  # a system without an os-release file
        return False


def main() -> int:
    """Report the browser, or get one; the exit code is what ``make`` sees."""
    found = find_chromium()
    if found is None and _is_debian_root():
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        subprocess.run(["apt-get", "-qq", "install", "--yes", "--no-install-recommends", "chromium"], check=True)
        found = find_chromium()
    if found is None:
        print(HOW_TO_GET, file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0
    print(f"Chromium: {found}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
