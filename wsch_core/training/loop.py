"""Training: one loop over the passes of a schedule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data import Dataset
from ..data.disk import DiskFeatures
from ..data.features import Features, directions
from ..data.holding import held_on_gpu
from ..data.loader import Batch, visible_batches
from ..methods.wsch.centers import find_centers
from ..methods.wsch.cycle import Pass, passes
from ..methods.wsch.losses import cluster_loss, contrast_loss, reconstruction_loss, sum_of_directions
from ..methods.wsch.model import WSCH, video_codes
from ..methods.wsch.settings import Settings
from ..methods.wsch.views import check_views, draw_views, hidden_count
from ..runs.folder import WEIGHTS, Run, build_model
from ..storage.tensors import save_tensors
from .checkpoint import CheckpointWriter, restore_newest, start_run
from .device import autocast, peak_memory, resolve_device
from .progress import Progress, ProgressLine

WARM_UP = 0.05  # share of the steps over which a cosine learning rate rises
DIVERGED = "Start a new run with a lower learning_rate or precision = float32; the last checkpoint of this one is good."
SECONDS_BETWEEN_READS = 1.0  # losses stay on the device; reading them waits for it
Callback = Callable[[Progress], None]


@dataclass
class TrainingState:
    """All that changes while training."""

    model: WSCH
    optimizer: torch.optim.Adam
    generator: torch.Generator  # draws the order of videos, the views and the first centres; on the CPU
    centers: Tensor | None = None  # (K, b) of ±1
    steps: int = 0
    history: list[dict] = field(default_factory=list)


def fit(
    settings: Settings,
    dataset: Dataset,
    name: str = "",
    callbacks: Iterable[Callback] | None = None,
    resume: bool = False,
) -> Run:
    """Train a network and return its run folder, outputs/<name>.

    name: of the run; "" makes one from data set, bits and time
    callbacks: each is given a `Progress` about once a second; None shows a line of text
    resume: go on with the run of this name; its settings must be the same, but `epochs` may be more

    Interrupted or killed, a run can be resumed, and ends as if it had not been. Raises ValueError for settings that do
    not fit the data, FileExistsError for a name in use, RuntimeError for a run that another process is training,
    FloatingPointError for a loss that is not finite.
    """
    callbacks = [ProgressLine()] if callbacks is None else list(callbacks)
    if settings.dataset != dataset.name:
        raise ValueError(
            f"dataset is {settings.dataset!r} in the settings, but the data set given is {dataset.name!r}: "
            "make the settings with settings_for(dataset, ...)."
        )
    schedule = list(passes(settings.cycle, settings.pretrain_epochs, settings.epochs, settings.centers_every))
    _check_views(settings, schedule, dataset.frames)
    if settings.centers > 2 * len(dataset.train) and any("centers" in p.tasks for p in schedule):
        raise ValueError(
            f"centers is {settings.centers}, but {dataset.name} has {len(dataset.train)} training videos, which give "
            f"{2 * len(dataset.train)} codes (two views of each): choose at most that many."
        )
    device = resolve_device(settings.device)
    features = _training_features(dataset, device)
    run, precision = start_run(settings, dataset, device, name, resume)
    state = new_state(settings, features.size, device)
    with run.lock():
        restore_newest(run, state)
        now = {"settings": settings.as_dict(), "features_held": features.held}  # epochs may have been raised
        run.save_json("settings.json", run.record | now)
        loop = _Loop(settings, features, schedule, state, device, autocast(device, precision), callbacks)
        writer = CheckpointWriter(run, state)
        remaining = schedule[len(state.history) :]
        if remaining:  # a run that is given more epochs is not finished any more, and not evaluated
            for name in (WEIGHTS, "codes.h5", "metrics.json"):
                (run.folder / name).unlink(missing_ok=True)
        for current in remaining:
            state.history.append(loop.run_pass(current))
            writer.after_pass()
        writer.finish()
        save_tensors(run.folder / WEIGHTS, state.model.state_dict())
        run.save_json("settings.json", run.record | {"peak_memory_bytes": peak_memory(device)})
    return run


def _training_features(dataset: Dataset, device: torch.device) -> Features | DiskFeatures:
    """The training features where they are best held, see `load_dataset`."""
    train = dataset.train
    if held_on_gpu(dataset.name, train.nbytes, train.hold, device):
        return train.features.to(device)
    train.features.gather_sums(torch.tensor([0]))  # looks at all features, so that faults show before a run begins
    return train.features


def new_state(settings: Settings, feature_size: int, device: torch.device) -> TrainingState:
    """A fresh network, optimizer and random state; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)  # weights are drawn on the CPU, whatever the device
        model = build_model(settings, feature_size)
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    return TrainingState(model, optimizer, torch.Generator().manual_seed(settings.seed))


