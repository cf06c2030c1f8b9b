"""What is wrong in a file is said with file, line, field and what is expected: every kind, and all at once."""

from __future__ import annotations

import re

import pytest

from lbcore.config import parse
from lbcore.errors import ConfigError


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "lb.yaml")
    return caught.value.mistakes


def of_service(settings: str) -> str:
    """The one mistake in a service's settings, less the file, the line and the service."""
    (mistake,) = mistakes(f"services: {{web: {{{settings}}}}}")
    assert mistake.startswith("lb.yaml:1: services.web")
    return mistake.removeprefix("lb.yaml:1: services.web").removeprefix(".")


def of_endpoint(fields: str) -> str:
    return of_service(f"endpoints: [{{address: 10.0.0.1:80, {fields}}}]").removeprefix("endpoints[0].")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("polcy: random", "polcy: unknown field; did you mean policy?"),
        ("zzz: 1", "zzz: unknown field; expected one of endpoints, policy,"),
        ("name: web", "name: unknown field; "),
        ("locality_weights: {}", "locality_weights: unknown field; did you mean localities?"),
        ("endpoints: 10.0.0.1:80", "endpoints: expected a list, found '10.0.0.1:80'"),
        ("endpoints: {a: b}", "endpoints: expected a list, found a mapping"),
        ("endpoints: ", "endpoints: expected a list, found nothing"),
        ("endpoints: [[10.0.0.1:80]]", "endpoints[0]: expected a mapping, found a list"),
        ("endpoints: [null]", "endpoints[0]: expected a mapping, found nothing"),
        ("endpoints: [{weight: 1}]", "endpoints[0]: address is missing"),
        ("endpoints: [web.internal:80]", "endpoints[0].address: address 'web.internal:80': expected an IP address, "),
        ("endpoints: [10.0.0.1:0]", "endpoints[0].address: address '10.0.0.1:0': expected a port from 1 to 65535"),
        ("endpoints: [10.0.0.1:99999]", "endpoints[0].address: address '10.0.0.1:99999': expected a port from 1 to"),
        ("endpoints: [10.0.0.1]", "endpoints[0].address: address '10.0.0.1': expected \"IP:PORT\""),
        ("endpoints: [80]", "endpoints[0].address: address '80': expected \"IP:PORT\""),
        ("policy: ring_hsh", "policy: unknown name 'ring_hsh'; did you mean ring_hash?"),
        ("policy: RingHash", "policy: unknown name 'RingHash'; did you mean ring_hash?"),
        ("policy: zzz", "policy: unknown name 'zzz'; expected one of round_robin, random, "),
        ("policy: {ring_hsh: {}}", "policy: unknown name 'ring_hsh'; did you mean ring_hash?"),
        ("policy: {}", "policy: expected one name with its settings, found 0"),
        ("policy: {random: {}, maglev: {}}", "policy: expected one name with its settings, found 2"),
        ("policy: ", "policy: expected a mapping, found nothing"),
        ("policy: [random]", "policy: expected a mapping, found a list"),
        ("policy: {ring_hash: }", "policy.ring_hash: expected a mapping, found nothing"),
        ("policy: {ring_hash: {size: 1}}", "policy.ring_hash.size: unknown field"),
        (
            "policy: {maglev: {table_size: 65536}}",
            "policy.maglev.table_size: table_size 65536: expected a prime number",
        ),
        (
            "policy: {ring_hash: {minimum_ring_size: 10, maximum_ring_size: 9}}",
            "policy.ring_hash.minimum_ring_size: minimum_ring_size 10: expected at most maximum_ring_size 9",
        ),
        (
            "policy: {ring_hash: {hash_function: md5}}",
            "policy.ring_hash.hash_function: hash_function 'md5': expected one of xx_hash, murmur_hash_2",
        ),
        (
            "policy: {round_robin: {slow_start: {}}}",
            "policy.round_robin.slow_start: slow_start_window is missing",
        ),
        ("localities: {eu: {weight: 1}}", "localities.eu: locality 'eu': no endpoint is in it"),
        (
            "localities: {ue/a: {weight: 1}}, endpoints: [{address: 10.0.0.1:80, locality: eu/a}]",
            "localities.ue/a: locality 'ue/a': no endpoint is in it; did you mean eu/a?",
        ),
        ("localities: {eu: 3}", "localities.eu: expected a mapping, found 3"),
        ("localities: {eu: {}}", "localities.eu: weight is missing"),
        ("localities: {eu: {weight: 0}}", "localities.eu.weight: weight 0: expected a whole number, 1 to 4294967295"),
        ("localities: {a/b/c/d: {weight: 1}}", "localities.a/b/c/d: locality 'a/b/c/d': expected at most three parts"),
        (
            "localities: {eu: {weight: 1}, eu/: {weight: 2}}, endpoints: [{address: 10.0.0.1:80, locality: eu}]",
            "localities.eu/: locality 'eu/': expected each locality once, it is 'eu'",
        ),
        ("overprovisioning_factor: 0", "overprovisioning_factor: overprovisioning_factor 0: expected a whole number"),
        ("overprovisioning_factor: 140.5", "overprovisioning_factor: overprovisioning_factor 140.5: expected a whole"),
        ("panic_threshold: 101", "panic_threshold: panic_threshold 101: expected a number, 0 or more, at most 100"),
        ("panic_threshold: .nan", "panic_threshold: panic_threshold nan: expected a number"),
        ("panic_threshold: half", "panic_threshold: panic_threshold 'half': expected a number"),
        ("panic_threshold: [1]", "panic_threshold: panic_threshold [1]: expected a number"),
        ("panic_threshold: ", "panic_threshold: panic_threshold None: expected a number"),
        ("health_check: 5s", "health_check: expected a mapping, found '5s'"),
        ("health_check: {}", "health_check: expected exactly one of http, tcp and grpc, found none"),
        (
            "health_check: {http: {path: healthz}}",
            "health_check.http.path: path 'healthz': expected it to start with /",
        ),
        ("health_check: {http: {}, interval: 0s}", "health_check.interval: interval 0.0: expected a number, 0.001 or"),
        ("health_check: {http: {}, interval: -1}", "health_check.interval: interval -1: expected a number, 0.001 or"),
        (
            "health_check: {http: {}, interval: 5 s}",
            "health_check.interval: interval '5 s': expected seconds as a number",
        ),
        ("health_check: {http: {}, interval: true}", "health_check.interval: interval True: expected seconds as a"),
        ("health_check: {http: {}, timeout: 1d}", "health_check.timeout: timeout '1d': expected seconds as a number"),
        ("health_check: {http: {}, timeout: }", "health_check.timeout: timeout None: expected seconds as a number"),
        ("health_check: {http: {}, timeout: [1s]}", "health_check.timeout: timeout ['1s']: expected a number"),
        ("health_check: {http: {}, healthy_threshold: 0}", "health_check.healthy_threshold: healthy_threshold 0: "),
        (
            'outlier_detection: {consecutive_5xx: "5"}',
            "outlier_detection.consecutive_5xx: consecutive_5xx '5': expected",
        ),
        ("outlier_detection: {always_eject_one_host: yes}", "outlier_detection.always_eject_one_host: "),
        ("outlier_detection: {consecutive_5xxx: 1}", "outlier_detection.consecutive_5xxx: unknown field; did you mean"),
        ("circuit_breakers: {max_requests: -1}", "circuit_breakers.max_requests: max_requests -1: expected a whole"),
        ("drop_overload: {category: a}", "drop_overload: percent is missing"),
        ("drop_overload: {category: [a], percent: 1}", "drop_overload.category: expected text, found a list"),
        ('drop_overload: {category: "", percent: 1}', "drop_overload.category: category '': expected printable"),
        ("drop_overload: {category: a, percent: 10%}", "drop_overload.percent: percent '10%': expected a number"),
        ("locality_policy: zones", "locality_policy: unknown name 'zones'; expected one of"),
        (
            "locality_policy: {zone_aware: {local_hosts: {a: -1}}}",
            "locality_policy.zone_aware.local_hosts.a: callers",
        ),
        (
            "locality_policy: {zone_aware: {local_hosts: {a: 1}, local_service: b}}",
            "locality_policy.zone_aware.local_service: local_service 'b': expected local_hosts or",
        ),
        ("local_locality: a/b/c/d", "local_locality: local_locality 'a/b/c/d': expected at most three parts"),
        (
            "subsets: {selectors: [{keys: []}]}",
            "subsets.selectors[0].keys: keys (): expected at least one metadata key",
        ),
        (
            "subsets: {selectors: [{keys: [a, b]}, {keys: [b, a]}]}",
            "subsets.selectors[1].keys: keys ('b', 'a'): expected each set of keys once (see line",
        ),
        (
            "subsets: {default_subset: {a: .nan}}",
            "subsets.default_subset.a: default_subset: expected only text, finite",
        ),
        (
            "subsets: {scale_locality_weight: true}",
            "subsets.scale_locality_weight: scale_locality_weight: expected with",
        ),
        ("[1]: 2", ": key a list: expected text"),
        ("<<: 3", "['<<']: expected a mapping, found 3"),
        ("<<: [{}, 3]", "['<<']: expected a mapping, found 3"),
    ],
)
def test_a_mistake_in_a_service(settings: str, expected: str) -> None:
    assert of_service(settings).startswith(expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            "weight: 0",
            "weight: weight 0: expected a whole number, 1 to 4294967295; to take an endpoint out of rotation ",
        ),
        ("weight: 8589934592", "weight: weight 8589934592: expected a whole number, 1 to 4294967295"),
        ("weight: 1.0", "weight: weight 1.0: expected a whole number"),
        ("weight: true", "weight: weight True: expected a whole number"),
        ("weight: ", "weight: weight None: expected a whole number"),
        ("wieght: 1", "wieght: unknown field; did you mean weight?"),
        ("locality: a/b/c/d", "locality: locality 'a/b/c/d': expected at most three parts, region/zone/sub_zone"),
        ("locality: [eu]", "locality: expected a mapping, found a list"),
        ("locality: {regoin: eu}", "locality.regoin: unknown field; did you mean region?"),
        ("priority: -1", "priority: priority -1: expected a whole number, 0 to 128"),
        ("priority: 129", "priority: priority 129: expected a whole number, 0 to 128"),
        ("priority: 1", "priority: priority 1: expected priorities without a gap from 0, none is 0"),
        ("health: drainin", "health: health 'drainin': unknown; did you mean draining?"),
        ("health: DRAINING", "health: health 'DRAINING': unknown"),
        (
            "health: 3",
            "health: health '3': unknown; expected one of unknown, healthy, unhealthy, draining, timeout, degraded",
        ),
        ("hostname: [a]", "hostname: expected text, found a list"),
        ("metadata: a", "metadata: metadata 'a': expected a mapping"),
        ("metadata: {a: .inf}", "metadata.a: metadata: expected only text, finite numbers"),
        ("metadata: {a: {b: 1, b: 2}}", "metadata.a.b: given twice, first in line 1"),
    ],
)
def test_a_mistake_in_an_endpoint(fields: str, expected: str) -> None:
    assert of_endpoint(fields).startswith(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("route: {services: {wbe: 1}}", "services.web.route.services.wbe: service 'wbe': no such service in this file"),
        ("protocol: http3", "services.web.protocol: protocol 'http3': expected one of http1, http2"),
        ("connect_timeout: 0s", "services.web.connect_timeout: connect_timeout 0"),
        ("nearest_first: maybe", "services.web.nearest_first: nearest_first 'maybe': expected true or false"),
        ("ttl: never", "services.web.ttl: ttl 'never': expected seconds as a number"),
        (
            "endpoints: [{address: '10.0.0.1:80', additional_addresses: ['10.0.0.1:80']}]",
            "services.web.endpoints[0].additional_addresses: address '10.0.0.1:80': expected each address once",
        ),
    ],
)
def test_a_mistake_in_what_xds_clients_get(settings: str, expected: str) -> None:
    (mistake,) = mistakes(f"services:\n  web: {{{settings}}}")
    assert mistake.startswith(f"lb.yaml:2: {expected}")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("{debounce: 1s}", "xds.debounce: unknown field; did you mean debounce_max?"),
        ("{max_streams: 0}", "xds.max_streams: max_streams 0: expected a whole number, 1 to"),
        ("{debounce_window: 2s, debounce_max: 1s}", "xds.debounce_max: debounce_max 1: expected at least"),
        ("fast", "xds: expected a mapping, found 'fast'"),
    ],
)
def test_a_mistake_in_the_delivery(settings: str, expected: str) -> None:
    (mistake,) = mistakes(f"services: {{}}\nxds: {settings}")
    assert mistake.startswith(f"lb.yaml:2: {expected}")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("{stor: memory}", "registry.stor: unknown field; did you mean store?"),
        ("{store: disk}", "registry.store: store 'disk': expected etcd://HOST:PORT/PREFIX, sqlite:PATH or memory"),
        ("{store: 'sqlite:'}", "registry.store: store 'sqlite:': expected etcd://"),
        ("{store: 'etcd://h:99999/x'}", "registry.store: store: member 'h:99999': expected HOST or HOST:PORT"),
        ("{store: 'etcds://h/x?colour=red'}", "registry.store: store: unknown option 'colour'"),
        ("{min_leases: 0}", "registry.min_leases: min_leases 0: expected a whole number, 1 to"),
        ("{max_expiry_percent: 101}", "registry.max_expiry_percent: max_expiry_percent 101: expected a number"),
        ("{max_ttl: 2h}", "registry.max_ttl: max_ttl 7200: expected at most 3600 seconds"),
        ("{default_ttl: 5s, min_ttl: 6s}", "registry.default_ttl: default_ttl 5: expected min_ttl 6 to max_ttl 3600"),
        ("{checker_ttl: 1s}", "registry.checker_ttl: checker_ttl 1.0: expected a number, 2 or more"),
        ("etcd", "registry: expected a mapping, found 'etcd'"),
    ],
)
def test_a_mistake_in_the_registry(settings: str, expected: str) -> None:
    (mistake,) = mistakes(f"services: {{}}\nregistry: {settings}")
    assert mistake.startswith(f"lb.yaml:2: {expected}")


