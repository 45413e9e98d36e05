"""A corpus: a folder of Parquet files, its shards, with packed codes, ids, labels and splits, all made by one network.

    corpus.json                   bits, and which run and weights made the codes
    train-3fa2c1d05b17.parquet    a shard for each feature file; written whole or not at all, with checksums

A code is ceil(bits / 8) bytes, see `retrieval.codes.pack`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..methods.settings import MOST_BITS
from ..retrieval.codes import as_codes, pack
from ..runs.folder import Run
from ..storage.files import check_file, damaged, read_json, write_whole
from ..storage.words import one_line, shortened

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError(f"a corpus needs pyarrow ({error}): install wsch-core[corpus], as the README says.") from error

HEAD = "corpus.json"
CHECKSUM = "checksum"  # of all values
ENCODE_AGAIN = "encode its source again"
ANOTHER_FOLDER = "encode with the run that made them, or choose another folder"


@dataclass(frozen=True)
class Head:
    """What made codes: two sets of codes can be compared only if they agree in bits and weights."""

    bits: int
    weights: str  # of the network, see `Run.weights`
    run: str  # its name, for people

    @property
    def width(self) -> int:
        """Bytes of a code."""
        return (self.bits + 7) // 8

    def check_same(self, other: Head, whose: str, remedy: str = ANOTHER_FOLDER) -> None:
        """Refuse codes of another number of bits or other weights (ValueError)."""
        if self.bits != other.bits:
            raise ValueError(
                f"{whose} has codes of {other.bits} bits, made by the run {other.run!r}, but those of the run "
                f"{self.run!r} have {self.bits}: {remedy}."
            )
        if self.weights != other.weights:
            raise ValueError(
                f"{whose} has codes made by the run {other.run!r} with the weights {other.weights}, but the run "
                f"{self.run!r} has {self.weights}: codes of two networks cannot be compared; {remedy}."
            )


def head_of(run: Run) -> Head:
    """Of a finished run. Raises ValueError for one that is still being trained, whose weights change."""
    if run.unfinished:
        raise ValueError(f"run {run.name} is {run.unfinished}: finish it first, its codes would change.")
    return Head(run.settings.bits, run.weights, run.name)


@dataclass(frozen=True, eq=False)
class Queries:
    """Codes to search with, and what made them."""

    packed: np.ndarray  # (queries, ceil(bits / 8)) uint8
    head: Head

    @classmethod
    def of(cls, codes, head: Head) -> Queries:
        """codes: (queries, bits) of -1 and +1"""
        codes = as_codes(codes)
        if codes.shape[1] != head.bits:
            raise ValueError(
                f"found queries of {codes.shape[1]} bits, but the run {head.run!r} makes codes of {head.bits}: encode them "
                "with it."
            )
        return cls(pack(codes.cpu()).numpy(), head)

    def __len__(self) -> int:
        return len(self.packed)


@dataclass(frozen=True, eq=False)
class Rows:
    """Codes with their ids, in the order of a shard."""

    ids: pa.StringArray
    packed: np.ndarray  # (n, ceil(bits / 8)) uint8
    labels: pa.ListArray  # of each video; empty where there are none
    split: pa.StringArray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Corpus:
    """A folder of shards, and what made them."""

    folder: Path
    head: Head

    def shards(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.parquet"))

    def __len__(self) -> int:
        """Videos, as the shards say."""
        return sum(_parquet(path).metadata.num_rows for path in self.shards())

    def source(self, shard: Path) -> str:
        """The file that a shard was made of."""
        return _told(shard).get("source", "")

    def read(self, shard: Path) -> Rows:
        """All of a shard. Raises OSError for a damaged one, ValueError for codes that another network made."""
        told = _told(shard)
        try:
            made_by = Head(int(told["bits"]), told["weights"], told["run"])
        except (KeyError, ValueError) as error:
            raise damaged(shard, f"what made its codes is missing: {error}", ENCODE_AGAIN) from error
        self.head.check_same(made_by, shard.name, "remove this shard, or encode its source again")
        try:
            table = pq.read_table(shard, page_checksum_verification=True).combine_chunks()
            if table.schema.remove_metadata() != _schema(self.head.width):
                raise ValueError(f"its columns are {shortened(str(table.schema.remove_metadata()))}")
            if any(table[name].null_count for name in table.column_names):
                raise ValueError("values are missing")
            if told.get(CHECKSUM) != _checksum(table):
                raise ValueError("its content does not fit its checksum")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise damaged(shard, error, ENCODE_AGAIN) from error
        ids, codes, labels, split = (_one_piece(column) for column in table.columns)
        packed = np.frombuffer(codes.buffers()[1], np.uint8, len(codes) * self.head.width)
        return Rows(ids, packed.reshape(-1, self.head.width), labels, split)

    def rows(self, shards: Iterable[Path] | None = None) -> Rows:
        """All of some shards, or of all of them, sorted by id. Raises ValueError where an id stands twice."""
        parts = [self.read(shard) for shard in (self.shards() if shards is None else shards)]
        if not parts:
            raise ValueError(f"{self.folder} holds no shards: encode some files first.")
        ids = pa.concat_arrays([part.ids for part in parts])
        order = pc.array_sort_indices(ids)
        ids = ids.take(order)
        self._refuse_twice(ids)
        packed = np.concatenate([part.packed for part in parts])[order.to_numpy()]
        labels = pa.concat_arrays([part.labels for part in parts]).take(order)
        return Rows(ids, packed, labels, pa.concat_arrays([part.split for part in parts]).take(order))

    def check_ids(self) -> None:
        """Refuse an id that stands twice, in one shard or in two (ValueError)."""
        parts = [self.read(shard).ids for shard in self.shards()]
        ids = pa.concat_arrays(parts) if parts else pa.array([], pa.string())
        self._refuse_twice(ids.take(pc.array_sort_indices(ids)))

    def _refuse_twice(self, sorted_ids: pa.StringArray) -> None:
        twice = pc.equal(sorted_ids[1:], sorted_ids[:-1])
        if pc.any(twice).as_py():
            again = sorted_ids[pc.index(twice, True).as_py()].as_py()
            raise ValueError(
                f"{self.folder}: the id {shortened(again)} stands twice: give every video an id of its own, or remove one "
                "of the shards that hold it."
            )


def open_corpus(folder: Path | str) -> Corpus:
    """A corpus by its folder. Raises FileNotFoundError or OSError where there is none."""
    folder = Path(folder)
    path = folder / HEAD
    told = read_json(path, "encode some files into this folder first", folder)
    try:
        head = Head(told["bits"], told["weights"], told["run"])
        whole = type(head.bits) is int and 1 <= head.bits <= MOST_BITS
        if set(told) != set(asdict(head)) or not whole or not all(isinstance(t, str) for t in (head.weights, head.run)):
            raise ValueError(f"it holds {shortened(told)}")
    except (TypeError, KeyError, ValueError) as error:
        raise damaged(path, error, "encode into another folder") from error
    return Corpus(folder, head)


def make_corpus(folder: Path | str, head: Head) -> Corpus:
    """The corpus of a folder, begun if there is none. Raises ValueError where another network made its codes."""
    folder = Path(folder)
    if (folder / HEAD).exists():
        corpus = open_corpus(folder)
        head.check_same(corpus.head, str(folder))
        return corpus
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / HEAD, lambda path: path.write_text(json.dumps(asdict(head), indent=1), encoding="utf-8"))
    return Corpus(folder, head)


def write_shard(
    path: Path,
    head: Head,
    ids: Sequence[str],
    packed: np.ndarray | torch.Tensor,
    source: str = "",
    labels: Sequence[Sequence[str]] | None = None,
    split: str = "",
) -> None:
    """Write a shard whole or not at all.

    ids: one for each code, all different; packed: (n, ceil(bits / 8)) uint8
    labels: the names of each video's labels; split: of all of them; source: the file that it was made of
    """
    packed = np.ascontiguousarray(packed, dtype=np.uint8)
    if packed.shape != (len(ids), head.width) or (labels is not None and len(labels) != len(ids)):
        raise ValueError(
            f"found {len(ids)} ids for packed codes of the shape {packed.shape}, expected ({len(ids)}, {head.width}) and "
            "labels for each or none: give each video an id, a code and its labels."
        )
    width = pa.binary(head.width)
    codes = pa.FixedSizeBinaryArray.from_buffers(width, len(packed), [None, pa.py_buffer(packed)])
    names = pa.array(labels if labels is not None else [[]] * len(ids), pa.list_(pa.string()))
    columns = [pa.array(ids, pa.string()), codes, names, pa.array([split] * len(ids), pa.string())]
    told = {"bits": str(head.bits), "weights": head.weights, "run": head.run, "source": source}
    table = pa.Table.from_arrays(columns, schema=_schema(head.width))
    table = table.replace_schema_metadata(told | {CHECKSUM: _checksum(table)})
    write_whole(
        path,
        lambda draft: pq.write_table(
            table, draft, compression="zstd", use_dictionary=["labels", "split"], write_page_checksum=True
        ),
    )


def _checksum(table: pa.Table) -> str:
    """Over all values: Parquet's own checksums leave out the heads of its pages."""
    found = hashlib.sha256()
    for column in table.combine_chunks().columns:
        for chunk in column.chunks:
            piece = pa.concat_arrays([chunk])
            while pa.types.is_list(piece.type):
                found.update(np.ascontiguousarray(piece.value_lengths()))
                piece = piece.flatten()
            if pa.types.is_string(piece.type):
                found.update(np.ascontiguousarray(pc.binary_length(piece)))
                found.update("".join(piece.to_pylist()).encode())
            else:
                found.update(b"".join(piece.to_pylist()))
    return found.hexdigest()[:16]


def _schema(width: int) -> pa.Schema:
    return pa.schema(
        [
            ("id", pa.string()),
            ("code", pa.binary(width)),
            ("labels", pa.list_(pa.string())),
            ("split", pa.string()),
        ]
    )


def _told(shard: Path) -> dict[str, str]:
    found = _parquet(shard).schema_arrow.metadata or {}
    return {name.decode(errors="replace"): text.decode(errors="replace") for name, text in found.items()}


def _parquet(shard: Path) -> pq.ParquetFile:
    """Its footer is read, its columns are not."""
    check_file(shard, ENCODE_AGAIN, shard.parent)
    try:
        with pq.ParquetFile(shard) as file:
            _ = file.schema_arrow, file.schema.names  # whatever is not text there shows now
            return file
    except (OSError, ValueError, pa.ArrowException) as error:
        raise OSError(f"{shard} is damaged ({one_line(error)}): remove it, and {ENCODE_AGAIN}.") from error


def _one_piece(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
