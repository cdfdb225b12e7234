"""WebVTT is read as it is written, or refused in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.captions import CaptionsError, parse_words
from video.text_track import Cue

pytestmark = pytest.mark.unit

TEXT = """WEBVTT - a title

NOTE nobody
sees this

1
00:01.000 --> 00:02.500 align:start
<v Ada>Hello &amp; <b>welcome</b>
to this

01:00:00.000 --> 01:00:01.000
An hour later
"""


def test_cues_have_times_and_plain_text() -> None:
    words = parse_words(TEXT, "a.vtt")
    assert words.captions == (
        Cue(1000, 2500, "Hello & welcome\nto this"),
        Cue(3_600_000, 3_601_000, "An hour later"),
    )
    assert not words.chapters
    assert parse_words(TEXT.replace("\n", "\r\n"), "a.vtt") == words


def test_a_header_makes_them_chapters() -> None:
    words = parse_words("WEBVTT\nKind: chapters\n\n00:00.000 --> 00:09.000\nOne", "a.vtt")
    assert words.chapters == (Cue(0, 9000, "One"),)
    assert not words.captions


def test_cues_that_overlap_are_cut_short() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:05.000\nA\n\n00:03.000 --> 00:04.000\nB"
    assert [c.end_ms for c in parse_words(text, "a.vtt").captions] == [3000, 4000]


@pytest.mark.parametrize(
    "text",
    ["", "hello", "WEBVTTX\n", "WEBVTT\n\nno time", "WEBVTT\n\n00:02.000 --> 00:01.000\nA"],
)
def test_what_is_no_webvtt_is_refused(text: str) -> None:
    with pytest.raises(CaptionsError, match=r"a\.vtt") as caught:
        parse_words(text, "a.vtt")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, f"WEBVTT\n\n{text}", f"WEBVTT\n\n00:00.000 --> 00:01.000\n{text}"):
        try:
            words = parse_words(candidate, "a.vtt")
        except CaptionsError:
            continue
        assert all(cue.start_ms < cue.end_ms for cue in words.captions)