def test_two_endpoints_of_one_address_name_both_lines() -> None:
    text = """services:
  web:
    endpoints:
      - 10.0.0.1:80
      - address: "[::1]:80"
        priority: 0
      - weight: 2
        address: "[0:0::1]:80"
"""
    assert mistakes(text) == (
        "lb.yaml:8: services.web.endpoints[2].address: address '[::1]:80': expected each address once (see line 5)",
    )


def test_two_endpoints_of_one_address_are_found_beside_other_mistakes_at_their_own_places() -> None:
    text = """services:
  web:
    panic_threshold: 500
    endpoints:
      - 10.0.0.1:0
      - 10.0.0.1:80
      - {weight: 1}
      - 10.0.0.1:80
"""
    assert mistakes(text)[-1] == (
        "lb.yaml:8: services.web.endpoints[3].address: address '10.0.0.1:80': expected each address once (see line 6)"
    )
    assert len(mistakes(text)) == 4


@pytest.mark.parametrize(
    ("endpoints", "localities", "expected"),
    [
        (
            [(4294967295, "eu"), (1, "eu")],
            "",
            "endpoints: weights of priority 0, locality 'eu' add up to 4294967296: expected at most 4294967295",
        ),
        (
            [(1, "eu"), (1, "us")],
            "eu: {weight: 4294967295}",
            "localities: weights of the localities of priority 0 add up to 4294967296: expected at most 4294967295",
        ),
    ],
)
def test_weights_that_add_up_to_more_than_32_bits(
    endpoints: list[tuple[int, str]], localities: str, expected: str
) -> None:
    listed = ", ".join(
        f"{{address: 10.0.0.{n}:80, weight: {weight}, locality: {place}}}"
        for n, (weight, place) in enumerate(endpoints)
    )
    assert of_service(f"endpoints: [{listed}], localities: {{{localities}}}") == expected


