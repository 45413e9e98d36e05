"""The official splits of UCF101 and HMDB51, on small archives that the tests make."""

import shutil

import pytest
from videos import shades, write_video

from wsch_core import load_dataset
from wsch_core.videos import import_videos
from wsch_core.videos.folder import VideoFile, identical_files
from wsch_core.videos.labels import Described, read_labels, source_of
from wsch_core.videos.official import read_official

UCF = {
    "trainlist01.txt": "Archery/v_Archery_g08_c01.avi 1\nArchery/v_Archery_g09_c01.avi 1\nPunch/v_Punch_g08_c01.avi 2\n",
    "testlist01.txt": "Archery/v_Archery_g01_c01.avi\r\nPunch/v_Punch_g01_c01.avi\r\n\r\n",
    "classInd.txt": "1 Archery\n2 Punch\n",
}
UCF_VIDEOS = [
    f"{name}/v_{name}_{clip}.avi" for name, clip in
    [("Archery", "g01_c01"), ("Archery", "g08_c01"), ("Archery", "g09_c01"), ("Punch", "g01_c01"), ("Punch", "g08_c01")]
]  # fmt: skip
HMDB = {
    "kick_ball_test_split1.txt": "one_kick_ball_f_cm_np1_ba_goo_0.avi 1 \none_kick_ball_f_cm_np1_ba_goo_1.avi 2 \n",
    "wave_test_split1.txt": "two_wave_f_cm_np1_ba_goo_0.avi 1 \ntwo_wave_f_cm_np1_ba_goo_1.avi 0 \n",
    "wave_test_split2.txt": "two_wave_f_cm_np1_ba_goo_0.avi 2 \ntwo_wave_f_cm_np1_ba_goo_1.avi 1 \n",
}
HMDB_VIDEOS = [
    f"{name}/{source}_{name}_f_cm_np1_ba_goo_{n}.avi"
    for name, source in (("kick_ball", "one"), ("wave", "two"))
    for n in (0, 1)
]


def write_lists(folder, lists):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        (folder / name).write_text(text)
    return folder


def parts(official):
    return {video: (clip.labels, clip.split) for video, clip in official.described.items()}


class TestLists:
    def test_of_ucf101(self, tmp_path):
        official = read_official(write_lists(tmp_path, UCF), 1, UCF_VIDEOS)
        assert parts(official) == {
            video: ((video.split("/")[0],), "query" if "g01" in video else "train") for video in UCF_VIDEOS
        }
        assert (official.archive, official.listed, official.classes, official.missing) == ("UCF101", 5, 2, [])

    def test_of_hmdb51(self, tmp_path):
        official = read_official(write_lists(tmp_path, HMDB), 1, HMDB_VIDEOS)
        assert parts(official) == {
            HMDB_VIDEOS[0]: (("kick_ball",), "train"),
            HMDB_VIDEOS[1]: (("kick_ball",), "query"),
            HMDB_VIDEOS[2]: (("wave",), "train"),
        }
        assert (official.archive, official.unused) == ("HMDB51", 1)
        assert parts(read_official(tmp_path, 2, HMDB_VIDEOS))[HMDB_VIDEOS[3]] == (("wave",), "train")

    def test_archives_as_they_come(self, tmp_path):
        """Nested once more, in other letters and containers, flat, and the lists in a folder of their own."""
        lists = write_lists(tmp_path / "inner", UCF).parent
        for change in (
            lambda video: f"UCF-101/{video}",
            str.upper,
            lambda video: video.replace(".avi", ".mp4"),
            lambda video: video.split("/")[1],
        ):
            official = read_official(lists, 1, [change(video) for video in UCF_VIDEOS])
            assert (len(official.described), official.missing, official.foreign) == (5, [], [])
            assert {clip.labels[0] for clip in official.described.values()} == {"Archery", "Punch"}

    def test_of_a_part_it_says_what_is_missing_and_what_is_foreign(self, tmp_path):
        videos = [*UCF_VIDEOS[:2], "Archery/holiday.avi", "copy/" + UCF_VIDEOS[0], "Other/v_Other_g01_c01.avi"]
        official = read_official(write_lists(tmp_path, UCF), 1, videos)
        assert set(official.described) == set(UCF_VIDEOS[:2])
        assert official.foreign == videos[2:]
        assert official.missing == UCF_VIDEOS[2:]
        said = "\n".join(official.summary())
        assert "official split 1 of UCF101: 2 of 5 clips are there, of 1 of 2 classes" in said
        assert "the lists name 5 clips in 2 classes, and UCF101 has 13,320 in 101" in said
        assert "3 are missing, such as Archery/v_Archery_g09_c01.avi; by class: Punch 2, Archery 1" in said

    @pytest.mark.parametrize("split", [0, 4, True, "1"])
    def test_there_are_three(self, tmp_path, split):
        with pytest.raises(ValueError, match=r"split is .*: it must be 1, 2 or 3"):
            read_official(write_lists(tmp_path, UCF), split, UCF_VIDEOS)

    @pytest.mark.parametrize(
        ("lists", "complaint"),
        [
            (UCF | {"testlist01.txt": "Archery/v_Archery_g09_c01.avi\n"},
             r"testlist01\.txt, line 1, names v_Archery_g09_c01\.avi, which .*trainlist01\.txt, line 2, names too"),
            (UCF | {"testlist01.txt": "v_Archery_g01_c01.avi\n"}, r"testlist01\.txt, line 1, is 'v_Arch.*without a class"),
            (UCF | {"trainlist01.txt": "a b c\n"}, r"trainlist01\.txt, line 1 is 'a b c': it must be like"),
            (UCF | {"classInd.txt": "1 Punch\n2 Archery\n"}, r"line 1,: Archery 1 disagrees .* has the number 2"),
            (UCF | {"classInd.txt": "1 Archery\n"}, r"line 3,: Punch 2 disagrees .* it is not"),
            (HMDB | {"wave_test_split1.txt": "a.avi 3\n"}, r"wave_test_split1\.txt, line 1, ends in '3': it must be 1"),
            ({"readme.txt": ""}, r"holds no lists of split 1: neither trainlist01\.txt"),
        ],
    )  # fmt: skip
    def test_faults_are_named_with_file_and_line(self, tmp_path, lists, complaint):
        with pytest.raises(ValueError, match=complaint):
            read_official(write_lists(tmp_path, lists), 1, UCF_VIDEOS)

    def test_half_of_the_lists_and_other_videos(self, tmp_path):
        write_lists(tmp_path, UCF)
        with pytest.raises(ValueError, match=r"none of the 1 videos is a training clip of UCF101's official split 1"):
            read_official(tmp_path, 1, ["mine/holiday.mp4"])
        (tmp_path / "testlist01.txt").unlink()
        with pytest.raises(FileNotFoundError, match=r"testlist01\.txt"):
            read_official(tmp_path, 1, UCF_VIDEOS)
        with pytest.raises(ValueError, match=r"splits is .*, which is no folder"):
            read_official(tmp_path / "none", 1, UCF_VIDEOS)


