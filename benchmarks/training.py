"""How fast a training step is, against a literal one, and how near to what the machine can multiply.

python benchmarks/training.py [--device cpu] [--rounds 8] [--only recipes] [--curve 200] [--json training.json]

At the published sizes: features of 30 x 2,048, width 1,024, 64 bits, batches of 128. A masking ratio of 0.9 is measured in
pre-training (reconstruction alone), 0.6 in a contrast pass. The peer (`peer.py`) computes in float32; a step is all that
happens from reading a batch to the new weights. Then the learning passes of the cycle, by recipe. With --curve, so many
steps are learned in both precisions from the same views, and their losses compared.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import peer
import torch
from timing import in_turn, machine, matrix_rate, save, table
from torch.utils.flop_counter import FlopCounterMode

from wsch_core.data.features import Features
from wsch_core.data.loader import Drawn, visible_batches
from wsch_core.methods.wsch.cycle import parse_cycle
from wsch_core.methods.wsch.method import WSCHMethod
from wsch_core.methods.wsch.settings import RECIPES, Settings
from wsch_core.methods.wsch.views import draw_views, hidden_count
from wsch_core.training.device import autocast
from wsch_core.training.loop import encode, gradient_step, new_state

FRAMES, SIZE, VIDEOS = 30, 2048, 1280
PASSES = {0.9: ("reconstruction",), 0.6: ("reconstruction", "contrast")}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def made_up_features(device: torch.device) -> Features:
    """Videos of 100 classes that drift from frame to frame, never negative, as those of a ReLU layer."""
    draw = torch.Generator().manual_seed(0)
    classes = torch.randn(100, SIZE, generator=draw)[torch.arange(VIDEOS) % 100]
    videos, drift = torch.randn(VIDEOS, 2, SIZE, generator=draw).unbind(dim=1)
    time = torch.linspace(-1, 1, FRAMES)[:, None]
    frames = classes[:, None] + 0.7 * videos[:, None] + 0.5 * time * drift[:, None]
    frames += 0.5 * torch.randn(VIDEOS, FRAMES, SIZE, generator=draw)
    return Features(frames.clamp_min_(0).to(device))


def our_step(
    settings: Settings, features: Features, masking_ratio: float, precision: str, tasks: Sequence[str] = ()
) -> Callable[[], float]:
    """A function that takes one step and returns its loss; of the tasks given, else of the masking ratio's pass."""
    device = features.device
    method = WSCHMethod(settings, VIDEOS, FRAMES, SIZE)
    state, cast = new_state(method, device), autocast(device, precision)
    state.kept["centers"] = torch.randn(settings.centers, settings.bits, generator=state.generator).sign().to(device)
    hidden, weights = hidden_count(FRAMES, masking_ratio), dict.fromkeys(tasks or PASSES[masking_ratio], 1.0)

    def batches() -> Iterator:
        while True:
            order = torch.randperm(VIDEOS, generator=state.generator)
            views = draw_views(VIDEOS, FRAMES, hidden, state.generator, settings.views)
            yield from visible_batches(features, Drawn(order.unsqueeze(0), views, "sums"), settings.batch_size, device)

    source = batches()
    return lambda: gradient_step(method, state, next(source), weights, cast)[1].detach()