def _check_views(settings: Settings, schedule: list[Pass], frames: int) -> None:
    if any(p.tasks in ((), ("centers",)) for p in schedule):
        check_views(frames, settings.pretrain_masking_ratio)
    if any(p.stage == "cycle" for p in schedule):
        check_views(frames, settings.masking_ratio, settings.views)


class _Loop:
    """What the passes of one run share: settings, features, state and the clock."""

    def __init__(self, settings, features: Features | DiskFeatures, schedule, state, device, cast, callbacks):
        self.settings, self.features, self.schedule, self.state = settings, features, schedule, state
        self.device, self.cast, self.callbacks = device, cast, callbacks
        self.steps_in_pass = math.ceil(len(features) / settings.batch_size)
        self.learning_steps = self.steps_in_pass * sum(p.learns for p in schedule)
        self.clock = _Clock(schedule, state.history)

    def run_pass(self, current: Pass) -> dict:
        """Carry out one pass and return its line in the history."""
        start = time.perf_counter()
        entry = {"pass": current.number, "stage": current.stage, "epoch": current.epoch, "tasks": list(current.tasks)}
        entry |= self.learn(current) if current.learns else self.refresh_centers(current)
        entry["seconds"] = time.perf_counter() - start
        entry["videos_per_second"] = len(self.features) / entry["seconds"]
        self.clock.record(current, entry["seconds"])
        self.tell(current, 1.0, entry["losses"], entry["videos_per_second"], entry)
        return entry

    def draw(self, masking_ratio: float, count: int = 2) -> tuple[Tensor, Tensor, int]:
        """A new order of the videos (n,), views of them in that order (views, n, visible), and how much is hidden."""
        hidden = hidden_count(self.features.frames, masking_ratio)
        order = torch.randperm(len(self.features), generator=self.state.generator)
        views = draw_views(len(order), self.features.frames, hidden, self.state.generator, count)
        return order, views, hidden

    def batches(self, order: Tensor, views: Tensor, wanted: str = "") -> Iterator[Batch]:
        return visible_batches(self.features, order, views, self.settings.batch_size, self.device, wanted)

    def learn(self, current: Pass) -> dict:
        """Take a gradient step for every batch of the training set."""
        settings, state = self.settings, self.state
        pretraining = current.stage == "pretraining"
        ratio, count = (settings.pretrain_masking_ratio, 2) if pretraining else (settings.masking_ratio, settings.views)
        order, views, hidden = self.draw(ratio, count)
        weights = loss_weights(settings, current)
        recorded = torch.zeros(self.steps_in_pass, len(weights) + 1, device=self.device)
        sizes = torch.tensor([len(videos) for videos in order.split(settings.batch_size)], device=self.device)
        bit_sums = torch.zeros(settings.bits, device=self.device)
        start = last_read = time.perf_counter()
        wanted = ("hidden" if state.model.tells_positions else "sums") if "reconstruction" in weights else ""
        for step, batch in enumerate(self.batches(order, views, wanted)):
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(settings, state.steps, self.learning_steps)
            losses, total, codes = gradient_step(state, batch, hidden, weights, settings, self.cast)
            recorded[step] = torch.stack([*(losses[task] for task in weights), total]).detach()
            bit_sums += codes.mean(dim=2).sum(dim=(0, 1))
            if time.perf_counter() - last_read > SECONDS_BETWEEN_READS:
                last_read = time.perf_counter()
                means = _read_losses(recorded[: step + 1], sizes[: step + 1], [*weights, "total"], current)
                speed = int(sizes[: step + 1].sum()) / (last_read - start)
                self.tell(current, (step + 1) / self.steps_in_pass, means, speed)
        self.check_weights(current)
        return {
            "losses": _read_losses(recorded, sizes, [*weights, "total"], current),
            "learning_rate": state.optimizer.param_groups[0]["lr"],
            "bit_imbalance": (bit_sums / (len(views) * len(order))).abs().mean().item(),
        }

    def check_weights(self, current: Pass) -> None:
        """Stop before weights that are not finite reach a checkpoint."""
        finite = torch.stack([parameter.isfinite().all() for parameter in self.state.model.parameters()])
        if not finite.all():
            raise FloatingPointError(f"the weights are not finite after pass {_place(current)}: {DIVERGED}")

    def refresh_centers(self, current: Pass) -> dict:
        """Encode both views of every training video and find new cluster centres."""
        settings, state = self.settings, self.state
        order, views, _ = self.draw(settings.pretrain_masking_ratio)
        codes = []
        for batch in self.batches(order, views):
            with self.cast:
                codes.append(state.model.encode(batch.visible.flatten(0, 1)).unflatten(0, (2, -1)))
        former = state.centers
        every = torch.cat(codes, dim=1).flatten(0, 1)
        state.centers, clustering = find_centers(every, settings.centers, former, state.generator)
        changed = None if former is None else (former != state.centers).float().mean().item()
        return {
            "losses": {},
            "inertia": clustering.inertia,
            "iterations": clustering.iterations,
            "changed_bits": changed,
        }

    def tell(self, current: Pass, share: float, losses: dict, speed: float, entry: dict | None = None) -> None:
        done, left = self.clock.estimate(current, share)
        progress = Progress(current, len(self.schedule), done, losses, speed, self.clock.elapsed(), left, entry)
        for callback in self.callbacks:
            callback(progress)


