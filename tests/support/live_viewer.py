"""A viewer of live sessions in virtual time: wants slices as a player would, plays one a tick."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np
from viva.v1.messages import (
    AnyMessage,
    Degraded,
    EndUtterance,
    OpenSession,
    SliceMade,
    Speak,
    Want,
)

from pipeline.capacity import Capacity
from pipeline.live_engine import LiveEngine
from pipeline.live_warmup import Warmth
from tests.support.fake_face import FakeClock, FakeFaces

RATE = 48_000
FRAME = 1920
TICK_S = 0.04


def warmth(cost_s: float, sessions: int, held: int) -> Warmth:
    return Warmth(
        took_s=max(cost_s * (1 + held), 0.001),
        busy_s=0.001 if held else max(cost_s, 0.001),
        capacity=Capacity(work_s=0.1, sessions=sessions),
        warm_s=1.0,
    )


def tone(num_samples: int, level: int = 1000, seed: int = 0) -> np.ndarray:
    """Sound that is nowhere zero."""
    rng = np.random.default_rng(seed)
    return (level + rng.integers(1, 500, num_samples)).astype(np.int16)


class Viewer:
    """Drives an engine; sessions are played in real time, whether slices come or not."""

    def __init__(self, *, cost_s: float = 0.2, sessions: int = 8, **options: object) -> None:
        held = int(options.pop("held", 0))  # type: ignore[call-overload]  # an int
        self.clock = FakeClock()
        self.faces = FakeFaces(self.clock, cost_s=cost_s, num_held=held)
        self.said: list[AnyMessage] = []
        self.engine = LiveEngine(
            self.faces,
            warmth(cost_s, sessions, held),
            self.said.append,
            clock_s=self.clock,
            **options,  # type: ignore[arg-type]  # the engine's own
        )
        self.zero_s: dict[str, float] = {}
        self.ahead = 14
        self.actions: dict[int, list[Callable[[], None]]] = defaultdict(list)
        self.clock.each = self._world

    def open(self, name: str, seed: int = 1, portrait: bytes = b"face") -> None:
        self.engine.post(OpenSession(session=name, portrait=portrait, seed=seed, sample_rate=RATE))

    def start(self, name: str, delay_s: float = 0.4) -> None:
        """Play from so much later on."""
        self.zero_s[name] = self.clock.now_s + delay_s

    def speak(self, name: str, utterance: str, sound_T: np.ndarray, epoch: int = 0) -> None:
        self.engine.post(
            Speak(session=name, utterance=utterance, epoch=epoch, pcm=sound_T.tobytes())
        )

    def end(self, name: str, utterance: str, epoch: int = 0) -> None:
        self.engine.post(EndUtterance(session=name, utterance=utterance, epoch=epoch))

    def want(self) -> None:
        for name, zero_s in self.zero_s.items():
            num_got = len(self.slices(name))
            shown = max(0, int((self.clock.now_s - zero_s) / TICK_S + 1e-6))
            due_ms = 1000 * (zero_s + num_got * TICK_S - self.clock.now_s)
            until = shown + self.ahead
            self.engine.post(Want(session=name, until_index=until, due_in_ms=due_ms))

    def settle(self) -> None:
        """Let the engine do all that is due by now."""
        while self.engine.turn() == 0.0:
            pass

    def at(self, tick: int, action: Callable[[], None]) -> None:
        """Do something at a tick, whatever the engine is doing then."""
        self.actions[tick].append(action)

    def speak_live(self, name: str, utterance: str, sound_T: np.ndarray, tick: int) -> None:
        """Speak as a microphone does, a frame's sound a tick."""
        pieces = np.split(sound_T, range(FRAME, len(sound_T), FRAME))
        for index, piece_T in enumerate(pieces):
            self.at(tick + index, partial(self.speak, name, utterance, piece_T))
        self.at(tick + len(pieces), partial(self.end, name, utterance))

    def say(
        self, name: str, utterance: str, sound_T: np.ndarray, tick: int, epoch: int = 0
    ) -> None:
        """Speak a whole utterance at once."""
        self.at(tick, partial(self.speak, name, utterance, sound_T, epoch))
        self.at(tick, partial(self.end, name, utterance, epoch))

    def _world(self) -> None:
        """What happens at a tick beside the engine."""
        for action in self.actions.pop(self.clock.num_ticks - 1, []):
            action()
        self.want()

    def run(self, until_tick: int) -> None:
        """Let time pass to a tick, and to the end of what the engine does then."""
        while self.clock.num_ticks <= until_tick:
            wait_s = self.engine.turn()
            left_s = self.clock.num_ticks * self.clock.every_s - self.clock.now_s
            self.clock.advance(min(wait_s if wait_s is not None else left_s, max(left_s, 0.0)))

    def slices(self, name: str) -> list[SliceMade]:
        return [m for m in self.said if isinstance(m, SliceMade) and m.session == name]

    def sound(self, name: str, utterance: str) -> np.ndarray:
        pcm = [one.pcm for one in self.slices(name) if one.utterance == utterance]
        return np.frombuffer(b"".join(pcm), np.int16)

    def rungs(self, name: str) -> list[int]:
        return [m.level for m in self.said if isinstance(m, Degraded) and m.session == name]


def contents(slices: list[SliceMade]) -> dict[int, tuple[object, ...]]:
    """All of the slices but the session's name, by index."""
    found: dict[int, tuple[object, ...]] = defaultdict(tuple)
    for one in slices:
        found[one.index] = (one.epoch, one.utterance, one.rgb, one.pcm, one.last_of_utterance)
    return dict(found)