def peers_step(settings: Settings, features: Features, masking_ratio: float) -> Callable[[], float]:
    device = features.device
    model = new_state(WSCHMethod(settings, VIDEOS, FRAMES, SIZE), device).model
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    batches = peer.loader(features.tensor.cpu(), hidden_count(FRAMES, masking_ratio), settings.batch_size)
    source = itertools.chain.from_iterable(itertools.repeat(batches))

    def step() -> float:
        videos, masks = (part.to(device) for part in next(source))
        loss = sum(peer.losses(model, videos, masks, None, settings, PASSES[masking_ratio]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()  # as published code logs it

    return step


def operations(step: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def measure_steps(features: Features, rounds: int) -> list[dict]:
    settings, rows = Settings(dataset="made up"), []
    for masking_ratio in PASSES:
        steps = {"peer, float32": peers_step(settings, features, masking_ratio)}
        for precision in PRECISIONS:
            steps[f"ours, {precision}"] = our_step(settings, features, masking_ratio, precision)
        seconds = in_turn(steps, rounds, warm_up=2)
        for name, step in steps.items():
            rate = matrix_rate(features.device, PRECISIONS[name.split(", ")[1]])
            work = operations(step)
            rows.append(
                {
                    "masking ratio": masking_ratio,
                    "step": name,
                    "ms": 1000 * seconds[name],
                    "videos/s": settings.batch_size / seconds[name],
                    "times the peer": seconds["peer, float32"] / seconds[name],
                    "GFLOP": work / 1e9,
                    "of the matrix rate": work / seconds[name] / rate,
                }
            )
    return rows


def measure_parts(features: Features, rounds: int) -> list[dict]:
    """The parts of our step, in milliseconds."""
    settings, rows = Settings(dataset="made up"), []
    for masking_ratio, precision in itertools.product(PASSES, PRECISIONS):
        method = WSCHMethod(settings, VIDEOS, FRAMES, SIZE)
        state, cast = new_state(method, features.device), autocast(features.device, precision)
        hidden, weights = hidden_count(FRAMES, masking_ratio), dict.fromkeys(PASSES[masking_ratio], 1.0)
        videos = torch.arange(settings.batch_size)
        views = draw_views(len(videos), FRAMES, hidden, state.generator)
        kept = {}

        def read(videos=videos, views=views, kept=kept):
            drawn = Drawn(videos.unsqueeze(0), views, "sums")
            kept["batch"] = next(visible_batches(features, drawn, len(videos), features.device))

        def forward(method=method, state=state, weights=weights, cast=cast, kept=kept):
            kept["loss"] = sum(method.losses(kept["batch"], weights, state, cast)[0].values())

        parts = {
            "reading": read,
            "forward": forward,
            "backward": lambda kept=kept: kept["loss"].backward(),
            "Adam": state.optimizer.step,
        }
        seconds = in_turn(parts, rounds, warm_up=2)
        rows.append(
            {"masking ratio": masking_ratio, "precision": precision} | {n: 1000 * s for n, s in seconds.items()}
        )
    return rows


def measure_recipes(features: Features, rounds: int) -> list[dict]:
    """A step of each learning pass of the cycle, and how much longer than the published passes' mean it takes."""
    rows = []
    for precision in PRECISIONS:
        steps = {}
        for recipe, changes in RECIPES.items():
            settings = Settings.create({"dataset": "made up"}, changes)
            for tasks in dict.fromkeys(tasks for tasks in parse_cycle(settings.cycle) if tasks != ("centers",)):
                losses = ("reconstruction", *tasks)
                step = our_step(settings, features, settings.masking_ratio, precision, losses)
                steps[recipe, "+".join(tasks)] = step
        seconds = in_turn(steps, rounds, warm_up=2)
        published = [value for (recipe, _), value in seconds.items() if recipe == "published"]
        mean = sum(published) / len(published)
        rows += [
            {"precision": precision, "recipe": recipe, "pass": tasks, "ms": 1000 * value, "of published": value / mean}
            for (recipe, tasks), value in seconds.items()
        ]
    return rows


def measure_encoding(features: Features, rounds: int) -> list[dict]:
    settings = Settings(dataset="made up")
    model = new_state(WSCHMethod(settings, VIDEOS, FRAMES, SIZE), features.device).model
    some = Features(features.tensor[:512])
    seconds = in_turn({"encode": lambda: encode(model, some, features.device)}, rounds)["encode"]
    work = operations(lambda: encode(model, some, features.device))
    rate = matrix_rate(features.device, torch.float32)
    found = {"videos/s": len(some) / seconds, "GFLOP a video": work / len(some) / 1e9}
    return [found | {"of the matrix rate": work / seconds / rate}]


def measure_curve(features: Features, steps: int) -> dict:
    """How far the losses of bfloat16 are from float32's: at most in a step, and at most in a mean over 10 steps."""
    settings, found = Settings(dataset="made up"), {}
    for masking_ratio in PASSES:
        learn = [our_step(settings, features, masking_ratio, precision) for precision in PRECISIONS]
        plain, short = (torch.stack([step() for _ in range(steps)]).double().cpu() for step in learn)
        means = [losses[: steps // 10 * 10].view(-1, 10).mean(dim=1) for losses in (plain, short)]
        found[masking_ratio] = {
            "first": plain[0].item(),
            "last": plain[-1].item(),
            "apart in a step": (short / plain - 1).abs().max().item(),
            "apart over 10 steps": (means[1] / means[0] - 1).abs().max().item(),
        }
    return found


MEASURES = {
    "steps": measure_steps,
    "parts": measure_parts,
    "recipes": measure_recipes,
    "encoding": measure_encoding,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--only", choices=MEASURES)
    parser.add_argument("--curve", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    features = made_up_features(given.device)
    found = {"machine": machine(given.device)}
    for name in [given.only] if given.only else MEASURES:
        found[name] = MEASURES[name](features, given.rounds)
        print(f"{name}\n")
        table(found[name][0], [row.values() for row in found[name]])
    if given.curve:
        found["curve"] = measure_curve(features, given.curve)
        print(f"loss over {given.curve} steps\n")
        table(
            ["masking ratio", *found["curve"][0.9]], [[ratio, *row.values()] for ratio, row in found["curve"].items()]
        )
    save(given.json, found)


if __name__ == "__main__":
    main()
