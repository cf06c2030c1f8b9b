"""The generated modules: as new as their .proto, and at peace with everybody else's descriptors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pb2

from lbcore.service.proto import picker_pb2, picker_pb2_grpc, registry_pb2, registry_pb2_grpc

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("module", [picker_pb2, registry_pb2])
def test_the_generated_modules_say_what_the_proto_says(tmp_path: Path, module: ModuleType) -> None:
    compiled = tmp_path / "compiled.pb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{REPOSITORY}", f"--descriptor_set_out={compiled}"]
    subprocess.run([*command, str(REPOSITORY / module.DESCRIPTOR.name)], check=True, timeout=60)
    (from_source,) = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file
    generated = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(generated)
    for message in from_source.message_type:
        for field in (*message.field, *(field for nested in message.nested_type for field in nested.field)):
            field.ClearField("json_name")  # derived from the name, and only in what protoc writes itself
    assert generated == from_source


@pytest.mark.parametrize(
    ("module", "servicer"),
    [(picker_pb2, picker_pb2_grpc.PickerServicer), (registry_pb2, registry_pb2_grpc.RegistryServicer)],
)
def test_the_stub_has_every_method(module: ModuleType, servicer: type) -> None:
    [service] = module.DESCRIPTOR.services_by_name.values()
    assert all(hasattr(servicer, method.name) for method in service.methods)


def test_the_descriptors_live_beside_those_of_xds_and_health_and_reflection() -> None:
    imports = "; ".join(
        f"import {module}"
        for module in (
            "envoy.service.discovery.v3.ads_pb2",
            "envoy.admin.v3.clusters_pb2",
            "xds.data.orca.v3.orca_load_report_pb2",
            "grpc_health.v1.health_pb2",
            "grpc_reflection.v1alpha.reflection_pb2",
            "lbcore.service.proto.picker_pb2_grpc",
            "lbcore.service.proto.registry_pb2_grpc",
        )
    )
    subprocess.run([sys.executable, "-c", imports], check=True, timeout=60, cwd=REPOSITORY)