def loss_weights(settings: Settings, current: Pass) -> dict[str, float]:
    """What a pass learns, with its weight; what weighs nothing is left out, and not computed."""
    weights = {"reconstruction": 1.0 if current.stage == "pretraining" else settings.weight_reconstruction}
    weights |= {task: getattr(settings, f"weight_{task}") for task in current.tasks}
    return {task: weight for task, weight in weights.items() if weight}


def gradient_step(
    state: TrainingState,
    batch: Batch,
    hidden: int,
    weights: dict[str, float],
    settings: Settings,
    cast: torch.autocast,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Learn from one batch; what `batch_losses` returns, with the weighted sum of the losses between."""
    losses, codes = batch_losses(state, batch, hidden, weights, settings, cast)
    total = sum(weight * losses[task] for task, weight in weights.items())
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    state.optimizer.step()
    state.steps += 1
    return losses, total, codes


def batch_losses(
    state: TrainingState,
    batch: Batch,
    hidden: int,
    weights: dict[str, float],
    settings: Settings,
    cast: torch.autocast,
) -> tuple[dict[str, Tensor], Tensor]:
    """The losses of one batch by task, and the frame codes (V, batch, visible, b) they were computed from.

    All views go through the network as one batch. Only the losses named in `weights` are computed.
    """
    views, frames = len(batch.visible), batch.visible.flatten(0, 1)
    losses = {}
    with cast:
        if "reconstruction" not in weights:
            codes = state.model.frame_codes(frames)
        elif state.model.tells_positions:
            codes, reconstructions = state.model.reconstruct_each(
                frames, batch.seen.flatten(0, 1), batch.unseen.flatten(0, 1)
            )
        else:
            codes, reconstructions = state.model(frames, hidden)
    if "reconstruction" in weights:
        if state.model.tells_positions:  # a row for each hidden frame
            targets = directions(batch.hidden).flatten(1, 2)
            reconstructions = reconstructions.flatten(0, 1)
        else:  # a row for each video
            targets = (batch.sums - sum_of_directions(batch.visible)) / hidden
        losses["reconstruction"] = reconstruction_loss(
            reconstructions.to(targets.dtype).unflatten(0, (views, -1)), targets
        )
    if "cluster" in weights:
        grouped = codes.unflatten(0, (views, -1))
        losses["cluster"] = cluster_loss(grouped, state.centers, settings.cluster_temperature, settings.cluster_targets)
    if "contrast" in weights:
        of_videos = video_codes(codes).unflatten(0, (views, -1))
        losses["contrast"] = contrast_loss(of_videos, settings.contrast_temperature, settings.tau_plus)
    return losses, codes.detach().unflatten(0, (views, -1))


def learning_rate(settings: Settings, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0 over all learning passes of a run."""
    if settings.learning_rate_schedule == "constant":
        return settings.learning_rate
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    return settings.learning_rate * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2


def encode(
    model: WSCH, features: Features | DiskFeatures, device: torch.device | str = "cpu", batch_size: int = 256
) -> Tensor:
    """The retrieval codes of all videos, in order: (videos, b) int8 of ±1, on the CPU.

    Always in float32, so that a video encoded on its own gets the code it got in the data set.
    """
    model = model.to(device).eval()
    return torch.cat([model.encode(batch.to(device)).cpu() for batch in features.batches(batch_size)])


def _read_losses(recorded: Tensor, sizes: Tensor, names: list[str], current: Pass) -> dict[str, float]:
    """Means over videos of the losses recorded for each step, (steps, losses), whose batches had `sizes` (steps,).

    Stops training if a loss is not finite.
    """
    finite = torch.isfinite(recorded).all(dim=1)
    if not finite.all():
        step = int(finite.int().argmin())
        values = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, recorded[step].tolist(), strict=True))
        raise FloatingPointError(
            f"the loss is not finite in pass {_place(current)}, step {step + 1}: {values}. {DIVERGED}"
        )
    means = (recorded * sizes.unsqueeze(1)).sum(dim=0) / sizes.sum()
    return dict(zip(names, means.tolist(), strict=True))


