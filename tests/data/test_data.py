import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from conftest import CLASSES, DEFINITION, FRAMES, SIZE, VIDEOS, write_split
from shared import replace_definition, rewrite

from wsch_core import settings_for
from wsch_core.data import list_definitions, load_dataset, load_definition
from wsch_core.data.features import Features, directions
from wsch_core.data.labels import read_labels


def test_reads_what_was_written(tiny, tiny_folder):
    assert {name: len(split) for name, split in tiny.splits.items()} == VIDEOS
    with h5py.File(tiny_folder / "query.h5") as file:
        assert np.array_equal(tiny.query.features.tensor, file["feats"])
    assert tiny.query.labels.toarray().tolist() == np.eye(3)[[0, 1, 2, 0, 1]].tolist()
    assert tiny.query.ids == [f"query/{row}" for row in range(5)]
    assert tiny.query.label_names(4) == "bee"
    assert tiny.query.keyframes([0]) is None
    assert (tiny.frames, tiny.feature_size, tiny.queries_are_database) == (FRAMES, SIZE, False)


def test_several_files_for_a_split(tiny_folder):
    for part, videos in (("a", 5), ("b", 4)):
        write_split(tiny_folder, part, videos, seed=9)
        with h5py.File(tiny_folder / f"{part}.h5", "r+") as file:
            file["ids"] = [f"{part}{row}" for row in range(videos)]
            file["keyframes"] = np.full((videos, FRAMES, 4, 4), ord(part), np.uint8)
    replace_definition(
        tiny_folder, '"database.h5"\nlabels = "database.mat"', '["a.h5", "b.h5"]\nlabels = ["a.mat", "b.mat"]'
    )
    database = load_dataset("tiny").database
    assert len(database) == database.labels.shape[0] == 9
    assert database.ids[4:6] == ["a4", "b0"]
    assert database.keyframes([6, 0])[:, 0, 0, 0].tolist() == [ord("b"), ord("a")]


def test_queries_may_be_the_database(tiny_folder):
    replace_definition(tiny_folder, 'features = ["query.h5"]\nlabels = ["query.mat"]', 'same_as = "database"')
    dataset = load_dataset("tiny")
    assert dataset.query is dataset.database
    assert dataset.queries_are_database


def test_gather_reads_the_chosen_frames():
    features = Features(torch.arange(4 * 5 * 3.0).view(4, 5, 3))
    videos, frames = torch.tensor([2, 0]), torch.tensor([[1, 4], [0, 2]])
    expected = torch.stack([features.tensor[2, [1, 4]], features.tensor[0, [0, 2]]])
    assert torch.equal(features.gather(videos, frames), expected)


