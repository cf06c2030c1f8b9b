"""Active health checks: HTTP, TCP and gRPC, with Envoy's settings and semantics.

    async with HealthChecker(cluster, HttpCheck("/healthz", interval=5.0)):
        ...

The parts: a probe checks one endpoint once (`http`, `tcp`, `grpc`), `state` counts thresholds and says when the next
check is, `checks` runs those of a service, `checker` joins them to a `Cluster`.
"""

from lbcore.health.checker import HealthChecker
from lbcore.health.outcome import Cause, Outcome
from lbcore.health.probe import Probe
from lbcore.health.shorthand import GrpcCheck, HttpCheck, TcpCheck
from lbcore.settings import HeaderValue, HealthCheck, Payload, StatusRange, StringMatcher

__all__ = [
    "Cause",
    "GrpcCheck",
    "HeaderValue",
    "HealthCheck",
    "HealthChecker",
    "HttpCheck",
    "Outcome",
    "Payload",
    "Probe",
    "StatusRange",
    "StringMatcher",
    "TcpCheck",
]
