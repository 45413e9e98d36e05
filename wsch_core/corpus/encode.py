"""Feature files become shards of codes, file by file, by Dask workers: what is done is found again, what fails is told."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from dask.distributed import Client, Future, as_completed
from filelock import FileLock, Timeout

from ..data import Dataset
from ..data.features import Faults, Features, read_chunks, read_ids
from ..experiments.sweep import cluster
from ..retrieval.codes import pack
from ..runs.folder import Run
from ..storage.files import TEMPORARY
from ..storage.hdf5 import find, open_hdf5
from ..storage.words import one_line
from ..training.device import resolve_device
from ..training.loop import encode
from .shards import Corpus, Head, head_of, make_corpus, write_shard

LOCK = ".lock"


@dataclass(frozen=True)
class Source:
    """A feature file to encode."""

    path: Path  # HDF5, see data/README.md
    key: str = "feats"  # of its (videos, frames, feature size)
    ids: tuple[str, ...] | None = None  # None: those in the file, or else "name/row"
    labels: tuple[tuple[str, ...], ...] | None = None  # the names of each video's labels
    split: str = ""


@dataclass
class Encoded:
    """What became of the sources."""

    corpus: Corpus
    written: list[Path] = field(default_factory=list)  # shards that were made now
    found: list[Path] = field(default_factory=list)  # shards that were there
    failed: dict[str, str] = field(default_factory=dict)  # source -> why, in one line

    def __str__(self) -> str:
        lines = [f"{len(self.corpus):,} codes of {self.corpus.head.bits} bits in {len(self.corpus.shards())} shards"]
        lines.append(f"{len(self.written)} files encoded, {len(self.found)} were there, {len(self.failed)} failed")
        return "\n".join(lines + [f"- {source}: {why}" for source, why in self.failed.items()])


def dataset_sources(dataset: Dataset, split: str = "database") -> list[Source]:
    """The feature files of a data set's split, with its ids and labels."""
    chosen, sources, start = dataset.splits[split], [], 0
    for name, videos in zip(chosen.files.features, chosen.videos_in_files, strict=True):
        rows = range(start, start + videos)
        start += videos
        labels = None
        if chosen.labels is not None:
            classes = dataset.definition.classes
            labels = tuple(tuple(classes[c] for c in chosen.labels[[row]].indices) for row in rows)
        ids = tuple(chosen.ids[row] for row in rows)
        sources.append(Source(dataset.definition.folder / name, chosen.files.features_key, ids, labels, chosen.name))
    return sources


def encode_corpus(
    run: Run,
    sources: Sequence[Source | Path | str],
    folder: Path | str,
    workers: int = 2,
    scheduler: str = "",
    device: str = "auto",
    show: Callable[[Encoded], None] | None = None,
) -> Encoded:
    """Encode feature files with a run's network into the corpus of a folder.

    sources: files, each a shard of its own; while its size and time, ids and labels stay the same, none is read again
    workers: processes on this machine; 0 encodes in this one; scheduler: the address of a Dask cluster to use instead,
    which must see the same files
    show: is given what is done so far, after every file

    A file that fails does not stop the others, and is named in what is returned. Stopped half-way, the same call goes on.
    Raises ValueError for an unfinished run, or a folder with codes of another network.
    """
    head = head_of(run)
    corpus = make_corpus(folder, head)
    done = Encoded(corpus)
    jobs = [source if isinstance(source, Source) else Source(Path(source).expanduser()) for source in sources]
    job = functools.partial(encode_source, run.folder, corpus.folder, head, str(resolve_device(device)))
    try:
        with FileLock(corpus.folder / LOCK, timeout=0):
            for leftover in corpus.folder.glob(f"{TEMPORARY}*"):
                leftover.unlink(missing_ok=True)
            if workers or scheduler:
                with cluster(max(1, min(workers, len(jobs))), scheduler) as client:
                    _take_all(client, job, jobs, done, show)
            else:
                for source in jobs:
                    _take(done, source, *job(source), show)
    except Timeout:
        raise RuntimeError(f"{folder} is being encoded into by another process: wait for it.") from None
    return done


def _take_all(client: Client, job: Callable, jobs: Sequence[Source], done: Encoded, show: Callable | None) -> None:
    futures = {client.submit(job, source, pure=False): source for source in jobs}
    for future in as_completed(futures):
        _take(done, futures[future], *_outcome(future), show)


def _outcome(future: Future) -> tuple[str, str, bool]:
    if future.status == "finished":
        return future.result()
    lost = future.exception() if future.status == "error" else future.status
    return "", f"its worker was lost ({one_line(lost)})", False


def _take(done: Encoded, source: Source, shard: str, error: str, new: bool, show: Callable | None) -> None:
    if error:
        done.failed[str(source.path)] = error
    else:
        (done.written if new else done.found).append(done.corpus.folder / shard)
    if show:
        show(done)


# What follows runs in the workers.


def encode_source(run: Path, folder: Path, head: Head, device: str, source: Source) -> tuple[str, str, bool]:
    """Returns the shard's name, what went wrong in one line or "", and whether the shard is new."""
    try:
        return _encode_source(Run(run), Corpus(folder, head), device, source)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        return "", one_line(error), False


def _encode_source(run: Run, corpus: Corpus, device: str, source: Source) -> tuple[str, str, bool]:
    path = source.path
    described = run.record["dataset"]
    videos = _check_shape(path, source.key, described["frames"], described["feature_size"])
    ids = source.ids or read_ids(path.parent, path.stem, (path.name,), videos)
    state = path.stat()
    content = (state.st_size, state.st_mtime_ns, source.key, ids, source.labels, source.split)
    digest = hashlib.sha256(repr(content).encode()).hexdigest()
    shard = corpus.folder / f"{path.stem}-{digest[:12]}.parquet"
    if shard.exists():
        corpus.read(shard)  # a damaged one is told, not taken for done
        return shard.name, "", False
    faults, codes, model = Faults(f"{path}: "), [], _model(run.folder, corpus.head.weights)
    for first, chunk in read_chunks(path, source.key):
        faults.look(chunk, first)
        codes.append(pack(encode(model, Features(chunk), torch.device(device))).numpy())
    faults.refuse()
    former = [other for other in corpus.shards() if corpus.source(other) == str(path.resolve())]
    write_shard(shard, corpus.head, ids, np.concatenate(codes), str(path.resolve()), source.labels, source.split)
    for other in former:  # of what the file held before
        other.unlink(missing_ok=True)
    return shard.name, "", True


@functools.lru_cache(maxsize=1)
def _model(folder: Path, weights: str) -> torch.nn.Module:
    """Read once in each worker; weights: of the corpus, which the run must still have."""
    run = Run(folder)
    if run.weights != weights:
        raise ValueError(f"run {run.name} has other weights than when encoding began: begin again.")
    return run.model()


def _check_shape(path: Path, key: str, frames: int, size: int) -> int:
    """The number of videos in a file whose features fit the network (ValueError)."""
    with open_hdf5(path) as file:
        data = find(file, key)
        shape = getattr(data, "shape", ())
        if len(shape) != 3 or shape[1:] != (frames, size) or not shape[0] or data.dtype.kind != "f":
            raise ValueError(
                f"{path}: {key!r} has the shape {shape}, but the run's network takes floating-point features of (videos, "
                f"{frames}, {size}): extract them as those it was trained on."
            )
        return shape[0]
