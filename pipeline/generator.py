"""The whole program on one page: a portrait and sound in, pictures with their sound out.

sound -> speech features -> one window per chunk -> prior -> denoising steps -> decoder -> pairs

Shape legend: B = batch (1), C = channels, T = frames, H, W = rows and columns, L = audio layers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import torch

from audio.chunk import AudioChunk
from pipeline.chain import Chain
from pipeline.model import Model
from pipeline.plan import Plan
from pipeline.sampler import pure_noise
from pipeline.session_state import SessionState
from pipeline.sink_renewal import SinkRenewal
from pipeline.speech import SpeechWindows
from pipeline.stage import ChunkWork, void_chunk
from pipeline.sync import AVSynchronizer, Pair
from pipeline.thrift import Thrift
from video.chunk import VideoChunk
from video.hinge import resized


class AvatarGenerator:
    """One session: makes a portrait say what it hears, in constant memory.

    The picture starts with the sound, lasts `num_frames(sound)` pictures and depends on nothing
    but the portrait, the sound, the seed, the plan and the model: not on how the sound is cut,
    nor on where the stages run. Silence is an input like any other. One thread at a time.
    """

    def __init__(  # noqa: PLR0913 - one keyword per choice of a session
        self,
        model: Model,
        plan: Plan,
        portrait_BCHW: torch.Tensor,
        *,
        sample_rate: int,
        seed: int = 0,
        fps: Fraction | None = None,
        chain: Chain | None = None,
        session: str = "local",
        still_border: bool = False,
        live: bool = False,
    ) -> None:
        """Open a session; `portrait_BCHW` is RGB in [-1, 1] at the size of the output.

        `sample_rate` is that of the sound to come. `chain` defaults to one in this process; the
        generator closes only the session, never a chain that it was given. `still_border` is for
        pictures that are laid into a larger one. `live` says that somebody watches meanwhile.

        Raises:
            ImageError: the codec cannot make pictures of that size.
            PlanError: the plan asks for what the chain cannot do.
        """
        self.model, self.plan, self.seed, self.session = model, plan, seed, session
        self.sample_rate = sample_rate
        self.size = (portrait_BCHW.shape[-1], portrait_BCHW.shape[-2])
        self.fps = model.fps if fps is None else fps
        self._chain = model.local_chain(plan) if chain is None else chain
        inputs = model.session_inputs(portrait_BCHW, session=session, seed=seed, fps=self.fps)
        self._chain.prepare(replace(inputs, still_border=still_border, live=live))
        self._conditioner = model.conditioner(inputs)
        self._speech = SpeechWindows(
            model.speech_encoder(),
            sample_rate=sample_rate,
            fps=self.fps,
            window_frames=plan.frames_per_chunk * model.codec.frames_per_latent,
        )
        self._sync = AVSynchronizer(sample_rate, self.fps)
        self._renewal = SinkRenewal(
            plan, pictures_per_chunk=plan.frames_per_chunk * model.codec.frames_per_latent
        )
        self._next_chunk = 0
        self.thrift: Thrift | None = None

    def run(self, sound: Iterable[AudioChunk]) -> Iterator[Pair]:
        """Pairs for a whole stream of sound, each as soon as it can be made."""
        for chunk in sound:
            yield from self.push(chunk)
        yield from self.flush()

    def push(self, sound: AudioChunk) -> Iterator[Pair]:
        """Hear the next sound; give the pairs that it completes. Consume it before the next call.

        Raises:
            AudioError: samples that are not finite.
        """
        self._sync.hear(sound)
        for audio_LCT in self._speech.push(sound):
            yield from self._generate(audio_LCT)

    def flush(self) -> Iterator[Pair]:
        """Give what is missing to the sound's end, as if silence followed, and end the session."""
        self._sync.finish()
        for audio_LCT in self._speech.flush(self._frames_to_hear()):
            yield from self._generate(audio_LCT)
        yield from self._let_out()
        yield from self._with_sound(self._chain.drain(self.session))
        self.close()

    def collect(self) -> Iterator[Pair]:
        """Give the pairs of chunks that came out of the chain since, without waiting."""
        yield from self._with_sound(self._chain.collect(self.session))

    def _generate(self, audio_LCT: torch.Tensor) -> Iterator[Pair]:
        """Send one chunk down the chain; give what comes out."""
        index, self._next_chunk = self._next_chunk, self._next_chunk + 1
        cond_CTHW = self._conditioner.push(audio_LCT)
        start_frame = index * self.plan.frames_per_chunk
        resolution = self.plan.steps[0].resolution
        work = ChunkWork(
            session=self.session,
            latent=pure_noise(self.seed, index, start_frame, resized(cond_CTHW, resolution)),
            audio_LCT=audio_LCT,
            cond_CTHW=cond_CTHW,
            slack_s=-1.0 if self.thrift and self.thrift.leaves_out_steps else None,
            thrift=self.thrift,
        )
        if self._renewal.must_wait(index):
            yield from self._with_sound(self._chain.drain(self.session))
        yield from self._with_sound(self._chain.submit(self._renewal.steered(work)))

    def _frames_to_hear(self) -> int:
        """Pictures whose speech the chain needs for all that the sound lasts."""
        total, windows = self._sync.total_frames, self.plan.windows
        if windows is None:
            return total
        per_latent = self.model.codec.frames_per_latent
        strides = windows.num_strides(-(-total // per_latent), len(self.plan.steps))
        return strides * self.plan.frames_per_chunk * per_latent

    def _let_out(self) -> Iterator[Pair]:
        """Push what windows hold back out of the chain, by messages that carry nothing."""
        windows = self.plan.windows
        if windows is None or not self._next_chunk:
            return
        for _ in range(windows.lag(len(self.plan.steps))):
            index, self._next_chunk = self._next_chunk, self._next_chunk + 1
            yield from self._with_sound(self._chain.submit(void_chunk(self.session, index)))

    def _with_sound(self, pictures: Iterable[VideoChunk]) -> Iterator[Pair]:
        """The pictures with their sound, those beyond the sound's end left out."""
        pairs = map(self._sync.pair, self._renewal.taken(pictures))
        return (pair for pair in pairs if pair is not None)

    def close(self) -> None:
        """Forget the session."""
        self._chain.reset(self.session)

    def export_state(self) -> SessionState:
        """Everything a twin (same model, plan, portrait, rates) needs to go on bit for bit.

        Call it between two `push`es, when all their pairs have been taken.
        """
        own = SessionState(numbers={"seed": self.seed, "next_chunk": self._next_chunk})
        return SessionState.of(
            {
                "generator": own,
                "speech": self._speech.export_state(),
                "sync": self._sync.export_state(),
                "conditioner": self._conditioner.export_state(),
                "renewal": self._renewal.export_state(),
                "chain": self._chain.export_state(self.session),
            }
        )

    def import_state(self, state: SessionState) -> None:
        """Go on from what a twin exported; opened with the same seed.

        Raises:
            ValueError: the state does not fit this model or plan.
        """
        numbers = state.part("generator").numbers
        if numbers.get("seed") != self.seed:
            raise ValueError(
                f"the state is of seed {numbers.get('seed')}, this session of {self.seed}: "
                "open the session with the seed of the state"
            )
        self._next_chunk = numbers["next_chunk"]
        self._speech.import_state(state.part("speech"))
        self._sync.import_state(state.part("sync"))
        self._conditioner.import_state(state.part("conditioner"))
        self._renewal.import_state(state.part("renewal"))
        self._chain.import_state(self.session, state.part("chain"))
