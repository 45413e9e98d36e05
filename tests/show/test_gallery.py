"""The gallery's state, its cards and its page; the widgets themselves are used in test_browser.py."""

import csv
import re
from types import SimpleNamespace

import h5py
import nbformat
import numpy as np
import pytest
import scipy.io
import torch
from conftest import CLASSES, FRAMES, SIZE, TINY, VIDEOS
from shared import replace_definition

from notebooks import ROOT, SMALL, outputs, run_papermill
from wsch_core import Settings, evaluate_run, fit, load_dataset
from wsch_core.retrieval.metrics import evaluate
from wsch_core.retrieval.search import nearest
from wsch_core.show.gallery.cards import Films, content
from wsch_core.show.gallery.gallery import Gallery, Place, method_of_run, methods_for
from wsch_core.show.gallery.page import some_queries, write_page
from wsch_core.show.gallery.view import GalleryView

SETTINGS = Settings(**TINY | {"bits": 8})
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture
def run(tiny):
    run = fit(SETTINGS, tiny, "shown", callbacks=[])
    evaluate_run(run, tiny, baselines=())
    return run


@pytest.fixture
def gallery(tiny, run):
    return Gallery(tiny, methods_for(run, tiny), k=5)


def only(gallery):
    return next(iter(gallery.methods))


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def rows(gallery):
    return [place.row for place in gallery.queries]


class TestResults:
    def test_are_the_nearest_by_the_search_that_metrics_use(self, gallery, tiny, run):
        codes = run.load_codes()
        found, distances = nearest(codes["query"][0], codes["database"][0], 5)
        for query in range(VIDEOS["query"]):
            gallery.go(Place("query", query))
            results = gallery.results(only(gallery))
            assert [result.row for result in results] == found[query].tolist()
            assert [result.distance for result in results] == distances[query].tolist()
            assert [result.rank for result in results] == [1, 2, 3, 4, 5]
            same = [row % CLASSES == query % CLASSES for row in found[query].tolist()]
            assert [result.relevant for result in results] == same

    def test_more_than_there_are(self, gallery):
        gallery.k = 99
        assert len(gallery.results(only(gallery))) == VIDEOS["database"]

    def test_filters_keep_ranks(self, gallery):
        gallery.k = VIDEOS["database"]
        every = gallery.results(only(gallery))
        gallery.only_misses = True
        misses = gallery.results(only(gallery))
        assert misses == [result for result in every if not result.relevant]
        gallery.only_misses, gallery.only_class = False, "bee"
        assert gallery.results(only(gallery)) == [result for result in every if result.row % CLASSES == 1]

    def test_a_database_video_finds_itself_only_on_request(self, gallery):
        gallery.go(Place("database", 3))
        gallery.k = VIDEOS["database"]
        assert 3 not in [result.row for result in gallery.results(only(gallery))]
        gallery.self_match = True
        found = gallery.results(only(gallery))
        assert found[[result.row for result in found].index(3)].distance == 0


class TestQueries:
    def test_worst_and_best_first_go_by_their_own_ap(self, gallery, tiny, run):
        codes = run.load_codes()
        labels = tiny.query.labels, tiny.database.labels
        precision = evaluate(codes["query"][0], codes["database"][0], *labels, ks=(5,)).per_query_expected[:, 0]
        gallery.order("worst first")
        assert precision[rows(gallery)].tolist() == sorted(precision)
        gallery.order("best first")
        assert precision[rows(gallery)].tolist() == sorted(precision, reverse=True)

    def test_of_a_class_and_at_random(self, gallery):
        gallery.order("in order", "bee")
        assert rows(gallery) == [1, 4]
        gallery.order("at random")
        assert sorted(rows(gallery)) == list(range(VIDEOS["query"]))
        with pytest.raises(ValueError, match="order is 'x': it must be one of"):
            gallery.order("x")

    def test_steps_go_round_and_the_trail_leads_back(self, gallery):
        gallery.step(-1)
        assert gallery.query == Place("query", 4)
        gallery.step(1)
        gallery.go(Place("database", 7))
        assert gallery.position is None
        gallery.step(1)
        assert (gallery.query, gallery.position) == (Place("query", 0), 1)
        for expected in (Place("database", 7), Place("query", 0), Place("query", 4), Place("query", 0)):
            gallery.back()
            assert gallery.query == expected
        gallery.back()
        assert gallery.query == Place("query", 0)

    def test_by_id(self, gallery):
        assert gallery.place_of("database/3") == Place("database", 3)
        with pytest.raises(ValueError, match="'query/44' is not a video of tiny: did you mean 'query/4'"):
            gallery.place_of("query/44")


