"""What is wrong in listeners and routes is said with file, line, field and what is expected."""

from __future__ import annotations

import pytest

from tests.config.test_mistakes import mistakes


@pytest.mark.parametrize(
    ("listeners", "expected"),
    [
        ("in", "listeners: expected a list, found 'in'"),
        ("", "listeners: expected a list, found nothing"),
        ("[in]", "listeners[0]: expected a mapping, found 'in'"),
        ("[{name: in, address: '127.0.0.1:80'}]", "listeners[0]: routes is missing"),
        ("[{name: '', address: '127.0.0.1:80', routes: []}]", "listeners[0].name: name '': expected printable"),
        (
            "[{name: in, address: localhost:80, routes: []}]",
            "listeners[0].address: address 'localhost:80': expected an IP",
        ),
        (
            "[{name: in, address: 127.0.0.1:0, routes: []}]",
            "listeners[0].address: address '127.0.0.1:0': expected a port",
        ),
    ],
)
def test_a_mistake_in_the_listeners(listeners: str, expected: str) -> None:
    (mistake,) = mistakes(f"services: {{}}\nlisteners: {listeners}")
    assert mistake.startswith(f"lb.yaml:2: {expected}")


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ("{prefix: /, service: wbe}", ".service: service 'wbe': no such service in this file; did you mean web?"),
        ("{prefix: x, service: web}", ".prefix: prefix 'x': expected it to start with /"),
        ("{service: web}", ": prefix is missing"),
        ("{prefix: /, service: web, hash_on: {}}", ".hash_on: expected one name with its settings, found 0"),
        ("{prefix: /, service: web, hash_on: x}", ".hash_on: unknown name 'x'; expected one of header, cookie,"),
        (
            "{prefix: /, service: web, hash_on: {header: a b}}",
            ".hash_on.header.name: name 'a b': expected a header name:",
        ),
        (
            "{prefix: /, service: web, hash_on: {header: a, cookie: b}}",
            ".hash_on: expected one name with its settings, found 2",
        ),
        ("{prefix: /}", ": expected either service or services"),
        ("{prefix: /, service: web, services: {web: 1}}", ": expected either service or services"),
        ("{prefix: /, services: {web: 1, wbe: 1}}", ".services.wbe: service 'wbe': no such service in this file; did"),
        ("{prefix: /, services: {web: 0}}", ".services: services {'web': 0}: expected weights that add up to 1"),
        ("{prefix: /, services: {web: x}}", ".services.web: weight 'x': expected a whole number"),
        ("{prefix: /, service: web, timeout: soon}", ".timeout: timeout 'soon': expected seconds as a number"),
        ("{prefix: /, service: web, retry: {}}", ".retry: retry_on is missing"),
        ("{prefix: /, service: web, retry: {retry_on: [5x]}}", ".retry.retry_on: retry_on '5x': expected one of 5xx,"),
        ("{prefix: /, service: web, fault: {}}", ".fault: expected delay, abort or both"),
        ("{prefix: /, service: web, fault: {abort: {}}}", ".fault.abort: expected either http_status or grpc_status"),
    ],
)
def test_a_mistake_in_a_route(route: str, expected: str) -> None:
    listener = f"{{name: in, address: '127.0.0.1:80', routes: [{{prefix: /a, service: web}}, {route}]}}"
    (mistake,) = mistakes(f"services: {{web: {{}}}}\nlisteners: [{listener}]")
    assert mistake.startswith(f"lb.yaml:2: listeners[0].routes[1]{expected}")


def test_a_service_with_mistakes_is_one_that_a_route_may_name() -> None:
    listener = "{name: in, address: '127.0.0.1:80', routes: [{prefix: /, service: web}]}"
    (mistake,) = mistakes(f"services: {{web: {{x: 1}}}}\nlisteners: [{listener}]")
    assert "services.web.x" in mistake


def test_two_listeners_of_one_name_or_address_name_both_lines() -> None:
    text = """services: {}
listeners:
  - {name: a, address: 127.0.0.1:80, routes: []}
  - {name: b, address: 127.0.0.1:81, routes: []}
  - {name: a, address: 127.0.0.1:82, routes: []}
  - name: d
    address: 127.0.0.1:080
    routes: []
"""
    assert mistakes(text) == (
        "lb.yaml:5: listeners[2].name: name 'a': expected each name once (see line 3)",
        "lb.yaml:7: listeners[3].address: address '127.0.0.1:80': expected each address once (see line 3)",
    )
