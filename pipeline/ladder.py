"""What a live session does when it is late, and when it does better again. Pure decisions.

Rungs: 0 all is well, 1 steps are left out, 2 half the pictures and mixtures between them, 3 smaller
pictures, 4 the last picture is held. Sound is never dropped on any of them.
"""

from dataclasses import dataclass, replace

WELL, FEWER_STEPS, HALF_RATE, SMALLER, HOLD = range(5)
RUNG_NAMES = ("all is well", "steps left out", "half the pictures", "smaller pictures", "held")


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderSettings:
    """When rungs change, in the time of slices that are later than due.

    Later than `late_ms` is late, later than `hold_ms` is hopeless; a change is given `settle_s` to
    show. After `calm_s` without being late the next better rung is tried; if that fails within
    `relapse_s`, the next try waits twice as long, up to `longest_calm_s`.
    """

    late_ms: float = 40.0
    hold_ms: float = 400.0
    settle_s: float = 0.4
    calm_s: float = 5.0
    relapse_s: float = 10.0
    longest_calm_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Where a session stands; `rungs` are those between well and held that save time for it."""

    rungs: tuple[int, ...]
    settings: LadderSettings = LadderSettings()
    rung: int = WELL
    changed_s: float = float("-inf")
    calm_since_s: float | None = None
    wait_s: float = 0.0
    bettered_s: float = float("-inf")

    def after(self, late_ms: float, now_s: float) -> "Ladder":
        """Where it stands after a chunk that was so late; negative is early."""
        settings = self.settings
        if late_ms > settings.hold_ms:
            return self._at(HOLD, now_s)
        if self.rung == HOLD:
            return self._at(self.rungs[-1] if self.rungs else WELL, now_s)
        if late_ms > settings.late_ms:
            return self._worse(now_s)
        since_s = now_s if self.calm_since_s is None else self.calm_since_s
        calm = replace(self, calm_since_s=since_s)
        if self.rung == WELL or now_s - since_s < max(self.wait_s, settings.calm_s):
            return calm
        better = max((rung for rung in (WELL, *self.rungs) if rung < self.rung), default=WELL)
        return replace(calm._at(better, now_s), bettered_s=now_s)

    def _worse(self, now_s: float) -> "Ladder":
        """One rung down, unless the last change had no time to show or there is none."""
        upset = replace(self, calm_since_s=None)
        if now_s - self.changed_s < self.settings.settle_s:
            return upset
        worse = [rung for rung in self.rungs if rung > self.rung]
        return upset._at(worse[0], now_s) if worse else upset

    def _at(self, rung: int, now_s: float) -> "Ladder":
        """On another rung, and for how long if it is one where it has just failed."""
        if rung == self.rung:
            return replace(self, calm_since_s=None)
        wait_s = self.wait_s
        if rung > self.rung:
            wait_s = self._next_wait_s(now_s)
        return replace(self, rung=rung, changed_s=now_s, calm_since_s=None, wait_s=wait_s)

    def _next_wait_s(self, now_s: float) -> float:
        """How long to be calm before the next try: longer where the last one failed at once."""
        settings = self.settings
        if now_s - self.bettered_s > settings.relapse_s:
            return settings.calm_s
        return min(settings.longest_calm_s, 2 * max(self.wait_s, settings.calm_s))
