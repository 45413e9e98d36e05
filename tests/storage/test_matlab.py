"""The strict reader of MATLAB's v5 files gives what was written, in every form in which labels are."""

import struct

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from wsch_core.storage.matlab import read_matrix

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "?"]


def read(path, name="labels"):
    seen = []
    matrix = read_matrix(path, name, seen.append)
    assert seen == [matrix.shape]  # asked before it was read
    return matrix.toarray() if scipy.sparse.issparse(matrix) else matrix


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("mat") / "labels.mat"


@given(st.integers(1, 30), st.integers(1, 12), st.sampled_from(TYPES), st.booleans(), st.booleans(), st.integers(0, 99))
def test_what_was_written_is_read(path, rows, columns, kind, sparse, compressed, seed):
    values = (np.random.default_rng(seed).random((rows, columns)) < 0.4).astype(kind)
    others = {"first": np.arange(5.0), "words": np.array(["a", "b"]), "table": {"x": 1}}
    stored = scipy.sparse.csc_array(values.astype(float)) if sparse else values
    scipy.io.savemat(path, others | {"labels": stored, "last": np.eye(2)}, do_compression=compressed)
    assert np.array_equal(read(path), values)
    assert np.array_equal(read(path, "last"), np.eye(2))


def test_the_other_byte_order_is_read(path):
    def element(kind, content):
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    parts = [struct.pack(">II", 9, 0), struct.pack(">ii", 2, 3), b"labels", struct.pack(">6h", 1, 2, 3, 4, 5, 6)]
    content = b"".join(element(kind, part) for kind, part in zip((6, 5, 1, 3), parts, strict=True))
    path.write_bytes(b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x0100) + b"MI" + element(14, content))
    assert read(path).tolist() == [[1, 3, 5], [2, 4, 6]]
