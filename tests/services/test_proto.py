"""The committed gRPC code is that of the .proto files, and imports as viva.v1."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from viva.v1 import avatar_pb2, common_pb2, render_pb2

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2] / "proto"


def test_make_proto_would_change_nothing(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "generate.py"), str(tmp_path)], check=True)
    made = {one.relative_to(tmp_path): one.read_text() for one in tmp_path.rglob("*.py*")}
    assert len(made) == 10
    for path, text in made.items():
        assert (ROOT / path).read_text() == text, f"{path} is stale: run make proto"
    there = {one.relative_to(ROOT) for one in (ROOT / "viva" / "v1").glob("*_pb2*")}
    assert there == set(made)


def test_every_enum_has_an_unspecified_zero() -> None:
    for file in (avatar_pb2, common_pb2, render_pb2):
        assert file.DESCRIPTOR.package == "viva.v1"
        for enum in file.DESCRIPTOR.enum_types_by_name.values():
            assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")


def test_buf_finds_nothing(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine, which brings buf")
    (tmp_path / "package.json").write_text(json.dumps({"private": True}))
    install = [npm, "install", "--no-audit", "--no-fund", "@bufbuild/buf@1.75.0"]
    done = subprocess.run(
        install, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        pytest.skip("buf cannot be installed: the npm registry is not reachable")
    buf = tmp_path / "node_modules" / ".bin" / "buf"
    linted = subprocess.run(
        [buf, "lint", str(ROOT)], capture_output=True, text=True, timeout=60, check=False
    )
    assert linted.returncode == 0, linted.stdout
