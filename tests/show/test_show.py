import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wsch_core.data import load_dataset
from wsch_core.experiments.evaluation import CENTRED
from wsch_core.methods import DEFAULT, METHODS
from wsch_core.methods.wsch.settings import Settings
from wsch_core.show import frames, tables
from wsch_core.show.figures import curves, retrieval
from wsch_core.show.figures import run as figures
from wsch_core.show.style import empty, keep, label, measure, save

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "$x_1$",
    "very " * 60,
    "кошка",
    "猫",
    "a\nb\tc",
    "\\frac{1}{2}",
    "%s {0}",
    "\x00",
    "",
]


def texts(figure) -> list[str]:
    """Every text of a figure, as drawn."""
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def entry(number, stage, tasks, **losses):
    return {"pass": number, "stage": stage, "epoch": number, "tasks": list(tasks), "losses": losses}


def history(pretraining, turns):
    lines = [entry(n, "pretraining", (), reconstruction=1.5 - n / 100, total=1.5) for n in range(pretraining)]
    for _ in range(turns):
        lines.append(entry(len(lines), "cycle", ["centers"]) | {"inertia": 90.0})
        lines.append(entry(len(lines), "cycle", ["cluster"], reconstruction=0.9, cluster=1.2, total=1.0))
        lines.append(entry(len(lines), "cycle", ["contrast"], reconstruction=0.8, contrast=2.2, total=3.0))
    return lines


@pytest.fixture
def drawn(tmp_path):
    """Draw a figure fully, and hand back its texts."""

    def draw(figure):
        path = save(figure, tmp_path / "figure.png")
        with Image.open(path) as image:
            assert image.width > 400
        return texts(figure)

    return draw


@pytest.mark.parametrize("classes", [1, 10, 239])
def test_class_histogram_shows_every_split(drawn, classes):
    counts = {"train": np.arange(classes) + 1, "query": np.zeros(classes, int)}
    shown = " ".join(drawn(figures.class_histogram(counts, [f"class {n}" for n in range(classes)])))
    assert "train" in shown
    assert "query" in shown
    named = sum(f"class {n} " in shown + " " for n in range(classes))
    assert named == classes if classes <= 10 else 0 < named < 30


def test_class_histogram_draws_the_counts(drawn):
    figure = figures.class_histogram({"train": np.array([3, 7, 5])}, ["a", "b", "c"])
    assert sorted(bar.get_width() for bar in figure.axes[0].patches) == [3, 5, 7]


@pytest.mark.parametrize(("pretraining", "turns"), [(1, 0), (0, 1), (3, 2), (100, 300)])
def test_loss_curves_have_a_panel_per_loss(drawn, pretraining, turns):
    lines = history(pretraining, turns)
    figure = figures.loss_curves(lines)
    shown = drawn(figure)
    assert ("contrast loss" in shown) == (turns > 0)
    assert ("k-means inertia" in shown) == (turns > 0)
    points = [tuple(np.asarray(line.get_ydata(), float)[:1]) for axes in figure.axes for line in axes.lines]
    assert ((0.8,) in points) == (turns > 0)


def test_map_curves_draw_the_values_and_name_every_line(drawn):
    ks = [5, 20, 100]
    results = {
        "WSCH": {"ks": ks, "expected": [0.5, 0.4, 0.3], "lower": [0.4, 0.3, 0.2], "upper": [0.6, 0.5, 0.4]},
        "$ITQ$": {"ks": ks, "expected": [0.3, 0.2, 0.1], "lower": None, "upper": None},
    }
    figure = curves.map_curves(results, {"paper": [0.55, 0.45, 0.35]}, "title")
    shown = " ".join(drawn(figure))
    for text in ("WSCH", "$ITQ$", "paper", "0.300", "0.100", "0.350"):
        assert text in shown
    drawn_values = [list(line.get_ydata()) for line in figure.axes[0].lines]
    assert [0.5, 0.4, 0.3] in drawn_values
    assert [0.55, 0.45, 0.35] in drawn_values


@pytest.mark.parametrize("bits", [1, 16, 128])
def test_code_health_shows_balance_and_correlation(drawn, bits):
    balance = np.linspace(-1, 1, bits)
    figure = figures.code_health_figure(balance, np.eye(bits), 90, 100)
    assert "90 distinct codes of 100 videos" in " ".join(drawn(figure))
    assert np.allclose(sorted(bar.get_height() for bar in figure.axes[0].patches), sorted(balance))


def test_radius_curves_draw(drawn):
    assert any("recall" in text for text in drawn(curves.radius_curves(np.linspace(1, 0, 17), np.linspace(0, 1, 17))))


