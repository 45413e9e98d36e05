"""Broken HDF5: features, codes, maps, and label files of MATLAB v7.3."""

import os
import zlib
from functools import cache

import h5py
import numpy as np
from hostile import Variant, flipped, truncated

FRAMES, SIZE = 10, 12
PICTURES = (FRAMES, 4, 4)
LZF = (("compression", "lzf"), ("maxshape", (None, FRAMES, SIZE)))


def replaced(name, make):
    """One member of the file made anew: `make(file)` creates it, or returns its content."""

    def write(path):
        with h5py.File(path, "r+") as file:
            if name in file:
                del file[name]
            content = make(file)
            if content is not None:
                file[name] = content

    return write


def feats(**options):
    return replaced("feats", lambda file: file.create_dataset("feats", **options) and None)


@cache
def folded(nbytes):
    """Zeros, compressed."""
    deflate = zlib.compressobj(1)
    block = bytes(2**22)
    return b"".join(deflate.compress(block) for _ in range(nbytes // len(block))) + deflate.flush()


def bomb(name, shape, chunks, dtype="f4", last=1):
    """Chunks that are few bytes in the file and unfold to their whole size."""

    def make(file):
        data = file.create_dataset(name, shape, dtype, chunks=chunks, compression="gzip")
        content = folded(int(np.prod(chunks)) * np.dtype(dtype).itemsize)
        for start in range(0, shape[0], chunks[0]):
            data.id.write_direct_chunk((start, *[0] * (len(shape) - 1)), content)

    return replaced(name, make)


def unfolds_beyond(name, shape, chunks, dtype="f4", options=(("compression", "gzip"),), nbytes=2**31, last=True):
    """One chunk that is small by what it declares, and unfolds to gigabytes."""

    def make(file):
        data = file.create_dataset(name, data=np.ones(shape, dtype), chunks=chunks, **dict(options))
        place = ((shape[0] - 1) // chunks[0] * chunks[0] if last else 0, *[0] * (len(shape) - 1))
        data.id.write_direct_chunk(place, folded(nbytes))

    return replaced(name, make)


def stacked(times):
    """Compressed over and over."""

    def make(file):
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, FRAMES, SIZE))
        for _ in range(times):
            plist.set_deflate(9)
        space = h5py.h5s.create_simple((21, FRAMES, SIZE))
        data = h5py.h5d.create(file.id, b"feats", h5py.h5t.IEEE_F32LE, space, plist)
        content = folded(2**29)
        for _ in range(times - 1):
            content = zlib.compress(content, 9)
        for row in range(21):
            data.write_direct_chunk((row, 0, 0), content)

    return replaced("feats", make)


def one_text(name, count, length, **options):
    """Texts of any length that all lead to one long text."""

    def write(path):
        with h5py.File(path, "r+") as file:
            if name in file:
                del file[name]
            texts = ["x" * length, *(f"{number}" for number in range(count - 1))]
            data = file.create_dataset(name, data=texts, dtype=TEXT, **options)
            file.flush()
            if data.compression == "lzf":
                return
            if data.chunks:
                mask, content = data.id.read_direct_chunk((0,))
                content = zlib.decompress(content) if data.compression else content
                content = content[:16] * (len(content) // 16)
                data.id.write_direct_chunk((0,), zlib.compress(content) if data.compression else content, mask)
                return
            start = data.id.get_offset()
        content = bytearray(path.read_bytes())
        content[start : start + 16 * count] = content[start : start + 16] * count
        path.write_bytes(bytes(content))

    return write


def without_leading_bit(path):
    """Numbers whose leading bit is written out, which other programs than HDF5 read wrongly."""

    def make(file):
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_norm(h5py.h5t.NORM_NONE)
        space = h5py.h5s.create_simple((21, FRAMES, SIZE))
        data = h5py.h5d.create(file.id, b"feats", kind, space)
        data.write(h5py.h5s.ALL, h5py.h5s.ALL, np.random.default_rng(0).random((21, FRAMES, SIZE)).astype("f4"))

    replaced("feats", make)(path)


def short_chunk(file):
    """Not compressed, and shorter than it must be."""
    data = file.create_dataset("feats", (21, FRAMES, SIZE), "f4", chunks=(1, FRAMES, SIZE), shuffle=True)
    for row in range(21):
        data.id.write_direct_chunk((row, 0, 0), bytes(8))


def lists_of_texts(path):
    with h5py.File(path, "r+") as file:
        file.attrs["extractor_version"] = np.array(["x" * 600] * 30, dtype=object)


def one_group_many_names(path):
    with h5py.File(path, "r+") as file:
        for number in range(20_000):
            file[f"split{number}"] = h5py.SoftLink("/database")


def half_written(file):
    data = file.create_dataset("feats", (21, FRAMES, SIZE), "f4", chunks=(1, FRAMES, SIZE))
    data[:9] = 1


def unknown_filter(file):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1, FRAMES, SIZE))
    plist.set_filter(32_001, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
    data = h5py.h5d.create(file.id, b"feats", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((21, FRAMES, SIZE)), plist)
    for row in range(21):
        data.write_direct_chunk((row, 0, 0), b"x" * 64)


def wrong_checksum(file):
    data = file.create_dataset("feats", (21, FRAMES, SIZE), "f4", chunks=(1, FRAMES, SIZE), fletcher32=True)
    for row in range(21):
        data.id.write_direct_chunk((row, 0, 0), bytes(4 * FRAMES * SIZE) + b"abcd")


def elsewhere(path):
    """Good features, outside the data folder."""
    other = path.parents[2] / "secret.h5"
    with h5py.File(other, "w") as file:
        file["feats"] = np.ones((21, FRAMES, SIZE), np.float32)
    return other


def external(path):
    other = elsewhere(path)
    replaced("feats", lambda file: h5py.ExternalLink(str(other), "feats"))(path)


def external_by_way(path):
    other = elsewhere(path)
    replaced("feats", lambda file: h5py.SoftLink("/way/feats"))(path)
    replaced("way", lambda file: h5py.ExternalLink(f"../../{other.name}", "/"))(path)


def virtual(path, other=None):
    other = other or str(elsewhere(path))
    layout = h5py.VirtualLayout((21, FRAMES, SIZE), "f4")
    layout[:] = h5py.VirtualSource(other, "feats", (21, FRAMES, SIZE))
    replaced("feats", lambda file: file.create_virtual_dataset("feats", layout) and None)(path)


def raw_storage(path):
    other = path.parents[2] / "secret.raw"
    other.write_bytes(b"\x01" * (4 * 21 * FRAMES * SIZE))
    feats(shape=(21, FRAMES, SIZE), dtype="f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])(path)


def system_file(path):
    feats(shape=(1, FRAMES, SIZE), dtype="f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])(path)


def links_without_end(file):
    file["l0"] = h5py.SoftLink("/")
    for level in range(1, 16):
        file[f"l{level}"] = h5py.SoftLink("/" + f"l{level - 1}/" * 60)
    file["feats"] = h5py.SoftLink("/l15/x")


def itself(file):
    file["feats"] = h5py.SoftLink("/feats")


def a_group_in_itself(file):
    group = file.create_group("feats")
    group["feats"] = group


def stored_anew(path, **options):
    with h5py.File(path, "r+") as file:
        content = file["feats"][()]
        del file["feats"]
        file.create_dataset("feats", data=content, **options)


def numbers(change):
    def write(path):
        with h5py.File(path, "r+") as file:
            content = file["feats"][()]
            del file["feats"]
            file["feats"] = change(content)

    return write


def put(index, value):
    def change(content):
        content[index] = value
        return content

    return numbers(change)


def member(name, **options):
    return replaced(name, lambda file: file.create_dataset(name, **options) and None)


TEXT = h5py.string_dtype()
FILES = {
    "no file": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello\n" * 50),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path)),
    "only a signature": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500)),
    "nothing in it": lambda path: h5py.File(path, "w").close(),
}
FEATURES = FILES | {
    "a trillion rows": feats(shape=(10**12, FRAMES, SIZE), dtype="f4", chunks=(1, FRAMES, SIZE)),
    "a trillion rows in one piece": feats(shape=(10**12, FRAMES, SIZE), dtype="f4"),
    "rows that overflow": feats(shape=(2**60, FRAMES, SIZE), dtype="f4", chunks=(4096, FRAMES, SIZE)),
    "half written": replaced("feats", half_written),
    "unfolds to 1 GB": bomb("feats", (2**21, FRAMES, SIZE), (2**17, FRAMES, SIZE)),
    "unfolds to 250 MB at once": bomb("feats", (2**19, FRAMES, SIZE), (2**19, FRAMES, SIZE)),
    "unknown filter": replaced("feats", unknown_filter),
    "wrong checksum": replaced("feats", wrong_checksum),
    "external link": external,
    "a link to an external link": external_by_way,
    "virtual, absolute": virtual,
    "virtual, up": lambda path: (elsewhere(path), virtual(path, "../../secret.h5")),
    "external storage": raw_storage,
    "external storage of the system": system_file,
    "links without end": replaced("feats", links_without_end),
    "a link to its own name": replaced("feats", itself),
    "a link to nothing": replaced("feats", lambda file: h5py.SoftLink("/nowhere")),
    "a group in itself": replaced("feats", a_group_in_itself),
    "NaN": put((3, 2, 1), np.nan),
    "infinity": put((20, 0, 0), -np.inf),
    "too large for float32": numbers(lambda content: content.astype(np.float64) * 1e300),
    "whole numbers": numbers(lambda content: content.astype(np.int64)),
    "complex": numbers(lambda content: content.astype(np.complex64)),
    "truth values": numbers(lambda content: content > 0),
    "texts": numbers(lambda content: np.array([b"x"] * 21)),
    "compound": numbers(lambda content: np.zeros(21, [("a", "f4"), ("b", "i4")])),
    "opaque": numbers(lambda content: np.zeros((21, FRAMES, SIZE), "V8")),
    "references": member("feats", shape=(21,), dtype=h5py.ref_dtype),
    "lists of any length": member("feats", shape=(21,), dtype=h5py.vlen_dtype("f4")),
    "a single number": numbers(lambda content: 1.0),
    "no shape": replaced("feats", lambda file: h5py.Empty("f4")),
    "two dimensions": numbers(lambda content: content[0]),
    "four dimensions": numbers(lambda content: content[None]),
    "no videos": numbers(lambda content: content[:0]),
    "no frames": numbers(lambda content: content[:, :0]),
    "other frames": numbers(lambda content: content[:, :9]),
    "other size": numbers(lambda content: content[..., :11]),
    "all zero": numbers(np.zeros_like),
    "ids are numbers": member("ids", data=np.arange(21)),
    "ids too few": member("ids", data=["a"] * 3, dtype=TEXT),
    "ids twice": member("ids", data=["a"] * 21, dtype=TEXT),
    "ids are not UTF-8": member("ids", data=np.array([b"\xff%d" % n for n in range(21)])),
    "ids that are not there": member("ids", shape=(10**12,), dtype=TEXT, chunks=(1024,)),
    "ids that unfold": bomb("ids", (16,), (16,), "S4000000"),
    "a chunk unfolds to 2 GB": unfolds_beyond("feats", (21, FRAMES, SIZE), (2, FRAMES, SIZE)),
    "a chunk unfolds to 2 GB, shuffled": unfolds_beyond(
        "feats", (21, FRAMES, SIZE), (2, FRAMES, SIZE), options=(("compression", "gzip"), ("shuffle", True)), last=False
    ),
    "a chunk unfolds to 2 GB, with checksum": unfolds_beyond(
        "feats", (21, FRAMES, SIZE), (2, FRAMES, SIZE), options=(("compression", "gzip"), ("fletcher32", True))
    ),
    "a chunk unfolds to 60 MB": unfolds_beyond("feats", (21, FRAMES, SIZE), (2, FRAMES, SIZE), nbytes=60 * 2**20),
    "large chunks of lzf": unfolds_beyond("feats", (21, FRAMES, SIZE), (2**15, FRAMES, SIZE), options=LZF),
    "compressed four times": stacked(4),
    "a chunk that is short": replaced("feats", short_chunk),
    "no implied leading bit": without_leading_bit,
    "ids of one long text": one_text("ids", 21, 20_000_000),
    "ids of one long text, chunked": one_text("ids", 21, 20_000_000, chunks=(21,)),
    "ids of one long text, compressed": one_text("ids", 21, 20_000_000, chunks=(21,), compression="gzip"),
    "ids of one long text, lzf": one_text("ids", 21, 20_000_000, chunks=(21,), compression="lzf"),
    "ids of a chunk that unfolds": unfolds_beyond("ids", (21,), (2,), "S4"),
    "keyframes of a chunk that unfolds": unfolds_beyond("keyframes", (21, *PICTURES), (1, *PICTURES), "u1", last=False),
    "extractor of many texts": lists_of_texts,
    "ids elsewhere": replaced("ids", lambda file: h5py.ExternalLink("/etc/passwd", "ids")),
    "ids are a group": replaced("ids", lambda file: file.create_group("ids") and None),
    "keyframes are fractions": member("keyframes", data=np.zeros((21, FRAMES, 4, 4))),
    "keyframes of other videos": member("keyframes", data=np.zeros((3, FRAMES, 4, 4), np.uint8)),
    "keyframes of a number": member("keyframes", data=np.uint8(1)),
    "keyframes of terabytes": member("keyframes", shape=(21, FRAMES, 10**6, 10**6), dtype="u1", chunks=(1, 1, 256, 256)),
    "keyframes elsewhere": replaced("keyframes", lambda file: h5py.ExternalLink("/etc/passwd", "x")),
}  # fmt: skip
HARMLESS = {
    "ids with markup": member("ids", data=[f"<img src=x onerror=alert({n})>" for n in range(21)], dtype=TEXT),
    "ids with null bytes": member("ids", data=np.array([b"a\0%d" % n for n in range(21)])),
    "ids of a megabyte": member("ids", data=[f"{n}" * 500_000 for n in range(21)], dtype=TEXT),
    "lzf": lambda path: stored_anew(path, compression="lzf", chunks=(2, FRAMES, SIZE)),
    "gzip, shuffle and checksum": lambda path: stored_anew(path, compression="gzip", shuffle=True, fletcher32=True),
    "half precision": numbers(lambda content: content.astype(np.float16)),
    "the other byte order": numbers(lambda content: content.astype(">f4")),
}
CODES = FILES | {
    "packed of a chunk that unfolds": unfolds_beyond("database/packed", (14, 2), (14, 2), "u1"),
    "ids of one long text": one_text("database/ids", 14, 20_000_000),
    "packed elsewhere": replaced("database/packed", lambda file: h5py.ExternalLink("/etc/passwd", "x")),
    "split elsewhere": replaced("query", lambda file: h5py.ExternalLink("secret.h5", "/")),
    "packed are numbers": member("database/packed", data=np.zeros((14, 2))),
    "packed of terabytes": member("database/packed", shape=(10**12, 2), dtype="u1", chunks=(1024, 2)),
    "packed unfolds": bomb("database/packed", (2**28, 2), (2**24, 2), "u1"),
    "packed too narrow": member("database/packed", data=np.zeros((14, 1), np.uint8)),
    "packed is a group": replaced("database/packed", lambda file: file.create_group("database/packed") and None),
    "packed is missing": lambda path: replaced("database/packed", lambda file: None)(path),
    "ids too few": member("database/ids", data=["a"] * 3, dtype=TEXT),
    "ids are numbers": member("database/ids", data=np.arange(14)),
    "a data set in place of a split": member("database", data=np.zeros(3)),
    "bits are text": lambda path: attribute(path, "database", "bits", "x"),
    "bits are many": lambda path: attribute(path, "database", "bits", 2**40),
    "bits below zero": lambda path: attribute(path, "database", "bits", -8),
    "bits are missing": lambda path: attribute(path, "database", "bits", None),
    "bits are a list": lambda path: attribute(path, "database", "bits", [1, 2]),
}
MAP = FILES | {
    "coordinates of a chunk that unfolds": unfolds_beyond("coordinates", (14, 2), (14, 2)),
    "coordinates elsewhere": replaced("coordinates", lambda file: h5py.ExternalLink("/etc/passwd", "x")),
    "coordinates of terabytes": member("coordinates", shape=(10**12, 2), dtype="f4", chunks=(1024, 2)),
    "coordinates NaN": member("coordinates", data=np.full((14, 2), np.nan, np.float32)),
    "coordinates are texts": member("coordinates", data=[["a", "b"]] * 14, dtype=TEXT),
    "neighbours outside": member("neighbours", data=np.full((14, 3), 14, np.int32)),
    "neighbours below zero": member("neighbours", data=np.full((14, 3), -1, np.int32)),
    "neighbours are fractions": member("neighbours", data=np.zeros((14, 3))),
    "of other videos": member("neighbours", data=np.zeros((3, 3), np.int32)),
    "no trustworthiness": lambda path: attribute(path, "/", "trustworthiness", None),
    "trustworthiness is text": lambda path: attribute(path, "/", "trustworthiness", "<b>"),
}
del MAP["no file"]  # then it is made


def attribute(path, place, name, value):
    with h5py.File(path, "r+") as file:
        del file[place].attrs[name]
        if value is not None:
            file[place].attrs[name] = value


def sparse(file, data=(1.0, 1.0), rows=(0, 1), starts=(0, 1, 2, 2), count=14):
    """MATLAB's layout of a sparse matrix (14, 3)."""
    group = file.create_group("labels")
    group["data"], group["ir"], group["jc"] = np.array(data), np.array(rows, np.uint64), np.array(starts, np.uint64)
    group.attrs["MATLAB_sparse"] = count


def v73(**options):
    return replaced("labels", lambda file: sparse(file, **options))


LABELS = {name: change for name, change in FILES.items() if name not in ("text", "empty")} | {
    "a chunk unfolds to 2 GB": unfolds_beyond("labels", (3, 14), (3, 14), "u1"),
    "terabytes": member("labels", shape=(10**11, 14), dtype="u1", chunks=(1024, 14)),
    "terabytes of videos": member("labels", shape=(3, 10**12), dtype="u1", chunks=(3, 1024)),
    "not written": member("labels", shape=(3, 14), dtype="u1", chunks=(1, 14)),
    "elsewhere": replaced("labels", lambda file: h5py.ExternalLink("/etc/passwd", "x")),
    "texts": member("labels", data=[["a"] * 14] * 3, dtype=TEXT),
    "references": member("labels", shape=(3, 14), dtype=h5py.ref_dtype),
    "complex": member("labels", data=np.zeros((3, 14), np.complex64)),
    "compound": member("labels", data=np.zeros((3, 14), [("real", "f8"), ("imag", "f8")])),
    "fractions": member("labels", data=np.full((3, 14), 0.5)),
    "NaN": member("labels", data=np.full((3, 14), np.nan)),
    "below zero": member("labels", data=np.full((3, 14), -1)),
    "a single number": member("labels", data=1),
    "other name": lambda path: replaced("labels", lambda file: None)(path),
    "a group": replaced("labels", lambda file: file.create_group("labels") and None),
    "sparse, row outside": v73(rows=(0, 14)),
    "sparse, row far outside": v73(rows=(0, 2**60)),
    "sparse, row below zero": v73(rows=(0, 2**64 - 1)),
    "sparse, columns backwards": v73(starts=(0, 2, 1, 2)),
    "sparse, columns outside": v73(starts=(0, 1, 2, 2**50)),
    "sparse, no columns": v73(starts=()),
    "sparse, too few values": v73(data=(1.0,)),
    "sparse, values are texts": v73(data=(b"a", b"b")),
    "sparse, too many values": v73(data=np.ones(10**5), rows=np.zeros(10**5)),
    "sparse, a place named three times": v73(data=(1.0, 1.0, 1.0), rows=(0, 0, 0), starts=(0, 3, 3, 3)),
    "sparse, a place named again with 0": v73(data=(1.0, 0.0), rows=(0, 0), starts=(0, 2, 2, 2)),
    "sparse, rows of terabytes": v73(count=10**15),
    "sparse, rows are text": v73(count="many"),
    "sparse, rows are a list": v73(count=[1, 2]),
    "sparse, rows below zero": v73(count=-14),
    "sparse, part elsewhere": lambda path: (
        v73()(path), replaced("labels/ir", lambda file: h5py.ExternalLink("/etc/passwd", "x"))(path),
    ),
    "sparse, parts are groups": lambda path: (
        v73()(path), replaced("labels/jc", lambda file: file.create_group("labels/jc") and None)(path),
    ),
}  # fmt: skip


def variants():
    sets = {"HDF5 features": FEATURES, "HDF5 codes": CODES, "HDF5 map": MAP, "mat v7.3": LABELS}
    made = [Variant(kind, name, change) for kind, changes in sets.items() for name, change in changes.items()]
    made += [Variant("HDF5 features", name, change, False) for name, change in HARMLESS.items()]
    made += [Variant("HDF5 codes", "one group under 20,000 names", one_group_many_names, False)]
    for seed, kind in enumerate(sets, start=10):
        made += truncated(kind, 12) + flipped(kind, 32, seed)
    return made + flipped("mat v7.3", 16, 20, v73())
