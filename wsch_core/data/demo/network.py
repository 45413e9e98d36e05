"""The small network that turns the demo set's frames into features.

Its weights stand beside it in network.safetensors, because no two kinds of processor would train the same ones. This
trains new ones, on single frames of the digits that no video shows, and writes them over the old:

    python -m wsch_core.data.demo.network

Features then are others: demo.BUILDER_VERSION must be raised, and what the tests store be made again.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...storage.tensors import read_tensors, save_tensors
from .frames import DIGIT_CLASSES, ONE, SIDE, Draws, deal, draw, load_digits

WEIGHTS = Path(__file__).with_name("network.safetensors")
FEATURE_SIZE = 128
TRAINING_FRAMES = 40_000  # seen once each
BATCH = 100
PLACE_WEIGHT = 1.0  # of the loss on where the digit is, beside which digit it is


def layers() -> nn.Sequential:
    """Frames (n, 1, SIDE, SIDE), from -1 to 1 -> features (n, FEATURE_SIZE), none negative; weights are yet to come."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (SIDE // 8) ** 2, FEATURE_SIZE),
        nn.ReLU(),
    )


def load_network() -> nn.Sequential:
    """The network with its weights, float32, ready to use."""
    with torch.device("meta"):  # drawing weights to be replaced would change the caller's random state
        network = layers()
    weights = {name: weight.float() for name, weight in read_tensors(WEIGHTS).items()}  # stored in half precision
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def scaled(frames: Tensor) -> Tensor:
    """Frames (n, SIDE, SIDE) uint8 as the network wants them: (n, 1, SIDE, SIDE) float32 from -1 to 1."""
    return frames[:, None].float() / 128 - 1


def train() -> nn.Sequential:
    """Teach a network the digit and its place: a last layer for each is thrown away afterwards."""
    torch.manual_seed(0)
    draws = Draws(0, 4)
    pictures, digits = load_digits()
    share = deal(digits, Draws(0, 0))["extractor"]
    network, which, where = layers(), nn.Linear(FEATURE_SIZE, len(DIGIT_CLASSES)), nn.Linear(FEATURE_SIZE, 2)
    learned = [*network.parameters(), *which.parameters(), *where.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=2e-3, weight_decay=1e-2)
    steps = TRAINING_FRAMES // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in range(steps):
        image = share[draws.below(len(share), BATCH)]
        centre = draws.between(-0.65, 0.65, BATCH, 1, 2)
        look = [draws.between(*span, BATCH, 1) for span in ((0.43, 0.65), (-0.048, 0.048), (0.75, 1.0))]
        frames = torch.from_numpy(draw(draws, pictures, share, image, centre, *look)[:, 0])
        features = network(scaled(frames))
        place = F.mse_loss(where(features), torch.from_numpy(centre[:, 0]) / ONE)
        loss = F.cross_entropy(which(features), torch.from_numpy(digits[image])) + PLACE_WEIGHT * place
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def main() -> None:
    save_tensors(WEIGHTS, train().half().state_dict())
    print(f"{WEIGHTS} is written.")


if __name__ == "__main__":
    main()
