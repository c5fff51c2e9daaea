"""Debian's Chromium, for tests in a real browser; they are skipped where it is missing."""

import shutil

import pytest


def chromium() -> str:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium here (Debian: apt install chromium); pip, by which the tests are set up, has none")
    return path
