"""Which frames are chosen of a video, and how they are turned; what is no video."""

import gc
import os
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videos import SIZE, brightness, shades, write_large, write_sound, write_video, write_with_sound

from wsch_core.videos import decode
from wsch_core.videos.decode import read_clip
from wsch_core.videos.folder import find_videos

CLIPS = Path(os.environ.get("WSCH_CLIPS", "") or "clips-are-not-here")


def read(path, frames=5, **options):
    return read_clip(path, frames, lambda image: image, **options)


def levels(clip):
    return [brightness(picture) for picture in clip.pictures]


def near(found, expected, tolerance=3):
    return len(found) == len(expected) and all(abs(a - b) <= tolerance for a, b in zip(found, expected, strict=True))


class TestChoice:
    def test_the_middles_of_equal_parts(self, tmp_path):
        clip = read(write_video(tmp_path / "a.mp4", shades(25)))
        assert near(levels(clip), [9 * frame for frame in (2, 7, 12, 17, 22)])
        assert clip.repeated == 0

    def test_as_many_as_there_are_takes_each_once(self, tmp_path):
        clip = read(write_video(tmp_path / "a.mp4", shades(25)), 25)
        assert near(levels(clip), [9 * frame for frame in range(25)])
        assert clip.repeated == 0

    def test_fewer_frames_are_repeated_and_counted(self, tmp_path):
        clip = read(write_video(tmp_path / "a.mp4", shades(3, step=60)), 7)
        assert near(levels(clip), [0, 0, 60, 60, 60, 120, 120])
        assert clip.repeated == 4
        assert clip.pictures[0] is clip.pictures[1]  # looked at once

    def test_goes_by_time_not_by_number(self, tmp_path):
        path = write_video(tmp_path / "a.mkv", shades(5, step=50), times=[0, 1, 2, 3, 100])
        clip = read(path, 4)  # the fourth frame stands still for nearly all of the video
        assert near(levels(clip), [150, 150, 150, 150])
        assert clip.repeated == 3

    def test_frames_stored_out_of_order_are_shown_in_order(self, tmp_path):
        path = write_video(tmp_path / "a.mp4", shades(25), codec="libx264", bf="3", preset="veryslow")
        assert near(levels(read(path)), [9 * frame for frame in (2, 7, 12, 17, 22)])

    @pytest.mark.parametrize(
        "name", ["a.avi", "a.mkv", "a.mov", "a.mpg", "a.ts", "a.m4v", "a.flv", "a.wmv", "a.3gp", "a.mxf"]
    )
    def test_the_usual_containers(self, tmp_path, name):
        codec = {"a.mpg": "mpeg2video", "a.ts": "mpeg2video", "a.flv": "flv", "a.wmv": "wmv2", "a.mxf": "mpeg2video"}
        clip = read(write_video(tmp_path / name, shades(25), codec=codec.get(name, "mpeg4")))
        assert near(levels(clip), [9 * frame for frame in (2, 7, 12, 17, 22)], tolerance=10)

    @pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1", "mjpeg", "mpeg2video"])
    def test_the_usual_codecs(self, tmp_path, codec):
        options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
        clip = read(write_video(tmp_path / "a.mkv", shades(25), codec=codec, **options))
        assert near(levels(clip), [9 * frame for frame in (2, 7, 12, 17, 22)], tolerance=10)

    def test_jumping_chooses_the_same_frames(self, tmp_path, monkeypatch):
        path = write_video(
            tmp_path / "a.mp4", [p for _ in range(8) for p in shades(25)], codec="libx264", g="12", bf="2"
        )
        jumps = []
        jump = decode._Decoder.jump
        monkeypatch.setattr(decode._Decoder, "jump", lambda self, time: (jumps.append(time), jump(self, time))[1])
        monkeypatch.setattr(decode, "JUMP", 10_000)
        through = read(path, 6)
        assert not jumps
        monkeypatch.setattr(decode, "JUMP", 5)
        assert levels(read(path, 6)) == levels(through)
        assert len(jumps) == 6

    def test_a_jump_that_ends_too_late_is_not_believed(self, tmp_path, monkeypatch):
        path = write_video(tmp_path / "a.mp4", shades(120, step=2), codec="libx264", g="10")
        expected = levels(read(path, 3))
        monkeypatch.setattr(decode, "JUMP", 5)
        jump = decode._Decoder.jump
        monkeypatch.setattr(decode._Decoder, "jump", lambda self, time: jump(self, time + 60 * 512))
        assert levels(read(path, 3)) == expected

    def test_frames_that_tell_wrong_times_are_counted(self, tmp_path, monkeypatch):
        """As in AVI files of two frames to a packet, whose times go back while the pictures do not."""
        path = write_video(tmp_path / "a.avi", shades(25))
        expected = levels(read(path, 25))
        decoded = decode._Decoder._decode

        def swapped(self):
            for place, frame in enumerate(decoded(self)):
                frame.pts += (1, -1)[place % 2] if place < 24 else 0
                yield frame

        monkeypatch.setattr(decode._Decoder, "_decode", swapped)
        assert levels(read(path, 25)) == expected

    def test_memory_holds_chosen_frames_only(self, tmp_path):
        made = []
        read_clip(write_video(tmp_path / "a.mp4", shades(200, step=1)), 5, lambda image: made.append(image.size))
        assert len(made) == 5