def test_feature_colours_are_bounded_and_comparable():
    features = np.random.default_rng(0).normal(size=(6, 5, 12)).astype(np.float32)
    colours = frames.feature_colours(features)
    assert colours.shape == (6, 5, 3)
    assert colours.std() > 30
    assert np.array_equal(frames.feature_colours(features[:2], basis=features), colours[:2])
    assert (frames.feature_colours(np.ones((2, 3, 12))) == 128).all()
    assert frames.feature_colours(np.random.default_rng(0).normal(size=(2, 3, 2))).shape == (2, 3, 3)


@pytest.mark.parametrize("shape", [(2, 25, 8, 8), (2, 25, 8, 8, 3), (2, 25, 3), (1, 1, 8, 8)])
def test_frame_strips_show_first_and_last_frame(drawn, shape):
    shown = drawn(frames.frame_strips(np.zeros(shape, np.uint8), HOSTILE[: shape[0]], HOSTILE[: shape[0]]))
    assert "1" in shown
    assert str(shape[1]) in shown
    assert HOSTILE[0][:6] in " ".join(shown)


def video(name, distance=None, relevant=None, picture=None):
    return retrieval.Video(name, name, picture, distance, relevant)


def test_hits_and_misses_are_told_apart_by_mark_and_frame(drawn):
    picture = np.zeros((5, 8, 8), np.uint8)
    results = [video("a", 0, True, picture), video("b", 3, False), video("c", 3, None), video("d", 4, True)]
    figure = retrieval.retrieval_figure([(video("query"), results)])
    shown = drawn(figure)
    assert [text for text in shown if "d = " in text][1:] == ["✓  d = 0", "✗  d = 3", "d = 3", "✓  d = 4"]
    outlines = [patch.get_linestyle() for patch in figure.axes[0].patches if not patch.get_fill()]
    assert len(set(map(str, outlines[1:3]))) == 2
    brackets = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 4]
    assert len(brackets) == 1


def test_hostile_texts_are_drawn_as_they_are(drawn):
    rows = [(video(text), [video(text, 1, True)]) for text in HOSTILE]
    shown = " ".join(drawn(retrieval.retrieval_figure(rows)))
    assert "$x_1$" in shown
    assert "<img" in shown
    assert "\x00" not in shown
    assert len(label("very " * 60, 1.0)) < 30


def test_retrieved_shows_the_nearest_videos(drawn, tiny):
    codes = {s: np.where(tiny.splits[s].features.mean_pooled() > 0, 1, -1) for s in ("query", "database")}
    figure = retrieval.retrieved(codes, tiny, queries=2, neighbours=3)
    shown = drawn(figure)
    assert sum("d = " in text for text in shown) == 1 + 2 * 3
    assert all(isinstance(text, str) for text in shown)


def test_a_query_in_the_database_is_not_its_own_neighbour(tiny_folder):
    path = tiny_folder.parent / "tiny.toml"
    path.write_text(path.read_text().replace('features = ["query.h5"]\nlabels = ["query.mat"]', 'same_as = "database"'))
    dataset = load_dataset("tiny")
    codes = np.where(dataset.database.features.mean_pooled() > 0, 1, -1)
    figure = retrieval.retrieved({"query": codes, "database": codes}, dataset, queries=1, neighbours=99)
    assert sum("d = " in text for text in texts(figure)) == 1 + retrieval.MOST_RESULTS


def test_tables_hold_the_values_and_escape_them(tiny):
    html = tables.data_table(tiny).to_html()
    assert "21" in html
    assert "database" in html
    changed = tables.settings_table(Settings(bits=32, dataset="<b>")).to_html()
    assert "&lt;b&gt;" in changed
    assert changed.count(tables.CHANGED) == 2  # one setting, and the caption
    rows = {"WSCH": [0.5, 0.1], "<ITQ>": [0.4, 0.2], CENTRED: [0.9, 0.9]}
    table = tables.map_table([5, 20], rows).to_html()
    assert "&lt;ITQ&gt;" in table
    assert "0.500" in table
    assert table.count("font-weight: bold") == 2  # in the cells of the best hashing method of each column


def test_empty_inputs_say_so(drawn):
    assert "No queries to show." in drawn(retrieval.retrieval_figure([]))
    assert "No videos to show." in drawn(frames.frame_strips(np.zeros((0, 5, 3), np.uint8), []))
    assert "No labelled videos." in drawn(figures.class_histogram({}, []))


def test_every_setting_has_a_meaning():
    assert set(tables.MEANINGS) == set(Settings().as_dict())
    for name, method in METHODS.items():
        meanings = tables.MEANINGS if name == DEFAULT else tables.MEANINGS | tables.OF_PEERS
        assert not [setting for setting in method.Settings().as_dict() if not meanings.get(setting)], name
    assert "training videos, by mean features" in tables.settings_table(METHODS["ssvh"].Settings()).to_html()


