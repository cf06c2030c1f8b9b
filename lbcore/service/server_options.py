"""How every gRPC server of the service is set up."""

from __future__ import annotations

from lbcore.delivery import XdsDelivery

__all__ = ["GRACE", "SERVER_OPTIONS", "connection_age"]

GRACE = 5.0  # seconds that calls under way have to end in a drain

SERVER_OPTIONS = (
    # More than about a thousand streams that begin at once would be refused (default 1000 and 3000).
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    # Long-lived streams: clients may ask every ten seconds whether we live, and we ask whether they do.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


def connection_age(settings: XdsDelivery) -> tuple[tuple[str, int], ...]:
    """gRPC ends a connection at this age, give or take a tenth; streams have the grace to end by themselves."""
    if settings.max_connection_age is None:
        return ()
    age = ("grpc.max_connection_age_ms", round(settings.max_connection_age * 1000))
    return age, ("grpc.max_connection_age_grace_ms", round(GRACE * 1000))
