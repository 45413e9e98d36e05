"""Which files of a folder are videos, what labels they have, and which split each is in."""

import os

import pytest

from wsch_core.videos.folder import find_videos
from wsch_core.videos.labels import Described, parse_shares, read_labels, split_of

ODD_NAMES = [
    "with space.mp4", "it's \"quoted\".mp4", "日本語.mkv", "видео №1.avi", "<img src=x onerror=alert(1)>.mp4",
    "a&b;$(ls).mp4", "%20%.mp4", "two\nlines.mp4", "-dash.mp4", "UPPER.MP4", "http:x.mp4",
]  # fmt: skip
PINNED = ["database", "database", "database", "train", "database", "train", "database", "database"]


class TestFinding:
    def test_every_video_below_the_folder_whatever_its_name(self, tmp_path):
        for name in [*ODD_NAMES, "a/b/c/deep.webm", "notes.txt", "still.jpg", ".hidden.mp4", ".hidden/x.mp4"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        (tmp_path / "folder.mp4").mkdir()
        found = find_videos(tmp_path)
        assert [video.id for video in found.videos] == sorted([*ODD_NAMES, "a/b/c/deep.webm"])
        assert not found.left_out
        assert found.videos[0].bytes == 1

    def test_links_stay_in_the_folder(self, tmp_path):
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "secret.mp4").write_bytes(b"x")
        folder = tmp_path / "videos"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a.mp4").write_bytes(b"x")
        links = {
            "inside.mp4": "sub/a.mp4", "out.mp4": "../outside/secret.mp4", "nothing.mp4": "none.mp4",
            "absolute.mp4": tmp_path / "outside" / "secret.mp4", "round.mp4": "round.mp4", "folder": "../outside",
            "up": "..",
        }  # fmt: skip
        for name, target in links.items():
            (folder / name).symlink_to(target)
        found = find_videos(folder)
        assert [video.id for video in found.videos] == ["inside.mp4", "sub/a.mp4"]
        reasons = {item.id: item.reason for item in found.left_out}
        assert set(reasons) == {"out.mp4", "absolute.mp4", "nothing.mp4", "round.mp4", "folder", "up"}
        assert "out of the folder" in reasons["out.mp4"]
        assert "to a folder" in reasons["up"]

    def test_a_name_that_is_no_text_is_left_out(self, tmp_path):
        (tmp_path / "a.mp4").write_bytes(b"x")
        with open(os.path.join(os.fsencode(tmp_path), b"bad\xff.mp4"), "wb"):
            pass
        found = find_videos(tmp_path)
        assert [item.id for item in found.left_out] == ["bad\ufffd.mp4"]
        assert "UTF-8" in found.left_out[0].reason

    def test_a_folder_that_is_none_or_empty(self, tmp_path):
        with pytest.raises(ValueError, match="is no folder"):
            find_videos(tmp_path / "none")
        with pytest.raises(ValueError, match=r"holds no video: looked for files that end in \.3g2"):
            find_videos(tmp_path)


class TestLabels:
    VIDEOS = ("dog/1.mp4", "dog/deep/2.mp4", "cat/3.mp4", "top.mp4")

    def test_of_folders(self):
        labels = read_labels("folders", self.VIDEOS)
        assert [labels.of(video).labels for video in self.VIDEOS] == [("dog",), ("dog",), ("cat",), ()]
        assert labels.classes(self.VIDEOS) == ["cat", "dog"]
        assert read_labels("none", self.VIDEOS).classes(self.VIDEOS) == []

    def test_of_a_csv(self, tmp_path):
        path = tmp_path / "labels.csv"
        path.write_text(
            '\ufefffile,label,Label 2,split,group\n"dog/1.mp4",dog,"running, fast",train,g1\n./cat/3.mp4,cat,,,\n\n'
            "gone.mp4,dog,,query,\ndog\\deep\\2.mp4,dog,dog,,\n",
            encoding="utf-8",
        )
        labels = read_labels(str(path), self.VIDEOS)
        assert labels.of("dog/1.mp4") == Described(("dog", "running, fast"), "train", "g1")
        assert labels.of("cat/3.mp4") == Described(("cat",))
        assert labels.of("dog/deep/2.mp4").labels == ("dog",)
        assert labels.of("top.mp4") == Described()
        assert labels.unused == ["gone.mp4"]

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "line 1: there is no column 'file'"),
            ("label\nx\n", "line 1: there is no column 'file'"),
            ("file,lable\n", "line 1: 'lable' is not a known column: did you mean 'label'"),
            ("file,split,split\n", "line 1: the column 'split' is there twice"),
            ("file,label\na.mp4,x\na.mp4,y\n", "line 3: file 'a.mp4' is there twice"),
            ("file,label\n,x\n", "line 2: file is empty"),
            ("file,label\na.mp4,x,y\n", "line 2: there are 3 fields, but line 1 names 2"),
            ("file,split\na.mp4,test\n", "line 2: split is 'test': it must be train, database, query, or empty"),
            ('file,label\n"a.mp4,x\n', "this is no CSV"),
            ("file,split,group\na.mp4,train,g\nb.mp4,query,g\n", "'a.mp4' and 'b.mp4' are of the group 'g'"),
        ],
    )
    def test_a_fault_is_named_with_file_line_and_field(self, tmp_path, text, complaint):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(ValueError, match=r"labels\.csv") as caught:
            read_labels(str(tmp_path / "labels.csv"), self.VIDEOS)
        assert complaint in str(caught.value)

    def test_what_is_no_csv(self, tmp_path):
        (tmp_path / "latin.csv").write_bytes("file,label\na.mp4,caf\xe9\n".encode("latin-1"))
        with pytest.raises(ValueError, match=r"latin\.csv is not UTF-8 text"):
            read_labels(str(tmp_path / "latin.csv"), self.VIDEOS)
        with pytest.raises(FileNotFoundError, match=r"none\.csv is missing"):
            read_labels(str(tmp_path / "none.csv"), self.VIDEOS)
        with pytest.raises(ValueError, match="labels is 'folder': it must be"):
            read_labels("folder", self.VIDEOS)


class TestSplits:
    SHARES = (0.5, 0.4, 0.1)

    def test_shares_are_kept_and_nothing_moves(self):
        splits = {f"clip {n}.mp4": split_of(f"clip {n}.mp4", Described(), self.SHARES) for n in range(4000)}
        counts = [list(splits.values()).count(name) / 4000 for name in ("train", "database", "query")]
        assert counts == pytest.approx(self.SHARES, abs=0.03)
        # Pinned: another hash would move the videos of every set that there is.
        assert [splits[f"clip {n}.mp4"] for n in range(8)] == PINNED

    def test_a_group_stays_together_and_the_csv_has_the_last_word(self):
        together = {split_of(f"{n}.mp4", Described(group="source 7"), self.SHARES) for n in range(50)}
        assert len(together) == 1
        assert split_of("x.mp4", Described(split="query", group="source 7"), (1, 0, 0)) == "query"
        assert {split_of(f"{n}.mp4", Described(), (1.0, 0.0, 0.0)) for n in range(50)} == {"train"}

    def test_shares_as_text(self):
        assert parse_shares("") is None
        assert parse_shares("5, 4, 1") == pytest.approx(self.SHARES)
        assert parse_shares("1,0,0") == (1, 0, 0)
        for wrong in ("1", "a, b, c", "0, 1, 1", "1, -1, 1", "1, nan, 0", "1, inf, 0", "1, 2, 3, 4"):
            with pytest.raises(ValueError, match=r"shares is .* three numbers"):
                parse_shares(wrong)