def test_a_gap_between_priorities_names_the_first_endpoint_beyond_it() -> None:
    listed = ", ".join(f"{{address: 10.0.0.{n}:80, priority: {priority}}}" for n, priority in enumerate([0, 1, 4, 3]))
    expected = "endpoints[2].priority: priority 4: expected priorities without a gap from 0, none is 2"
    assert of_service(f"endpoints: [{listed}]") == expected


def test_a_gap_is_not_guessed_at_while_endpoints_have_mistakes() -> None:
    listed = "{address: 10.0.0.1:0}, {address: 10.0.0.2:80, priority: 1}"
    assert of_service(f"endpoints: [{listed}]").startswith("endpoints[0].address")


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ('""', "services['']", "name '': expected printable characters"),
        ('"*"', "services['*']", "name '*': expected a name that means nothing else"),
        ("web/", "services.web/", "name 'web/': expected no slash at the end"),
        ("a b", "services['a b']", "name 'a b': expected printable characters without spaces"),
        ('"a\\nb"', r"services['a\nb']", r"name 'a\nb': expected printable"),
        ('"xdstp://a/b"', "services['xdstp://a/b']", "name 'xdstp://a/b': expected a name that means nothing else"),
    ],
)
def test_a_service_name_that_xds_clients_cannot_use(name: str, path: str, expected: str) -> None:
    (mistake,) = mistakes(f"services:\n  ok: {{}}\n  {name}: {{}}")
    assert mistake.startswith(f"lb.yaml:3: {path}: {expected}")