def test_direction_sums_equal_their_definition(tiny):
    frames = tiny.train.features.tensor
    expected = torch.stack([sum(f / f.norm() for f in video) for video in frames])
    torch.testing.assert_close(tiny.train.features.direction_sums, expected)
    assert directions(torch.zeros(1, 3)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("form", ["dense", "sparse", "float", "transposed", "v7.3", "v7.3 sparse"])
def test_label_files_of_every_form(tmp_path, form):
    expected = (np.random.default_rng(0).random((7, 3)) < 0.4).astype(np.uint8)
    path = tmp_path / "labels.mat"
    sparse = scipy.sparse.csc_array(expected.astype(float))
    if form == "v7.3":
        with h5py.File(path, "w", userblock_size=512) as file:
            file["labels"] = expected.T
    elif form == "v7.3 sparse":
        with h5py.File(path, "w", userblock_size=512) as file:
            group = file.create_group("labels")
            group["data"], group["ir"], group["jc"] = sparse.data, sparse.indices, sparse.indptr
            group.attrs["MATLAB_sparse"] = 7
    else:
        made = {"dense": expected, "sparse": sparse, "float": expected.astype(float), "transposed": expected.T}[form]
        scipy.io.savemat(path, {"labels": made})
    assert read_labels(path, "labels", 7, 3).toarray().tolist() == expected.tolist()


def test_unknown_data_set_lists_the_known(tiny_folder):
    with pytest.raises(ValueError, match=r"'tinny' is not a known data set: did you mean 'tiny'\? Known are tiny"):
        load_dataset("tinny")
    assert list_definitions()["tiny"].parent == tiny_folder.parent


FEATURE_FAULTS = {
    "missing": (lambda path: path.unlink(), FileNotFoundError, r"train\.h5 is missing: put the file there"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-3000]), OSError, r"train\.h5 cannot be read as HDF5 \(it is cut off"),
    "no HDF5": (lambda path: path.write_text("hello"), OSError, r"train\.h5 cannot be read as HDF5 \(it is not HDF5"),
    "wrong name": (
        lambda path: h5py.File(path, "r+").move("feats", "features"), ValueError,
        r"train\.h5 has no dataset 'feats'; it holds features: name the right one as features_key",
    ),
    "wrong rank": (lambda path: rewrite(path, "feats", lambda a: a[0]), ValueError, r"shape \(10, 12\), but features are \(videos, frames, feature size\)"),
    "wrong size": (lambda path: rewrite(path, "feats", lambda a: a[..., :11]), ValueError, r"shape \(21, 10, 11\), but the definition says \(videos, 10, 12\)"),
    "wrong type": (lambda path: rewrite(path, "feats", lambda a: a.astype(int)), ValueError, r"holds int64"),
    "no videos": (lambda path: rewrite(path, "feats", lambda a: a[:0]), ValueError, r"holds no videos"),
    "only zeros": (lambda path: rewrite(path, "feats", np.zeros_like), ValueError, r"train\.h5: all features of all 21 videos are 0"),
    "NaN": (lambda path: rewrite(path, "feats", spoil), ValueError, r"2 of 21 videos hold NaN or infinite features \(rows 3, 20, counted from 0\)"),
}  # fmt: skip


def spoil(features):
    features[3, 2, 1], features[20, 0, 0] = np.nan, -np.inf
    return features


@pytest.mark.parametrize("fault", FEATURE_FAULTS)
def test_a_faulty_feature_file_gets_one_clear_sentence(tiny_folder, fault):
    damage, kind, sentence = FEATURE_FAULTS[fault]
    damage(tiny_folder / "train.h5")
    with pytest.raises(kind, match=sentence) as caught:
        load_dataset("tiny").train.features  # noqa: B018 (reading is the test)
    assert "\n" not in str(caught.value)


def test_of_several_files_the_missing_and_the_disagreeing_are_named(tiny_folder):
    for part in "abc":
        write_split(tiny_folder, part, 4, seed=9)
    replace_definition(
        tiny_folder, 'features = ["train.h5"]\nlabels = ["train.mat"]', 'features = ["a.h5", "b.h5", "c.h5"]'
    )
    assert len(load_dataset("tiny").train) == 12
    rewrite(tiny_folder / "c.h5", "feats", lambda a: a[:, :, :5])
    with pytest.raises(ValueError, match=r"a\.h5 and c\.h5 in .*tiny hold videos of .* \(10, 12\) and \(10, 5\)"):
        load_dataset("tiny").train.features  # noqa: B018
    (tiny_folder / "b.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds 2 of 3 feature files; missing: b\.h5: put them there"):
        load_dataset("tiny").train.features  # noqa: B018


class TestSurplusColumns:
    """Label files of 81 columns beside query labels of 80 are about."""

    @pytest.fixture
    def wider(self, tiny_folder):
        labels = np.insert(np.eye(3)[[0, 1, 2, 0, 1]], 1, 0, axis=1)  # column 1 is no class
        scipy.io.savemat(tiny_folder / "query.mat", {"labels": labels})
        return tiny_folder

    def test_are_explained(self, wider):
        with pytest.raises(
            ValueError,
            match=r"query\.mat: 'labels' has 4 columns, but the definition says 3 classes \(columns without any label: 1, counted from 0\): name the surplus ones in labels_drop_columns",
        ):
            load_dataset("tiny").query.labels  # noqa: B018

    @pytest.mark.parametrize("columns", [1, 2])
    def test_are_dropped_on_request(self, wider, columns):
        replace_definition(wider, '["query.mat"]', f'["query.mat"]\nlabels_drop_columns = [{columns}]')
        left = [column for column in range(4) if column != columns]
        assert np.array_equal(load_dataset("tiny").query.labels.toarray(), np.eye(4)[[0, 2, 3, 0, 2]][:, left])

    @pytest.mark.parametrize(("columns", "complaint"), [
        ("[4]", "has 4 columns, of which labels_drop_columns names"), ("[0, 1]", "definition says 3 classes"),
        ("1", r"labels_drop_columns is 1: it must be a list"), ("[-1]", r"it must be a list of column numbers from 0"),
    ])  # fmt: skip
    def test_only_those_that_are_there(self, wider, columns, complaint):
        replace_definition(wider, '["query.mat"]', f'["query.mat"]\nlabels_drop_columns = {columns}')
        with pytest.raises(ValueError, match=complaint):
            load_dataset("tiny").query.labels  # noqa: B018


