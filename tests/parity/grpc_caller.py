"""A program that calls TARGET without a pause: one line per call, the backend's address or FAIL and why.

    python -m tests.parity.grpc_caller sync|aio TARGET [HEADER=VALUE]

It is an unmodified gRPC client: all it knows of lbcore is in the bootstrap that its environment names.
"""

from __future__ import annotations

import asyncio
import sys
import time

import grpc
import grpc.aio

from tests.harness.grpc_backends import ADDRESS_METHOD

TIME_LIMIT = 20.0  # seconds for one call
PAUSE = 0.002  # seconds between two calls


def call_for_ever(target: str, metadata: list[tuple[str, str]]) -> None:
    with grpc.insecure_channel(target) as channel:
        method = channel.unary_unary(ADDRESS_METHOD)
        while True:
            try:
                print(method(b"", timeout=TIME_LIMIT, metadata=metadata).decode(), flush=True)
            except grpc.RpcError as error:
                print("FAIL", error.code().name, error.details(), flush=True)
            time.sleep(PAUSE)


async def call_for_ever_in_a_loop(target: str, metadata: list[tuple[str, str]]) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        method = channel.unary_unary(ADDRESS_METHOD)
        while True:
            try:
                print((await method(b"", timeout=TIME_LIMIT, metadata=metadata)).decode(), flush=True)
            except grpc.aio.AioRpcError as error:
                print("FAIL", error.code().name, error.details(), flush=True)
            await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    kind, target, *headers = sys.argv[1:]
    metadata = [(name, value) for name, _, value in (header.partition("=") for header in headers)]
    if kind == "sync":
        call_for_ever(target, metadata)
    else:
        asyncio.run(call_for_ever_in_a_loop(target, metadata))
