"""Broken label files of MATLAB v5, written element by element."""

import os
import struct
import zlib

import numpy as np
import scipy.io
import scipy.sparse
from hostile import Variant, flipped, truncated

UINT8, INT8, INT32, UINT32, DOUBLE, MATRIX, COMPRESSED = 2, 1, 5, 6, 9, 14, 15
DENSE, SPARSE, LOGICAL = 9, 5, 0x0200
EYE = np.eye(3)[[0, 1, 2, 0, 1]]


def element(kind, content):
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def words(*numbers, kind=INT32):
    return element(kind, np.array(numbers, "<i8").astype("<u4").tobytes())


def matrix(*parts, name=b"labels", shape=(5, 3), flags=DENSE):
    content = words(flags, 0, kind=UINT32) + words(*shape) + element(INT8, name) + b"".join(parts)
    return element(MATRIX, content)


def dense(values=EYE, **options):
    return matrix(element(DOUBLE, np.asarray(values, "<f8").tobytes("F")), **options)


def sparse(rows=(0, 3, 1, 4, 2), starts=(0, 2, 4, 5), values=(1.0,) * 5, **options):
    parts = words(*rows), words(*starts), element(DOUBLE, np.array(values, "<f8").tobytes())
    return matrix(*parts, flags=SPARSE, **options)


def folded(content):
    squeezed = zlib.compress(content)
    return struct.pack("<II", COMPRESSED, len(squeezed)) + squeezed


HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def file(*variables, head=HEAD):
    return lambda path: path.write_bytes(head + b"".join(variables))


def bomb(path, declared=2**30):
    """A matrix that unfolds to a gigabyte of zeros, from one megabyte."""
    deflate = zlib.compressobj(1)
    start = matrix(struct.pack("<II", UINT8, declared), shape=(5, 3))
    content = deflate.compress(struct.pack("<II", MATRIX, declared) + start[8:])
    content += b"".join(deflate.compress(bytes(2**22)) for _ in range(64)) + deflate.flush()
    file(struct.pack("<II", COMPRESSED, len(content)) + content)(path)


def bomb_behind(path):
    """Good values, and then 256 MB that nobody asked for."""
    deflate = zlib.compressobj(1)
    content = deflate.compress(dense())
    content += b"".join(deflate.compress(bytes(2**22)) for _ in range(64)) + deflate.flush()
    file(struct.pack("<II", COMPRESSED, len(content)) + content)(path)


def saved(value, **options):
    return lambda path: scipy.io.savemat(path, {"labels": value}, **options)


