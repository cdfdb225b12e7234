"""What a chain knows of a session beside its stages: how far it is, and what is under way.

The same for every kind of chain and every cut of a plan, so that a session can go from any to any.
"""

from dataclasses import dataclass

import torch

from pipeline.packing import pack_pictures, unpack_pictures
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork
from video.chunk import LatentChunk, VideoChunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A session between two chunks.

    `submitted` is the last chunk that went in (-1: none). `works` are chunks under way, oldest
    first, each as the steps behind it left it (its step says which come next). `ready` are
    pictures that came out and were not taken yet.
    """

    submitted: int
    works: tuple[ChunkWork, ...] = ()
    ready: tuple[VideoChunk, ...] = ()

    @property
    def completed(self) -> int:
        """The last chunk that came out of all stages."""
        return self.works[0].latent.index - 1 if self.works else self.submitted


def pack_progress(progress: Progress) -> dict[str, SessionState]:
    """The parts of a chain's export that are not of its stages."""
    numbers = {
        "submitted": progress.submitted,
        "num_works": len(progress.works),
        "num_ready": len(progress.ready),
    }
    works = {f"work{index}": pack_chunk(work) for index, work in enumerate(progress.works)}
    ready = {f"ready{index}": pack_pictures(v) for index, v in enumerate(progress.ready)}
    return {"chain": SessionState(numbers=numbers), **works, **ready}


def unpack_progress(session: str, state: SessionState) -> Progress:
    """The progress in a chain's export, for a session of any name.

    Raises:
        ValueError: the state is no chain's.
    """
    numbers = state.part("chain").numbers
    if set(numbers) != {"submitted", "num_works", "num_ready"}:
        raise ValueError("the state is not of a chain: give what export_state of one gave")
    return Progress(
        submitted=numbers["submitted"],
        works=tuple(
            unpack_chunk(session, state.part(f"work{index}"))
            for index in range(numbers["num_works"])
        ),
        ready=tuple(
            unpack_pictures(state.part(f"ready{index}")) for index in range(numbers["num_ready"])
        ),
    )


def pack_chunk(work: ChunkWork) -> SessionState:
    """A chunk between two steps as an exportable state."""
    tensors = {
        "latents_CTHW": work.latent.latents_CTHW,
        "audio_LCT": work.audio_LCT,
        "cond_CTHW": work.cond_CTHW,
        "sigma": torch.tensor(work.latent.sigma, dtype=torch.float64),
    }
    if work.reference_BCTHW is not None:
        tensors["reference_BCTHW"] = work.reference_BCTHW
    tensors |= {f"carried/{name}": tensor for name, tensor in work.carried.items()}
    latent = work.latent
    numbers = {"index": latent.index, "start_frame": latent.start_frame, "step": latent.step}
    if work.returns_reference:
        numbers["returns_reference"] = 1
    return SessionState(tensors=tensors, numbers=numbers)


def unpack_chunk(session: str, state: SessionState) -> ChunkWork:
    """The chunk that `pack_chunk` packed."""
    return ChunkWork(
        session=session,
        latent=LatentChunk(
            latents_CTHW=state.tensors["latents_CTHW"],
            index=state.numbers["index"],
            start_frame=state.numbers["start_frame"],
            sigma=float(state.tensors["sigma"]),
            step=state.numbers["step"],
        ),
        audio_LCT=state.tensors["audio_LCT"],
        cond_CTHW=state.tensors["cond_CTHW"],
        reference_BCTHW=state.tensors.get("reference_BCTHW"),
        returns_reference="returns_reference" in state.numbers,
        carried=state.part("carried").tensors,
    )