def _place(current: Pass) -> str:
    return f"{current.number + 1} ({current.stage} epoch {current.epoch + 1}, {current.title})"


class _Clock:
    """Judges the time left from the passes already done, kind by kind."""

    def __init__(self, schedule: list[Pass], history: list[dict]):
        self.schedule = schedule
        self.seconds: dict[tuple, list[float]] = {}
        for current, entry in zip(schedule, history, strict=False):
            self.record(current, entry["seconds"])
        self.begun = self.started = time.perf_counter()

    def elapsed(self) -> float:
        return time.perf_counter() - self.begun

    def record(self, current: Pass, seconds: float) -> None:
        self.seconds.setdefault((current.stage, current.tasks), []).append(seconds)
        self.started = time.perf_counter()

    def estimate(self, current: Pass, share: float) -> tuple[float, float]:
        """The share of the run's time that is over and the seconds left, with `share` of the current pass done."""
        running = (time.perf_counter() - self.started) / share
        known = {kind: sum(values) / len(values) for kind, values in self.seconds.items()} or {None: running}
        unknown = sum(known.values()) / len(known)
        expected = [known.get((p.stage, p.tasks), unknown) for p in self.schedule]
        before, after = sum(expected[: current.number]), sum(expected[current.number + 1 :])
        done = before + share * expected[current.number]
        left = after + (1 - share) * expected[current.number]
        return done / (done + left), left