LABEL_FAULTS = {
    "missing": (lambda path: path.unlink(), FileNotFoundError, r"query\.mat is missing"),
    "no MATLAB file": (lambda path: path.write_text("hello" * 100), OSError, r"query\.mat cannot be read as a MATLAB file"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:150]), OSError, r"query\.mat cannot be read as a MATLAB file"),
    "wrong name": (lambda path: scipy.io.savemat(path, {"y": np.eye(5, 3)}), ValueError, r"no variable 'labels'; it holds y"),
    "too few rows": (lambda path: scipy.io.savemat(path, {"labels": np.eye(4, 3)}), ValueError, r"shape \(4, 3\), but its feature file holds 5 videos"),
    "too many classes": (lambda path: scipy.io.savemat(path, {"labels": np.eye(5, 4)}), ValueError, r"has 4 columns, but the definition says 3 classes"),
    "not multi-hot": (lambda path: scipy.io.savemat(path, {"labels": np.eye(5, 3) * 2}), ValueError, r"values other than 0 and 1"),
    "text": (lambda path: scipy.io.savemat(path, {"labels": np.array([["abc"]])}), ValueError, r"holds text, but labels must be numbers"),
}  # fmt: skip


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_a_faulty_label_file_gets_one_clear_sentence(tiny_folder, fault):
    damage, kind, sentence = LABEL_FAULTS[fault]
    damage(tiny_folder / "query.mat")
    with pytest.raises(kind, match=sentence):
        load_dataset("tiny").query.labels  # noqa: B018


