"""Subsets of a cluster by endpoint metadata: views that share the cluster's slots and copy no endpoint.

Which subsets exist, and what stands in for one that does not, is Envoy's rule (subset.proto, subset_lb.cc). A view is
rebuilt when it is first used after an update, so thousands of them cost an update nothing.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from lbcore.errors import InvalidSetting, Mistake
from lbcore.model import Endpoint, Locality, json_metadata
from lbcore.picker import Picker
from lbcore.schema import Checked
from lbcore.validation import refusal

if TYPE_CHECKING:
    from lbcore.cluster import Cluster

__all__ = ["Subset", "SubsetSelector", "SubsetTable", "Subsets"]

Comparable = tuple[str, Hashable]  # kind and value
Criteria = tuple[tuple[str, Comparable], ...]
_FALLBACK_LIST = "fallback_list"  # the criterion that names alternatives
Fallback = Literal["not_defined", "no_fallback", "any_endpoint", "default_subset", "keys_subset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetSelector(Checked):
    """One kind of subset: the endpoints that agree in the values of these metadata keys.

    Fields:
        keys: metadata keys, in any order.
        fallback_policy: where no endpoint matches: `not_defined` (what `Subsets` says), `no_fallback`, `any_endpoint`,
            `default_subset`, or `keys_subset`: look again with `fallback_keys_subset` only.
        fallback_keys_subset: a smaller set of the keys, for `keys_subset`.
        single_host_per_subset: each subset is the first of its endpoints alone; only with one key.

    Raises `InvalidSetting`. Source: Envoy LbSubsetSelector.
    """

    keys: Sequence[str]
    fallback_policy: Fallback = "not_defined"
    fallback_keys_subset: Sequence[str] = ()
    single_host_per_subset: bool = False

    def contradictions(self) -> Iterator[Mistake]:
        field = "fallback_keys_subset"
        if not self.keys:
            yield Mistake(("keys",), "keys (): expected at least one metadata key")
        if (self.fallback_policy == "keys_subset") != bool(self.fallback_keys_subset):
            yield Mistake((field,), f"{field}: expected with the fallback_policy keys_subset, and only with it")
        elif self.fallback_keys_subset and not set(self.fallback_keys_subset) < set(self.keys):
            yield Mistake((field,), f"{field} {self.fallback_keys_subset!r}: expected some of the keys, not all")
        if self.single_host_per_subset and len(self.keys) != 1:
            yield Mistake(("single_host_per_subset",), "single_host_per_subset: expected with one key only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subsets(Checked):
    """Which subsets a cluster has.

    Fields:
        selectors: the kinds of subset; without any, every request falls back.
        fallback_policy: for criteria whose keys no selector has, and for selectors that leave it open.
        default_subset: metadata that an endpoint of the default subset has.
        list_as_any: a metadata value that is a list matches each of its items.
        allow_redundant_keys: criteria may name more keys than a selector has; the selector with most keys serves them.
        locality_weight_aware: locality weights count within a subset too; else it has none.
        scale_locality_weight: by how many of the locality's endpoints are in the subset.
        panic_mode_any: where what `fallback_policy` names has nobody to give, any endpoint does.
        metadata_fallback_policy: with `fallback_list`, the criterion `fallback_list` of a request is a list of criteria
            that are tried in order, each together with the others that the request names.

    Raises `InvalidSetting`. Source: Envoy LbSubsetConfig.
    """

    selectors: Sequence[SubsetSelector] = ()
    fallback_policy: Literal["no_fallback", "any_endpoint", "default_subset"] = "no_fallback"
    default_subset: Annotated[Mapping[str, Any], json_metadata] = field(default_factory=dict)
    list_as_any: bool = False
    allow_redundant_keys: bool = False
    locality_weight_aware: bool = False
    scale_locality_weight: bool = False
    panic_mode_any: bool = False
    metadata_fallback_policy: Literal["metadata_no_fallback", "fallback_list"] = "metadata_no_fallback"

    def contradictions(self) -> Iterator[Mistake]:
        first: dict[frozenset[str], int] = {}
        for index, selector in enumerate(self.selectors):
            keys = frozenset(selector.keys)
            if (other := first.setdefault(keys, index)) != index:
                what = f"keys {tuple(selector.keys)!r}: expected each set of keys once"
                yield Mistake(("selectors", index, "keys"), what, see=("selectors", other, "keys"))
        if self.scale_locality_weight and not self.locality_weight_aware:
            yield Mistake(("scale_locality_weight",), "scale_locality_weight: expected with locality_weight_aware only")


class Subset(Picker):
    """A view of some endpoints of a cluster, from `Cluster.subset`; picks and leases as there."""

    __slots__ = ("_criteria", "_table")

    def __init__(self, table: SubsetTable, criteria: Criteria, local_locality: Locality | None) -> None:
        self._table = table
        self._criteria = criteria
        self.policy = table.cluster.policy
        wanted = ", ".join(f"{key}={value!r}" for key, (_, value) in criteria)
        self.name = f"{table.cluster.name} where {wanted}" if wanted else table.cluster.name
        self._share(table.cluster, local_locality)

    def _renew(self) -> None:
        """Called by the core, before the view is next used after a change."""
        with self._table.lock:  # threads may share a view
            while staleness := self._staleness():
                members = self._table.members(self._criteria)
                self._install_shared(self._table.cluster, members, self._table.locality_weights(members), staleness)

    def __repr__(self) -> str:
        return f"<Subset {self.name!r} of {len(self.endpoints)}>"


class SubsetTable:
    """The subsets of one cluster: who is in which, and the views made so far."""

    def __init__(self, cluster: Cluster, subsets: Subsets) -> None:
        self.cluster = cluster
        self._subsets = subsets
        self._selectors = {frozenset(each.keys): each for each in subsets.selectors}
        self.lock = threading.RLock()  # of the indexes and views; taken after the cluster's own, never before
        self._indexed: tuple[Endpoint, ...] = ()  # what the indexes were made from
        self._indexes: dict[tuple[str, ...], dict[Criteria, tuple[Endpoint, ...]]] = {}
        self._views: dict[tuple[Criteria, Locality | None], Subset] = {}

    def renew(self) -> None:
        """Forgets the views that match nobody any more; those who hold one may use it on."""
        with self.lock:
            for criteria, place in list(self._views):
                if criteria and not self._matching(criteria):
                    del self._views[criteria, place]

    def view(self, criteria: Mapping[str, Any], local_locality: Locality | None) -> Subset:
        """The view for these criteria, which may be a fallback, and for requests from that locality."""
        if not isinstance(criteria, Mapping) or not all(isinstance(key, str) for key in criteria):
            raise refusal("criteria", criteria, "expected a mapping with text as keys")
        wanted = self._without_redundant_keys(tuple(sorted((key, _comparable(each)) for key, each in criteria.items())))
        view = self._views.get((wanted, local_locality))
        if view is not None:
            return view
        with self.lock:
            view = Subset(self, wanted, local_locality)
            if not wanted or self._matching(wanted):
                return self._views.setdefault((wanted, local_locality), view)
            return view  # and not kept, because anyone can name a subset that does not exist

    def members(self, criteria: Criteria) -> tuple[Endpoint, ...]:
        """The endpoints that serve these criteria, by match or by fallback."""
        if self._subsets.metadata_fallback_policy == "fallback_list":
            given = dict(criteria)
            if (alternatives := given.pop(_FALLBACK_LIST, None)) is not None:
                return self._first_to_give(given, alternatives)
        return self._serving(criteria)

    def locality_weights(self, members: tuple[Endpoint, ...]) -> dict[Locality, int]:
        """The weights of localities within a subset: Envoy subset_lb.cc, determineLocalityWeights."""
        weights = self.cluster._locality_weights
        if not self._subsets.locality_weight_aware:
            return {}
        if not self._subsets.scale_locality_weight:
            return weights
        everywhere = Counter(endpoint.locality for endpoint in self.cluster.endpoints)
        here = Counter(endpoint.locality for endpoint in members)
        return {
            place: math.floor(weight * here[place] / everywhere[place] + 0.5)
            for place, weight in weights.items()
            if everywhere[place]
        }

    def _first_to_give(self, given: dict[str, Comparable], alternatives: Comparable) -> tuple[Endpoint, ...]:
        kind, listed = alternatives
        if kind != "list" or not listed:
            return self._serving(tuple(sorted(given.items())))
        found: tuple[Endpoint, ...] = ()
        for alternative in listed:  # type: ignore[attr-defined]  # Hashable says nothing of a list's items
            own = dict(alternative[1]) if alternative[0] == "struct" else {}
            found = self._serving(tuple(sorted({**given, **own}.items())))
            if self._gives(found):
                return found
        return found

    def _serving(self, criteria: Criteria) -> tuple[Endpoint, ...]:
        criteria = self._without_redundant_keys(criteria)
        selector = self._selectors.get(frozenset(key for key, _ in criteria))
        while selector is not None:
            if found := self._matching(criteria):
                return found
            if selector.fallback_policy != "keys_subset":
                break
            criteria = tuple(pair for pair in criteria if pair[0] in selector.fallback_keys_subset)
            selector = self._selectors.get(frozenset(selector.fallback_keys_subset))
        if selector is not None and selector.fallback_policy != "not_defined":
            return self._fallback(selector.fallback_policy)
        found = self._fallback(self._subsets.fallback_policy)
        if self._subsets.panic_mode_any and self._subsets.fallback_policy != "no_fallback" and not self._gives(found):
            return self.cluster.endpoints
        return found

    def _fallback(self, policy: Fallback) -> tuple[Endpoint, ...]:
        if policy == "any_endpoint":
            return self.cluster.endpoints
        if policy == "default_subset":
            default = {key: _comparable(value) for key, value in self._subsets.default_subset.items()}
            return self._index(tuple(sorted(default))).get(tuple(sorted(default.items())), ())
        return ()

    def _without_redundant_keys(self, criteria: Criteria) -> Criteria:
        """Of the selectors whose keys are all there, the largest serves (subset_lb.cc, filterCriteriaBySelectors)."""
        if not self._subsets.allow_redundant_keys:
            return criteria
        given = frozenset(key for key, _ in criteria)
        largest = max((keys for keys in self._selectors if keys <= given), key=len, default=given)
        return tuple(pair for pair in criteria if pair[0] in largest)

    def _gives(self, members: tuple[Endpoint, ...]) -> bool:
        """Whether a cluster of these endpoints would have one to give."""
        return bool(members) and (self.cluster._panics or not self.cluster._usable().isdisjoint(members))

    def _matching(self, criteria: Criteria) -> tuple[Endpoint, ...]:
        keys = tuple(key for key, _ in criteria)
        selector = self._selectors.get(frozenset(keys))
        if selector is None:
            return ()
        found = self._index(keys).get(criteria, ())
        return found[:1] if selector.single_host_per_subset else found

    def _index(self, keys: tuple[str, ...]) -> dict[Criteria, tuple[Endpoint, ...]]:
        """Endpoints by their values of the keys; made once an update and set of keys."""
        endpoints = self.cluster.endpoints
        if endpoints is not self._indexed:
            self._indexes.clear()
            self._indexed = endpoints
        if keys not in self._indexes:
            found: dict[Criteria, list[Endpoint]] = {}
            for endpoint in endpoints:
                if all(key in endpoint.metadata for key in keys):
                    for criteria in self._combinations(endpoint, keys):
                        found.setdefault(criteria, []).append(endpoint)
            self._indexes[keys] = {criteria: tuple(members) for criteria, members in found.items()}
        return self._indexes[keys]

    def _combinations(self, endpoint: Endpoint, keys: tuple[str, ...]) -> list[Criteria]:
        combinations: list[Criteria] = [()]
        for key in keys:
            value = endpoint.metadata[key]
            values = value if self._subsets.list_as_any and isinstance(value, list | tuple) else [value]
            choices = dict.fromkeys(_comparable(each) for each in values)
            combinations = [(*done, (key, choice)) for done in combinations for choice in choices]
        return combinations


def _comparable(value: Any) -> Comparable:
    """A metadata value in a form that compares as protobuf's Value does: numbers are one kind, booleans another."""
    if value is None or isinstance(value, bool | str):
        return (type(value).__name__, value)
    if isinstance(value, int | float):
        return ("number", float(value))
    if isinstance(value, list | tuple):
        return ("list", tuple(_comparable(each) for each in value))
    if isinstance(value, Mapping):
        return ("struct", tuple(sorted((str(key), _comparable(each)) for key, each in value.items())))
    raise InvalidSetting(f"metadata value {value!r}: expected text, a number, true or false, null, a list or a mapping")
