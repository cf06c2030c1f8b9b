"""ORCA load reports, read in every form that servers send them in."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport

from lbcore import LoadReport
from lbcore.orca import InvalidReport, load_report_from_binary, load_report_from_headers, load_report_from_text

MESSAGE = OrcaLoadReport(
    cpu_utilization=0.5,
    application_utilization=0.25,
    mem_utilization=0.125,
    rps_fractional=100.0,
    eps=2.0,
    named_metrics={"rif": 7.0, "queue": 3.5},
)
REPORT = LoadReport(
    rif=7,
    cpu_utilization=0.5,
    application_utilization=0.25,
    mem_utilization=0.125,
    rps_fractional=100.0,
    eps=2.0,
    named_metrics={"rif": 7.0, "queue": 3.5},
)
IN_BASE64 = base64.b64encode(MESSAGE.SerializeToString()).decode()
JSON = (
    'JSON {"cpu_utilization": 0.5, "application_utilization": 0.25, "mem_utilization": 0.125, "rps_fractional": 100, '
    '"eps": 2, "named_metrics": {"rif": 7, "queue": 3.5}}'
)
TEXT = (
    "TEXT cpu_utilization=0.5, application_utilization:0.25,mem_utilization=0.125,rps_fractional=100,eps=2,"
    "named_metrics.rif=7, named_metrics.queue=3.5"
)


@pytest.mark.parametrize(
    "headers",
    [
        [("endpoint-load-metrics-bin", MESSAGE.SerializeToString())],
        {"Endpoint-Load-Metrics-Bin": IN_BASE64},
        {"endpoint-load-metrics-bin": IN_BASE64.rstrip("=")},
        [(b"date", b"today"), (b"endpoint-load-metrics", f"BIN {IN_BASE64}".encode())],
        {"endpoint-load-metrics": JSON},
        {"endpoint-load-metrics": JSON.replace("cpu_utilization", "cpuUtilization")},
        {"endpoint-load-metrics": TEXT},
    ],
)
def test_every_form_says_the_same(headers: Any) -> None:
    assert load_report_from_headers(headers) == REPORT


def test_no_header_is_no_report() -> None:
    assert load_report_from_headers({"content-type": "text/plain"}) is None


def test_the_old_whole_rate_of_requests_stands_in() -> None:
    assert load_report_from_binary(OrcaLoadReport(rps=12).SerializeToString()).rps_fractional == 12.0


def test_metrics_that_nobody_knows_are_left_aside() -> None:
    assert load_report_from_text("TEXT cpu_utilization=0.1, gpu=3") == LoadReport(cpu_utilization=0.1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu_utilization=0.3", "begin with TEXT, JSON or BIN"),
        ("TEXT cpu_utilization", "expected name=value"),
        ("TEXT cpu_utilization=a", "finite number"),
        ("TEXT cpu_utilization=nan", "finite number"),
        ("TEXT cpu_utilization=-1", "cpu_utilization -1"),
        ("TEXT eps=1,eps=2", "once"),
        ("TEXT named_metrics.rif=-1", "rif -1"),
        ("JSON [1]", "JSON object"),
        ("JSON {", "expected JSON"),
        ('JSON {"eps": true}', "finite number"),
        ("BIN !", "base64"),
        ("BIN " + base64.b64encode(b"\xff\xff").decode(), "OrcaLoadReport"),
        ("TEXT " + "a" * 70_000, "at most"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(text: str, expected: str) -> None:
    with pytest.raises(InvalidReport, match=expected):
        load_report_from_text(text)


@given(
    st.one_of(
        st.binary(max_size=80),
        st.sampled_from([TEXT, JSON, IN_BASE64]).flatmap(
            lambda text: st.integers(0, len(text)).map(lambda cut: text[:cut] + "\x00" + text[cut + 1 :])
        ),
    )
)
def test_nothing_but_a_report_or_a_refusal_comes_of_any_bytes(content: bytes | str) -> None:
    for name in ("endpoint-load-metrics", "endpoint-load-metrics-bin"):
        for prefix in ("", "TEXT ", "JSON ", "BIN "):
            value = prefix.encode() + content if isinstance(content, bytes) else prefix + content
            with contextlib.suppress(InvalidReport):
                assert isinstance(load_report_from_headers({name: value}), LoadReport)


@given(st.dictionaries(st.text(max_size=5), st.floats(-1e300, 1e300), max_size=3), st.floats(0, 1e300))
def test_any_message_of_finite_numbers_is_read(named: dict[str, float], rate: float) -> None:
    named.pop("rif", None)
    message = OrcaLoadReport(rps_fractional=rate, named_metrics=named)
    report = load_report_from_binary(message.SerializeToString())
    assert report.rps_fractional == rate
    assert dict(report.named_metrics) == named