def curve(ks, *expected):
    return {"ks": ks, "expected": expected, "lower": None, "upper": None}


def test_names_at_line_ends_do_not_overlap_and_are_not_cut_off():
    results = {f"a method with a long name {n}": curve([5, 100], 0.5, 0.3 + n / 1e6) for n in range(12)}
    figure = curves.map_curves(results, {"a paper with a very long title indeed": [0.5, 0.3]})
    figure.draw_without_rendering()
    axes = figure.axes[0]
    names = [text for text in axes.texts if "name" in text.get_text() or "(published)" in text.get_text()]
    assert len(names) == 13
    boxes = sorted((text.get_window_extent() for text in names), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 0.5 for below, above in pairwise(boxes))
    assert max(box.x1 for box in boxes) <= figure.bbox.x1
    assert any(text.get_text().endswith("… (published)") for text in names)


def test_line_ends_move_as_little_as_they_must():
    assert curves.spread([0.2, 0.8], 0.1) == [0.2, 0.8]
    assert curves.spread([0.8, 0.2], 0.1) == [0.8, 0.2]
    assert np.allclose(curves.spread([0.5, 0.5], 0.1), [0.45, 0.55])
    assert np.allclose(curves.spread([0, 0, 1], 0.1), [0, 0.1, 1])


def test_ks_are_the_ticks_and_the_last_one_keeps_its_number(drawn):
    figure = curves.map_curves({"WSCH": curve([1, 5, 100, 800, 1000], 5, 4, 3, 2, 1)})
    drawn(figure)
    assert figure.axes[0].get_xticks().tolist() == [1, 5, 100, 800, 1000]
    assert figure.axes[0].get_xticklabels()[-1].get_text() == "1000"


def test_published_values_must_be_at_the_same_ks():
    with pytest.raises(ValueError, match="published 'paper': 2 values of K"):
        curves.map_curves({"WSCH": curve([5, 20], 0.5, 0.4)}, {"paper": [0.5]})


def test_each_task_has_a_line_of_its_own(drawn):
    figure = figures.loss_curves(history(3, 2))
    drawn(figure)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["cluster"].get_xdata().tolist() == [5, 8]
    assert lines["contrast"].get_xdata().tolist() == [6, 9]
    assert lines["_stages"].get_xdata() == [3.5, 3.5]
    looks = [(lines[task].get_marker(), lines[task].get_color()) for task in ("pre-training", "cluster", "contrast")]
    assert len({marker for marker, _ in looks}) == len({colour for _, colour in looks}) == 3


@pytest.mark.parametrize(("pretraining", "turns"), [(60, 30), (3, 200), (2, 1)])
def test_words_above_a_loss_panel_do_not_overlap(pretraining, turns):
    figure = figures.loss_curves(history(pretraining, turns))
    figure.draw_without_rendering()
    for axes in figure.axes:
        title = axes._left_title.get_window_extent()
        assert not any(title.overlaps(words.get_window_extent()) for words in axes.texts)


def test_losses_that_are_no_numbers_are_told(drawn):
    lines = [entry(0, "pretraining", (), reconstruction=float("nan")), entry(1, "pretraining", (), reconstruction=2.0)]
    assert "reconstruction loss, 1 not finite" in drawn(figures.loss_curves(lines))


def test_bits_that_never_change_are_hatched_and_counted(drawn):
    correlation = np.eye(4)
    correlation[2] = correlation[:, 2] = np.nan
    figure = figures.code_health_figure(np.array([0.1, -0.2, 1, 0]), correlation, 3, 9)
    assert "1 never changing (grey)" in " ".join(drawn(figure))
    assert [bool(bar.get_hatch()) for bar in figure.axes[0].patches] == [False, False, True, False]
    cells = figure.axes[1].collections[0].get_array()
    assert np.ma.getmaskarray(cells).tolist() == np.isnan(correlation).tolist()  # there the grey behind them is seen


def test_the_heat_map_shows_every_correlation_first_bit_on_top(drawn):
    correlation = np.corrcoef(np.random.default_rng(0).normal(size=(64, 100)))
    figure = figures.code_health_figure(np.zeros(64), correlation, 100, 100)
    drawn(figure)
    axes = figure.axes[1]
    assert np.array_equal(axes.collections[0].get_array(), correlation)
    assert axes.yaxis_inverted()
    assert [text.get_text() for text in axes.get_yticklabels()] == [str(bit) for bit in range(0, 64, 8)]


def test_drawing_opens_no_figure_of_pyplot():
    from matplotlib import pyplot

    figures.code_health_figure(np.zeros(8), np.eye(8), 1, 1)
    assert pyplot.get_fignums() == []