class TestOrientation:
    @pytest.mark.parametrize(
        ("rotation", "corner"), [(0, "top left"), (90, "bottom left"), (-90, "top right"), (180, "bottom right")]
    )
    def test_tags_are_respected(self, tmp_path, rotation, corner):
        picture = np.zeros((*SIZE, 3), np.uint8)
        picture[:16, :16] = 255
        shown = np.asarray(read(write_video(tmp_path / "a.mov", [picture] * 3, rotation=rotation), 1).pictures[0])
        assert shown.shape == ((*SIZE, 3) if rotation in (0, 180) else (*SIZE[::-1], 3))
        vertical, horizontal = corner.split()
        piece = shown[:8] if vertical == "top" else shown[-8:]
        piece = piece[:, :8] if horizontal == "left" else piece[:, -8:]
        assert piece.mean() > 200
        assert shown.mean() < 60

    def test_pixels_become_square(self, tmp_path):
        path = write_video(tmp_path / "a.mkv", shades(3), codec="libx264", **{"x264-params": "sar=2/1"})
        assert read(path, 1).pictures[0].size == (2 * SIZE[1], SIZE[0])


@pytest.mark.parametrize("frames", [3, 9])  # read to the end or not
def test_a_video_is_let_go_of_without_the_collector_of_cycles(tmp_path, frames):
    path = write_video(tmp_path / "a.mkv", shades(9), codec="libx264")
    read(path, frames)
    gc.collect()
    gc.disable()  # else it might come by between the reading and the count
    try:
        read(path, frames)
        large = {"VideoFrame", "Packet", "InputContainer", "_Decoder"}
        assert not [thing for thing in gc.get_objects() if type(thing).__name__ in large]
    finally:
        gc.enable()


