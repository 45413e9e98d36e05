"""Maps of codes and features: exact neighbours, numbers that can be checked by hand, files, groups and the view's state."""

import csv
import re

import nbformat
import numpy as np
import pytest
import scipy.sparse
import torch
from conftest import TINY, VIDEOS
from shared import replace_definition
from sklearn.manifold import trustworthiness as of_sklearn

from notebooks import ROOT, SMALL, outputs, run_papermill
from wsch_core import Settings, evaluate_run, fit, load_dataset
from wsch_core.methods import METHODS
from wsch_core.retrieval.search import hamming_distances
from wsch_core.show.maps import maps
from wsch_core.show.maps.figures import map_figure, nearness, nearness_table
from wsch_core.show.maps.groups import by_class, by_duplicates, groups_by
from wsch_core.show.maps.layout import exact_neighbours, lay_out
from wsch_core.show.maps.nearness import label_share, nearest_on_map, trustworthiness
from wsch_core.show.maps.view import MapView, gallery_of


@pytest.fixture
def run(tiny):
    run = fit(Settings(**TINY | {"bits": 8}), tiny, "shown", callbacks=[])
    evaluate_run(run, tiny, baselines=())
    return run


@pytest.fixture
def setup(tiny):
    return maps.Setup(tiny, tiny.database, neighbours=4)


@pytest.fixture
def laid_out(monkeypatch):
    """Points drawn at random in place of UMAP, which compiles for half a minute; the slow test lays out by UMAP."""
    made = []

    def at_random(values, neighbours, distances, pooled, min_dist, seed):
        made.append(len(values))
        return np.random.default_rng(seed + len(made)).normal(size=(len(values), 2)).astype(np.float32)

    monkeypatch.setattr(maps, "lay_out", at_random)
    return made


class TestNumbers:
    def test_neighbours_are_the_nearest_and_begin_with_the_video_itself(self):
        codes = torch.where(torch.rand(60, 8, generator=torch.Generator().manual_seed(0)) < 0.5, 1, -1).to(torch.int8)
        indices, distances = exact_neighbours(codes, 5, seed=1)
        every = hamming_distances(codes, codes).numpy()
        assert (indices[:, 0] == np.arange(60)).all()
        assert (distances == np.take_along_axis(every, indices.astype(int), axis=1)).all()
        others = np.sort(np.where(np.eye(60, dtype=bool), 99, every), axis=1)[:, :5]
        assert (distances[:, 1:] == others).all()
        assert not np.array_equal(indices, exact_neighbours(codes, 5, seed=2)[0])  # ties fall by lot

    def test_trustworthiness_is_scikit_learns_where_nothing_ties(self):
        """Nor nearly does: float32 puts nothing into another order."""
        random = np.random.default_rng(0)
        gap = 0
        while gap < 1e-5:
            features, coordinates = (random.normal(size=(40, size)).astype(np.float32) for size in (6, 2))
            unit = features / np.linalg.norm(features, axis=1, keepdims=True)
            distances = np.linalg.norm(coordinates[:, None] - coordinates, axis=2)
            gap = min(np.diff(np.sort(values, axis=1)).min() for values in (unit @ unit.T, distances))
        features = torch.from_numpy(features)
        ours = trustworthiness(features, coordinates, 7, np.arange(40))
        assert ours == pytest.approx(of_sklearn(features.numpy(), coordinates, n_neighbors=7, metric="cosine"))

    def test_trustworthiness_of_constant_codes_is_that_of_chance(self):
        """All orders are equally true: the expected cost is that of ranks drawn at random."""
        codes, coordinates = torch.ones(101, 8, dtype=torch.int8), np.random.default_rng(0).normal(size=(101, 2))
        n, k = 101, 10
        mean_cost = sum(max(rank - k, 0) for rank in range(1, n)) / (n - 1)
        expected = 1 - k * mean_cost * 2 / (k * (2 * n - 3 * k - 1))
        assert trustworthiness(codes, coordinates, k, np.arange(n)) == pytest.approx(expected)

    def test_label_share_by_hand(self):
        labels = scipy.sparse.csr_array(np.array([[1, 0], [1, 1], [0, 1], [0, 0]]))
        share = label_share(labels, np.array([[1, 2], [0, 2], [0, 3], [0, 1]]))
        assert share[:3].tolist() == [0.5, 1.0, 0.0]
        assert np.isnan(share[3])

    def test_points_at_one_place_are_not_their_own_neighbours(self):
        near = nearest_on_map(np.zeros((6, 2)), 3)
        assert all(row not in found for row, found in enumerate(near.tolist()))


