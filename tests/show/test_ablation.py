"""What an ablation shows: tables and figures, from plain values."""

import time

import numpy as np
import pytest

from wsch_core import evaluate_run, fit
from wsch_core.experiments.compare import compare_with
from wsch_core.experiments.sweep import Progress, plan
from wsch_core.experiments.variants import VARIANTS
from wsch_core.methods.wsch.cycle import PUBLISHED_CYCLE, passes
from wsch_core.show.figures import ablation
from wsch_core.show.runs import sweeps
from wsch_core.show.style import save

HOSTILE = ["<img src=x onerror=alert(1)>", "$x_1$", "very " * 60, "猫", "a\nb", "\x00", "%s {0}"]


def measured(names=("published", "joint"), seeds=5):
    """Comparisons of made-up values; the second variant is better in every seed."""
    random = np.random.default_rng(0)
    base = {seed: 0.4 + 0.02 * random.normal() for seed in range(seeds)}
    values = {
        name: {seed: value + 0.03 * (place > 0) + 0.004 * random.normal() for seed, value in base.items()}
        for place, name in enumerate(names)
    }
    return compare_with(names[0], values)


def history(cycle=PUBLISHED_CYCLE, pretrain_epochs=3, epochs=2, shift=0.0):
    lines = []
    for one in passes(cycle, pretrain_epochs, epochs):
        losses = dict.fromkeys(("reconstruction", *one.tasks), 1 + one.number + shift) if one.learns else {}
        line = {"pass": one.number, "stage": one.stage, "tasks": list(one.tasks), "losses": losses, "seconds": 1.0}
        lines.append(line if one.learns else line | {"inertia": 100.0 - one.number})
    return lines


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.fixture
def drawn(tmp_path):
    def draw(figure):
        assert save(figure, tmp_path / "figure.png").stat().st_size > 2000
        return figure

    return draw


class TestForest:
    def test_means_intervals_and_seeds_are_where_they_belong(self, drawn):
        compared = measured()
        left, right = drawn(ablation.forest(compared, 20, "published")).axes
        for axes, ours in ((left, compared), (right, compared[1:])):
            marks = np.concatenate([line.get_xydata() for line in axes.lines if line.get_markersize() == 7])
            points = [tuple(mark) for mark in marks if np.isfinite(mark).all()]
            place = "mean" if axes is left else "difference"
            assert points == [
                (pytest.approx(getattr(one, place)), row + (axes is right)) for row, one in enumerate(ours)
            ]
        half = compared[1].difference_half_width
        interval = [compared[1].difference - half, compared[1].difference + half]
        assert sum([*line.get_xdata()] == pytest.approx(interval) for line in right.lines) == 1
        dots = np.concatenate([dots.get_offsets() for dots in right.collections])
        assert dots[:, 0].tolist() == pytest.approx(compared[1].differences)

    def test_twenty_variants_and_any_name_fit(self, drawn):
        names = ["published", *HOSTILE, *(f"variant {n}" for n in range(12))]
        figure = drawn(ablation.forest(measured(names), 20, "published"))
        assert len(figure.axes[0].get_yticklabels()) == 20
        assert "better (5 seeds)" in texts(figure)

    def test_an_interval_over_two_seeds_does_not_press_the_seeds_together(self, drawn):
        compared = compare_with("published", {"published": {1: 0.40, 2: 0.42}, "joint": {1: 0.45, 2: 0.40}})
        right = drawn(ablation.forest(compared, 20, "published")).axes[1]
        low, high = right.get_xlim()
        assert compared[1].difference_half_width > 0.4
        assert high - low < 5 * (0.05 + 0.02)
        assert [line.get_marker() for line in right.lines if line.get_marker() in ("<", ">")] == ["<", ">"]

    @pytest.mark.parametrize("values", [{"published": {1: 0.4}}, {"published": {}, "joint": {1: 0.3}}])
    def test_one_run_or_no_reference_is_drawn(self, drawn, values):
        drawn(ablation.forest(compare_with("published", values), 5, "published"))

    def test_nothing_is_a_sentence(self, drawn):
        figure = drawn(ablation.forest(compare_with("published", {"published": {}}), 5, "published"))
        assert "No run has a result yet." in texts(figure)


