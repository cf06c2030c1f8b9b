"""What the registry promises, and the tests that hold it to each promise: all of them are there, and none skipped."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

PROMISES: dict[str, list[str]] = {
    "R1: no answer before the first sync": [
        "xds/test_rules_trust.py::test_r1_nothing_is_answered_before_the_sources_are_in_sync",
        "xds/test_rules_trust.py::test_r1_a_fetch_before_the_sources_are_in_sync_is_unavailable",
        "registry/test_promises.py::test_nothing_is_answered_before_what_an_earlier_process_kept_is_there",
        "registry/test_etcd.py::test_nothing_is_answered_before_etcd_has_been_read",
        "service/test_start_without_etcd.py::test_the_first_answer_has_what_the_file_lists_and_what_is_registered",
    ],
    "R2: out of reach for a minute, nothing disappears, staleness shows, the difference alone comes after it": [
        "xds/test_rules_trust.py::test_r2_a_source_that_fails_changes_nothing_for_anybody",
        "registry/test_etcd.py::test_kill_9_of_etcd_takes_nothing_away_and_its_return_is_followed",
        "registry/test_etcd.py::test_a_partition_shows_as_staleness_and_takes_nothing_away",
        "service/test_registry_replicas.py::test_an_outage_of_etcd_shows_and_takes_nothing_away",
        "parity/test_compaction.py::"
        "test_a_replica_below_a_compaction_lists_again_and_its_readers_hear_the_difference_alone",
        "parity/test_registry_outages.py::test_nothing_that_fails_costs_a_request",
    ],
    "R2: a restart serves what is known, and says that it may be out of date": [
        "service/test_registry.py::"
        "test_a_restart_keeps_registrations_and_marks_them_stale_until_their_agent_is_heard_of",
        "service/test_registry.py::"
        "test_a_restored_registration_ends_when_its_agent_is_not_heard_of_for_one_time_to_live",
        "registry/test_etcd.py::"
        "test_a_server_that_starts_without_etcd_serves_what_it_said_last_and_then_the_difference",
        "test_registration.py::test_kill_9_of_the_service_loses_nothing",
    ],
    "R3: most leases of a service ending at once are held and marked": [
        "registry/test_table.py::test_r3_nothing_disappears_at_any_time_of_a_mass_loss",
        "registry/test_table.py::test_when_nine_of_ten_leases_fall_silent_together_all_are_held_and_marked",
        "registry/test_promises.py::"
        "test_when_nine_of_ten_leases_run_out_at_once_nothing_leaves_the_directory_and_staleness_shows",
        "registry/test_etcd_silence.py::test_nine_of_ten_leases_ending_at_once_are_held_and_what_is_deregistered_goes",
        "registry/test_etcd_silence.py::test_most_of_a_service_silent_at_once_is_held_even_where_no_server_was_up",
    ],
    "R3: what is deregistered goes, always": [
        "registry/test_table.py::test_what_is_deregistered_goes_even_while_most_is_held",
        "registry/test_etcd_silence.py::test_nine_of_ten_leases_ending_at_once_are_held_and_what_is_deregistered_goes",
    ],
    "R4: very many clients at once are all served": [
        "xds/test_rules_trust.py::test_r4_five_hundred_clients_at_once_are_all_served",
    ],
    "R5: a client that never reads holds up nobody": [
        "xds/test_rules_trust.py::test_r5_a_client_that_never_reads_holds_up_nobody",
    ],
    "R6: flapping is damped": [
        "registry/test_damping.py::test_returns_wait_after_three_falls_and_then_show",
        "registry/test_promises.py::test_an_endpoint_that_flaps_is_published_once_in_each_window_and_as_it_ends",
        "registry/test_etcd_silence.py::test_flapping_is_damped",
    ],
    "a stale write never wins": [
        "registry/test_interleavings.py::test_of_one_server",
        "registry/test_interleavings.py::test_of_two_servers_over_etcd",
        "registry/test_table_stateful.py::test_two_writers_in_any_order_end_with_the_newer_one_and_its_last_word",
        "registry/test_etcd.py::test_of_two_writers_at_two_servers_in_any_order_the_newer_wins",
    ],
    "only its lease removes a registration": [
        "registry/test_interleavings.py::test_of_one_server",
        "registry/test_interleavings.py::test_of_two_servers_over_etcd",
        "service/test_registry.py::test_only_the_lease_that_has_it_deregisters",
        "registry/test_table.py::test_the_end_of_an_old_lease_leaves_what_a_newer_one_has",
    ],
    "a client survives the loss of the server": [
        "parity/test_registry_outages.py::test_nothing_that_fails_costs_a_request",
        "service/test_registry_replicas.py::test_an_agent_goes_on_at_the_other_replica_and_nothing_is_lost",
        "service/test_registry_replicas.py::test_a_wrapped_program_goes_on_at_the_other_replica_before_its_lease_ends",
    ],
    "losing a server that checks loses no registration": [
        "registry/test_board.py::test_a_crash_deletes_nothing_and_its_checks_are_taken_over",
    ],
    "a lock has one holder, who learns in time that it is one no more": [
        "registry/test_lock.py::test_one_at_a_time_in_the_order_of_asking_each_with_a_larger_fence",
        "registry/test_lock.py::test_where_etcd_hangs_the_holder_knows_before_anybody_else_can_have_it",
        "registry/test_lock.py::test_a_holder_that_is_killed_is_followed_by_the_next",
    ],
}


@pytest.mark.parametrize("promise", PROMISES)
def test_each_promise_is_held_by_tests(promise: str) -> None:
    for test in PROMISES[promise]:
        file, _, name = test.partition("::")
        [found] = (each for each in _tests(TESTS / file) if each.name == name)
        marks = {ast.unparse(each) for each in found.decorator_list}
        assert not any("skip" in mark or "xfail" in mark for mark in marks), test


def _tests(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [each for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