class TestMaps:
    def test_are_kept_and_used_again_until_something_changes(self, run, setup, tiny, laid_out, capsys):
        first = maps.code_map(run, setup)
        again = maps.code_map(run, setup)
        assert (first.reused, again.reused) == (False, True)
        assert np.array_equal(first.coordinates, again.coordinates)
        assert first.file == again.file
        assert "nothing has changed" in capsys.readouterr().out
        maps.code_map(run, maps.Setup(tiny, tiny.database, neighbours=5))
        run.save_codes(tiny.database, -run.load_codes()["database"].codes, run.weights)
        assert not maps.code_map(run, setup).reused
        assert len(laid_out) == 3

    def test_a_damaged_file_is_named(self, run, setup, laid_out):
        maps.feature_map(run, setup).file.write_bytes(b"x")
        with pytest.raises(OSError, match=r"features-\w+\.h5 is damaged .* remove it, and it is made again"):
            maps.feature_map(run, setup)

    def test_of_a_split_without_codes_are_encoded(self, run, tiny, laid_out):
        setup = maps.Setup(tiny, tiny.train, sample=8, neighbours=3)
        assert maps.code_map(run, setup).coordinates.shape == (8, 2)
        assert "8 of the 21 videos" in setup.sentence()
        (run.folder / "codes.h5").unlink()
        assert maps.code_map(run, maps.Setup(tiny, tiny.database)).neighbours.shape == (14, 13)

    def test_alignment_undoes_turning_mirroring_and_scaling(self, run, setup, laid_out):
        first = maps.code_map(run, setup)
        turn = np.array([[0.6, -0.8], [-0.8, -0.6]])
        moved = maps.replace(first, coordinates=(first.coordinates @ turn * 3 + 5).astype(np.float32))
        assert np.allclose(maps.aligned([first, moved])[1].coordinates, first.coordinates, atol=1e-4)

    def test_what_nobody_asked_for_is_left_out_where_it_cannot_be_made(self, tiny, setup, laid_out, capsys):
        """16 bits are more than these features have directions."""
        run = fit(Settings(**TINY), tiny, "wide", callbacks=[])
        assert [shown.title for shown in maps.compared_maps([], run, setup)] == ["LSH, 16 bits"]
        assert re.search(r"ITQ is left out: .* Shown is LSH\.", capsys.readouterr().out)
        with pytest.raises(ValueError, match="needs 16"):
            maps.compared_maps(["ITQ"], run, setup)

    def test_of_a_run_of_another_method(self, tiny, run, setup, laid_out):
        peer = fit(
            METHODS["ssvh"].Settings("tiny", bits=8, epochs=1, neighbours=4, reach=2), tiny, "peer", callbacks=[]
        )
        found = maps.compared_maps(["peer", "LSH"], run, setup)
        assert [other.title for other in found] == ["SSVH, 8 bits, peer", "LSH, 8 bits"]
        beside = gallery_of(peer, tiny, "database")()
        assert [*beside.methods] == ["SSVH, 8 bits (peer)"]

    def test_of_other_methods(self, run, setup, laid_out):
        found = maps.compared_maps([], run, setup)
        assert [other.title for other in found] == ["ITQ, 8 bits"]
        with pytest.raises(ValueError, match="'nosuch' is not a known run"):
            maps.compared_maps(["nosuch"], run, setup)

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [({"sample": -1}, "sample is -1"), ({"neighbours": 1}, "neighbours is 1"), ({"min_dist": 2.0}, "min_dist is 2.0"),
         ({"sample": 2}, "a map of 2 videos shows nothing")],
    )  # fmt: skip
    def test_what_no_map_can_be_made_with_is_refused(self, tiny, options, complaint):
        with pytest.raises(ValueError, match=complaint):
            maps.Setup(tiny, tiny.database, **options)


