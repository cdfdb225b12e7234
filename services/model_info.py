"""What a model folder holds, read from its config and the headers of its weights."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from torch import nn

from pipeline.cast import read_cast
from pipeline.model import build_parts, read_config
from video.errors import WeightsError
from video.weights import StoredTensor, compare_shapes, module_shapes, read_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class PartInfo:
    """One weights file: what it is for and how large it is."""

    name: str
    num_tensors: int
    num_parameters: int
    num_bytes: int
    dtypes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model at a glance; sizes are of the weights files, `cast` names its portraits."""

    name: str
    folder: str
    fps: str
    width: int
    height: int
    prediction: str
    plan: str
    codec: str
    speech: str
    has_prior: bool
    has_card: bool
    num_parameters: int
    num_bytes: int
    parts: list[PartInfo]
    cast: list[str]


def inspect_model(name: str) -> ModelInfo:
    """Read a model by name or path, without reading its weights' values.

    Raises:
        ModelError: the folder does not describe a model.
        WeightsError: a weights file is missing, damaged or does not fit the config.
    """
    folder, config = read_config(name)
    modules = build_parts(config, folder, on_meta=True).named()
    parts = [_inspect_part(stem, module, folder) for stem, module in modules.items()]
    width, height = config.native_size
    return ModelInfo(
        name=config.name,
        folder=str(folder),
        fps=str(config.fps),
        width=width,
        height=height,
        prediction=config.prediction,
        plan=config.plan,
        codec=str(config.codec.get("kind")),
        speech=str(config.speech.get("kind")),
        has_prior=config.prior is not None,
        has_card=(folder / "CARD.md").is_file(),
        num_parameters=sum(part.num_parameters for part in parts),
        num_bytes=sum(part.num_bytes for part in parts),
        parts=parts,
        cast=[member.name for member in read_cast(folder)],
    )


def _inspect_part(stem: str, module: nn.Module, folder: Path) -> PartInfo:
    """Compare one weights file with the network that the config describes."""
    path = folder / f"{stem}.safetensors"
    stored = read_checkpoint(path)
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    differences = compare_shapes(module_shapes(module), shapes)
    if differences:
        raise WeightsError(
            f"{path} does not fit config.json: {differences}; use the weights of this config"
        )
    return PartInfo(
        name=stem,
        num_tensors=len(stored),
        num_parameters=sum(prod(shape) for shape in shapes.values()),
        num_bytes=sum(file.stat().st_size for file in _files(stored)),
        dtypes=sorted({tensor.kind for tensor in stored.values()}),
    )


def _files(stored: dict[str, StoredTensor]) -> set[Path]:
    """The files that the tensors lie in."""
    return {tensor.file for tensor in stored.values()}


def describe_model(info: ModelInfo) -> str:
    """The same for a person, a few lines."""
    lines = [
        f"{info.name}  {info.folder}",
        f"  video   {info.width}x{info.height} at {info.fps} fps, codec {info.codec}",
        f"  speech  {info.speech}" + (", with a motion prior" if info.has_prior else ""),
        f"  network predicts {info.prediction}, default plan {info.plan}",
    ]
    if info.cast:
        lines.append(f"  cast    {', '.join(info.cast)}")
    lines += [
        f"  {part.name:<7} {part.num_parameters / 1e6:8.2f} M parameters  "
        f"{part.num_bytes / 1e6:8.2f} MB  {', '.join(part.dtypes)}"
        for part in info.parts
    ]
    total = (
        f"  total   {info.num_parameters / 1e6:8.2f} M parameters  {info.num_bytes / 1e6:8.2f} MB"
    )
    return "\n".join([*lines, total + ("" if info.has_card else "  (no CARD.md)")])
