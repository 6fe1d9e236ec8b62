"""For every test."""

import os

from hypothesis import settings

# A change lands or not by what it does, not by what a random seed happens to find; at home, seeds are random.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