class TestGroups:
    def test_frequent_classes_have_colours_and_the_rest_is_grey(self):
        labels = scipy.sparse.csr_array(np.eye(13)[[*range(13), *range(1, 11)]])
        groups = by_class(labels, [f"class {number}" for number in range(13)])
        assert groups.names == [*(f"class {number}" for number in range(1, 11)), "other or no class"]
        assert groups.counts.tolist() == [2] * 10 + [3]
        assert groups.grey == 10

    def test_chosen_classes_are_coloured_instead(self):
        labels = scipy.sparse.csr_array(np.eye(13)[[*range(13), *range(1, 11)]])
        classes = [f"class {number}" for number in range(13)]
        groups = by_class(labels, classes, ["class 12", "class 3"])
        assert groups.names == ["class 12", "class 3", "other or no class"]
        assert groups.counts.tolist() == [1, 2, 20]
        with pytest.raises(ValueError, match=r"'class 33' is not a known class: did you mean 'class 3'\?"):
            by_class(labels, classes, ["class 33"])
        with pytest.raises(ValueError, match="classes names 11 classes: there are colours for 10"):
            by_class(labels, classes, classes[:11])

    def test_duplicates_are_counted(self):
        codes = np.array([[1, 1], [1, 1], [-1, 1], [1, -1], [1, -1], [1, -1]])
        groups = by_duplicates(codes)
        assert [groups.names[group] for group in groups.of] == ["2 videos"] * 2 + ["one of a kind"] + [
            "3 to 9 videos"
        ] * 3

    def test_without_labels_all_are_grey(self, tiny_folder, run, laid_out):
        replace_definition(tiny_folder, 'labels = "database.mat"', "")
        tiny = load_dataset("tiny")
        setup = maps.Setup(tiny, tiny.database)
        codes = run.load_codes()["database"][0]
        shown = maps.code_map(run, setup)
        groups = groups_by("class", setup, codes, shown)
        assert (groups.names, groups.grey) == (["videos"], 0)
        with pytest.raises(ValueError, match="colour_by is 'agreement', but tiny's database split has no labels"):
            groups_by("agreement", setup, codes, shown)
        numbers = nearness([shown], setup.labels)
        assert "no labels" in nearness_table(numbers).to_html()
        assert map_figure([shown], groups, numbers)._repr_png_()[:4] == b"\x89PNG"


class TestView:
    @pytest.fixture
    def view(self, tiny, run, setup, laid_out):
        pair = [maps.code_map(run, setup), maps.feature_map(run, setup)]
        groups = groups_by("class", setup, run.load_codes()["database"][0], pair[0])
        return MapView(pair, groups, setup, run.folder, gallery_of(run, tiny, "database"))

    def test_every_map_fills_its_square_and_keeps_its_shape(self, view):
        points = np.frombuffer(view.points.points, np.uint16).reshape(2, VIDEOS["database"], 2) / 65_535
        for sent, shown in zip(points, view.maps, strict=True):
            extent = np.ptp(shown.coordinates, axis=0)
            assert np.ptp(sent, axis=0).max() == pytest.approx(0.94, abs=1e-4)
            assert np.allclose(np.ptp(sent, axis=0) / 0.94, extent / extent.max(), atol=1e-4)
        assert view.points.titles == ["WSCH, 8 bits", "mean features"]

    def test_pointing_shows_the_video(self, view, tiny):
        view._on_message(None, {"hover": 3}, None)
        assert (view.points.detail["id"], view.points.detail["labels"]) == ("database/3", "ant")
        for nonsense in (-1, 99, "3", None):
            view._on_message(None, {"hover": nonsense}, None)
        assert view.points.detail["id"] == "database/3"

    def test_chosen_ids_are_exported_and_opened(self, view):
        for act in (view.export, view.open):
            view._try(act)
            assert "no videos are chosen" in view.said.value
        view._on_message(None, {"select": [2, 5, 99]}, None)
        first, second = view.export(), view.export()
        assert (first.name, second.name) == ("chosen-1.csv", "chosen-2.csv")  # none is overwritten
        rows = list(csv.DictReader(second.read_text().splitlines()))
        assert [(row["id"], row["labels"]) for row in rows] == [("database/2", "cat"), ("database/5", "cat")]
        view.open()
        assert len(view.below.children) == 1
        assert "2 videos are the queries" in view.said.value

    def test_a_folder_that_cannot_be_written_is_said(self, view):
        (view.folder / "maps").rename(view.folder / "away")
        (view.folder / "maps").write_text("in the way")
        view._on_message(None, {"select": [2]}, None)
        view._try(view.export)
        assert "maps" in view.said.value
        assert "✗" in view.said.value

    @pytest.mark.parametrize(
        "message",
        [
            None, [], "select", 5, {}, {"select": None}, {"select": 5}, {"select": {"a": 1}}, {"select": "123"},
            {"select": [[1], {}, None, True, 1.0, "1", -1, 99, 10**30]}, {"hover": []}, {"hover": True}, {"hover": -1},
        ],
    )  # fmt: skip
    def test_messages_that_no_pointer_sends_choose_nothing(self, view, message):
        view._on_message(None, message, None)
        assert not view.chosen
        view._on_message(None, {"select": [2, 5, 2, 2]}, None)
        assert view.chosen == [2, 5]  # each once

    def test_a_folder_that_leads_elsewhere_is_neither_read_nor_written(self, view, run, setup):
        outside = (view.folder / "maps").rename(view.folder.parent / "outside")
        (view.folder / "maps").symlink_to(outside)
        before = sorted(outside.iterdir())
        view._on_message(None, {"select": [2]}, None)
        for act in (view.export, lambda: maps.code_map(run, setup)):
            with pytest.raises(OSError, match="maps is a link that leaves its folder"):
                act()
        assert sorted(outside.iterdir()) == before

    def test_where_the_training_set_is_the_database(self, tiny_folder, run, laid_out):
        replace_definition(tiny_folder, 'features = "database.h5"\nlabels = "database.mat"', 'same_as = "train"')
        tiny = load_dataset("tiny")
        evaluate_run(run, tiny, baselines=())
        (run.folder / "weights.safetensors").unlink()  # codes must be found, not made
        setup = maps.Setup(tiny, tiny.database, neighbours=4)
        shown = maps.code_map(run, setup)
        groups = groups_by("class", setup, maps.mapped_codes(run, setup), shown)
        view = MapView([shown], groups, setup, run.folder, gallery_of(run, tiny, "database"))
        view._on_message(None, {"select": [0, 20]}, None)
        view.open()
        assert "2 videos are the queries" in view.said.value

    def test_train_videos_open_in_no_gallery(self, tiny, run):
        assert gallery_of(run, tiny, "train") is None


