"""What goes to stderr beside messages of the command itself: the logs of the service, and of grpc."""

from __future__ import annotations

import logging
import os

__all__ = ["log_to_stderr", "quiet_grpc"]


def quiet_grpc() -> None:
    """Keeps grpc's own log of C++ off stderr: every failure is told by its message. GRPC_VERBOSITY brings it back."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def log_to_stderr() -> None:
    """What the service itself does from INFO on; of libraries what is a warning."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("lbcore").setLevel(logging.INFO)
