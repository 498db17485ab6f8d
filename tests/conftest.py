"""Settings of all tests: no property is timed; how long an example takes says more about the machine than the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