@pytest.mark.slow
class TestLayout:
    """By UMAP itself."""

    @pytest.fixture
    def pooled(self):
        """Features of four classes, far apart."""
        random = np.random.default_rng(0)
        return torch.from_numpy((np.eye(8)[np.arange(240) % 4] * 9 + random.normal(size=(240, 8))).astype(np.float32))

    def lay_out(self, codes, pooled):
        return lay_out(codes, *exact_neighbours(codes, 10, 0), pooled, 0.1, 0)

    def test_is_the_same_for_the_same_seed(self, pooled):
        codes = torch.where(pooled > 4, 1, -1).to(torch.int8)  # four different codes, 60 videos each
        first = self.lay_out(codes, pooled)
        assert np.isfinite(first).all()
        assert np.array_equal(first, self.lay_out(codes, pooled))

    def test_shows_nothing_that_the_codes_do_not_hold(self, pooled):
        """The start is the features' own; random codes end with neighbours on the map that are no better than chance."""
        random = torch.randint(0, 2, (240, 64), generator=torch.Generator().manual_seed(0), dtype=torch.int8) * 2 - 1
        labels = scipy.sparse.csr_array(np.eye(4)[np.arange(240) % 4])
        of_features, of_noise = (self.lay_out(values, pooled) for values in (pooled, random))
        assert label_share(labels, nearest_on_map(of_features, 10)).mean() > 0.95
        assert label_share(labels, nearest_on_map(of_noise, 10)).mean() < 0.32

    @pytest.mark.parametrize("videos", [3, 5])
    def test_of_constant_codes_and_few_videos_is_finite(self, videos):
        codes = torch.ones(videos, 8, dtype=torch.int8)
        coordinates = lay_out(codes, *exact_neighbours(codes, videos - 1, 0), torch.ones(videos, 4), 0.1, 0)
        assert coordinates.shape == (videos, 2)
        assert np.isfinite(coordinates).all()


@pytest.mark.slow
def test_the_notebook_maps_by_umap(tiny_folder, tmp_path):
    done = run_papermill(ROOT / "notebooks", "train.ipynb", tmp_path / "train.ipynb", SMALL | {"run": "small"})
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out.ipynb"
    done = run_papermill(ROOT, "notebooks/umap.ipynb", out, {"neighbours": 4})
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "small"
    assert {path.name for path in (folder / "figures").glob("map*-database.png")} == {
        "map-database.png",
        "maps-database.png",
    }
    assert len(list((folder / "maps").glob("database-*.h5"))) == 3
    assert sum("image/png" in output.get("data", {}) for output in outputs(nbformat.read(out, as_version=4))) == 2
    assert out.stat().st_size < 2e6
