"""Make the Python code of `viva/v1/*.proto`: messages, services, and types for both.

python proto/generate.py [FOLDER]      # default: beside the .proto files, where it is committed
"""

import os
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
MESSAGES = ("viva/v1/common.proto", "viva/v1/avatar.proto", "viva/v1/render.proto")
SERVICES = ("viva/v1/avatar.proto", "viva/v1/render.proto")


def generate(folder: Path) -> None:
    """Write `viva/v1/*_pb2.py`, `*_pb2_grpc.py` and `.pyi` under a folder.

    Raises:
        SystemExit: protoc has said what is wrong.
    """
    includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    _run([*includes, f"--python_out={folder}", f"--mypy_out=quiet:{folder}", *MESSAGES])
    _run([*includes, f"--grpc_python_out={folder}", f"--mypy_grpc_out=quiet:{folder}", *SERVICES])


def _run(arguments: list[str]) -> None:
    """Run protoc; its plug-ins lie beside this Python."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    status = protoc.main(["protoc", *arguments])
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
