"""What several peers are made of: transformer blocks, position tables, the bits, k-means, a rate that falls in steps."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6  # of normalisations in the blocks
ROWS = 4096  # points compared with centres at a time


class Block(nn.Module):
    """A transformer block with normalisation first: attention, then two layers of 4 x width with the exact GELU.

    Of the tokens (batch, n, width), those before `first` serve as keys and values only: (batch, n - first, width) remain.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = MLP(width)

    def forward(self, tokens: Tensor, first: int = 0) -> Tensor:
        # the residual stream keeps its precision, whatever autocast makes of the products
        tokens = tokens[:, first:] + self.attn(self.norm1(tokens), first)
        return tokens + self.mlp(self.norm2(tokens))


class Attention(nn.Module):
    """Multi-head attention, not causal. Heads have floor(width / heads) channels, which need not fill the width.

    One matrix makes queries, keys and values, in this order; queries and values have a bias, keys have none.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.inner = width // heads * heads
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(self.inner)), nn.Parameter(torch.zeros(self.inner))
        self.qkv = nn.Linear(width, 3 * self.inner, bias=False)
        self.proj = nn.Linear(self.inner, width)

    def forward(self, tokens: Tensor, first: int = 0) -> Tensor:
        """tokens: (batch, n, width) -> (batch, n - first, width): queries are those from `first` on."""
        to_query, to_others = self.qkv.weight.split([self.inner, 2 * self.inner])
        key, value = F.linear(tokens, to_others).chunk(2, dim=-1)
        query, key, value = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (F.linear(tokens[:, first:], to_query, self.q_bias), key, value + self.v_bias.to(value.dtype))
        )
        logits = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
        mixed = logits.softmax(dim=-1).to(value.dtype) @ value
        return self.proj(mixed.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


def initialise(module: nn.Module) -> None:
    """Xavier-uniform matrices and biases of 0 for all linear layers inside."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def mask_token(width: int) -> nn.Parameter:
    """(1, 1, width), normal of scale 0.02, truncated at one standard deviation."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02, a=-0.02, b=0.02))


@lru_cache(maxsize=32)
def sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    """(length, width) float32, made in float64: for each frame, from 0, sines at even and cosines at odd places."""
    places = torch.arange(width, dtype=torch.float64, device="cpu")
    angles = torch.arange(length, dtype=torch.float64, device="cpu")[:, None] / 10_000 ** (places // 2 * 2 / width)
    return torch.where(places % 2 == 0, angles.sin(), angles.cos()).float().to(device)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, prebinary: Tensor) -> Tensor:
        ctx.save_for_backward((prebinary > -1) & (prebinary <= 1))
        return 2 * ((prebinary + 1) / 2).clamp(0, 1).round() - 1  # half to even, so exactly 0.5 becomes -1

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (passes,) = ctx.saved_tensors
        return gradient * passes


def binarise(prebinary: Tensor) -> Tensor:
    """Pre-binary values q (any shape) -> codes of ±1; the gradient passes where -1 < q <= 1, as in the peers' code."""
    return _StraightThrough.apply(prebinary)


def step_decay(rate: float, floor: float, epoch: int) -> float:
    """A learning rate that falls by a tenth every 20 epochs, down to a floor."""
    return max(floor, rate * 0.9 ** (epoch // 20))


def kmeans(points: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Plain k-means with Euclidean distance: points (n, d), start (K, d) -> centres (K', d), each point's nearest (n,).

    Means of the members, then the nearest mean (the lowest of equally near ones), at most `iterations` times, or until
    no point changes its centre. Centres without members are dropped, so K' <= K.
    """
    offset = points.mean(dim=0)  # distances lose fewer digits around 0
    points, centers = points - offset, start - offset
    nearest = nearest_centers(points, centers)
    for _ in range(iterations):
        used, nearest = nearest.unique(return_inverse=True)
        sums = points.new_zeros(len(used), points.shape[1], dtype=torch.float64).index_add_(0, nearest, points.double())
        centers = (sums / nearest.bincount().unsqueeze(1)).to(points.dtype)
        former, nearest = nearest, nearest_centers(points, centers)
        if torch.equal(nearest, former):
            break
    return centers + offset, nearest


def nearest_centers(points: Tensor, centers: Tensor) -> Tensor:
    """Points (n, d), centres (K, d) -> the index of each point's nearest (n,)."""
    half_norms = centers.square().sum(dim=1) / 2
    return torch.cat([torch.addmm(half_norms, some, centers.T, alpha=-1).argmin(dim=1) for some in points.split(ROWS)])
