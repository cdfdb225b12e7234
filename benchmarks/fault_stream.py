"""Sessions that stream through a chain while somebody breaks it: when their pictures came, and
whether they are those of an undisturbed run."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch
from chain_load import actor_pids

from audio.chunk import AudioChunk
from audio.source import FileSource
from pipeline.chain import LocalChain
from pipeline.generator import AvatarGenerator
from pipeline.model import Model
from pipeline.plan import Plan
from pipeline.session_state import SessionState
from pipeline.stage import ChunkWork, SessionInputs
from pipeline.staged_chain import StagedChain
from video.chunk import VideoChunk
from video.reference import load_portrait

POLL_S = 0.005
WAIT_S = 180.0


class Tap:
    """A chain that makes nothing and keeps what it is given."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.inputs: list[SessionInputs] = []
        self.works: list[ChunkWork] = []

    def prepare(self, inputs: SessionInputs) -> None:
        """Keep the opening."""
        self.inputs.append(inputs)

    def submit(self, work: ChunkWork) -> list[VideoChunk]:
        """Keep the chunk."""
        self.works.append(work)
        return []

    def collect(self, session: str) -> list[VideoChunk]:
        """Nothing came out."""
        del session
        return []

    def drain(self, session: str) -> list[VideoChunk]:
        """Nothing is under way."""
        del session
        return []

    def reset(self, session: str) -> None:
        """Nothing to forget."""

    def export_state(self, session: str) -> SessionState:
        """Nothing."""
        del session
        return SessionState()

    def import_state(self, session: str, state: SessionState) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Script:
    """A session's opening and all its chunks."""

    inputs: SessionInputs
    works: list[ChunkWork]

    @property
    def name(self) -> str:
        """The session."""
        return self.inputs.session


@torch.inference_mode()
def script_of(model: Model, plan: Plan, session: str, seed: int, num_chunks: int) -> Script:
    """What a generator sends down its chain for the model's sample speech, said over and over."""
    portrait = sorted((model.folder / "portraits").glob("*.png"))[seed % 3]
    image_BCHW = load_portrait(portrait, size=model.config.native_size).image_CHW[None]
    speech = FileSource(model.folder / "speech.flac")
    samples_T = np.concatenate([chunk.samples_T for chunk in speech.chunks()])
    tap, rate = Tap(), speech.sample_rate
    generator = AvatarGenerator(
        model, plan, image_BCHW, sample_rate=rate, seed=seed, chain=tap, session=session
    )
    pts = 0
    while len(tap.works) < num_chunks:
        sound = AudioChunk(samples_T=samples_T, sample_rate=rate, pts=pts)
        pts += len(samples_T)
        for _ in generator.push(sound):
            pass
    return Script(tap.inputs[0], tap.works[:num_chunks])


def digest(pictures: Sequence[VideoChunk]) -> list[tuple[int, Fraction, str]]:
    """Time and bits of pictures."""
    return [
        (v.pts, v.time_base, hashlib.sha256(v.frames_THWC.tobytes()).hexdigest()) for v in pictures
    ]


def undisturbed(model: Model, plan: Plan, script: Script, count: int) -> list[VideoChunk]:
    """The first `count` chunks' pictures, made in this process."""
    chain = LocalChain.from_plan(plan, model.denoiser(plan), model.codec)
    chain.prepare(script.inputs)
    made = [v for work in script.works[:count] for v in chain.submit(work)]
    chain.close()
    return made


class Stream:
    """All scripts through a chain, each from a thread of its own, until told to end."""

    def __init__(self, chain: StagedChain, scripts: Sequence[Script]) -> None:
        """Open the sessions."""
        self._chain, self._scripts = chain, scripts
        self.made: dict[str, list[tuple[int, Fraction, str]]] = {s.name: [] for s in scripts}
        self.sent = dict.fromkeys(self.made, 0)
        self.came_s: dict[str, list[float]] = {s.name: [] for s in scripts}
        self.errors: list[BaseException] = []
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(s,)) for s in scripts]
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> "Stream":
        """Begin to stream."""
        for script in self._scripts:
            self._chain.prepare(script.inputs)
        for thread in (*self._threads, self._watcher):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sending, let out what is under way, forget the sessions."""
        self._ending.set()
        for thread in (*self._threads, self._watcher):
            thread.join()
        for script in self._scripts:
            self._chain.reset(script.name)

    def _run(self, script: Script) -> None:
        try:
            for work in script.works:
                if self._ending.is_set():
                    break
                self.made[script.name] += digest(self._chain.submit(work))
                self.sent[script.name] += 1
            self.made[script.name] += digest(self._chain.drain(script.name))
        except Exception as error:  # noqa: BLE001 - told by whoever waits
            self.errors.append(error)

    def _watch(self) -> None:
        """Note when chunks come out."""
        while any(thread.is_alive() for thread in self._threads):
            now_s = time.monotonic()
            for progress in self._chain.progress():
                came = self.came_s[progress.session]
                came += [now_s] * (progress.completed + 1 - len(came))
            time.sleep(POLL_S)

    def flow(self, num_chunks: int) -> None:
        """Wait until every session has got so many more chunks."""
        goals = {name: len(came) + num_chunks for name, came in self.came_s.items()}
        self.wait_for(lambda: all(len(self.came_s[name]) >= goals[name] for name in goals))

    def wait_for(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds.

        Raises:
            TimeoutError: it does not for three minutes.
        """
        until_s = time.monotonic() + WAIT_S
        while not holds():
            if self.errors:
                raise self.errors[0]
            if time.monotonic() > until_s:
                raise TimeoutError(f"the chain did not come back within {WAIT_S:g} s")
            time.sleep(POLL_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What a fault did, in seconds: until the chain was joined again, the longest time that any
    session got no picture, and until one that was sent after the fault was out."""

    what: str
    healed_s: float
    silence_s: float
    through_s: float


def break_chain(
    chain: StagedChain, stream: Stream, positions: Sequence[int], number: signal.Signals, what: str
) -> Outage:
    """Send a signal to the processes at some positions, and wait until all is well again."""
    pids = actor_pids(chain)
    replacements, sent = chain.controller.replacements, dict(stream.sent)
    num_replaced = len(replacements) + len(positions)
    began_s = time.monotonic()
    for position in positions:
        os.kill(pids[position], number)
    stream.wait_for(lambda: len(replacements) >= num_replaced)
    stream.wait_for(lambda: all(len(stream.came_s[name]) > sent[name] + 1 for name in sent))
    healed_s = max(r.healed_s for r in replacements[-len(positions) :])
    return Outage(
        what=what,
        healed_s=healed_s,
        silence_s=max(longest_pause(came, began_s) for came in stream.came_s.values()),
        through_s=max(stream.came_s[n][sent[n] + 1] - began_s for n in sent),
    )


def longest_pause(came_s: Sequence[float], since_s: float) -> float:
    """The longest time without a chunk from `since_s` on, or reaching into it."""
    before = [s for s in came_s if s <= since_s][-1:]
    times = [*before, *(s for s in came_s if s > since_s)]
    return max(b - a for a, b in pairwise(times))
