"""The demo page keeps to a strict content security policy and to what lies beside it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
WEB = ROOT / "services" / "web"
Attributes = list[tuple[str, str | None]]


class _Elements(HTMLParser):
    """Every element with its attributes, in order, and the text of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        self.found.append((tag, dict(attrs)))


def _elements(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Elements()
    parser.feed(text)
    return parser.found


def _offences(text: str) -> list[str]:
    """What a policy without `unsafe-inline` forbids."""
    found = []
    for tag, attributes in _elements(text):
        if tag == "style" or (tag == "script" and not attributes.get("src")):
            found.append(f"<{tag}> inline")
        found += [f"{tag} {name}" for name in attributes if name == "style" or name[:2] == "on"]
    return found


def test_nothing_is_inline() -> None:
    assert not _offences((WEB / "index.html").read_text())


@pytest.mark.parametrize(
    "bad", ["<script>1</script>", "<p style='top:0'>", "<a onclick='x()'>", "<style>a{}</style>"]
)
def test_the_search_for_inline_code_finds_it(bad: str) -> None:
    assert _offences(bad)


def test_nothing_comes_from_elsewhere() -> None:
    for path in WEB.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""https?://|['"(]//\w""", text), path.name


def test_all_that_is_named_is_there() -> None:
    page = (WEB / "index.html").read_text()
    named = set(re.findall(r'(?:src|href)="web/([^"]+)"', page))
    for script in WEB.glob("*.js"):
        named |= set(re.findall(r"from '\./([^']+)'", script.read_text()))
    assert named
    there = {path.name for path in WEB.iterdir()} - {"index.html"}
    assert named == there, "named and not there, or there and named by nobody"


def test_every_field_and_picture_has_a_name_for_those_who_do_not_see() -> None:
    page = (WEB / "index.html").read_text()
    elements = _elements(page)
    identifiers = {attributes.get("id") for _, attributes in elements}
    for tag, attributes in elements:
        if tag == "img":
            assert "alt" in attributes
        for reference in ("aria-labelledby", "aria-describedby", "for"):
            if reference in attributes:
                assert attributes[reference] in identifiers, (tag, attributes)
    labelled = re.sub(r"<label.*?</label>", "", page, flags=re.DOTALL)
    assert "<input" not in labelled, "an input without a label around it"
    assert 'lang="en"' in page
    assert 'aria-live="polite"' in page
    assert 'role="alert"' in page


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


_PAIRS = [
    *[(ink, ground) for ink in ("ink", "soft") for ground in ("paper", "card", "lane", "wash")],
    *[("on-chunk", f"chunk-{letter}") for letter in "abcd"],
    ("ink", "tab"),
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
    ("warn", "warn-wash"),
    ("ink", "warn-wash"),
]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), _PAIRS)
def test_text_can_be_read_on_its_ground(theme: str, ink: str, ground: str) -> None:
    light, dark = (WEB / "theme.css").read_text().split("@media", 1)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light if theme == "light" else dark))
    assert _contrast(colours[ink], colours[ground]) >= 4.5