MAT = {
    "no file": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello\n" * 50),
    "zeros": lambda path: path.write_bytes(bytes(5000)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "v4": saved(EYE, format="4"),
    "unknown version": file(dense(), head=b"MATLAB".ljust(124) + b"\x00\x07IM"),
    "no byte order": file(dense(), head=b"MATLAB".ljust(128)),
    "huge shape": file(dense(shape=(2**31 - 1, 2**31 - 1))),
    "huge columns": file(dense(shape=(5, 2**31 - 1))),
    "huge columns, compressed": file(folded(dense(shape=(5, 1000)))),
    "32 huge dimensions": file(dense(shape=(2**31 - 1,) * 32)),
    "33 dimensions": file(dense(shape=(1,) * 33)),
    "one dimension": file(dense(shape=(15,))),
    "three dimensions": saved(np.zeros((5, 3, 2))),
    "negative shape": file(dense(shape=(-5, -3))),
    "more values than places": file(dense(np.ones((5, 9)))),
    "fewer values than places": file(dense(np.ones((5, 2)))),
    "values of an unknown type": file(matrix(element(99, bytes(120)))),
    "values are a matrix": file(matrix(dense())),
    "no values": file(matrix()),
    "values of 4 GB": file(matrix(struct.pack("<II", DOUBLE, 2**32 - 1))),
    "half a value": file(matrix(element(DOUBLE, bytes(117)))),
    "name of 4 GB": file(element(MATRIX, words(9, 0, kind=UINT32) + words(5, 3) + struct.pack("<II", 1, 2**32 - 8))),
    "name of 60 kB": file(dense(name=b"x" * 60_000)),
    "other name, markup": file(dense(name=b"<img src=x>")),
    "small element too large": file(element(MATRIX, struct.pack("<I", 9 << 16 | UINT32) + bytes(4))),
    "no flags": file(element(MATRIX, b"")),
    "element of 4 GB": file(struct.pack("<II", MATRIX, 2**32 - 8) + bytes(64)),
    "unknown element": file(element(77, bytes(64))),
    "compressed twice": file(folded(folded(dense()))),
    "compressed garbage": file(struct.pack("<II", COMPRESSED, 64) + b"\xff" * 64),
    "compressed, cut off": file(folded(dense())[:40]),
    "compressed, without its end": file(struct.pack("<II", COMPRESSED, 70) + zlib.compress(dense())[:70]),
    "compressed nothing": file(struct.pack("<II", COMPRESSED, 0)),
    "unfolds to a gigabyte": bomb,
    "unfolds behind its values": bomb_behind,
    "a million empty variables": file(dense(name=b"a") * 1_001 + struct.pack("<II", MATRIX, 0) * 10**6),
    "text inside": saved(np.array(["abc", "def"])),
    "cell array": saved(np.array([EYE, "x"], dtype=object)),
    "structure": saved({"labels": EYE}),
    "function": file(dense(flags=16)),
    "object": file(dense(flags=17)),
    "complex": saved(EYE * 1j),
    "fractions": saved(EYE / 2),
    "NaN": saved(EYE * np.nan),
    "infinity": saved(np.full((5, 3), np.inf)),
    "two": saved(EYE * 2),
    "below zero": saved(-EYE),
    "of other videos": saved(np.eye(4, 3)),
    "of other classes": saved(np.eye(5, 4)),
    "sparse, row outside": file(sparse(rows=(0, 3, 1, 4, 5))),
    "sparse, row far outside": file(sparse(rows=(0, 3, 1, 4, 2**31 - 1))),
    "sparse, row below zero": file(sparse(rows=(0, 3, 1, 4, -1))),
    "sparse, columns backwards": file(sparse(starts=(0, 4, 2, 5))),
    "sparse, columns begin late": file(sparse(starts=(1, 2, 4, 5))),
    "sparse, columns outside": file(sparse(starts=(0, 2, 4, 2**31 - 1))),
    "sparse, column below zero": file(sparse(starts=(0, -2, 4, 5))),
    "sparse, too few columns": file(sparse(starts=(0, 2))),
    "sparse, no columns": file(sparse(starts=())),
    "sparse, too few values": file(sparse(values=(1.0,))),
    "sparse, too few rows": file(sparse(rows=(0,))),
    "sparse, a place named twice": file(sparse(rows=(0, 0, 1, 4, 2))),
    "sparse, three dimensions": file(sparse(shape=(5, 3, 2))),
    "sparse, huge": file(sparse(shape=(2**31 - 1, 2**31 - 1))),
}


def wrong_checksum(path):
    content = bytearray(folded(dense()))
    content[-1] ^= 1
    file(bytes(content))(path)


MAT["compressed, wrong checksum"] = wrong_checksum
FORMS = (
    saved(EYE),
    saved(EYE, do_compression=True),
    saved(scipy.sparse.csc_array(EYE), do_compression=True),
    file(sparse()),
    file(folded(dense())),
)


def variants():
    made = [Variant("mat v5", name, change) for name, change in MAT.items()]
    made += [Variant("mat v5", f"good form {number}", form, False) for number, form in enumerate(FORMS)]
    for seed, form in enumerate(FORMS, start=30):
        made += flipped("mat v5", 12, seed, form)
    return made + truncated("mat v5", 24, FORMS[4])
