"""Options and fixtures every test may use: where reference tensors and the face kit lie."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.goldens import find_golden_sets
from tests.support.leaks import Running

# Examples are the same in every run, and a loaded machine is no failure.
settings.register_profile("viva", deadline=None, derandomize=True)
settings.load_profile("viva")

_DEFAULT_FACEKIT = Path(__file__).resolve().parents[1] / ".." / "shared" / "facekit"
_DEFAULT_GOLDENS = Path(__file__).resolve().parents[1] / ".." / "shared" / "goldens"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--goldens",
        default=str(_DEFAULT_GOLDENS),
        metavar="DIR",
        help="folder with liveavatar_*_{set}.safetensors and liveavatar_config_{set}.json",
    )
    parser.addoption(
        "--facekit",
        default=str(_DEFAULT_FACEKIT),
        metavar="DIR",
        help="folder with ict_face_model_light.npz and makehuman_hair.npz",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `golden_set` once per set found, or skip it saying why."""
    if "golden_set" not in metafunc.fixturenames:
        return
    folder = Path(metafunc.config.getoption("--goldens"))
    sets = find_golden_sets(folder)
    if sets:
        metafunc.parametrize("golden_set", sets, ids=[s.name for s in sets], scope="session")
    else:
        reason = f"no golden sets (liveavatar_dit_*.safetensors) in {folder}"
        mark = pytest.mark.skip(reason=reason)
        metafunc.parametrize("golden_set", [pytest.param(None, marks=mark, id="absent")])


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Fail a test that leaves a thread or a process behind."""
    before = Running.now()
    yield
    leaked = Running.now().leaked_since(before)
    assert not leaked, f"still running after the test: {', '.join(leaked)}"


@pytest.fixture(scope="session")
def goldens_dir(pytestconfig: pytest.Config) -> Path:
    """The golden folder itself; skips when it is not there."""
    folder = Path(pytestconfig.getoption("--goldens"))
    if not folder.is_dir():
        pytest.skip(f"no golden folder at {folder}")
    return folder


@pytest.fixture(scope="session")
def facekit_dir(pytestconfig: pytest.Config) -> Path:
    """The face kit folder; skips when it is not there."""
    folder = Path(pytestconfig.getoption("--facekit"))
    if not (folder / "ict_face_model_light.npz").is_file():
        pytest.skip(f"no face kit at {folder}; pass --facekit DIR")
    return folder