def test_clips_of_one_source_are_a_group():
    assert source_of("UCF-101/Archery/v_Archery_g05_c04.AVI") == "v_archery_g05"
    assert source_of("wave/two_wave_f_cm_np1_ba_goo_1.avi") == source_of(HMDB_VIDEOS[2]) == "two_wave"
    assert source_of("holiday_c04.avi") == ""
    labels = read_labels("folders", [*UCF_VIDEOS, "top.mp4"])
    assert labels.of(UCF_VIDEOS[0]) == Described(("Archery",), "", "v_archery_g01")
    assert labels.of("top.mp4") == Described()
    assert read_labels("none", UCF_VIDEOS).of(UCF_VIDEOS[0]).group == "v_archery_g01"


def test_identical_files_are_found_between_splits_only(tmp_path):
    contents = {"a": b"x" * 70_000, "b": b"x" * 70_000, "c": b"x" * 69_999 + b"y", "d": b"z", "e": b"z", "f": b"w"}
    files = {}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        files[name] = VideoFile(name, tmp_path / name, len(content), 0)
    pairs = identical_files({"train": [files[n] for n in "acde"], "query": [files[n] for n in "bf"]})
    assert [(one.id, other.id) for one, other in pairs] == [("a", "b")]


class TestImport:
    @pytest.fixture
    def archive(self, tmp_path, monkeypatch):
        """UCF101 of five clips, two of them the same file, a clip of another name, and lists that name one more."""
        for name in ("DATA", "OUTPUTS", "CACHE"):
            monkeypatch.setenv(f"WSCH_{name}", str(tmp_path / name.lower()))
        folder = tmp_path / "UCF-101"
        for place, video in enumerate(UCF_VIDEOS[1:], start=1):
            write_video(folder / video, shades(8, first=20 * place))
        shutil.copy(folder / UCF_VIDEOS[1], folder / UCF_VIDEOS[0])
        write_video(folder / "Archery" / "holiday.avi", shades(8))
        lists = UCF | {"trainlist01.txt": UCF["trainlist01.txt"] + "Punch/v_Punch_g10_c01.avi 2\n"}
        write_lists(tmp_path / "lists", lists)
        return folder

    def bring(self, archive, **options):
        options = {"splits": archive.parent / "lists", "extractor": "demo", "frames": 4, "device": "cpu"} | options
        return import_videos(archive, "mine", **options)

    def test_gives_the_protocol_of_the_papers(self, archive):
        report = self.bring(archive)
        data = load_dataset("mine")
        assert (data.train.ids, data.query.ids) == (
            [UCF_VIDEOS[1], UCF_VIDEOS[2], UCF_VIDEOS[4]],
            [UCF_VIDEOS[0], UCF_VIDEOS[3]],
        )
        assert data.database is data.train
        assert data.definition.classes == ("Archery", "Punch")
        assert "official split 1 of UCF101" in data.definition.about
        assert report.copies == [(UCF_VIDEOS[1], UCF_VIDEOS[0])]
        said = report.summary()
        assert "5 of 6 clips are there, of 2 of 2 classes" in said
        assert "1 are missing, such as Punch/v_Punch_g10_c01.avi" in said
        assert (
            f"1 pair of identical files are in different splits, which flatters every method: {UCF_VIDEOS[1]} = "
            in said
        )
        assert [item.id for item in report.left_out] == ["Archery/holiday.avi"]
        again = self.bring(archive)
        assert (again.kept, again.new, again.copies) == (5, 0, report.copies)

    @pytest.mark.parametrize("options", [{"labels": "none"}, {"shares": "1, 1, 1"}])
    def test_it_takes_no_other_labels_and_shares(self, archive, options):
        with pytest.raises(ValueError, match="splits brings its own labels and shares"):
            self.bring(archive, **options)
