"""The wheel is complete, and its base install is enough for client, gateway, embedded engine and fake server."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[2]

USE = """
import sys
from google.protobuf import descriptor_pb2
from importlib.resources import files
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.testing import FakeServer

with FakeServer(engine=EmbeddedEngine()) as fake, fake.client() as client:
    print(client.text.generate("What is a deadline?", max_tokens=20, seed=1).text)
    print(client.health(), client.text.models()[0].id)
protos = files("deepseek_grpc") / "protos"
found = descriptor_pb2.FileDescriptorSet.FromString((protos / "deepseek_rpc.binpb").read_bytes())
assert {file.name for file in found.file} >= {"deepseek_rpc/v2/text.proto", "google/rpc/status.proto"}
assert (protos / "deepseek_rpc/v2/text.proto").is_file()
assert "typer" not in sys.modules and "grpc_reflection" not in sys.modules
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_has_code_types_protos_and_licence(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "deepseek_grpc/py.typed",
        "deepseek_grpc/protos/deepseek_rpc.binpb",
        "deepseek_grpc/protos/deepseek_rpc/v2/text.proto",
        "deepseek_grpc/protos/deepseek_rpc/v2/auth.proto",
        "deepseek_grpc/protos/google/rpc/status.proto",
        "deepseek_grpc/gateway/engines/embedded/passages/grpc.txt",
        "deepseek_rpc/v2/text_pb2.py",
        "deepseek_rpc/v2/text_pb2.pyi",
        "deepseek_rpc/v2/text_pb2_grpc.py",
    } <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "generated", "benchmarks"))]


def test_base_install_runs_without_extras(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    done = subprocess.run([python, "-W", "error", "-c", USE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "SERVING embedded-ngram" in done.stdout
    command = tmp_path / "venv" / "bin" / "deepseek-grpc"
    told = subprocess.run([command, "models"], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "deepseek-grpc[cli]" in told.stderr
