"""What the xDS server tells of itself while it serves; metrics and logs listen here.

The methods of `XdsObserver` do nothing: override those of interest. They are called on the event loop, so they must be
quick. `node` is the client's own `node.id`: a claim, not an identity. `type_url` is the resource type's, in full.
"""

from __future__ import annotations

__all__ = ["XdsObserver"]


class XdsObserver:
    """Hears of streams, responses and what clients make of them."""

    def stream_opened(self, method: str) -> None:
        """A client opened a stream; `method` is the gRPC method, e.g. `StreamAggregatedResources`."""

    def stream_closed(self, method: str) -> None:
        """A stream ended, for whatever reason. Called once for each `stream_opened`."""

    def stream_refused(self, method: str) -> None:
        """A client was told to come back later; its stream counts neither as opened nor as closed."""

    def response_sent(self, node: str, type_url: str, resources: int, size: int) -> None:
        """A response with so many resources, `size` bytes in all, was handed to gRPC."""

    def acked(self, node: str, type_url: str, version: str) -> None:
        """A client accepted a response; `version` is the response's, one for all of its resources."""

    def nacked(self, node: str, type_url: str, version: str, message: str, nonce: str) -> None:
        """A client refused a response for the reason `message`; `version` and `nonce` are those of the response."""
