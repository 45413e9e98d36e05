"""A folder of videos becomes a data set, is brought up to date, survives being killed, and is searched by video."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from videos import shades, write_sound, write_video

from notebooks import PATIENCE, ROOT, outputs, run_papermill
from wsch_core import Settings, evaluate_run, fit, load_dataset, settings_for
from wsch_core.data import load_definition
from wsch_core.data.check import check_dataset
from wsch_core.show.figures.retrieval import retrieved_now
from wsch_core.show.gallery.cards import Films, content
from wsch_core.show.gallery.gallery import Gallery, methods_for
from wsch_core.videos import build, import_videos
from wsch_core.videos.assemble import default_settings
from wsch_core.videos.describe import describe
from wsch_core.videos.extractors import extract
from wsch_core.videos.extractors.extract import load_extractor

CLIPS = Path(os.environ.get("WSCH_CLIPS", "") or "clips-are-not-here")
SMALL = {
    "bits": 8, "pretrain_epochs": 1, "epochs": 1, "centers": 2, "encoder_width": 64, "decoder_width": 32, "device": "cpu",
    "precision": "float32",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two classes of small videos, and WSCH_DATA and WSCH_OUTPUTS of the test's own."""
    for name in ("DATA", "OUTPUTS"):
        monkeypatch.setenv(f"WSCH_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("WSCH_CACHE", str(tmp_path / "cache"))
    for number in range(4):
        write_video(tmp_path / "videos" / "dark" / f"{number}.mp4", shades(8, step=5 + number))
        write_video(tmp_path / "videos" / "light" / f"{number}.mkv", shades(8, first=150, step=5 + number))
    return tmp_path / "videos"


def bring_in(folder, name="mine", **options):
    return import_videos(folder, name, **{"extractor": "demo", "frames": 5, "device": "cpu"} | options)


def test_without_room_for_the_set_the_videos_that_were_read_are_kept(folder, monkeypatch):
    usage = shutil.disk_usage(folder)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(OSError, match=r"train\.h5 takes up to .* are free: free some space"):
            bring_in(folder)
    assert not (folder.parent / "data" / "mine.toml").exists()
    again = bring_in(folder)
    assert (again.videos, again.resumed) == (8, 8)


def features(name="mine"):
    """Everything that is stored of each video, by id."""
    found = {}
    for split in load_dataset(name).splits.values():
        pictures = split.keyframes(range(len(split)))
        for row, video in enumerate(split.ids):
            found[video] = (
                split.features.read([row]).numpy().tobytes(),
                pictures[row].tobytes(),
                split.label_names(row),
            )
    return found


def written(tmp_path):
    return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data" / "mine").iterdir()}


class TestSet:
    def test_is_one_that_everything_else_can_use(self, folder, tmp_path):
        report = bring_in(folder)
        data = load_dataset("mine")
        assert (report.videos, report.new, report.kept, report.redone, report.left_out) == (8, 8, 0, 0, [])
        assert check_dataset(data).ready
        assert (data.frames, data.feature_size, data.definition.classes) == (5, 128, ("dark", "light"))
        assert data.train.ids == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.m*"))
        assert data.train.label_names(5) == "light"
        assert data.database is data.train
        assert data.queries_are_database
        extractor = load_extractor("demo", "cpu")
        expected, keyframes = describe(folder / "light" / "1.mkv", extractor, 5)
        assert np.array_equal(data.train.features.read([5])[0].numpy(), expected)
        assert np.array_equal(data.train.keyframes([5])[0], keyframes)
        assert data.definition.extractor.version == extractor.version
        assert sorted(written(tmp_path)) == [".lock", "train.h5", "train_labels.mat"]
        with h5py.File(tmp_path / "data" / "mine" / "train.h5") as file:
            assert (file["feats"].dtype, file["feats"].chunks) == (np.float32, None)

    def test_splits_come_from_shares_and_from_a_csv(self, folder, tmp_path):
        report = bring_in(folder, shares="2, 1, 1")
        assert sum(report.splits.values()) == 8
        before = {video: name for name, split in load_dataset("mine").splits.items() for video in split.ids}
        write_video(folder / "dark" / "more.mp4", shades(8))
        bring_in(folder)
        after = {video: name for name, split in load_dataset("mine").splits.items() for video in split.ids}
        assert {video: after[video] for video in before} == before
        rows = [f"dark/{n}.mp4,night,{('train', 'train', 'database', 'query')[n]}" for n in range(4)]
        (tmp_path / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
        report = bring_in(folder, labels=str(tmp_path / "labels.csv"), shares="1, 0, 0")
        data = load_dataset("mine")
        assert (report.kept, report.unlabelled) == (9, 5)
        assert (data.query.ids, data.query.label_names(0)) == (["dark/3.mp4"], "night")
        assert data.database.ids == ["dark/2.mp4"]

    def test_without_labels_everything_works_but_map(self, folder):
        bring_in(folder, labels="none")
        data = load_dataset("mine")
        assert data.definition.classes == ()
        run = fit(settings_for(data, **SMALL), data, "plain", callbacks=[])
        gallery = Gallery(data, methods_for(run, data), k=3)
        assert {result.relevant for result in gallery.results(next(iter(gallery.methods)))} == {None}
        assert check_dataset(data).ready

    def test_settings_suit_small_sets(self, folder):
        bring_in(folder)
        chosen = settings_for(load_dataset("mine"))
        assert (chosen.centers, chosen.batch_size) == (3, 8)
        for videos in (2, 3, 50, 400, 4999):
            given = default_settings(videos)
            Settings.create({}, given)
            assert given["centers"] <= 2 * videos
        assert default_settings(5000) == {}

    def test_names_with_markup_and_quotes_stay_text(self, folder):
        odd = ["<img src=x onerror=alert(1)>", 'it\'s "quoted" \\ back', "日本語", "two\nlines", "tab\tdel\x7f"]
        for name in odd:
            write_video(folder / name / f"{name}.mp4", shades(6))
        bring_in(folder)
        data = load_dataset("mine")
        assert set(odd) < set(data.definition.classes)
        assert {f"{name}/{name}.mp4" for name in odd} < set(data.train.ids)


class TestWhatIsLeftOut:
    def test_is_named_with_the_reason_and_stops_nothing(self, folder):
        (folder / "text.mp4").write_text("no video")
        (folder / "empty.mp4").touch()
        Image.new("RGB", (8, 8)).save(folder / "still.mp4", format="PNG")
        write_sound(folder / "sound.mp4")
        (folder / "out.mp4").symlink_to(ROOT / "README.md")
        short = write_video(folder / "short.mp4", shades(2))
        report = bring_in(folder)
        assert report.videos == 9
        reasons = {item.id: item.reason for item in report.left_out}
        assert set(reasons) == {"text.mp4", "empty.mp4", "still.mp4", "sound.mp4", "out.mp4"}
        assert reasons["empty.mp4"] == "is empty (0 bytes): copy it again."
        assert report.repeated == {"short.mp4": 3}
        summary = report.summary()
        assert "5 files left out:" in summary
        assert "sound.mp4: holds no video stream" in summary
        assert "1 videos show fewer different frames: 3 are repeated" in summary
        short.unlink()
        assert "no longer in the folder, so removed: short.mp4" in bring_in(folder).summary()

    def test_if_it_is_everything_there_is_no_set(self, folder, tmp_path):
        only = tmp_path / "only"
        only.mkdir()
        (only / "a.mp4").write_text("no video")
        with pytest.raises(
            ValueError, match=r"no video of .*only can be decoded \(first: a\.mp4: is damaged or no video"
        ):
            bring_in(only)
        assert not (tmp_path / "data" / "mine.toml").exists()


class TestAgain:
    def test_reads_only_what_is_new_or_changed(self, folder, tmp_path, monkeypatch):
        bring_in(folder)
        before, files = features(), written(tmp_path)
        read = []
        see = build.see
        monkeypatch.setattr(build, "see", lambda path, *rest: (read.append(path.name), see(path, *rest))[1])
        report = bring_in(folder)
        assert (report.kept, report.new, read, written(tmp_path)) == (8, 0, [], files)
        write_video(folder / "dark" / "9.mp4", shades(8))
        write_video(folder / "light" / "0.mkv", shades(8, first=90))
        (folder / "light" / "1.mkv").unlink()
        report = bring_in(folder)
        assert sorted(read) == ["0.mkv", "9.mp4"]
        assert (report.new, report.redone, report.kept, report.removed) == (1, 1, 6, ["light/1.mkv"])
        after = features()
        assert set(after) == set(before) - {"light/1.mkv"} | {"dark/9.mp4"}
        assert [video for video in after if video in before and after[video] != before[video]] == ["light/0.mkv"]
        assert sorted(written(tmp_path)) == [".lock", "train-2.h5", "train-2_labels.mat"]
        shutil.rmtree(tmp_path / "data")
        bring_in(folder)
        assert features() == after  # as if it had been made at once

    def test_keeps_settings_that_somebody_has_chosen(self, folder, tmp_path):
        bring_in(folder)
        path = tmp_path / "data" / "mine.toml"
        path.write_text(
            path.read_text().replace('title = "mine"', 'title = "Ours"').replace("centers = 3", "centers = 4")
        )
        write_video(folder / "dark" / "9.mp4", shades(8))
        bring_in(folder)
        definition = load_definition("mine")
        assert (definition.title, definition.settings["centers"]) == ("Ours", 4)

    @pytest.mark.parametrize("form", ["as it is", "tables in a line"])
    def test_keeps_what_somebody_has_written(self, folder, tmp_path, form):
        bring_in(folder)
        path = tmp_path / "data" / "mine.toml"
        rows = '[[published]]\nmethod = "X"\nbits = 8\nmap = [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]\nsource = "a page"\n'
        about = re.compile(r"about = .*")
        text = "# ours\n" + about.sub('about = "Cats, by day."  # and dogs', path.read_text()) + f"# a row\n{rows}"
        if form == "tables in a line":
            text = text.replace('[train]\nfeatures = ["train.h5"]\nlabels = ["train_labels.mat"]\n', "").replace(
                "frames =", 'train = {features = ["train.h5"], labels = ["train_labels.mat"]}\nframes =', 1
            )
            assert load_definition("mine").splits["train"].features == ("train.h5",)
        path.write_text(text)
        write_video(folder / "grey" / "9.mp4", shades(8))
        bring_in(folder)
        definition = load_definition("mine")
        assert len(definition.classes) == 3
        assert len(load_dataset("mine").train) == 9
        assert definition.about == "Cats, by day."
        assert definition.published_at(8) == {"X": [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]}
        if form == "as it is":
            for comment in ("# ours", "# and dogs", "# a row"):
                assert comment in path.read_text()

    def test_own_words_follow_the_number_of_videos(self, folder):
        bring_in(folder)
        write_video(folder / "grey" / "9.mp4", shades(8))
        bring_in(folder)
        assert load_definition("mine").about.startswith("9 videos of the folder videos")

    def test_class_names_with_dots_can_be_read_again(self, folder, tmp_path):
        labels = [f"n{number}.class.x" for number in range(600)]
        head = ",".join(["file", *(f"label {number}" for number in range(600))])
        (tmp_path / "labels.csv").write_text(f"{head}\n" + ",".join(["dark/0.mp4", *labels]) + "\n")
        bring_in(folder, labels=str(tmp_path / "labels.csv"))
        assert set(load_definition("mine").classes) == set(labels)

    @pytest.mark.parametrize(
        ("count", "length", "complaint"), [(24_000, 60, "holds 1,[0-9,]+ bytes"), (104_000, 0, "at most 100,000")]
    )
    def test_a_definition_that_could_not_be_read_is_not_written(self, folder, tmp_path, count, length, complaint):
        bring_in(folder)
        before, files = (tmp_path / "data" / "mine.toml").read_text(), written(tmp_path)
        labels = ["x" * length + str(number) for number in range(count)]
        head = ",".join(["file", *(f"label {number}" for number in range(count))])
        (tmp_path / "labels.csv").write_text(f"{head}\n" + ",".join(["dark/0.mp4", *labels]) + "\n")
        with pytest.raises(ValueError, match=rf"mine\.toml could not be read with these labels .*{complaint}"):
            bring_in(folder, labels=str(tmp_path / "labels.csv"))
        assert (tmp_path / "data" / "mine.toml").read_text() == before
        assert set(files) <= set(written(tmp_path)) <= {*files, ".parts"}
        assert bring_in(folder).kept == 8

    def test_what_would_mix_is_refused(self, folder, tmp_path, monkeypatch):
        bring_in(folder)
        before = features()
        with pytest.raises(ValueError, match="mine holds 5 frames of each video, and frames is 6"):
            bring_in(folder, frames=6)
        with pytest.raises(ValueError, match="mine was made from a folder with other videos"):
            bring_in(write_video(tmp_path / "other" / "x.mp4", shades(8)).parent)
        monkeypatch.setattr(extract, "_version", lambda network, preparation: "another")
        extract._load.cache_clear()
        with pytest.raises(ValueError, match=r"features of mine were extracted with demo, version .* cannot be mixed"):
            bring_in(folder)
        extract._load.cache_clear()
        assert features() == before

    def test_files_of_two_extractors_in_one_definition_are_refused(self, folder, tmp_path):
        bring_in(folder)
        with h5py.File(tmp_path / "data" / "mine" / "train.h5", "r+") as file:
            file.attrs["extractor_version"] = "another"
        with pytest.raises(
            ValueError, match=r"train\.h5 was made by the extractor version 'another', but the definition"
        ):
            len(load_dataset("mine").train)

    @pytest.mark.parametrize("name", ["demo", "tiny", "", "../x"])
    def test_another_set_is_left_alone(self, tiny_folder, folder, name):
        with pytest.raises(ValueError, match=r"was not made from videos|dataset is"):
            bring_in(folder, name)

    def test_files_of_somebody_else_are_left_alone(self, folder, tmp_path):
        theirs = tmp_path / "data" / "mine" / "train.h5"
        theirs.parent.mkdir(parents=True)
        theirs.write_text("theirs")
        with pytest.raises(ValueError, match=r"mine holds files, but there is no definition mine\.toml"):
            bring_in(folder)
        assert theirs.read_text() == "theirs"

    def test_parts_that_lead_elsewhere_are_not_written_to(self, folder, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        (tmp_path / "data" / "mine").mkdir(parents=True)
        (tmp_path / "data" / "mine" / ".parts").symlink_to(outside)
        with pytest.raises(OSError, match="is a link that leaves its folder"):
            bring_in(folder)
        assert not any(outside.iterdir())

    def test_two_at_a_time_are_refused(self, folder):
        with (
            build._locked(Path(os.environ["WSCH_DATA"]) / "mine"),
            pytest.raises(RuntimeError, match="another process"),
        ):
            bring_in(folder)


class TestKilled:
    def test_goes_on_from_what_is_done(self, folder, monkeypatch):
        keep, done = build._Job._keep, []

        def interrupted(self, video, seen):
            if len(done) == 3:
                raise KeyboardInterrupt
            done.append(video.id)
            return keep(self, video, seen)

        monkeypatch.setattr(build._Job, "_keep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bring_in(folder)
        monkeypatch.setattr(build._Job, "_keep", keep)
        report = bring_in(folder)
        assert (report.new, report.resumed) == (8, 3)
        assert "3 were read before by an import that was stopped" in report.summary()

    @pytest.mark.slow
    def test_at_any_moment_leaves_the_former_set_or_the_new_one(self, folder, tmp_path):
        command = [
            sys.executable,
            "-W",
            "ignore",
            str(ROOT / "tests" / "killed_import.py"),
            str(folder),
            "mine",
            "40",
            "1",
        ]
        done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout.splitlines()[-1])
        assert said["killed"] == 40
        assert said["imports"] > 2
        assert said["last"]
        survived = features()
        assert not list((tmp_path / "data" / "mine").glob(".writing-*"))
        shutil.rmtree(tmp_path / "data")
        bring_in(folder)
        assert features() == survived


class TestGallery:
    @pytest.fixture
    def gallery(self, folder):
        bring_in(folder)
        data = load_dataset("mine")
        run = fit(settings_for(data, **SMALL), data, "shown", callbacks=[])
        evaluate_run(run, data, baselines=())
        return Gallery(data, methods_for(run, data, "LSH"), k=3)

    def test_a_video_file_finds_itself(self, gallery, folder):
        gallery.bring(folder / "light" / "2.mkv")
        for method in gallery.methods:
            found = {gallery.id_of(build_place(result)): result.distance for result in gallery.results(method)}
            assert found["light/2.mkv"] == 0
        shown = content(gallery, Films(gallery.splits))["query"]
        assert (shown["id"], shown["where"], shown["film"]["moving"]) == ("2.mkv", "from outside", True)
        assert shown["film"]["aspect"] == 1.5
        figure = retrieved_now(gallery)
        assert sum(len(axes.images) for axes in figure.axes) == 2 * 4 * 5  # a large picture and four small ones each

    def test_what_is_no_video_changes_nothing(self, gallery, folder):
        before = gallery.query
        (folder / "text.mp4").write_text("no video")
        with pytest.raises(ValueError, match=r"text\.mp4 is damaged or no video"):
            gallery.bring(folder / "text.mp4")
        with pytest.raises(FileNotFoundError, match=r"none\.mp4 is missing: give the path of a video file"):
            gallery.bring(folder / "none.mp4")
        assert gallery.query == before

    def test_a_set_that_names_no_extractor_takes_features_only(self, tiny, folder):
        run = fit(settings_for(tiny, **SMALL), tiny, "tiny", callbacks=[])
        with pytest.raises(ValueError, match="tiny does not say what its features were extracted with"):
            Gallery(tiny, methods_for(run, tiny)).bring(folder / "dark" / "0.mp4")


def build_place(result):
    from wsch_core.show.gallery.gallery import Place

    return Place("database", result.row)


@pytest.mark.slow
def test_the_notebooks_go_from_a_folder_to_a_gallery(folder, tmp_path):
    (folder / "text.mp4").write_text("<b>no video</b>")
    out = tmp_path / "out.ipynb"
    chosen = {"dataset": "mine", "videos": str(folder), "extractor": "demo", "frames": 5, "device": "cpu"}
    done = run_papermill(ROOT / "notebooks", "data.ipynb", out, chosen)
    assert done.returncode == 0, done.stderr
    import nbformat

    shown = "".join(map(str, outputs(nbformat.read(out, as_version=4))))
    assert "8 new" in shown
    assert "text.mp4" in shown
    assert "Ready: one can train and evaluate" in shown
    small = {name: value for name, value in SMALL.items() if name != "precision"}
    done = run_papermill(ROOT, "notebooks/train.ipynb", out, small | {"dataset": "mine", "run": "mine-8"})
    assert done.returncode == 0, done.stderr
    video = str(folder / "light" / "2.mkv")
    done = run_papermill(ROOT, "notebooks/gallery.ipynb", out, {"run": "mine-8", "video": video, "queries": 2})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "mine-8" / "figures" / "gallery_video.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs WSCH_CLIPS, a folder of real clips")
def test_of_real_clips_the_compressed_copy_is_nearest_to_the_original(tmp_path, monkeypatch):
    monkeypatch.setenv("WSCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WSCH_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("WSCH_CACHE", str(tmp_path / "cache"))
    extract._load.cache_clear()
    report = import_videos(CLIPS, "clips", extractor="demo", device="cpu")
    assert [item.id for item in report.left_out] == ["corrupted.mp4"]
    assert set(report.repeated) == {"rotated_0.mov", "rotated_90.mov"}
    data = load_dataset("clips")
    run = fit(settings_for(data, bits=64, device="cpu", precision="float32"), data, "clips", callbacks=[])
    gallery = Gallery(data, methods_for(run, data), k=3)
    for one, other in (
        ("carphone_pristine.mp4", "carphone_distorted.mp4"),
        ("carphone_distorted.mp4", "carphone_pristine.mp4"),
    ):
        gallery.bring(CLIPS / one)
        itself, nearest, next_one = gallery.results(next(iter(gallery.methods)))
        assert {data.database.ids[itself.row], data.database.ids[nearest.row]} == {one, other}
        assert max(itself.distance, nearest.distance) < next_one.distance
    extract._load.cache_clear()
