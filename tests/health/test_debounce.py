"""One update a window, by an injected clock."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lbcore.health.debounce import Debounce


@given(st.lists(st.floats(0.0, 0.3), max_size=200), st.floats(0.01, 2.0))
def test_updates_are_a_window_apart_and_no_change_waits_longer(gaps: list[float], window: float) -> None:
    debounce, now, due, sent, waited = Debounce(window), 0.0, None, [], [0.0]
    since = 0.0
    for gap in gaps:
        now += gap
        if due is not None and now >= due:
            debounce.sent(due)
            sent.append(due)
            waited.append(due - since)
            due = None
        if due is None:
            due, since = debounce.due(now), now
    assert all(later - earlier >= window * (1 - 1e-9) for earlier, later in pairwise(sent))
    assert max(waited) <= window * (1 + 1e-9)


def test_the_first_change_in_a_while_waits_for_nothing() -> None:
    debounce = Debounce(1.0)
    debounce.sent(10.0)
    assert debounce.due(11.5) == 11.5
