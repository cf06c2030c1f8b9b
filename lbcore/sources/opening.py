"""Settings of a source to its feed. Each kind's libraries are imported when one is opened."""

from __future__ import annotations

from lbcore.schema import snake_case
from lbcore.source import Consul, Dns, Etcd, HttpSd, Kubernetes, Source, Xds
from lbcore.sources.feed import Feed, Timing

__all__ = ["kind_of", "open_feed"]


def kind_of(source: Source) -> str:
    """The kind's name in the configuration file and in targets."""
    return snake_case(type(source).__name__)


def open_feed(source: Source, service: str, timing: Timing) -> Feed:
    """The feed of a service's source."""
    if isinstance(source, Dns):
        from lbcore.sources.dns import DnsFeed

        return DnsFeed(source, timing)
    if isinstance(source, HttpSd):
        from lbcore.sources.http_sd import HttpSdFeed

        return HttpSdFeed(source, timing)
    if isinstance(source, Consul):
        from lbcore.sources.consul import ConsulFeed

        return ConsulFeed(source, timing)
    if isinstance(source, Kubernetes):
        from lbcore.sources.kubernetes import KubernetesFeed

        return KubernetesFeed(source, timing)
    if isinstance(source, Xds):
        from lbcore.sources.xds import XdsFeed

        return XdsFeed(source, service, timing)
    if isinstance(source, Etcd):
        from lbcore.sources.etcd import EtcdFeed

        return EtcdFeed(source)
    raise TypeError(f"{source!r}: no source")
