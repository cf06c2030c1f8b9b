"""Hypothesis here: no deadlines, because the machine may be busy; few examples, because there are many tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("core", deadline=None, max_examples=60)
settings.load_profile("core")
