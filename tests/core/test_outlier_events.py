"""The event log of outlier detection: a line for each ejection and each return, with Envoy's fields."""

from __future__ import annotations

import datetime
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
from envoy.data.cluster.v3 import outlier_detection_event_pb2
from google.protobuf import json_format

from lbcore import Endpoint
from tests.core.fleets import address
from tests.core.outliers import Watched


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "outliers.jsonl"


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def told(log: Path) -> list[tuple[str, str, str, bool, str]]:
    return [
        (each["action"], each["type"], each["upstream_url"], each["enforced"], each["reason"]) for each in events(log)
    ]


def test_an_ejection_and_its_end_are_told(log: Path) -> None:
    watched = Watched(3, consecutive_5xx=2, interval=10.0, base_ejection_time=30.0, event_log_path=str(log))
    watched.fail(1, 2)
    assert events(log) == []  # `tick` writes
    watched.tick(2.5)
    assert told(log) == [("EJECT", "CONSECUTIVE_5XX", address(1), True, "consecutive_5xx")]
    watched.tick(30.0)
    assert told(log)[1:] == [("UNEJECT", "CONSECUTIVE_5XX", address(1), False, "its ejection time is over")]
    first, second = events(log)
    assert (first["num_ejections"], first["cluster_name"]) == (1, "watched")
    assert first["eject_consecutive_event"] == {}
    assert "secs_since_last_action" not in first
    assert second["secs_since_last_action"] == "30"
    ejected_at, returned_at = (datetime.datetime.fromisoformat(each["timestamp"][:-1]) for each in (first, second))
    assert datetime.timedelta(0) <= returned_at - ejected_at  # each by the wall clock, when it was written


def test_the_fields_are_envoys(log: Path) -> None:
    watched = Watched(5, success_rate_request_volume=10, consecutive_5xx=0, event_log_path=str(log))
    for number in range(1, 5):
        watched.end(number, 10)
    watched.end(0, 5)
    watched.end(0, 5, status=500)
    watched.tick(10.0)
    (event,) = events(log)
    assert event.pop("reason") == "success_rate"
    assert event["eject_success_rate_event"] == {
        "host_success_rate": 50,
        "cluster_average_success_rate": 90,
        "cluster_success_rate_ejection_threshold": 52,
    }
    message = json_format.ParseDict(event, outlier_detection_event_pb2.OutlierDetectionEvent())
    assert message.action == outlier_detection_event_pb2.EJECT
    assert message.type == outlier_detection_event_pb2.SUCCESS_RATE


@pytest.mark.parametrize("algorithm", ["envoy", "grpc"])
def test_a_failure_percentage_is_told_with_the_rate(log: Path, algorithm: str) -> None:
    watched = Watched(
        5,
        algorithm=algorithm,
        consecutive_5xx=0,
        enforcing_success_rate=0,
        enforcing_failure_percentage=100,
        event_log_path=str(log),
    )
    for number in range(1, 5):
        watched.end(number, 50)
    watched.end(0, 50, status=500)
    watched.tick(10.0)
    (event,) = events(log)
    assert (event["type"], event["action"]) == ("FAILURE_PERCENTAGE", "EJECT")
    assert event["eject_failure_percentage_event"] == {"host_success_rate": 0}


def test_a_passed_check_is_told_as_the_reason(log: Path) -> None:
    watched = Watched(3, consecutive_5xx=1, event_log_path=str(log))
    watched.fail(0)
    watched.cluster.set_health(address(0), True)
    watched.tick()
    assert [each[0] for each in told(log)] == ["EJECT", "UNEJECT"]
    assert told(log)[1][-1] == "it passed an active check"


def test_what_the_percentage_leaves_in_is_told_and_what_there_is_no_room_for_is_not(log: Path) -> None:
    watched = Watched(3, consecutive_5xx=1, enforcing_consecutive_5xx=0, event_log_path=str(log))
    watched.fail(0)
    watched.tick()
    assert told(log) == [
        ("EJECT", "CONSECUTIVE_5XX", address(0), False, "the enforcing percentage left it in"),
    ]
    crowded = Watched(3, consecutive_5xx=1, max_ejection_percent=0, event_log_path=str(log))
    crowded.fail(0)
    crowded.tick()
    assert len(told(log)) == 1


def test_without_a_log_nothing_is_kept() -> None:
    watched = Watched(3, consecutive_5xx=1)
    watched.fail(0)
    assert watched.cluster._outlier_events() == []


def test_of_very_many_that_nobody_takes_the_latest_are_lost_and_a_cluster_takes_them_along(log: Path) -> None:
    watched = Watched(3, consecutive_5xx=1, event_log_path=str(log))
    endpoint = Endpoint(address(0))
    watched.cluster.update([endpoint, Endpoint(address(1)), Endpoint(address(2))])
    for _ in range(10_000):
        watched.fail(0)
        watched.cluster.set_health(address(0), True)
    assert len(watched.cluster._outlier_events()) == 16384
    watched.fail(0)
    gone = weakref.ref(watched.cluster)
    del watched
    gc.collect()
    assert gone() is None


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(3, consecutive_5xx=1, event_log_path=str(tmp_path / "none" / "log"))
    for number in (0, 1):
        watched.fail(number)
        watched.tick()
    assert watched.ejected() == {0, 1}
    assert len(caplog.records) == 1
