"""A report as one HTML file that needs nothing else: tables, plots and pictures stand inside it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from pathlib import Path

from PIL import Image

from pipeline.gates import Gate
from services.options import OptionError

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--faint:#8884;--good:#18794e;--bad:#c62a2f;
--c0:#2266cc;--c1:#cc6622;--c2:#2a8a5a;--c3:#8844bb;--c4:#b03060;--c5:#777}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#15181c;--good:#4cc38a;--bad:#ff7b72;
--c0:#6aa6ff;--c1:#ffa361;--c2:#63d297;--c3:#c79bff;--c4:#ff8bb0;--c5:#aaa}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:60rem;
margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.2rem .7rem;text-align:left;
border-bottom:1px solid var(--faint);vertical-align:top}td.n{text-align:right;
font-variant-numeric:tabular-nums}.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}
figure{margin:.5rem 0}svg{width:100%;height:auto}svg text{font-size:11px;fill:var(--ink)}
.grid{stroke:var(--faint)}.limit{stroke:var(--bad);stroke-dasharray:5 4}path{fill:none;
stroke-width:1.3}.wide{overflow-x:auto}img{max-width:none;display:block}
figcaption span{margin-right:1rem}
""" + "".join(f".c{i}{{stroke:var(--c{i})}}.k{i}{{color:var(--c{i})}}" for i in range(6))

# What each figure says, for the table; at length in docs/evaluation.md.
MEANING = {
    "sync_corr": "mouth opening against the loudness of the voice",
    "sync_lag_ms": "how late the mouth is (ms)",
    "sync_shifted_corr": "the same against sound shifted by 1.3 s: should be near 0",
    "frozen_share": "seconds of speech in which the mouth stands still",
    "truth_corr": "mouth opening against the true one",
    "truth_lag_ms": "how late the mouth is against the truth (ms)",
    "identity_drift": "farthest second from the first two, shapes of the upper face",
    "identity_from_portrait": "farthest second from the portrait",
    "face_colour_drift_levels": "mean colour of the cheeks against frame 0, worst second (of 255)",
    "flicker_levels": "change from frame to frame where nothing moves, worst two seconds (of 255)",
    "sharpness": "high frequencies: second differences over differences across four pixels",
    "sharpness_kept": "the least sharp second against the first two",
    "sharpness_of_portrait": "sharpness of the face against the portrait's",
    "face_lost_share": "frames in which the face of the first frame is not seen",
    "psnr_db": "likeness to the reference (dB)",
    "ssim": "structural similarity to the reference",
    "opening_corr": "mouth opening read from the decoded flow against the true gap",
    "opening_corr_change": "the same, beside the first plan's",
    "press_closed_share": "p, b, m at which the lips close",
    "evaluations": "how often the network ran (NFE)",
    "last_minute_speed": "wall time of the first minute over the last one's",
    "last_minute_speed_by_cpu": "the same by CPU time, whoever else works on the machine",
    "memory_growth_mb": "resident memory from minute 2 to the highest later one",
    "identity_drift_growth": "identity drift of the last minute over that of minute 2",
    "colour_drift_growth": "face colour drift of the last minute over that of minute 2",
    "background_drift_levels": "background pixels against frame 0, worst minute (of 255)",
    "identity_loss_db": "how much less the face at rest is like its portrait than in minute 1 (dB)",
    "pop_ratio": "change of pictures at borders of chunks over that elsewhere",
    "wall_s": "seconds that it took",
}


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the HTML under it."""

    title: str
    body: str


def page(title: str, intro: str, sections: Sequence[Section]) -> str:
    """Return the whole document; title and intro are plain text."""
    parts = "".join(f"<h2>{escape(s.title)}</h2>{s.body}" for s in sections)
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
    )
    return f"{head}<body><h1>{escape(title)}</h1><p>{escape(intro)}</p>{parts}</body></html>\n"


def figure_table(columns: Mapping[str, Mapping[str, float]], gates: Mapping[str, Gate]) -> str:
    """Return a table of figures, a row each, a column for each run; those with limits first."""
    names = list(dict.fromkeys([*gates, *(n for c in columns.values() for n in c)]))
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    rows = [
        f"<tr><th>{escape(name)}</th>"
        + "".join(_cell(values.get(name), gates.get(name)) for values in columns.values())
        + f"<td>{_limit(gates.get(name))}</td><td>{escape(MEANING.get(name, ''))}</td></tr>"
        for name in names
    ]
    return (
        f'<div class="wide"><table><tr><th></th>{head}<th>limit</th><th></th></tr>'
        f"{''.join(rows)}</table></div>"
    )


def strip(pictures: Sequence[Image.Image], caption: str) -> str:
    """Return pictures side by side as one inline JPEG with a caption."""
    if not pictures:
        return ""
    height = max(p.height for p in pictures)
    sheet = Image.new("RGB", (sum(p.width for p in pictures), height), "black")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width
    data = io.BytesIO()
    sheet.save(data, "JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return (
        f'<figure class="wide"><img alt="{escape(caption)}" src="{source}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def report_path(text: str, *inputs: Path | None) -> Path | None:
    """Return where the report is to be written, or None; refused before anything is measured.

    Raises:
        OptionError: the path cannot be written or is one of the inputs.
    """
    if not text:
        return None
    path = Path(text)
    if path.suffix.lower() not in (".html", ".htm"):
        raise OptionError(f"--report {text[:80]} is no HTML file: name one ending in .html")
    if path.is_dir() or not path.parent.is_dir():
        raise OptionError(f"--report {text[:80]}: its folder does not exist: create it")
    if any(each is not None and path.resolve() == each.resolve() for each in inputs):
        raise OptionError(f"--report {text[:80]} would replace an input: choose another name")
    return path


def write_report(path: Path, document: str) -> None:
    """Write the document.

    Raises:
        OptionError: the disk refuses it.
    """
    try:
        path.write_text(document, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"--report {path} cannot be written: {error.strerror}") from None


def _cell(value: float | None, gate: Gate | None) -> str:
    if value is None:
        return '<td class="n"></td>' if gate is None else '<td class="n bad">not measured</td>'
    kind = "" if gate is None else " good" if gate.admits(value) else " bad"
    mark = "" if gate is None or gate.admits(value) else " ✗"
    return f'<td class="n{kind}">{value:.4g}{mark}</td>'


def _limit(gate: Gate | None) -> str:
    if gate is None:
        return ""
    low = f"≥ {gate.low:g}" if isfinite(gate.low) else ""
    high = f"≤ {gate.high:g}" if isfinite(gate.high) else ""
    return " and ".join(word for word in (low, high) if word)
