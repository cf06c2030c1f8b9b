"""One service of the configuration file to a `ServiceSnapshot`.

The file writes two fields differently: the name is the key, and `localities: {eu/a: {weight: 3}}` leaves room beside
the weight. It is also held to more than other sources are, because all of it is said at once: no gap between
priorities, no weight for a locality without endpoints. Elsewhere both come and go with the endpoints.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from lbcore.config.decoding import Decoder, Path, meant
from lbcore.config.document import Node
from lbcore.errors import InvalidSetting, Mistake
from lbcore.etcd.address import EtcdAddress
from lbcore.model import MAX_WEIGHT, Endpoint, Locality
from lbcore.schema import Checked, Field, fields_of, mistakes_in
from lbcore.snapshot import ServiceSnapshot
from lbcore.source import Etcd, Source
from lbcore.validation import Whole

__all__ = ["LocalityShare", "WrittenService", "decode_service", "unknown_service"]

_RENAMED = {"name": "", "locality_weights": "localities"}  # the name is the key of the service itself


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalityShare(Checked):
    """What the file says of one locality."""

    weight: Annotated[int, Whole(1, MAX_WEIGHT)]


@dataclass(frozen=True, slots=True)
class WrittenService:
    """A service as the file has it.

    Fields:
        snapshot: all of it; without endpoints where a source is to find them.
        source: of its endpoints.
    """

    snapshot: ServiceSnapshot
    source: Source | None = None


def _declared() -> Mapping[str, Field]:
    fields = {**fields_of(ServiceSnapshot), "source": fields_of(WrittenService)["source"]}
    del fields["name"]
    weights = fields.pop("locality_weights")
    return {**fields, "localities": replace(weights, name="localities", type=Mapping[str, LocalityShare])}


_FIELDS = _declared()


def decode_service(
    decoder: Decoder, name: str, node: Node, path: Path, known: Collection[str] = ()
) -> WrittenService | None:
    """The service of that name, or None where it has mistakes. `known` are the services that its route may lead to."""
    before = len(decoder.mistakes)
    given = decoder.fields(_FIELDS, node, path)
    source: Source | None = given.pop("source", None)
    shares: dict[str, LocalityShare] = given.pop("localities", {})
    given |= {"name": name, "locality_weights": {place: share.weight for place, share in shares.items()}}
    wrong = mistakes_in(ServiceSnapshot, given)
    decoder.judge(wrong, node, path, _RENAMED)
    # Made even without the fields that are wrong, and under any name, because the endpoints may contradict each other.
    sound = {field: value for field, value in given.items() if field not in {mistake.path[0] for mistake in wrong}}
    service = decoder.construct(ServiceSnapshot, {"name": "unnamed", **sound}, node, path, _RENAMED)
    if len(decoder.mistakes) > before:
        return None
    if source is not None:
        decoder.judge(_both("endpoints" in given), node, path)
        decoder.judge(_etcd_mistakes(source), node, path)
    else:
        decoder.judge(_gaps(service.endpoints), node, path)
        decoder.judge(_unused(shares, service.endpoints), node, path)
    decoder.judge(_lost(service, known), node, path)
    return WrittenService(service, source) if len(decoder.mistakes) == before else None


def _both(endpoints_given: bool) -> Iterator[Mistake]:
    if endpoints_given:
        yield Mistake(("source",), "expected endpoints or a source of them, found both", see=("endpoints",))


def _etcd_mistakes(source: Source) -> Iterator[Mistake]:
    """What is wrong with an etcd's address in more than its form."""
    if isinstance(source, Etcd):
        try:
            EtcdAddress.parse(source.url, "url")
        except InvalidSetting as wrong:
            for each in wrong.mistakes:
                yield Mistake(("source", "etcd", "url"), each.what)


def _gaps(endpoints: tuple[Endpoint, ...]) -> Iterator[Mistake]:
    """gRPC refuses a service whose priorities do not follow each other from 0 (gRFC A27)."""
    used = {endpoint.priority for endpoint in endpoints}
    missing = next((priority for priority in range(len(used)) if priority not in used), None)
    if missing is not None:
        index = next(index for index, endpoint in enumerate(endpoints) if endpoint.priority > missing)
        what = f"priority {endpoints[index].priority}: expected priorities without a gap from 0, none is {missing}"
        yield Mistake(("endpoints", index, "priority"), what)


def _unused(shares: Mapping[str, LocalityShare], endpoints: tuple[Endpoint, ...]) -> Iterator[Mistake]:
    used = {endpoint.locality for endpoint in endpoints}
    for place in shares:
        if Locality.parse(place) not in used:
            what = f"locality {place!r}: no endpoint is in it{meant(place, sorted(filter(None, map(str, used))))}"
            yield Mistake(("localities", place), what)


def _lost(service: ServiceSnapshot, known: Collection[str]) -> Iterator[Mistake]:
    for name in service.route.services if service.route else ():
        if name not in known:
            yield Mistake(("route", "services", name), unknown_service(name, known))


def unknown_service(name: str, known: Collection[str]) -> str:
    """What is wrong with the name of a service that the file does not have."""
    return f"service {name!r}: no such service in this file{meant(name, known)}"
