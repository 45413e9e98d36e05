"""How every figure looks: one palette, one text size scale, names shown literally, PNG files written whole.

Figures are built without pyplot, so nothing is shown twice, nothing stays open and no global setting changes: a `Picture`
shows itself when it is the last line of a notebook cell or passed to `display`.
"""

import io
import unicodedata
import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from textwrap import shorten

from matplotlib import font_manager
from matplotlib import style as mpl_style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import text_to_path

from ..storage.files import made_folder, make_folder, write_whole

WIDTH = 9.6  # inches, a notebook column
DPI = 100  # on screen
SAVED_DPI = 150
LONGEST_ALTERNATIVE = 400  # letters

# Okabe and Ito's colours, told apart under every common colour blindness; yellow is left out, it is too light for lines.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY = "#B5569A", "#56B4E9"
INK, SOFT, FAINT, PAPER = "#222222", "#6B6B6B", "#DCDCDC", "#F4F4F4"  # text, second text, rules, empty places

# Never colour alone: the n-th line of a figure has the n-th colour, marker and dash.
MARKS = (
    (BLUE, "o", "-"),
    (VERMILION, "s", (0, (5, 1.6))),
    (GREEN, "^", (0, (4, 1.4, 1, 1.4))),
    (PURPLE, "D", (0, (1.2, 1.4))),
    (ORANGE, "v", (0, (7, 1.5, 2, 1.5))),
    (SKY, "P", (0, (3, 1.2, 1, 1.2, 1, 1.2))),
)

SMALL, NORMAL, LARGE = 7.5, 9.0, 11.0  # points

RULES = {
    "font.size": NORMAL,
    "text.color": INK,
    "text.parse_math": False,  # a `$` in a class name is a `$`
    "text.usetex": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.labelsize": NORMAL,
    "axes.titlesize": NORMAL,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",  # a dark notebook theme must not hide the text
    "savefig.facecolor": "white",
    "hatch.linewidth": 0.6,
}

# Tried in this order for letters DejaVu lacks, where the machine has them.
OTHER_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "Hiragino Sans",
    "PingFang SC",
    "Arial Unicode MS",
    "Noto Sans",
)


@cache
def _fonts() -> list[str]:
    there = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in OTHER_FONTS if name in there)]


@contextmanager
def style():
    """The look, for as long as the block lasts; the caller's rcParams come back untouched."""
    with _quiet(), mpl_style.context(["default", RULES | {"font.family": _fonts()}]):
        yield


@contextmanager
def _quiet():
    """A letter no font has is drawn as an empty box: that is no reason to stop, nor to print under every figure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*Glyph .* missing from")
        yield


class Picture(Figure):
    """A figure that keeps the look when it is drawn later: matplotlib makes ticks and measures text only then."""

    def draw(self, renderer):
        with style():
            super().draw(renderer)

    def get_tightbbox(self, renderer=None, **options):
        with style():
            return super().get_tightbbox(renderer, **options)

    def _repr_png_(self) -> bytes:
        return _png(self, DPI)

    def _repr_mimebundle_(self, **options) -> tuple[dict, dict]:
        data = {"image/png": self._repr_png_(), "text/plain": repr(self)}
        return data, {"image/png": {"alt": alternative_text(self)}}

    def __repr__(self) -> str:
        return f"[{alternative_text(self)}]"


def alternative_text(figure: Figure) -> str:
    """A figure in one sentence for who cannot see it, from what is written in it: title, panels, axes, lines."""
    title = figure.get_suptitle()
    panels = [panel for axes in figure.axes if (panel := _panel_in_words(axes))]
    lines = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    parts = [title, *panels, f"lines: {', '.join(lines)}" if lines else ""]
    if not any(parts):
        parts = [text.get_text() for axes in figure.axes for text in axes.texts[:3]]
    return shorten("Figure: " + "; ".join(filter(None, parts)), LONGEST_ALTERNATIVE, placeholder=" …")


def _panel_in_words(axes: Axes) -> str:
    title = axes.get_title(loc="left") or axes.get_title()
    what, along = axes.get_ylabel(), axes.get_xlabel().replace("\n", ", ")
    against = f"{what} over {along}" if what and along else what or along
    legend = axes.get_legend()
    lines = ", ".join(text.get_text() for text in legend.get_texts()) if legend else ""
    return " · ".join(filter(None, [title, against, lines]))


def picture(width: float = WIDTH, height: float = 4.0, **options) -> Picture:
    """width, height: inches. options: matplotlib's, such as layout="constrained". Call it inside `style()`."""
    return Picture(figsize=(width, height), dpi=DPI, **options)


