"""Training: one loop over the passes of a schedule, whatever the method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..data import Dataset
from ..data.disk import DiskFeatures
from ..data.features import Features
from ..data.holding import held_on_gpu
from ..data.loader import Batch, visible_batches
from ..methods import METHODS, method_of
from ..methods.method import Context, Method, Pass, State
from ..runs.folder import Run
from .checkpoint import CheckpointWriter, restore_newest, start_run
from .clock import Clock
from .device import autocast, peak_memory, resolve_device
from .progress import Progress, ProgressLine

DIVERGED = "Start a new run with a lower learning_rate or precision = float32; the last checkpoint of this one is good."
SECONDS_BETWEEN_READS = 1.0  # losses stay on the device; reading them waits for it
Callback = Callable[[Progress], bool | None]


class Interrupted(KeyboardInterrupt):
    """A run that was stopped, and can be resumed; its sentence says which, how far it was, and how it goes on."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: where the network computed at that moment helps nobody."""
        return [str(self)]


def fit(
    settings: Any,
    dataset: Dataset,
    name: str = "",
    callbacks: Iterable[Callback] | None = None,
    resume: bool = False,
) -> Run:
    """Train a network and return its run folder, outputs/<name>.

    settings: of any method, see `settings_for`
    name: of the run; "" makes one from data set, bits and time
    callbacks: each is given a `Progress` about once a second, and may return True to have the run stop after the pass;
        None shows a line of text
    resume: go on with the run of this name; its settings must be the same, but `epochs` may be more

    Interrupted or killed, a run can be resumed, and ends as if it had not been. Raises ValueError for settings that do
    not fit the data, FileExistsError for a name in use, RuntimeError for a run that another process is training,
    FloatingPointError for a loss that is not finite, Interrupted (a KeyboardInterrupt) where it was stopped.
    """
    callbacks = [ProgressLine()] if callbacks is None else list(callbacks)
    if settings.dataset != dataset.name:
        raise ValueError(
            f"dataset is {settings.dataset!r} in the settings, but the data set given is {dataset.name!r}: "
            "make the settings with settings_for(dataset, ...)."
        )
    method = METHODS[method_of(settings)](settings, len(dataset.train), dataset.frames, dataset.feature_size)
    schedule = method.passes()
    device = resolve_device(settings.device)
    features = _training_features(dataset, device)
    run, precision = start_run(settings, dataset, device, name, resume)
    state = new_state(method, device)
    context = Context(features, device, autocast(device, precision))
    try:
        with run.lock():
            if not restore_newest(run, state, method):
                made = method.prepare(context, state.generator)
                state.kept = {name: t.to(device) if name in method.kept_on_device else t for name, t in made.items()}
            now = {"settings": settings.as_dict(), "features_held": features.held}  # epochs may have been raised
            run.save_json("settings.json", run.record | now)
            loop = _Loop(run, method, schedule, state, context, callbacks)
            writer = CheckpointWriter(run, state)
            for current in schedule[len(state.history) :]:
                state.history.append(loop.run_pass(current))
                writer.after_pass()
                if loop.stop_asked and len(state.history) < len(schedule):
                    writer.save()
                    raise KeyboardInterrupt
            writer.finish()
            run.save_json("settings.json", run.record | {"peak_memory_bytes": peak_memory(device)})
    except KeyboardInterrupt:
        raise Interrupted(
            f"run {run.name} was interrupted after {len(state.history)} of {len(schedule)} passes: fit(settings, dataset, "
            f"name={run.name!r}, resume=True) goes on with it, as do the notebook's parameters run = {run.name!r} and "
            "resume = True."
        ) from None
    return run


def _training_features(dataset: Dataset, device: torch.device) -> Features | DiskFeatures:
    """The training features where they are best held, see `load_dataset`."""
    train = dataset.train
    if held_on_gpu(dataset.name, train.nbytes, train.hold, device):
        return train.features.to(device)
    train.features.gather_sums(torch.tensor([0]))  # looks at all features, so that faults show before a run begins
    return train.features


def new_state(method: Method, device: torch.device) -> State:
    """A fresh network, optimizer and random state; torch's global random state is left as it was."""
    seed = method.settings.seed
    model = method.new_network(seed).to(device).train()
    return State(model, method.optimizer(model), torch.Generator().manual_seed(seed))