def test_labels_fit_their_place_in_the_weight_they_are_drawn_in():
    for text in HOSTILE:
        assert measure(label(text, 1.0, 9, "bold"), 9, "bold") <= 1.0
    assert label("v_basketball_group_0001_clip_07", 1.0, middle=True).endswith("7")


def test_an_empty_figure_keeps_the_literal_text_of_its_title(drawn):
    assert r"$\frac{$ 猫" in drawn(empty("Nothing.", r"$\frac{$ 猫"))


def test_a_figure_shows_itself_without_pyplot_and_changes_no_setting():
    import matplotlib

    before = dict(matplotlib.rcParams)
    assert curves.radius_curves(np.ones(3), np.ones(3))._repr_png_().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = save(empty("old"), tmp_path / "figure.png")
    old = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save(empty("new"), path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"ending in \.png"):
        save(empty("new"), tmp_path / "figure.pdf")


def test_figures_are_not_written_through_a_link(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    outside.mkdir()
    (run / "figures").symlink_to(outside)
    with pytest.raises(OSError, match="figures is a link that leaves its folder"):
        keep(empty("new"), run, "losses")
    assert not any(outside.iterdir())
    (run / "elsewhere").mkdir()
    (run / "figures").unlink()
    (run / "figures").symlink_to("elsewhere")  # a link that stays in the run folder
    keep(empty("new"), run, "losses")
    assert (run / "elsewhere" / "losses.png").is_file()


def test_rounding_errors_are_no_colours():
    one = np.linspace(0, 1, 50)[:, None] * np.random.default_rng(0).normal(size=40)  # one direction of variation
    colours = frames.feature_colours(one.reshape(5, 10, 40).astype(np.float32))
    assert colours[..., 0].std() > 30
    assert (colours[..., 1:] == 128).all()
    with pytest.raises(ValueError, match="finite"):
        frames.feature_colours(np.full((1, 2, 3), np.nan))


def test_wide_and_narrow_features_have_the_same_colours():
    features = np.random.default_rng(0).normal(size=(4, 10, 12)) * np.linspace(3, 0.1, 12)
    wide = np.concatenate([features, np.zeros((4, 10, 60))], axis=2)  # more values than frames
    difference = frames.feature_colours(features).astype(int) - frames.feature_colours(wide)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"])
def test_texts_that_a_spreadsheet_would_compute_stay_texts(tmp_path, text):
    frame = pd.DataFrame({"run": [text, "a=b"], text: [-0.5, 1.0]})
    (path, _) = tables.write_tables(tmp_path, "result", frame)
    written = pd.read_csv(path)
    assert list(written.columns) == ["run", f"'{text}"]
    assert list(written["run"]) == [f"'{text}", "a=b"]
    assert list(written[f"'{text}"]) == [-0.5, 1.0]  # numbers are numbers


def test_tables_are_written_as_csv_and_latex(tmp_path):
    frame = pd.DataFrame({"variant": ["a & b_1 $x$", "±2 %"], "mAP@20": [0.123456, np.nan], "seeds": [2, 1]})
    paths = tables.write_tables(tmp_path / "sweep", "result", frame)
    assert [path.name for path in paths] == ["result.csv", "result.tex"]
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), frame)
    assert paths[1].read_text().splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\hline",
        r"variant & mAP@20 & seeds \\",
        r"\hline",
        r"a \& b\_1 \$x\$ & $0.123$ & 2 \\",
        r"$\pm$2 \% & -- & 1 \\",
        r"\hline",
        r"\end{tabular}",
    ]


def test_tables_need_no_style_sheet():
    """JupyterLab takes it out of a notebook that is not trusted."""
    html = tables.map_table([5, 20], {"WSCH": [0.5, 0.4], "<ITQ>": [0.3, 0.45]}).set_caption("note")._repr_html_()
    assert "<style" not in html
    cells = re.findall(r'<td[^>]*style="([^"]*)"[^>]*>([^<]*)</td>', html)
    assert [(text, "bold" in style, "left" in style) for style, text in cells] == [
        ("WSCH", False, True), ("0.500", True, False), ("0.400", False, False),
        ("&lt;ITQ&gt;", False, True), ("0.300", False, False), ("0.450", True, False),
    ]  # fmt: skip
    assert tables.plain(pd.DataFrame()).to_html()


def test_figures_say_what_they_show():
    figure = curves.map_curves({"WSCH": {"ks": [5, 20], "expected": [0.5, 0.4]}}, title="64 bits")
    data, about = figure._repr_mimebundle_()
    assert about["image/png"]["alt"].startswith("Figure: ")
    assert "mAP@K over K, nearest videos" in about["image/png"]["alt"]
    assert about["image/png"]["alt"] in data["text/plain"]
