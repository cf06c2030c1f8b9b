"""What a `ServiceSnapshot` refuses to hold, because Envoy or gRPC would refuse it (rules V3, V4 and V7 of xDS)."""

import pytest

from lbcore.directory import ServiceSnapshot
from lbcore.errors import InvalidSetting
from lbcore.model import MAX_WEIGHT, Endpoint, Locality


def test_v3_an_address_appears_only_once() -> None:
    twice = (Endpoint("[::1]:80", priority=1), Endpoint("10.0.0.1:80"), Endpoint("[0::1]:80", locality="eu"))
    with pytest.raises(
        InvalidSetting,
        match=r"endpoints\[2\]\.address: address '\[::1\]:80': expected each address once \(see endpoints\[0\]",
    ):
        ServiceSnapshot(name="web", endpoints=twice)


def test_v4_endpoint_weights_of_a_locality_add_up_to_an_unsigned_32_bit_number() -> None:
    heavy = (Endpoint("10.0.0.1:80", weight=MAX_WEIGHT, locality="eu"), Endpoint("10.0.0.2:80", locality="eu"))
    with pytest.raises(InvalidSetting, match="weights of priority 0, locality 'eu' add up to 4294967296"):
        ServiceSnapshot(name="web", endpoints=heavy)


def test_v4_the_same_weights_are_fine_in_two_localities() -> None:
    heavy = (Endpoint("10.0.0.1:80", weight=MAX_WEIGHT, locality="eu"), Endpoint("10.0.0.2:80", locality="us"))
    assert len(ServiceSnapshot(name="web", endpoints=heavy).endpoints) == 2


def test_v4_locality_weights_of_a_priority_add_up_to_an_unsigned_32_bit_number() -> None:
    endpoints = (Endpoint("10.0.0.1:80", locality="eu"), Endpoint("10.0.0.2:80", locality="us"))
    with pytest.raises(InvalidSetting, match="weights of the localities of priority 0 add up to 4294967296"):
        ServiceSnapshot(name="web", endpoints=endpoints, locality_weights={Locality("eu"): MAX_WEIGHT})


def test_v1_a_locality_weight_is_at_least_one() -> None:
    with pytest.raises(InvalidSetting, match=r"locality_weights\.eu/a: weight 0: expected a whole number"):
        ServiceSnapshot(name="web", locality_weights={Locality("eu", "a"): 0})


@pytest.mark.parametrize("name", ["web", "ns/web", "/web", "a//b", "a:b", "a%b", "wéb", "日本", "x" * 1024])
def test_a_name_that_xds_clients_take_is_kept_as_it_is(name: str) -> None:
    assert ServiceSnapshot(name=name).name == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "at least one"),
        ("*", "means nothing else in xDS"),
        ("xdstp://authority/type/web", "means nothing else in xDS"),
        ("web/", "no slash at the end"),
        ("a b", "without spaces"),
        ("a\nb", "printable"),
        ("a\u200bb", "printable"),
        ("\ud800", "lone surrogate"),
        ("日" * 342, "at most 1024 bytes"),
    ],
)
def test_a_name_that_some_xds_client_cannot_use_is_refused(name: str, expected: str) -> None:
    with pytest.raises(InvalidSetting, match=rf"name '.*: expected .*{expected}|name .*{expected}"):
        ServiceSnapshot(name=name)


def test_a_hostname_is_refused_because_eds_carries_ip_addresses() -> None:
    with pytest.raises(InvalidSetting, match=r"address 'db\.internal:80': expected an IP address"):
        ServiceSnapshot(name="web", endpoints=(Endpoint("db.internal:80"),))


@pytest.mark.parametrize(
    "value", [float("nan"), 10**400, {1}, b"x", {1: "x"}, [{"deep": object()}], "\ud800", {"\ud800": 1}]
)
def test_metadata_that_a_protobuf_struct_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(InvalidSetting, match=r"endpoints\[0\]\.metadata\.key.*: metadata: expected only text"):
        ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80", metadata={"key": value}),))


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidSetting) as caught:
        ServiceSnapshot(name="*", panic_threshold=200, overprovisioning_factor=0, policy="ring_hash")  # type: ignore[arg-type]
    assert [mistake.path for mistake in caught.value.mistakes] == [
        ("name",),
        ("policy",),
        ("overprovisioning_factor",),
        ("panic_threshold",),
    ]


@pytest.mark.parametrize(("field", "value"), [("overprovisioning_factor", 0), ("panic_threshold", 100.5)])
def test_a_setting_out_of_range_names_the_field(field: str, value: float) -> None:
    with pytest.raises(InvalidSetting, match=field):
        ServiceSnapshot(name="web", **{field: value})
