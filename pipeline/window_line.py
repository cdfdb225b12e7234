"""One step of a render with windows: what it holds of a session, and its windows' input.

Shape legend: B = batch (1), L = audio layers, C = channels, T = frames, H, W = rows and columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from pipeline.chain_export import pack_chunk, unpack_chunk
from pipeline.sampler import Lane
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork
from pipeline.windows import BlendBuffer
from video.audio_tokens import FEATURES_PER_LATENT, HISTORY_FRAMES


@dataclass(slots=True, kw_only=True)
class WindowLine:
    """The strides that a step holds, oldest first, and the frames that it has written.

    `before_LCT` is the speech before the oldest stride, as far as the network looks back.
    """

    lane: Lane
    held: list[ChunkWork] = field(default_factory=list)
    buffer: BlendBuffer = field(default_factory=BlendBuffer)
    before_LCT: torch.Tensor | None = None

    @property
    def start(self) -> int:
        """The first frame held."""
        return self.held[0].latent.start_frame

    @property
    def end(self) -> int:
        """The frame after the last one held."""
        last = self.held[-1].latent
        return last.start_frame + last.latents_CTHW.shape[1]

    def window(self, start: int, end: int) -> ChunkWork:
        """The window of these frames: latents, speech and prior of all of them as one chunk."""
        first, count = start - self.start, end - start
        features = slice(FEATURES_PER_LATENT * first, FEATURES_PER_LATENT * (first + count))
        latents_CTHW = torch.cat([work.latent.latents_CTHW for work in self.held], dim=1)
        cond_CTHW = torch.cat([work.cond_CTHW.to(latents_CTHW) for work in self.held], dim=1)
        latent = replace(
            self.held[0].latent,
            latents_CTHW=latents_CTHW[:, first : first + count],
            start_frame=start,
        )
        return replace(
            self.held[0],
            latent=latent,
            audio_LCT=self._audio()[..., features],
            cond_CTHW=cond_CTHW[:, first : first + count],
        )

    def heard_before(self, start: int) -> torch.Tensor | None:
        """The speech right before a frame, None at the clip's begin."""
        inside_LCT = self._audio()[..., : FEATURES_PER_LATENT * (start - self.start)]
        parts = [inside_LCT] if self.before_LCT is None else [self.before_LCT, inside_LCT]
        heard_LCT = torch.cat(parts, dim=-1)[..., -HISTORY_FRAMES:]
        missing = HISTORY_FRAMES - heard_LCT.shape[-1]
        if missing == HISTORY_FRAMES:
            return None
        return torch.cat([*[heard_LCT[..., :1]] * missing, heard_LCT], dim=-1)

    def drop_oldest(self, num_frames: int) -> ChunkWork:
        """Let go of the oldest stride, remembering what was said in its first `num_frames`."""
        work = self.held.pop(0)
        audio_LCT = work.audio_LCT[..., : FEATURES_PER_LATENT * num_frames]
        parts = [audio_LCT] if self.before_LCT is None else [self.before_LCT, audio_LCT]
        self.before_LCT = torch.cat(parts, dim=-1)[..., -HISTORY_FRAMES:].clone()
        return work

    def released(self, start: int, num_frames: int) -> torch.Tensor:
        """So many written frames; where the last window ended earlier, its last one repeated.

        Those are nobody's: the clip that was asked for ends before them.
        """
        written = min(start + num_frames, self.buffer.end)
        frames_CTHW = self.buffer.release(written)
        missing = num_frames - frames_CTHW.shape[1]
        if missing:
            frames_CTHW = torch.cat([frames_CTHW, *[frames_CTHW[:, -1:]] * missing], dim=1)
        return frames_CTHW

    def _audio(self) -> torch.Tensor:
        """The speech of all strides held."""
        return torch.cat([work.audio_LCT for work in self.held], dim=-1)

    def export_state(self) -> dict[str, SessionState]:
        """Everything held, by part; `import_state` takes it."""
        tensors = {} if self.before_LCT is None else {"before_LCT": self.before_LCT}
        if self.buffer.frames_CTHW is not None:
            tensors["written_CTHW"] = self.buffer.frames_CTHW
        numbers = {"num_held": len(self.held), "written_start": self.buffer.start}
        held = {f"held{place}": pack_chunk(work) for place, work in enumerate(self.held)}
        return {"line": SessionState(tensors=tensors, numbers=numbers), **held}

    def import_state(self, session: str, state: SessionState, device: torch.device) -> None:
        """Go on from an export of the same step."""
        line = state.part("line")
        tensors = {name: tensor.to(device) for name, tensor in line.tensors.items()}
        self.before_LCT = tensors.get("before_LCT")
        self.buffer = BlendBuffer(
            start=line.numbers["written_start"], frames_CTHW=tensors.get("written_CTHW")
        )
        parts = [state.part(f"held{place}") for place in range(line.numbers["num_held"])]
        self.held = [on(device, unpack_chunk(session, part)) for part in parts]

    @property
    def num_bytes(self) -> int:
        """Bytes of all that is held."""
        held = [t for w in self.held for t in (w.latent.latents_CTHW, w.audio_LCT, w.cond_CTHW)]
        held += [t for work in self.held for t in work.carried.values()]
        held += [t for t in (self.buffer.frames_CTHW, self.before_LCT) if t is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


def on(device: torch.device, work: ChunkWork) -> ChunkWork:
    """The chunk on a device."""
    carried: Mapping[str, torch.Tensor] = {k: t.to(device) for k, t in work.carried.items()}
    latent = replace(work.latent, latents_CTHW=work.latent.latents_CTHW.to(device))
    return replace(
        work,
        latent=latent,
        audio_LCT=work.audio_LCT.to(device),
        cond_CTHW=work.cond_CTHW.to(device),
        carried=carried,
    )