class TestCycle:
    def test_a_mark_for_each_pass_in_the_colour_of_its_task(self, drawn):
        figure = drawn(ablation.cycle({"published": [history()], "joint": [history("centers, cluster+contrast")]}))
        strips = figure.axes[0]
        by_task = {tuple(c.get_facecolor()[0]): len(c.get_paths()) for c in strips.collections}
        assert sum(len(c.get_paths()) for c in strips.collections) == 9 + 7
        assert len(by_task) == 5  # pre-training, centers, cluster, contrast, both
        assert {"finding centres", "learning cluster + contrast", "published", "joint"} <= set(texts(figure))

    def test_lines_are_means_over_seeds_one_for_each_task(self, drawn):
        figure = drawn(ablation.cycle({"published": [history(), history(shift=2.0)]}))
        panel = next(axes for axes in figure.axes if axes.get_title(loc="left") == "reconstruction loss")
        lines = [line.get_xydata().tolist() for line in panel.lines]
        assert lines == [[[1, 2], [2, 3], [3, 4]], [[5, 6], [8, 9]], [[6, 7], [9, 10]]]

    def test_a_long_history_is_drawn_quickly(self, drawn):
        seeds = [history(epochs=3333)]
        start = time.monotonic()
        figure = drawn(ablation.cycle({"published": seeds, "joint": seeds}))
        assert time.monotonic() - start < 10
        assert max(len(line.get_xdata()) for axes in figure.axes for line in axes.lines) <= ablation.POINTS
        assert "in turn, from the top" in figure.axes[0].get_title(loc="left")

    def test_twenty_variants_of_any_name_and_length_fit(self, drawn):
        names = ["published", *HOSTILE, *(f"variant {n}" for n in range(12))]
        figure = drawn(ablation.cycle({name: [history(epochs=place)] for place, name in enumerate(names)}))
        assert "14 others" in texts(figure)

    def test_runs_that_have_not_begun_are_left_out(self, drawn):
        assert "No training pass with a loss yet." in texts(drawn(ablation.cycle({"published": [[]]})))
        assert "joint" not in texts(drawn(ablation.cycle({"published": [history(), []], "joint": [[]]})))


@pytest.fixture
def progress(tiny, tiny_settings):
    """One run of each state."""
    short = {"bits": 8, "encoder_width": 64, "decoder_width": 32, "centers": 4, "pretrain_epochs": 1, "epochs": 0}
    variants = {name: {"masking_ratio": 0.5 + 0.01 * place} for place, name in enumerate(HOSTILE[:4])}
    planned = plan({"published": {}, **variants}, [1], tiny, device="cpu", precision="float32", **short)
    evaluate_run(fit(planned[0].settings, tiny, name=planned[0].run.name, callbacks=[]), tiny, baselines=())
    states = ("done", "running", "failed", "waiting", "waiting")
    shown = [Progress(one, state) for one, state in zip(planned, states, strict=True)]
    shown[2].error = "ValueError: <script>"
    return shown


def test_the_live_table_tells_every_run_and_escapes_it(progress):
    table = sweeps.SweepTable(k=20)
    html = table.html(progress)
    assert "<img" not in html
    assert "&lt;img src=x" in html
    assert "ValueError: &lt;script&gt;" in html
    assert html.count("<tr>") == 1 + 5
    assert f"{progress[0].planned.run.metrics['methods']['WSCH']['expected'][1]:.3f}" in html
    assert sweeps.sweep_line(progress) == "1 of 5 runs done, 1 running, 2 waiting, 1 failed"


def test_without_a_notebook_each_change_is_one_line(progress, capsys):
    table = sweeps.SweepTable()
    for _ in range(3):
        table(progress)
    progress[1].state = "done"
    table(progress)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" runs")[0] for line in lines] == ["1 of 5", "2 of 5"]


def test_the_time_left_follows_from_the_passes_done(progress):
    assert sweeps.time_left(progress[:1]) == "finished"
    assert sweeps.time_left(progress) == "the time left is not known yet"
    progress[0].begun, progress[0].seconds, progress[0].passes_done = 100.0, 30.0, 1
    assert sweeps.time_left([progress[0], *progress[3:]]) == "about 1:00 left"  # two of three passes, 30 s each


def test_the_tables_tell_what_the_runs_measured(progress):
    runs = sweeps.runs_frame(progress)
    metrics = progress[0].planned.run.metrics
    assert runs.loc[0, "mAP@20"] == metrics["methods"]["WSCH"]["expected"][1]
    assert runs.loc[0, "distinct codes"] == metrics["code_health"]["distinct"] / metrics["code_health"]["videos"]
    assert runs.loc[0, "gradient passes"] == 1
    assert runs["mAP@20"].notna().tolist() == [True, False, False, False, False]
    compared = sweeps.compare_runs(runs, 20)
    assert [one.verdict for one in compared[1:]] == ["no result"] * 4
    for table in (
        sweeps.comparison_table(compared, 20), sweeps.cost_table(runs),
        sweeps.variants_table({name: {"cycle": name} for name in HOSTILE}),
    ):  # fmt: skip
        html = table.to_html()
        assert "<img" not in html
        assert "&lt;img src=x" in html
    assert list(sweeps.cost_frame(runs)["variant"]) == list(runs["variant"])


def test_a_run_whose_results_are_damaged_has_failed(progress):
    (progress[0].planned.run.folder / "metrics.json").write_text("{")
    row = sweeps.run_row(progress[0])
    assert row["state"] == "failed"
    assert "metrics.json is damaged" in row["error"]


def test_nothing_measured_is_told(progress):
    runs = sweeps.runs_frame(progress[1:])
    with pytest.raises(ValueError, match="no run has a result yet"):
        sweeps.compare_runs(runs, 20)
    with pytest.raises(ValueError, match="k is 7: it must be one of 5, 20, 40"):
        sweeps.compare_runs(sweeps.runs_frame(progress), 7)
    assert "–" in sweeps.cost_table(runs).to_html()


def test_the_table_of_variants_names_the_other_ones():
    html = sweeps.variants_table({"published": {}, "joint": {"cycle": "centers, cluster+contrast"}}).to_html()
    assert "cycle = centers, cluster+contrast" in html
    assert all(name in html for name in VARIANTS)
