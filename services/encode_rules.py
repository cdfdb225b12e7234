"""When a keyframe is made and what bitrate is aimed at: decisions with the time passed in."""

from collections.abc import Iterable

from services.encode import MAX_BITRATE_BPS, clamp_bitrate

KEYFRAME_GAP_S = 0.5
_RISE_AFTER_S, _FALL_AFTER_S = 4.0, 1.0
_STEP = 1.25  # smaller changes are not worth the keyframe that a change may cost
_SOUND_BPS = 60_000  # Opus with its headers
_HEADROOM = 0.9


class KeyframeGate:
    """Makes at most one keyframe per half second of what viewers ask, and at once for who joins."""

    def __init__(self) -> None:
        """No keyframe yet."""
        self._is_asked = self._is_forced = False
        self._last_s = float("-inf")

    def ask(self) -> None:
        """A viewer lost a picture."""
        self._is_asked = True

    def force(self) -> None:
        """A viewer joined and has nothing to begin with."""
        self._is_forced = True

    def take(self, now_s: float) -> bool:
        """Whether the picture encoded now is to be a keyframe."""
        due = self._is_forced or (self._is_asked and now_s - self._last_s >= KEYFRAME_GAP_S)
        if due:
            self.made(now_s)
        return due

    def made(self, now_s: float) -> None:
        """A keyframe was made: it answers all that was asked before."""
        self._is_asked = self._is_forced = False
        self._last_s = now_s


class BitrateRule:
    """Follows the slowest viewer's bandwidth: down after a second, up after four, in steps."""

    def __init__(self, wanted_bps: int) -> None:
        """`wanted_bps` is what the picture needs: never more is aimed at."""
        self.wanted_bps = self.current_bps = clamp_bitrate(wanted_bps)
        self._changed_s = float("-inf")

    def next(self, now_s: float, bandwidths_bps: Iterable[int | None]) -> int | None:
        """The bitrate to change to, or None to leave it.

        A bandwidth is what a viewer can receive in all, None where it did not say.
        """
        limits = (MAX_BITRATE_BPS if bps is None else video_share(bps) for bps in bandwidths_bps)
        target_bps = clamp_bitrate(min([self.wanted_bps, *limits]))
        if target_bps * _STEP < self.current_bps:
            wait_s = _FALL_AFTER_S
        elif target_bps > self.current_bps * _STEP or (
            target_bps == self.wanted_bps > self.current_bps
        ):
            wait_s = _RISE_AFTER_S
        else:
            return None
        if now_s - self._changed_s < wait_s:
            return None
        self.current_bps, self._changed_s = target_bps, now_s
        return target_bps


def video_share(bandwidth_bps: int) -> int:
    """What pictures may take of a viewer's bandwidth."""
    return int(bandwidth_bps * _HEADROOM) - _SOUND_BPS
