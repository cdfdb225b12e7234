"""Chunks, pictures and states as messages, and back; nothing is rounded on the way."""

from collections.abc import Mapping
from fractions import Fraction

import torch

from pipeline.message import Fact, Message, MessageError
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork
from video.chunk import LatentChunk, VideoChunk

_WORK_TENSORS = ("latents_CTHW", "audio_LCT", "cond_CTHW")
# Only in the first chunk of a reference that takes the place of another, and in the pictures of the
# chunk that it comes from.
_REFERENCE = "reference_BCTHW"
_RETURNS = "returns_reference"
# What plug-ins remember of the chunk.
_CARRIED = "carried/"


def pack_work(work: ChunkWork, *, epoch: int, due_ns: int) -> Message:
    """A chunk of latents on its way."""
    tensors = {
        "latents_CTHW": work.latent.latents_CTHW,
        "audio_LCT": work.audio_LCT,
        "cond_CTHW": work.cond_CTHW,
    }
    if work.reference_BCTHW is not None:
        tensors[_REFERENCE] = work.reference_BCTHW
    tensors |= {f"{_CARRIED}{name}": tensor for name, tensor in work.carried.items()}
    return Message(
        kind="work",
        session=work.session,
        epoch=epoch,
        chunk=work.latent.index,
        due_ns=due_ns,
        facts={
            "start_frame": work.latent.start_frame,
            "sigma": float(work.latent.sigma),
            "step": work.latent.step,
            **({_RETURNS: 1} if work.returns_reference else {}),
        },
        tensors=tensors,
    )


def unpack_work(message: Message) -> ChunkWork:
    """The chunk in a message.

    Raises:
        MessageError: the message holds no chunk.
    """
    carried = {name for name in message.tensors if name.startswith(_CARRIED)}
    own = set(message.tensors) - carried - {_REFERENCE}
    if message.kind != "work" or own != set(_WORK_TENSORS):
        raise MessageError(f"a message of kind {message.kind} holds no chunk of latents")
    latent = LatentChunk(
        latents_CTHW=message.tensors["latents_CTHW"],
        index=message.chunk,
        start_frame=_integer(message.facts, "start_frame"),
        sigma=_number(message.facts, "sigma"),
        step=_integer(message.facts, "step"),
    )
    return ChunkWork(
        session=message.session,
        latent=latent,
        audio_LCT=message.tensors["audio_LCT"],
        cond_CTHW=message.tensors["cond_CTHW"],
        reference_BCTHW=message.tensors.get(_REFERENCE),
        returns_reference=_RETURNS in message.facts,
        carried={name.removeprefix(_CARRIED): message.tensors[name] for name in sorted(carried)},
    )


def pack_video(video: VideoChunk, work: Message) -> Message:
    """The pictures made of a chunk of work."""
    time_base = {"num": video.time_base.numerator, "den": video.time_base.denominator}
    return Message(
        kind="frames",
        session=work.session,
        epoch=work.epoch,
        chunk=work.chunk,
        due_ns=work.due_ns,
        facts={"pts": video.pts, "time_base": time_base},
        tensors=_tensors(video),
    )


def unpack_video(message: Message) -> VideoChunk:
    """The pictures in a message.

    Raises:
        MessageError: the message holds no pictures.
    """
    time_base = message.facts.get("time_base")
    frames_THWC = message.tensors.get("frames_THWC")
    if message.kind != "frames" or frames_THWC is None or not isinstance(time_base, dict):
        raise MessageError(f"a message of kind {message.kind} holds no pictures")
    return VideoChunk(
        frames_THWC=frames_THWC.numpy(),
        pts=_integer(message.facts, "pts"),
        time_base=Fraction(time_base["num"], time_base["den"]),
        reference_BCTHW=message.tensors.get(_REFERENCE),
    )


def _tensors(video: VideoChunk) -> dict[str, torch.Tensor]:
    """Pictures, and the reference if one comes with them."""
    pictures = {"frames_THWC": torch.from_numpy(video.frames_THWC)}
    return pictures | ({} if video.reference_BCTHW is None else {_REFERENCE: video.reference_BCTHW})


def pack_error(error: Exception, work: Message) -> Message:
    """Word that a session cannot go on, which takes the place of its chunk."""
    text = " ".join(str(error).split()) or type(error).__name__
    return Message(
        kind="error",
        session=work.session,
        epoch=work.epoch,
        chunk=work.chunk,
        due_ns=work.due_ns,
        facts={"type": type(error).__name__, "text": text[:1000]},
    )


def pack_state(state: SessionState, *, session: str, epoch: int, chunk: int) -> Message:
    """A stage's state after `chunk`."""
    return Message(
        kind="state",
        session=session,
        epoch=epoch,
        chunk=chunk,
        facts={"numbers": dict(state.numbers)},
        tensors=state.tensors,
    )


def unpack_state(message: Message) -> SessionState:
    """The state in a message.

    Raises:
        MessageError: the message holds no state.
    """
    numbers = message.facts.get("numbers")
    if message.kind != "state" or not isinstance(numbers, dict):
        raise MessageError(f"a message of kind {message.kind} holds no state")
    return SessionState(tensors=dict(message.tensors), numbers=dict(numbers))


def pack_pictures(video: VideoChunk) -> SessionState:
    """Pictures as a state."""
    return SessionState(
        tensors=_tensors(video),
        numbers={
            "pts": video.pts,
            "base_num": video.time_base.numerator,
            "base_den": video.time_base.denominator,
        },
    )


def unpack_pictures(state: SessionState) -> VideoChunk:
    """The pictures that `pack_pictures` packed."""
    numbers = state.numbers
    return VideoChunk(
        frames_THWC=state.tensors["frames_THWC"].numpy(),
        pts=numbers["pts"],
        time_base=Fraction(numbers["base_num"], numbers["base_den"]),
        reference_BCTHW=state.tensors.get(_REFERENCE),
    )


def _integer(facts: Mapping[str, Fact], name: str) -> int:
    value = facts.get(name)
    if not isinstance(value, int):
        raise MessageError(f"fact {name} is missing or no integer")
    return value


def _number(facts: Mapping[str, Fact], name: str) -> float:
    value = facts.get(name)
    if not isinstance(value, int | float):
        raise MessageError(f"fact {name} is missing or no number")
    return float(value)