class TestFromOutside:
    @pytest.fixture
    def path(self, tmp_path, tiny):
        path = tmp_path / "one.h5"
        with h5py.File(path, "w") as file:
            file["feats"] = tiny.database.features.read([6])[0].numpy()
        return path

    def test_a_copy_of_a_video_finds_it(self, gallery, path):
        gallery.bring(path)
        assert gallery.results(only(gallery))[0].distance == 0
        assert gallery.results(only(gallery))[0].relevant is None
        shown = content(gallery, Films(gallery.splits))
        assert (shown["query"]["id"], shown["query"]["where"]) == ("one.h5", "from outside")
        assert shown["panels"][0]["summary"] == "5 shown, labels not known"

    def test_baselines_take_it_as_well(self, tiny, run, path):
        gallery = Gallery(tiny, methods_for(run, tiny, "LSH"))
        gallery.bring(path)
        assert [gallery.results(method)[0].distance for method in gallery.methods] == [0, 0]

    @pytest.mark.parametrize(
        ("values", "complaint"),
        [
            (np.zeros((3, 5), np.float32), rf"shape \(3, 5\): a video must be .* shape \(frames, {SIZE}\)"),
            (np.zeros((2, 3, SIZE), np.float32), r"shape \(2, 3, 12\)"),
            (np.zeros((3, SIZE), int), "int64 of shape"),
            (np.full((3, SIZE), np.nan, np.float32), "NaN or infinite"),
        ],
    )
    def test_what_is_no_video_is_refused(self, gallery, tmp_path, values, complaint):
        with h5py.File(tmp_path / "bad.h5", "w") as file:
            file["x"] = values
        before = gallery.query
        with pytest.raises(ValueError, match=rf"bad\.h5 holds (.*){complaint}"):
            gallery.bring(tmp_path / "bad.h5")
        assert gallery.query == before

    def test_a_missing_or_empty_file_is_named(self, gallery, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.h5 is missing"):
            gallery.bring(tmp_path / "none.h5")
        h5py.File(tmp_path / "empty.h5", "w").close()
        with pytest.raises(ValueError, match=r"empty\.h5 holds no data set"):
            gallery.bring(tmp_path / "empty.h5")


class TestCodes:
    def test_of_another_network_or_of_other_features_are_made_anew(self, tiny, run):
        codes, weights = run.load_codes()["database"].codes, run.weights
        run.save_codes(tiny.database, -codes, "another")
        assert torch.equal(method_of_run(run, tiny).database, codes)
        other = SimpleNamespace(name="database", ids=tiny.database.ids, fingerprint="another")
        run.save_codes(other, -codes, weights)
        assert torch.equal(method_of_run(run, tiny).database, codes)

    def test_are_made_where_the_run_has_none(self, tiny, run):
        before = method_of_run(run, tiny)
        (run.folder / "codes.h5").unlink()
        assert torch.equal(method_of_run(run, tiny).query, before.query)

    def test_of_another_data_set_are_refused(self, tiny, run, tiny_folder):
        (tiny_folder.parent / "other.toml").write_text(
            'folder = "tiny"\n' + (tiny_folder.parent / "tiny.toml").read_text()
        )
        with pytest.raises(ValueError, match="run shown was trained on tiny, but the gallery shows other"):
            method_of_run(run, load_dataset("other"))


class TestCards:
    def test_ties_are_bracketed(self, gallery):
        gallery.k = VIDEOS["database"]
        for panel in content(gallery, Films(gallery.splits))["panels"]:
            text = "".join({"": ".", "start": "(", "middle": "-", "end": ")"}[card["tie"]] for card in panel["cards"])
            assert re.fullmatch(r"(\.|\(-*\))*", text)
            distances = [card["distance"] for card in panel["cards"]]
            alone = [distances.count(distance) == 1 for distance in distances]
            assert [mark == "." for mark in text] == alone

    def test_bits_differ_as_often_as_the_distance_says(self, gallery):
        panel = content(gallery, Films(gallery.splits))["panels"][0]
        for card in panel["cards"]:
            assert sum(a != b for a, b in zip(card["bits"], panel["bits"], strict=True)) == card["distance"]

    def test_pictures_go_by_id_and_are_made_once(self, tiny_folder, run, monkeypatch):
        for name, videos in VIDEOS.items():
            with h5py.File(tiny_folder / f"{name}.h5", "r+") as file:
                shade = np.arange(videos, dtype=np.uint8) * 10
                file["keyframes"] = np.broadcast_to(shade[:, None, None, None, None], (videos, FRAMES, 4, 6, 3))
        tiny = load_dataset("tiny")
        gallery = Gallery(tiny, methods_for(run, tiny), k=5)
        films = Films(gallery.splits)
        first = content(gallery, films)
        different = {card["film"]["source"] for card in first["panels"][0]["cards"]}
        assert len(different) == 5
        assert first["query"]["film"]["moving"]
        monkeypatch.setattr("wsch_core.show.gallery.cards.film", None)  # nothing is made again
        assert content(gallery, films) == first

    def test_without_labels_nothing_is_a_hit(self, tiny_folder, run):
        replace_definition(tiny_folder, 'labels = ["query.mat"]', "")
        tiny = load_dataset("tiny")
        gallery = Gallery(tiny, methods_for(run, tiny))
        assert {result.relevant for result in gallery.results(only(gallery))} == {None}
        with pytest.raises(ValueError, match="no labels, so no query is better or worse"):
            gallery.order("worst first")

    def test_a_query_without_a_label_has_no_misses(self, tiny_folder, run):
        path = tiny_folder / "query.mat"
        labels = scipy.io.loadmat(path)["labels"]
        labels[0] = 0
        scipy.io.savemat(path, {"labels": labels})
        tiny = load_dataset("tiny")
        gallery = Gallery(tiny, methods_for(run, tiny))
        ids = tiny.query.ids
        for query, expected in ((ids[0], {None}), (ids[1], {True, False})):
            gallery.go(gallery.place_of(query))
            assert {result.relevant for result in gallery.results(only(gallery))} == expected


class TestView:
    @pytest.fixture
    def view(self, gallery, run):
        return GalleryView(gallery, run.folder)

    def test_controls_change_what_is_shown(self, view):
        view.k.value = 3
        assert len(view.cards.content["panels"][0]["cards"]) == 3
        view.order.value = "worst first"
        assert "answered in" in view.said.value
        view.of_class.value = "cat"
        assert rows(view.gallery) == [2]
        row = view.cards.content["panels"][0]["cards"][1]["row"]
        view._on_message(None, {"query": row}, None)
        assert view.cards.content["query"]["id"] == f"database/{row}"

    def test_what_cannot_be_done_is_said_and_changes_nothing(self, view):
        before = view.cards.content
        view.id.value = MARKUP
        assert "&lt;img" in view.said.value
        assert "<img" not in view.said.value
        view.file.value = "nowhere.h5"
        assert "nowhere.h5 is missing" in view.said.value
        for row in (-1, 99, "0", None, True):
            view._on_message(None, {"query": row}, None)
        assert view.cards.content == before

    def test_ticked_cards_are_exported(self, view, run):
        panel = view.cards.content["panels"][0]
        written = read_csv(view.export())
        assert [row["id"] for row in written] == [card["id"] for card in panel["cards"]]
        card = panel["cards"][2]
        view._on_message(None, {"choose": [panel["method"], card["id"]], "on": True}, None)
        (row,) = read_csv(view.export())
        assert (row["query"], row["id"], row["distance"]) == ("query/0", card["id"], str(card["distance"]))
        view._on_message(None, {"choose": [panel["method"], card["id"]], "on": False}, None)
        assert len(read_csv(view.export())) == 5

    @pytest.mark.parametrize(
        "message",
        [
            None, [], "choose", 5, {}, {"choose": [1, 2]}, {"choose": [1, 2], "on": True}, {"choose": 7, "on": True},
            {"choose": ["a"], "on": True}, {"choose": ["a", "b", "c"], "on": True}, {"choose": {"a": "b"}, "on": True},
            {"choose": ["\n", "\n"], "on": True}, {"choose": [[], {}], "on": True}, {"choose": None, "on": False},
            {"query": []}, {"query": {}}, {"query": 1e300}, {"query": 10**30}, {"query": None, "choose": [1]}, {"on": True},
            {"choose": ["a", "b"]}, {"choose": ["a", "b"], "on": "yes"},
        ],
    )  # fmt: skip
    def test_messages_that_no_click_sends_change_nothing(self, view, message):
        before = view.cards.content
        view._on_message(None, message, None)
        assert view.cards.content == before
        assert not view.chosen
        panel = before["panels"][0]
        for _ in range(2):  # and a tick works after it, and counts once
            view._on_message(None, {"choose": [panel["method"], panel["cards"][0]["id"]], "on": True}, None)
        assert len(view.cards.chosen) == 1
        assert len(read_csv(view.export())) == 1

    def test_texts_that_a_spreadsheet_would_compute_stay_texts(self, tiny_folder, run):
        replace_definition(tiny_folder, '"ant"', '"=1+1"')
        tiny = load_dataset("tiny")
        written = read_csv(GalleryView(Gallery(tiny, methods_for(run, tiny)), run.folder).export())
        labels = {row["labels"] for row in written}
        assert "'=1+1" in labels
        assert not any(label.startswith("=") for label in labels)
        assert all(row["distance"].isdecimal() for row in written)

    def test_a_folder_that_leads_elsewhere_is_not_written_to(self, view, run, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (run.folder / "gallery").symlink_to(outside)
        with pytest.raises(OSError, match="gallery is a link that leaves its folder"):
            view.export()
        assert not any(outside.iterdir())
        assert "is a link" in view.said.value


class TestPage:
    def test_needs_nothing_else_and_shows_text_as_text(self, tiny_folder, run, tmp_path):
        replace_definition(tiny_folder, '"ant"', f'"{MARKUP}"')
        tiny = load_dataset("tiny")
        gallery = Gallery(tiny, methods_for(run, tiny, "LSH"), k=4)
        page = write_page(gallery, some_queries(gallery, 3), tmp_path / "page.html", MARKUP).read_text()
        assert "<img" not in page
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
        assert not re.search(r"(src|href)=|https?://|<script|url\((?!data:)", page.replace("src=x", ""))
        assert page.count('class="card ') == 3 * 2 * 4
        assert gallery.query == Place("query", 0)

    def test_large_pictures_are_made_smaller(self, tiny_folder, run, tmp_path, monkeypatch):
        for name, videos in VIDEOS.items():
            with h5py.File(tiny_folder / f"{name}.h5", "r+") as file:
                noise = np.random.default_rng(0).integers(0, 255, (videos, FRAMES, 150, 200, 3), np.uint8)
                file["keyframes"] = noise
        tiny = load_dataset("tiny")
        gallery = Gallery(tiny, methods_for(run, tiny), k=14)
        whole = write_page(gallery, [0, 1], tmp_path / "a.html", "a").stat().st_size
        monkeypatch.setattr("wsch_core.show.gallery.page.LARGEST", whole // 3)
        assert write_page(gallery, [0, 1], tmp_path / "b.html", "b").stat().st_size <= whole // 3

    def test_no_more_queries_than_there_are(self, gallery):
        assert some_queries(gallery, 99) == list(range(VIDEOS["query"]))


@pytest.mark.slow
def test_the_notebook_leaves_a_figure_and_a_page(tiny_folder, tmp_path):
    done = run_papermill(ROOT / "notebooks", "train.ipynb", tmp_path / "train.ipynb", SMALL | {"run": "small"})
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out.ipynb"
    done = run_papermill(ROOT, "notebooks/gallery.ipynb", out, {"compare_run": "LSH", "queries": 3})
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "small"
    assert (folder / "figures" / "gallery.png").stat().st_size > 10_000
    assert (folder / "gallery.html").read_text().count('class="row"') == 3
    assert out.stat().st_size < 2e6
    assert "image/png" in "".join(map(str, outputs(nbformat.read(out, as_version=4))))