def sheet(width: float, height: float) -> tuple[Picture, Axes]:
    """An empty page measured in inches from its top left corner, for pictures and text placed by hand."""
    figure = picture(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    _keep_page(axes)
    return figure, axes


def place(axes: Axes, image, left: float, top: float, width: float, height: float):
    """image: (height, width) or (height, width, 3) uint8, laid on a `sheet` at inches."""
    drawn = axes.imshow(
        image, cmap="gray", vmin=0, vmax=255, aspect="auto", extent=(left, left + width, top + height, top)
    )
    _keep_page(axes)  # imshow has moved the limits to this one image
    return drawn


def _keep_page(axes: Axes) -> None:
    width, height = axes.figure.get_size_inches()
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)


def heading(figure: Figure, title: str) -> None:
    """The figure's title, at its left edge; nothing for an empty one. For figures with constrained layout."""
    if title:
        text = label(title, figure.get_figwidth() - 0.3, LARGE, "bold")
        figure.suptitle(text, x=0.008, ha="left", fontsize=LARGE, fontweight="bold")


def empty(message: str, title: str = "") -> Picture:
    """What a figure shows when there is nothing to draw: a sentence, not an error."""
    with style():
        figure, axes = sheet(WIDTH, 0.9 if title else 0.5)
        axes.text(0.1, 0.35, label(title, WIDTH - 0.2, LARGE, "bold"), fontsize=LARGE, fontweight="bold")
        axes.text(0.1, 0.7 if title else 0.3, message, color=SOFT)
    return figure


def label(text: object, inches: float = 2.0, size: float = NORMAL, weight: str = "normal", middle: bool = False) -> str:
    """One line of literal text, cut with an ellipsis where it would be wider than `inches`.

    middle: cut in the middle, for ids, whose ends differ.
    """
    text = _printable(str(text))
    if measure(text, size, weight) <= inches:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        kept = (fits + too_long) // 2
        if measure(_cut(text, kept, middle), size, weight) <= inches:
            fits = kept
        else:
            too_long = kept
    return _cut(text, fits, middle)


def _cut(text: str, kept: int, middle: bool) -> str:
    tail = kept // 2 if middle else 0
    return text[: kept - tail].rstrip() + "…" + text[len(text) - tail :].lstrip()


def _printable(text: str) -> str:
    """Spaces for line breaks; a replacement mark for what has no shape or would turn the reading direction of the line."""
    if len(text) > 600:  # measuring a megabyte of text to show thirty letters would take long
        text = text[:300] + text[-300:]
    hidden = {"Cc", "Cs"}
    turning = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    text = " ".join(text.split())
    return "".join("\ufffd" if unicodedata.category(c) in hidden or c in turning else c for c in text)


@cache
def _font(size: float, weight: str) -> font_manager.FontProperties:
    return font_manager.FontProperties(family=_fonts(), size=size, weight=weight)


def measure(text: str, size: float = NORMAL, weight: str = "normal") -> float:
    """Inches that one line of text takes when drawn."""
    with _quiet():
        return text_to_path.get_text_width_height_descent(text, _font(size, weight), ismath=False)[0] / 72


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as PNG, whole or not at all: a reader never meets half a file, an old one stays until replaced."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"figures are saved as PNG: give a path ending in .png, not {path.name!r}")
    data = _png(figure, SAVED_DPI)  # drawn first: a figure that cannot be drawn touches no file
    made_folder(path.parent)
    write_whole(path, lambda draft: draft.write_bytes(data))
    return path


def _png(figure: Figure, dpi: int) -> bytes:
    memory = io.BytesIO()
    about = {"Description": alternative_text(figure)}
    with _quiet():
        figure.savefig(
            memory, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.12, facecolor="white", metadata=about
        )
    return memory.getvalue()


def keep(figure: Figure, folder: Path, name: str) -> Figure:
    """Save a figure in a run's folder, as figures/<name>.png, and hand it on to be shown."""
    save(figure, make_folder(folder, "figures") / f"{name}.png")
    return figure
