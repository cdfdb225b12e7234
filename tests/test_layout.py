"""The tree keeps its promises: import roots, file sizes, no pickles, contracts that can fail."""

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "audio",
    "video",
    "pipeline",
    "services",
    "proto",
    "training",
    "benchmarks",
    "tests",
    "plugins",
)
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_the_proto_folder_is_an_import_root_not_a_package() -> None:
    assert not (ROOT / "proto" / "__init__.py").exists()
    spec = importlib.util.find_spec("viva.v1")
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin) == ROOT / "proto" / "viva" / "v1" / "__init__.py"


def test_no_file_is_over_400_lines() -> None:
    long = {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400}
    assert not long


@pytest.mark.parametrize("package", ["audio", "video", "pipeline", "services", "training"])
def test_packages_are_typed_and_say_what_they_are(package: str) -> None:
    folder = ROOT / package
    assert (folder / "py.typed").exists()
    assert (folder / "__init__.py").read_text().startswith('"""')


def test_sound_and_picture_import_without_servers_or_clusters() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(('ray', 'aiortc', 'grpc')))"
    program = f"{blocked}; import audio.mel_encoder, video.dit, pipeline.generator"
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def allowed_imports() -> dict[str, list[str]]:
    """Modules that the contracts name, and what they may import although others may not."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    modules: dict[str, list[str]] = {}
    for contract in config["contracts"]:
        for name in contract.get("source_modules", []):
            modules.setdefault(name, [])
        for allowed in contract.get("ignore_imports", []):
            module, imported = allowed.split(" -> ")
            modules.setdefault(module, []).append(imported)
    return modules


@pytest.mark.parametrize(
    ("path", "imported"), [("audio/bad.py", "video"), ("services/bad.py", "ray")]
)
def test_the_import_contract_breaks_on_a_forbidden_import(
    tmp_path: Path, path: str, imported: str
) -> None:
    """A detector needs a planted case."""
    for folder in ("audio", "video", "pipeline", "services", "training"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "viva").mkdir()
    (tmp_path / "viva" / "__init__.py").touch()
    for module, imports in allowed_imports().items():
        file = tmp_path / f"{module.replace('.', '/')}.py"
        if not file.with_suffix("").is_dir():
            file.write_text("".join(f"import {name}\n" for name in imports))
    (tmp_path / path).write_text(f"import {imported}\n")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    result = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{path.removesuffix('.py').replace('/', '.')} -> {imported}" in result.stdout
