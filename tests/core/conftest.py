"""Hypothesis here: as everywhere, with few examples, because there are many tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("core", settings(), max_examples=60)
settings.load_profile("core")
