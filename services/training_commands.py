"""`viva data` and `viva train`: hands over to the training programs, if this install has them.

The packages never import `training`; its programs are found by name when one is asked for.
"""

import importlib
import importlib.util
from collections.abc import Sequence

from services.options import OptionError


def run_training(group: str, arguments: Sequence[str]) -> None:
    """Run a command of the group `data` or `train`.

    Raises:
        OptionError: there is no training code here, or what it was given cannot be used.
    """
    if importlib.util.find_spec("training") is None:
        raise OptionError(
            f"viva {group} needs the folder `training`, which this install lacks: "
            "use a clone of the repository"
        )
    importlib.import_module("training.commands").dispatch(group, arguments)
