"""What a `ServiceSnapshot` refuses to hold, because Envoy or gRPC would refuse it (rules V3, V4 and V7 of xDS)."""

import pytest

from lbcore.directory import ServiceSnapshot
from lbcore.errors import InvalidSetting
from lbcore.model import MAX_WEIGHT, Endpoint, Locality


def test_v3_an_address_appears_only_once() -> None:
    twice = (Endpoint("[::1]:80", priority=1), Endpoint("10.0.0.1:80"), Endpoint("[0::1]:80", locality="eu"))
    with pytest.raises(InvalidSetting, match=r"endpoints\[2\]\.address '\[::1\]:80': endpoints\[0\] already has it"):
        ServiceSnapshot(name="web", endpoints=twice)


def test_v4_endpoint_weights_of_a_locality_add_up_to_an_unsigned_32_bit_number() -> None:
    heavy = (Endpoint("10.0.0.1:80", weight=MAX_WEIGHT, locality="eu"), Endpoint("10.0.0.2:80", locality="eu"))
    with pytest.raises(InvalidSetting, match="weight of all endpoints of priority 0, locality 'eu' 4294967296"):
        ServiceSnapshot(name="web", endpoints=heavy)


def test_v4_the_same_weights_are_fine_in_two_localities() -> None:
    heavy = (Endpoint("10.0.0.1:80", weight=MAX_WEIGHT, locality="eu"), Endpoint("10.0.0.2:80", locality="us"))
    assert len(ServiceSnapshot(name="web", endpoints=heavy).endpoints) == 2


def test_v4_locality_weights_of_a_priority_add_up_to_an_unsigned_32_bit_number() -> None:
    endpoints = (Endpoint("10.0.0.1:80", locality="eu"), Endpoint("10.0.0.2:80", locality="us"))
    with pytest.raises(InvalidSetting, match="weight of all localities of priority 0 4294967296"):
        ServiceSnapshot(name="web", endpoints=endpoints, locality_weights={Locality("eu"): MAX_WEIGHT})


def test_v1_a_locality_weight_is_at_least_one() -> None:
    with pytest.raises(InvalidSetting, match=r"locality_weights\['eu/a'\] 0: expected a whole number, 1 to"):
        ServiceSnapshot(name="web", locality_weights={Locality("eu", "a"): 0})


@pytest.mark.parametrize("name", ["", "*", "xdstp://authority/type/web"])
def test_a_name_that_xds_reserves_is_refused(name: str) -> None:
    with pytest.raises(InvalidSetting, match=r"name '.*': expected a name"):
        ServiceSnapshot(name=name)


@pytest.mark.parametrize(("field", "value"), [("overprovisioning_factor", 99), ("panic_threshold", 100.5)])
def test_a_setting_out_of_range_names_the_field(field: str, value: float) -> None:
    with pytest.raises(InvalidSetting, match=field):
        ServiceSnapshot(name="web", **{field: value})
