"""Where the shipped models and plans lie, in a checkout and in an installed program."""

from importlib.resources import files
from pathlib import Path


def configs_folder() -> Path:
    """The folder that holds `models/` and `plans/`: the checkout's own, else the installed copy."""
    beside_the_code = Path(__file__).resolve().parent.parent / "configs"
    if beside_the_code.is_dir():
        return beside_the_code
    return Path(str(files("viva"))) / "configs"


def shipped_models() -> list[str]:
    """Names of the models that come with the program, sorted."""
    folder = configs_folder() / "models"
    return sorted(path.parent.name for path in folder.glob("*/config.json"))


def shipped_plans() -> list[str]:
    """Names of the plans that come with the program, sorted."""
    return sorted(path.stem for path in (configs_folder() / "plans").glob("*.yaml"))


def model_path(name: str) -> Path:
    """The folder that a model's name or path stands for; it need not exist."""
    return _resolve(name, configs_folder() / "models" / name)


def plan_path(name: str) -> Path:
    """The file that a plan's name or path stands for; it need not exist."""
    return _resolve(name, configs_folder() / "plans" / f"{name}.yaml")


def is_bare_name(name: str) -> bool:
    """Whether `name` could be looked up among what is shipped: one word, no folder."""
    return Path(name).name == name and name not in {"", ".", ".."}


def _resolve(name: str, shipped: Path) -> Path:
    """What is shipped wins over a path of the same name, so a name means the same everywhere."""
    if is_bare_name(name) and (exists(shipped) or not exists(Path(name))):
        return shipped
    return Path(name)


def exists(path: Path) -> bool:
    """Whether there is anything; what no file system could hold (too long, say) does not exist."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