DEFINITION_FAULTS = {
    "not TOML": ("frames = 10", "frames =", r"tiny\.toml is not a TOML file"),
    "misspelt field": ("frames =", "frmes =", r"'frmes' is not a known field: did you mean 'frames'\?"),
    "misspelt in a split": ("[train]\nfeatures", "[train]\nfetures", r"\[train\] 'fetures' is not a known field: did you mean 'features'"),
    "missing": ("frames = 10", "", r"frames is missing: it must be a whole number"),
    "wrong type": ("frames = 10", 'frames = "ten"', r"frames is 'ten': it must be a whole number"),
    "zero": ("frames = 10", "frames = 0", r"frames is 0: it must be at least 1"),
    "no classes": ('classes = ["ant", "bee", "cat"]', "classes = []", r"classes is \[\]"),
    "files are a number": ('features = ["train.h5"]', "features = 5", r"\[train\] features is 5"),
    "classes twice": ('"ant", "bee"', '"ant", "ant"', r"a list of different names"),
    "published map": (
        "frames = 10", 'frames = 10\npublished = [{ bits = 64, map = 3, method = "m", source = "s" }]', r"has map = 3: give six values",
    ),
    "missing split": ("[query]", "[titles]", r"'titles' is not a known field"),
    "no files": ('[train]\nfeatures = ["train.h5"]', "[train]", r"\[train\] names no feature files"),
    "outside": ('"train.h5"', '"../train.h5"', r"\[train\] features is '../train.h5': it must be a path below the data folder"),
    "absolute": ('"train.mat"', '"/etc/train.mat"', r"must be a path below the data folder"),
    "counts differ": ('labels = ["train.mat"]', 'labels = ["train.mat", "b.mat"]', r"names 1 feature files and 2 label files"),
    "same as what": ('features = ["query.h5"]\nlabels = ["query.mat"]', 'same_as = "train"', r"\[query\] same_as is 'train'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", DEFINITION_FAULTS)
def test_a_faulty_definition_gets_one_clear_sentence(tiny_folder, fault):
    old, new, sentence = DEFINITION_FAULTS[fault]
    replace_definition(tiny_folder, old, new)
    with pytest.raises(ValueError, match=sentence):
        load_definition("tiny")


def test_ids_must_be_different(tiny_folder):
    with h5py.File(tiny_folder / "query.h5", "r+") as file:
        file["ids"] = ["a", "b", "b", "c", "d"]
    with pytest.raises(ValueError, match="hold 5 ids, 4 of them different, for 5 videos"):
        load_dataset("tiny").query.ids  # noqa: B018


@pytest.mark.parametrize("ids", [np.arange(5), None])
def test_ids_must_be_texts(tiny_folder, ids):
    with h5py.File(tiny_folder / "query.h5", "r+") as file:
        if ids is None:
            file.create_group("ids")
        else:
            file["ids"] = ids
    with pytest.raises(ValueError, match="'ids' must be one text per video"):
        load_dataset("tiny").query.ids  # noqa: B018


def test_keyframes_must_be_as_many_as_videos(tiny_folder):
    with h5py.File(tiny_folder / "query.h5", "r+") as file:
        file["keyframes"] = np.zeros((3, FRAMES, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="keyframes of 3 videos, but features of 5"):
        load_dataset("tiny").query.keyframes([0, 4])


def test_label_files_cut_anywhere_are_named(tiny_folder):
    path = tiny_folder / "query.mat"
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises((OSError, ValueError), match=r"query\.mat"):
            load_dataset("tiny").query.labels  # noqa: B018


def test_fingerprint_tells_data_apart(tiny, tiny_folder):
    before = tiny.train.fingerprint
    assert load_dataset("tiny").train.fingerprint == before
    rewrite(tiny_folder / "train.h5", "feats", lambda a: a + np.float32(0.5))
    assert load_dataset("tiny").train.fingerprint != before


def test_the_definition_in_the_docstring_works(tiny_folder):
    from wsch_core.data import definition

    text = definition.__doc__.split("\n\n")[1].replace("239", "3").replace("4096", str(SIZE)).replace("25", str(FRAMES))
    path = tiny_folder.parent / "mine.toml"
    path.write_text(text)
    assert len(load_definition("mine").classes) == CLASSES
    assert DEFINITION


PUBLISHED = {
    "fcvid": (25, 4096, 239, 14),
    "activitynet": (30, 2048, 200, 12),
    "yfcc": (25, 4096, 80, 3),
    "yfcc-wsch": (25, 4096, 80, 3),
    "ucf101": (25, 4096, 101, 6),
    "hmdb51": (25, 4096, 51, 6),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_data_sets_are_defined(name):
    definition = load_definition(name)
    found = (definition.frames, definition.feature_size, len(definition.classes), len(definition.published))
    assert found == PUBLISHED[name]
    assert definition.queries_are_database == (name in ("fcvid", "yfcc-wsch"))
    assert definition.settings == {}
    for row in definition.published:
        assert row["bits"] in (16, 32, 64, 128)
        assert row["map"] == sorted(row["map"], reverse=True)


def test_published_rows_of_a_definition_are_found_by_bits():
    assert load_definition("activitynet").published_at(128) == {"WSCH": [0.386, 0.253, 0.151, 0.106, 0.081, 0.065]}


def test_a_data_set_whose_files_are_not_there_says_which(tiny_folder):
    with pytest.raises(
        FileNotFoundError, match=r"activitynet/train_feats\.h5 is missing: put the file there, or set WSCH_DATA"
    ):
        load_dataset("activitynet").train.features  # noqa: B018


def test_settings_of_a_definition_are_checked_where_they_are_used(tiny_folder):
    replace_definition(tiny_folder, "[train]", "[settings]\nbits = 0\n[train]")
    with pytest.raises(ValueError, match=r"tiny\.toml: \[settings\] bits is 0"):
        settings_for(load_dataset("tiny"))