@pytest.mark.parametrize("nothing", ["", "~", "null"])
def test_a_service_that_is_nothing_is_a_mistake(nothing: str) -> None:
    (mistake,) = mistakes(f"services:\n  web: {nothing}\n")
    assert mistake == "lb.yaml:2: services.web: expected a mapping, found nothing (an empty mapping is {})"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "lb.yaml:1: empty: expected services; write `services: {}` for none"),
        ("# only a comment\n", "lb.yaml:1: empty: expected services; write `services: {}` for none"),
        ("--- ~", "lb.yaml:1: empty: expected services; write `services: {}` for none"),
        ("[]", "lb.yaml:1: expected a mapping, found a list"),
        ("web", "lb.yaml:1: expected a mapping, found 'web'"),
        ("{}", "lb.yaml:1: services is missing; write `services: {}` for none"),
        ("services:", "lb.yaml:1: services: expected a mapping of names to services, found nothing"),
        ("services: []", "lb.yaml:1: services: expected a mapping of names to services, found a list"),
        ("services: {}\nx: 1", "lb.yaml:2: x: unknown field; expected one of services, listeners"),
    ],
)
def test_a_file_without_services_is_a_mistake(text: str, expected: str) -> None:
    (mistake,) = mistakes(text)
    assert mistake.startswith(expected)


