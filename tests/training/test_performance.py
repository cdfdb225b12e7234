"""Performances: lips shut at closures, blinks complete, heads move gently, seeds decide."""

import numpy as np
import pytest

from training.performance import EXPRESSIONS, Performance, Temper, mouth, perform, resample
from training.visemes import OPEN, PRESS, viseme_track

pytestmark = pytest.mark.unit

FPS = 25
# Inner lips' gap per unit of weight in cm, from the face kit's landmarks 62 and 66.
GAP_CM = {
    "jawOpen": 3.28,
    "mouthClose": -3.90,
    "mouthFunnel": 1.37,
    "mouthPucker": -0.05,
    "mouthRollLower": -0.37,
    "mouthRollUpper": 0.19,
    "mouthShrugLower": -0.69,
    "mouthLowerDown_L": 0.34,
    "mouthLowerDown_R": 0.34,
    "mouthUpperUp_L": 0.35,
    "mouthUpperUp_R": 0.35,
    "mouthPress_L": -0.12,
    "mouthPress_R": -0.12,
}
NEUTRAL_GAP_CM = 0.08


def chatter(num_syllables: int = 60) -> np.ndarray:
    """Syllables "ba", "mu", "pi", "ta" with a pause every ten: visemes [6, T] at 100 Hz."""
    names: list[str] = []
    for index in range(num_syllables):
        names += [("b", "a"), ("m", "u"), ("p", "i"), ("t", "a")][index % 4]
        names += ["_:"] * 3 if index % 10 == 9 else []
    phonemes = [(0.5 + 0.1 * index, name) for index, name in enumerate(["_:", *names])]
    return viseme_track(phonemes, 0.5 + 0.1 * len(phonemes) + 0.5)


def gap_cm(weights: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(NEUTRAL_GAP_CM + sum(GAP_CM[name] * weights[name] for name in GAP_CM))


def column(performance: Performance, name: str) -> np.ndarray:
    return performance.expression_TE[:, EXPRESSIONS.index(name)]


def long_performance(seed: int) -> Performance:
    return perform(np.zeros((6, 12_000), np.float32), np.random.default_rng(seed), FPS)


@pytest.mark.parametrize("articulation", [0.75, 1.15])
@pytest.mark.parametrize("lips", [0.25, 0.75])
def test_lips_meet_at_every_closure_and_part_at_vowels(articulation: float, lips: float) -> None:
    visemes_TV = resample(chatter(), FPS)
    gap_T = gap_cm(mouth(visemes_TV, Temper(articulation=articulation, lips=lips), FPS))
    pressed_T = visemes_TV[:, PRESS] > 0.97
    assert pressed_T.sum() > 20
    assert gap_T[pressed_T].max() <= NEUTRAL_GAP_CM
    assert gap_T.max() > 1.2 * articulation


def test_a_loud_vowel_opens_the_jaw() -> None:
    phonemes = [(0.0, "_:"), (0.5, "a"), (0.9, "_:")]
    weights = mouth(resample(viseme_track(phonemes, 1.4), FPS), Temper(), FPS)
    assert 0.5 <= weights["jawOpen"].max() <= 0.72


def test_silence_gives_a_closed_mouth() -> None:
    weights = mouth(np.zeros((50, 6)), Temper(), FPS)
    assert all(weight.max() == 0.0 for weight in weights.values())
    np.testing.assert_array_equal(column(long_performance(0), "jawOpen"), 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_blinks_close_fully_12_to_20_times_a_minute(seed: int) -> None:
    performance = long_performance(seed)
    closed_T = performance.blink_T >= 1.0
    num_blinks = int((np.diff(closed_T.astype(int)) == 1).sum())
    begun = int((np.diff((performance.blink_T > 0).astype(int)) == 1).sum())
    assert num_blinks == begun
    assert 20 <= num_blinks <= 44  # two minutes; gamma-distributed pauses vary the count
    np.testing.assert_array_equal(column(performance, "eyeBlink_L"), performance.blink_T)


@pytest.mark.parametrize("seed", range(3))
def test_the_head_moves_gently_around_zero(seed: int) -> None:
    pose_T6 = perform(chatter(300), np.random.default_rng(seed), FPS).pose_T6
    std_6 = pose_T6.std(axis=0)
    assert (np.rad2deg(std_6[:3]) > (1.0, 0.7, 0.5)).all()
    assert (np.rad2deg(std_6[:3]) < (5.5, 4.5, 3.5)).all()
    assert (std_6[3:] < 0.7).all()
    assert np.abs(np.rad2deg(pose_T6[:, 0].mean())) < 1.5
    spectrum_F6 = np.abs(np.fft.rfft(pose_T6 - pose_T6.mean(axis=0), axis=0)) ** 2
    frequency_hz = np.fft.rfftfreq(len(pose_T6), 1 / FPS)
    assert (spectrum_F6[frequency_hz > 2.5].sum(axis=0) < 0.02 * spectrum_F6.sum(axis=0)).all()


def test_stressed_syllables_nod_the_head_down() -> None:
    pitches = []
    stressed = viseme_track(
        [
            (0.0, "_:"),
            *((2.0 * k + d, n) for k in range(1, 30) for d, n in ((0, "a"), (0.3, "_:"))),
        ],
        62.0,
    )
    for seed in range(12):
        pitch_T = perform(stressed, np.random.default_rng(seed), FPS).pose_T6[:, 1]
        at_stress = [pitch_T[round((2.0 * k + 0.12) * FPS)] for k in range(1, 30)]
        pitches.append(np.mean(at_stress) - pitch_T.mean())
    assert np.mean(pitches) > np.deg2rad(0.2)


def test_the_eyes_hold_their_target_while_the_head_turns() -> None:
    performance = long_performance(5)
    assert np.corrcoef(performance.gaze_T2[:, 0], performance.pose_T6[:, 0])[0, 1] < -0.2
    assert np.corrcoef(performance.gaze_T2[:, 1], performance.pose_T6[:, 1])[0, 1] > 0.2


def test_the_seed_decides_everything() -> None:
    one, same, other = (perform(chatter(), np.random.default_rng(seed)) for seed in (3, 3, 4))
    for name in ("expression_TE", "visemes_TV", "blink_T", "gaze_T2", "pose_T6"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert not np.array_equal(one.pose_T6, other.pose_T6)


@pytest.mark.parametrize("fps", [25, 30, 24])
def test_shapes_types_and_ranges(fps: int) -> None:
    visemes_VT = chatter()
    performance = perform(visemes_VT, np.random.default_rng(0), fps)
    num_frames = -(-visemes_VT.shape[1] * fps // 100)
    assert performance.expression_TE.shape == (num_frames, 57)
    assert performance.visemes_TV.shape == (num_frames, 6)
    assert performance.blink_T.shape == (num_frames,)
    assert performance.gaze_T2.shape == (num_frames, 2)
    assert performance.pose_T6.shape == (num_frames, 6)
    for track in vars(performance).values():
        assert track.dtype == np.float32
        assert np.isfinite(track).all()
    assert performance.expression_TE.min() >= 0.0
    assert performance.expression_TE.max() <= 1.0
    assert performance.visemes_TV[:, OPEN].max() > 0.4


def test_names_choose_and_order_the_columns() -> None:
    whole = perform(chatter(), np.random.default_rng(1))
    some = perform(chatter(), np.random.default_rng(1), names=["mouthClose", "jawOpen"])
    np.testing.assert_array_equal(some.expression_TE[:, 1], column(whole, "jawOpen"))
    with pytest.raises(ValueError, match="earWiggle"):
        perform(chatter(), np.random.default_rng(1), names=["earWiggle"])
