"""The catalog: what is encoded again after a change, and what stays the very same object."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from lbcore.directory import Directory, ServiceSnapshot
from lbcore.model import Endpoint
from lbcore.policy import Maglev
from lbcore.routing import Listener, Route
from lbcore.xds.client_kind import ClientKind
from lbcore.xds.resource_type import ResourceType
from lbcore.xds.resources import Catalog

CDS, EDS, LDS, RDS = ResourceType
ENVOY, GRPC, EITHER = ClientKind

WEB = ServiceSnapshot(name="web", endpoints=(Endpoint("10.0.0.1:80"),))
API = ServiceSnapshot(name="api", endpoints=(Endpoint("10.0.0.2:80"), Endpoint("unix:/run/api")))
INGRESS = Listener(name="in", address="127.0.0.1:1", routes=(Route(prefix="/", service="web"),))
VIEWS = [(CDS, ENVOY), (CDS, GRPC), (EDS, ENVOY), (EDS, GRPC), (LDS, ENVOY), (LDS, GRPC), (RDS, ENVOY), (RDS, GRPC)]


class Served:
    """A directory and the catalogs that follow it."""

    def __init__(self, *services: ServiceSnapshot) -> None:
        self.directory = Directory()
        self.catalog: Catalog | None = None
        self.publish(*services)

    def publish(self, *services: ServiceSnapshot, listener: Listener = INGRESS) -> Catalog:
        self.directory.publish("test", services, [listener])
        self.catalog = Catalog(self.directory.current, self.catalog)
        return self.catalog

    def encode_all(self) -> dict[tuple[Any, ...], Any]:
        assert self.catalog is not None
        sets = {view: self.catalog.resources(*view) for view in VIEWS}
        return {(*view, name): each.get(name) for view, each in sets.items() for name in each.versions}


def test_each_kind_of_client_has_its_own_names() -> None:
    catalog = Served(WEB, API).catalog
    assert catalog is not None
    names = {view: set(catalog.resources(*view).versions) for view in [*VIEWS, (RDS, EITHER)]}
    assert names[LDS, ENVOY] == names[RDS, ENVOY] == {"in"}
    assert names[LDS, GRPC] == names[RDS, GRPC] == names[CDS, ENVOY] == names[CDS, GRPC] == {"web", "api"}
    assert names[RDS, EITHER] == {"in", "web", "api"}


def test_an_unchanged_directory_encodes_nothing_again() -> None:
    served = Served(WEB, API)
    before = served.encode_all()
    served.publish(API, WEB)
    after = served.encode_all()
    assert all(after[key] is resource for key, resource in before.items())
    assert after.keys() == before.keys()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"endpoints": ()}, {(EDS, ENVOY), (EDS, GRPC)}),
        ({"policy": Maglev()}, {(CDS, ENVOY), (CDS, GRPC)}),
        ({"overprovisioning_factor": 120}, {(EDS, ENVOY), (EDS, GRPC)}),
    ],
)
def test_a_change_touches_only_what_depends_on_it(changes: Any, expected: set[Any]) -> None:
    served = Served(WEB, API)
    before = served.encode_all()
    catalog = served.publish(dataclasses.replace(WEB, **changes), API)
    assert {view for view in VIEWS if catalog.resources(*view).changed} == expected
    assert {view for view in VIEWS if catalog.resources(*view).changed <= {"web"}} == set(VIEWS)
    after = served.encode_all()
    assert {key[:2] for key, resource in before.items() if after[key] is not resource} == expected


def test_a_service_that_comes_or_goes_is_a_change() -> None:
    served = Served(WEB)
    served.encode_all()
    assert served.publish(WEB, API).resources(CDS, ENVOY).changed == {"api"}
    served.encode_all()
    gone = served.publish(API).resources(CDS, ENVOY)
    assert gone.changed == {"web"}
    assert gone.get("web") is None


def test_a_changed_route_leaves_the_listener_as_it_is() -> None:
    served = Served(WEB, API)
    listener = served.encode_all()[LDS, ENVOY, "in"]
    moved = dataclasses.replace(INGRESS, routes=(Route(prefix="/", service="api"),))
    catalog = served.publish(WEB, API, listener=moved)
    assert served.encode_all()[LDS, ENVOY, "in"].version == listener.version
    assert catalog.resources(RDS, ENVOY).changed == {"in"}


def test_grpc_shares_the_assignment_unless_a_unix_socket_sets_them_apart() -> None:
    resources = Served(WEB, API).encode_all()
    assert resources[EDS, GRPC, "web"] is resources[EDS, ENVOY, "web"]
    assert resources[EDS, GRPC, "api"].version != resources[EDS, ENVOY, "api"].version


def test_versions_are_the_same_in_any_process() -> None:
    one, other = Served(WEB, API).encode_all(), Served(API, WEB).encode_all()
    assert {key: each.version for key, each in one.items()} == {key: each.version for key, each in other.items()}


def test_a_message_is_built_once_for_all_streams() -> None:
    catalog = Served(WEB).catalog
    assert catalog is not None
    resources = catalog.resources(EDS, ENVOY)
    web = resources.get("web")
    assert web is not None
    assert resources.sotw_message("v", [web], (), timed=False) is resources.sotw_message("v", [web], (), timed=False)
    assert resources.delta_message("v", [web], ["gone"], timed=False) is resources.delta_message(
        "v", [web], ["gone"], timed=False
    )


def test_only_so_many_messages_are_kept() -> None:
    catalog = Served(WEB).catalog
    assert catalog is not None
    resources = catalog.resources(EDS, ENVOY)
    first = resources.sotw_message("0", [], (), timed=False)
    for number in range(1, 100):
        resources.sotw_message(str(number), [], (), timed=False)
    assert resources.sotw_message("0", [], (), timed=False) is not first


def test_messages_are_what_protobuf_would_have_made_of_them() -> None:
    catalog = Served(WEB).catalog
    assert catalog is not None
    resources = catalog.resources(CDS, ENVOY)
    web = resources.get("web")
    assert web is not None
    shared = resources.sotw_message("v1", [web], ["zoë"], timed=False)
    sotw = discovery_pb2.DiscoveryResponse.FromString(shared.message)
    assert (sotw.version_info, sotw.nonce, sotw.type_url) == ("v1", shared.nonce, CDS.type_url)
    assert sotw.control_plane.identifier == "lbcore"
    (error,) = sotw.resource_errors
    assert (error.resource_name.name, error.error_detail.code) == ("zoë", 5)
    assert "zoë" in error.error_detail.message
    shared = resources.delta_message("v1", [web], ["zoë"], timed=False)
    delta = discovery_pb2.DeltaDiscoveryResponse.FromString(shared.message)
    assert (delta.nonce, delta.type_url, list(delta.removed_resources)) == (shared.nonce, CDS.type_url, ["zoë"])
    assert delta.control_plane.identifier == "lbcore"
    (resource,) = delta.resources
    assert (resource.name, resource.version) == ("web", web.version)
    assert resource.resource == sotw.resources[0]


def test_large_resources_are_framed_right() -> None:
    many = tuple(Endpoint(f"10.0.{number >> 8}.{number & 255}:80") for number in range(1000))
    catalog = Served(ServiceSnapshot(name="web", endpoints=many)).catalog
    assert catalog is not None
    resources = catalog.resources(EDS, ENVOY)
    web = resources.get("web")
    assert web is not None
    message = resources.delta_message("v1", [web, web], (), timed=False).message
    delta = discovery_pb2.DeltaDiscoveryResponse.FromString(message)
    assert [each.name for each in delta.resources] == ["web", "web"]
    assert delta.resources[0].resource == delta.resources[1].resource
