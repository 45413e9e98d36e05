"""What training is measured against: the method written down literally, as published code writes it.

Two separate views, each through the network on its own; every hidden frame is gathered with a boolean mask, decoded and
compared; the state-space mixer in four steps with states between chunks; a DataLoader that copies whole videos. It runs on
the parameters of a `wsch_core.methods.wsch.model.WSCH`, so that both compute the same losses (`tests/test_benchmarks.py`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wsch_core.methods.wsch.model import WSCH, binarise


class WholeVideos(Dataset):
    """Whole videos, and for each a mask of its hidden frames for either view."""

    def __init__(self, features: Tensor, hidden: int):
        self.features, self.hidden = features, hidden

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, video: int) -> tuple[Tensor, Tensor]:
        frames = self.features.shape[1]
        order, visible = torch.randperm(frames), frames - self.hidden
        masks = torch.ones(2, frames, dtype=torch.bool)
        masks[0, order[:visible]] = False
        masks[1, order[self.hidden :]] = False
        return self.features[video].clone(), masks


def loader(features: Tensor, hidden: int, batch_size: int) -> DataLoader:
    """Batches of videos (batch, L, D) and masks (batch, 2, L), True where a frame is hidden."""
    return DataLoader(WholeVideos(features, hidden), batch_size, shuffle=True)


def losses(model: WSCH, videos: Tensor, masks: Tensor, centers: Tensor | None, settings, tasks) -> dict[str, Tensor]:
    """The losses of a batch by task; videos (batch, L, D), masks (batch, 2, L), centers (K, b) of ±1."""
    found = dict.fromkeys(tasks, 0.0)
    means = []
    for mask in masks.unbind(dim=1):
        batch = len(videos)
        visible = videos[~mask].view(batch, -1, videos.shape[2])
        hidden = videos[mask].view(batch, -1, videos.shape[2])
        codes = binarise(hash_layer(model.hash_layer, encoder(model.encoder, visible)))
        rebuilt = decoder(model.decoder, codes, hidden.shape[1])
        means.append(F.normalize(codes.mean(dim=1), dim=1))
        found["reconstruction"] += 1 - F.cosine_similarity(rebuilt, hidden, dim=-1).mean()
        if "cluster" in tasks:
            similarity = means[-1] @ F.normalize(centers, dim=1).T
            # whole numbers: of equally near centres rounding would choose one, and every processor another
            nearest = (codes.detach().sum(dim=1) @ centers.T).argmax(dim=1)
            found["cluster"] += F.cross_entropy(similarity / settings.cluster_temperature, nearest)
    if "contrast" in tasks:
        found["contrast"] = contrast(*means, settings.contrast_temperature, settings.tau_plus)
    return found


def encoder(layer, frames: Tensor) -> Tensor:
    tokens = layer.input_projection(layer.frame_norm(frames))
    normed = tokens * torch.rsqrt(tokens.pow(2).mean(-1, keepdim=True) + 1e-5) * layer.mixer_norm.weight
    inputs, gate = layer.expansion(normed).chunk(2, dim=-1)
    mixed = mixer(layer.mixer, convolution(layer.convolution, inputs)) * F.silu(gate)
    tokens = tokens + layer.contraction(mixed)
    return tokens + attention(layer.attention, layer.attention_norm(tokens))


def convolution(layer, inputs: Tensor) -> Tensor:
    kernel = layer.weight.shape[-1]
    channels = F.pad(inputs.transpose(1, 2), (kernel - 1, 0))
    return F.conv1d(channels, layer.weight, groups=len(layer.weight) // layer.CHANNELS).transpose(1, 2)


def mixer(layer, inputs: Tensor) -> Tensor:
    step, write, read = layer.projection(inputs).split([layer.heads, layer.state_size, layer.state_size], dim=-1)
    step = F.softplus(step + layer.step_bias)
    heads = inputs.unflatten(-1, (layer.heads, -1))
    log_decay = -layer.log_decay_rate.exp() * step
    shared = (-1, -1, layer.heads, -1)
    mixed = chunked_ssd(
        heads * step[..., None], log_decay, write[:, :, None].expand(shared), read[:, :, None].expand(shared)
    )
    return (mixed + layer.skip[:, None] * heads).flatten(2)


def chunked_ssd(inputs: Tensor, log_decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """The four steps of Dao & Gu 2024, section 6, with one chunk, since the number of visible frames has few divisors.

    inputs (batch, frames, heads, width); log_decay (batch, frames, heads); write, read (batch, frames, heads, states)
    """
    inputs, write, read = (part[:, None] for part in (inputs, write, read))  # (batch, chunks, frames in a chunk, ...)
    log_decay = log_decay[:, None].permute(0, 3, 1, 2)
    summed = log_decay.cumsum(-1)
    # 1. within each chunk
    inside = torch.einsum("bclhn,bcshn,bhcls,bcshp->bclhp", read, write, segment_sums(log_decay).exp(), inputs)
    # 2. the state at the end of each chunk
    states = torch.einsum("bclhn,bhcl,bclhp->bchpn", write, (summed[..., -1:] - summed).exp(), inputs)
    # 3. carried from chunk to chunk
    states = torch.cat([torch.zeros_like(states[:, :1]), states], dim=1)
    carried = segment_sums(F.pad(summed[..., -1], (1, 0))).exp()
    states = torch.einsum("bhzc,bchpn->bzhpn", carried, states)[:, :-1]
    # 4. what each chunk reads of the state before it
    before = torch.einsum("bclhn,bchpn,bhcl->bclhp", read, states, summed.exp())
    return (inside + before).flatten(1, 2)


def segment_sums(values: Tensor) -> Tensor:
    """(..., T) -> (..., T, T): the sum of values s+1..t, -inf above the diagonal."""
    length = values.shape[-1]
    summed = values.cumsum(-1)
    allowed = torch.tril(torch.ones(length, length, dtype=torch.bool))
    return (summed[..., :, None] - summed[..., None, :]).masked_fill(~allowed, -torch.inf)


def attention(layer, tokens: Tensor) -> Tensor:
    query, key, value = (
        part(tokens).unflatten(-1, (layer.heads, -1)).transpose(1, 2) for part in (layer.query, layer.key, layer.value)
    )
    weights = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(dim=-1)
    return layer.output((weights @ value).transpose(1, 2).flatten(2))


def hash_layer(layer, tokens: Tensor) -> Tensor:
    return layer.norm(layer.projection(tokens))


def decoder(layer, codes: Tensor, hidden: int) -> Tensor:
    masks = layer.mask_token.expand(len(codes), hidden, -1)
    tokens = layer.input_projection(torch.cat([codes, masks], dim=1))
    tokens = tokens + attention(layer.attention, layer.attention_norm(tokens))
    return layer.output_projection(tokens)[:, -hidden:]


def contrast(first: Tensor, second: Tensor, temperature: float, tau_plus: float) -> Tensor:
    batch, codes = len(first), torch.cat([first, second])
    similarities = (codes @ codes.T / temperature).exp()
    others = ~torch.eye(batch, dtype=torch.bool).repeat(2, 2)
    negatives = similarities.masked_select(others).view(2 * batch, -1)
    positives = ((first * second).sum(dim=1) / temperature).exp().repeat(2)
    count = 2 * batch - 2
    debiased = (negatives.sum(dim=1) - tau_plus * count * positives) / (1 - tau_plus)
    debiased = debiased.clamp(min=count * math.exp(-1 / temperature))
    return -(positives / (positives + debiased)).log().mean()