def test_a_key_that_is_given_twice_names_both_lines() -> None:
    text = """services:
  web:
    policy: random
    endpoints: []
    policy: maglev
  web: {}
"""
    assert mistakes(text) == (
        "lb.yaml:5: services.web.policy: given twice, first in line 3",
        "lb.yaml:6: services.web: given twice, first in line 2",
    )


def test_every_mistake_of_a_file_is_told_in_the_order_of_lines() -> None:
    text = """servcies: {}
services:
  web:
    polcy: random
    endpoints:
      - {address: 10.0.0.1:0, weight: 0}
      - {weight: -1, health: sick}
    health_check:
      interval: 5x
      http:
        path: x
  api:
    policy:
      ring_hash:
        minimum_ring_size: 0
listeners:
  - name: in
    address: nowhere
"""
    assert [re.sub(r"^lb.yaml:(\d+): ([^:]+): .*", r"\1 \2", mistake) for mistake in mistakes(text)] == [
        "1 servcies",
        "4 services.web.polcy",
        "6 services.web.endpoints[0].address",
        "6 services.web.endpoints[0].weight",
        "7 services.web.endpoints[1].health",
        "7 services.web.endpoints[1]",
        "7 services.web.endpoints[1].weight",
        "9 services.web.health_check.interval",
        "11 services.web.health_check.http.path",
        "15 services.api.policy.ring_hash.minimum_ring_size",
        "17 listeners[0]",
        "18 listeners[0].address",
    ]


def test_a_mistake_in_a_merged_field_names_the_line_it_stands_in() -> None:
    text = """services:
  one:
    endpoints:
      - &base
        address: 10.0.0.1:80
        weight: 0
      - <<: *base
        address: 10.0.0.2:80
"""
    assert [mistake.split(": weight ")[0] for mistake in mistakes(text)] == [
        "lb.yaml:6: services.one.endpoints[0].weight",
        "lb.yaml:6: services.one.endpoints[1].weight",
    ]


def test_the_error_reads_one_mistake_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("services: {web: {a: 1, b: 2}}", "lb.yaml")
    assert str(caught.value).splitlines() == list(caught.value.mistakes)