class TestWhatIsNoVideo:
    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (b"", "is empty \\(0 bytes\\): copy it again"),
            (b"this is text\n" * 99, "is damaged or no video"),
            (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n", "no video"),
            (b"ffconcat version 1.0\nfile other.mp4\n", "no video in a container that is read"),
        ],
        ids=["empty", "text", "playlist", "list of files"],
    )
    def test_is_refused_by_name(self, tmp_path, content, complaint):
        write_video(tmp_path / "other.mp4", shades(5))  # what a list would lead to
        (tmp_path / "a.mp4").write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.mp4 .*{complaint}"):
            read(tmp_path / "a.mp4")

    @pytest.mark.parametrize(
        ("size", "options", "complaint"),
        [
            ((2, 4000), {}, "4,000 x 2 pixels, more than 16 times longer"),
            ((320, 16), {}, "16 x 320 pixels, more than 16 times longer"),
            ((16, 18_000), {}, "18,000 x 16 pixels, but at most"),
            (SIZE, {"x264-params": "sar=100/7"}, "64 x 48 pixels, shown 914 wide, more than 16 times longer"),
            (SIZE, {"x264-params": "sar=2/100"}, "64 x 48 pixels, shown 1 wide, more than 16 times longer"),
            ((144, 1500), {"x264-params": "sar=100/7"}, "shown 21,429 wide, but at most"),
        ],
    )  # fmt: skip
    def test_of_odd_shapes_is_refused_before_it_is_a_picture(self, tmp_path, monkeypatch, size, options, complaint):
        codec = "libx264" if options else "ffv1"
        path = write_video(tmp_path / "a.mkv", [np.zeros((*size, 3), np.uint8)] * 2, codec=codec, **options)
        monkeypatch.setattr(decode, "_upright", None)
        with pytest.raises(ValueError, match=rf"a\.mkv has frames of .*{complaint}"):
            read(path)

    def test_that_grows_on_its_way_is_refused(self, tmp_path, monkeypatch):
        small, large = shades(3), [np.zeros((480, 640, 3), np.uint8)] * 3
        path = write_video(tmp_path / "a.mpg", small, codec="mpeg2video")
        path.write_bytes(path.read_bytes() + write_video(tmp_path / "b.mpg", large, codec="mpeg2video").read_bytes())
        monkeypatch.setattr(decode, "LEAST_ROOM", 100)
        with pytest.raises(ValueError, match=r"a\.mpg cannot be decoded .* \(its frames grow, or are damaged\)"):
            read(path, 6)

    @pytest.mark.slow
    @pytest.mark.parametrize("codec", ["mjpeg", "png"])
    def test_of_very_many_pixels_takes_no_memory(self, tmp_path, codec):
        path = write_large(tmp_path / "a.mov", codec)
        assert path.stat().st_size < 10e6
        code = """
import resource, sys, pathlib
from wsch_core.videos.decode import read_clip
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = most()
try:
    read_clip(pathlib.Path(sys.argv[1]), 3, lambda image: image)
except ValueError as error:
    print(most() - before, error)
"""
        told = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
        grown, sentence = told.split(" ", 1)
        assert int(grown) < 100_000  # kB
        assert "a.mov has frames of" in sentence

    @pytest.mark.parametrize("times", ["one each", "a table"])
    def test_that_claims_very_many_frames_is_refused(self, tmp_path, times):
        path = write_video(tmp_path / "a.mp4", shades(40))
        content, claimed = bytearray(path.read_bytes()), 30_000_000
        if times == "one each":
            place = content.index(b"stsz")
            content[place + 8 : place + 16] = struct.pack(">II", 1, claimed)
        place = content.index(b"stts")
        content[place + 8 : place + 16] = struct.pack(">II", 1, claimed)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.mp4 claims to hold 30,000,000 frames"):
            read(path)

    @pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
    def test_with_hours_of_plain_sound_is_read(self, tmp_path, name):
        """Plain sound claims a frame for each of its numbers."""
        path = write_with_sound(tmp_path / name, "pcm_s16le" if name == "a.mov" else "aac")
        assert len(read(path).pictures) == 5

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a.mp4")
        with pytest.raises(ValueError, match=r"a\.mp4 is not a regular file"):
            read(tmp_path / "a.mp4")
        write_video(tmp_path / "b.mp4", shades(3))
        found = find_videos(tmp_path)
        assert [video.id for video in found.videos] == ["b.mp4"]
        assert [(item.id, item.reason) for item in found.left_out] == [
            ("a.mp4", "it is not a regular file: remove it.")
        ]

    def test_videos_wait_until_there_is_room(self, tmp_path, monkeypatch):
        """Each of four threads decodes a video that takes more than half of the room."""
        monkeypatch.setattr(decode, "LEAST_ROOM", 60)
        monkeypatch.setattr(decode, "ROOM", decode._Room(100))
        monkeypatch.setattr(decode, "MOST_PIXELS", 60)
        monkeypatch.setattr(decode, "_check_shape", lambda *given: None)
        path, inside, most = write_video(tmp_path / "a.mkv", shades(9)), [], []

        def look(image):
            inside.append(image)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: read_clip(path, 5, look), range(4)))
        assert most == [1] * 20
        assert decode.ROOM.free == 100

    def test_a_picture_and_a_sound(self, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.mp4", format="PNG")
        with pytest.raises(ValueError, match=r"a\.mp4 is no video"):
            read(tmp_path / "a.mp4")
        with pytest.raises(ValueError, match=r"b\.mp4 holds no video stream \(it holds: audio\)"):
            read(write_sound(tmp_path / "b.mp4"))

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(OSError, match=r"none\.mp4 cannot be read \(no such file or directory\)"):
            read(tmp_path / "none.mp4")

    def test_damage_in_the_middle_is_told_with_its_time(self, tmp_path):
        path = write_video(tmp_path / "a.mp4", shades(100), codec="libx264", g="5", bf="0")
        whole = bytearray(path.read_bytes())
        start = whole.index(b"mdat")
        for place in range(start + 2000, start + 2600):
            whole[place] = 0xFF
        path.write_bytes(whole)
        with pytest.raises(ValueError, match=r"a\.mp4 is damaged (at \d\.\d s|or no video)"):
            read(path, 25)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs WSCH_CLIPS, a folder of real clips")
class TestRealClips:
    def test_are_read_but_the_damaged_one(self):
        for path in sorted(path for path in CLIPS.rglob("*") if path.suffix in decode.EXTENSIONS):
            if path.stem == "corrupted":
                with pytest.raises(ValueError, match=r"corrupted\.mp4 is damaged at 3\.0 s"):
                    read(path, 25)
            else:
                assert len(read(path, 25).pictures) == 25

    def test_a_rotated_recording_is_upright_and_short(self):
        plain, turned = (read(CLIPS / f"rotated_{angle}.mov", 25) for angle in (0, 90))
        assert plain.pictures[0].size == turned.pictures[0].size[::-1]
        assert plain.repeated == turned.repeated == 22