class _Loop:
    """What the passes of one run share: method, schedule, state and the clock."""

    def __init__(self, run: Run, method: Method, schedule: list[Pass], state: State, context: Context, callbacks):
        self.run, self.method, self.schedule, self.state, self.context = run, method, schedule, state, context
        self.callbacks, self.stop_asked = callbacks, False
        self.clock = Clock(schedule, state.history, method.effort)

    def run_pass(self, current: Pass) -> dict:
        """Carry out one pass and return its line in the history."""
        start = time.perf_counter()
        self.clock.start()
        entry = {"pass": current.number, "stage": current.stage, "epoch": current.epoch, "tasks": list(current.tasks)}
        entry |= {"losses": {}} | self.method.begin(current, self.state, self.context)
        if current.learns:
            entry |= self.learn(current)
        entry["seconds"] = time.perf_counter() - start
        entry["videos_per_second"] = len(self.context.features) / entry["seconds"]
        self.clock.record(current, entry["seconds"])
        self.tell(current, 1.0, entry["losses"], entry["videos_per_second"], entry)
        return entry

    def learn(self, current: Pass) -> dict:
        """Take a gradient step for every batch of what the method draws."""
        method, state, device = self.method, self.state, self.context.device
        batch_size, weights = method.settings.batch_size, method.weights(current, state)
        drawn = method.draw(current, state)
        names, steps = [*weights, "total"], torch.arange(drawn.frames.shape[1]).split(batch_size)
        sizes = torch.tensor([len(step) for step in steps], device=device)
        recorded = torch.zeros(len(steps), len(names), device=device)
        bit_sums = torch.zeros(method.settings.bits, device=device)
        start = last_read = time.perf_counter()
        for step, batch in enumerate(visible_batches(self.context.features, drawn, batch_size, device)):
            for group in state.optimizer.param_groups:
                group["lr"] = method.learning_rate(current, state.steps)
            losses, total, codes = gradient_step(method, state, batch, weights, self.context.cast)
            recorded[step] = torch.stack([*(losses[task] for task in weights), total]).detach()
            bit_sums += codes.mean(dim=2).mean(dim=0).sum(dim=0)
            if time.perf_counter() - last_read > SECONDS_BETWEEN_READS:
                last_read = time.perf_counter()
                means = _read_losses(recorded[: step + 1], sizes[: step + 1], names, current)
                speed = int(sizes[: step + 1].sum()) / (last_read - start)
                self.tell(current, (step + 1) / len(steps), means, speed)
        self.check_weights(current)
        return {
            "losses": _read_losses(recorded, sizes, names, current),
            "learning_rate": state.optimizer.param_groups[0]["lr"],
            "bit_imbalance": (bit_sums / sizes.sum()).abs().mean().item(),
        }

    def check_weights(self, current: Pass) -> None:
        """Stop before weights that are not finite reach a checkpoint."""
        finite = torch.stack([parameter.isfinite().all() for parameter in self.state.model.parameters()])
        if not finite.all():
            raise FloatingPointError(f"the weights are not finite after pass {_place(current)}: {DIVERGED}")

    def tell(self, current: Pass, share: float, losses: dict, speed: float, entry: dict | None = None) -> None:
        done, left = self.clock.estimate(current, share)
        so_far, passes, network = self.clock.elapsed(), len(self.schedule), self.state.model
        progress = Progress(current, passes, done, losses, speed, so_far, left, entry, self.run, network)
        for callback in self.callbacks:
            self.stop_asked |= callback(progress) is True


def gradient_step(
    method: Method, state: State, batch: Batch, weights: Mapping[str, float], cast: torch.autocast
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Learn from one batch; what `Method.losses` returns, with the weighted sum of the losses between."""
    losses, codes = method.losses(batch, weights, state, cast)
    total = sum(weight * losses[task] for task, weight in weights.items())
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()
    state.optimizer.step()
    state.steps += 1
    return losses, total, codes


def encode(
    model: nn.Module, features: Features | DiskFeatures, device: torch.device | str = "cpu", batch_size: int = 256
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
