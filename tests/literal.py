"""Slow, literal versions of the method, written from its definition: what the fast code is tested against."""

import itertools
import math

import torch
import torch.nn.functional as F

from wsch_core.methods.wsch.model import WSCH, Attention


def ssd_recurrence(inputs, step, decay, write, read, skip):
    """The state-space recurrence, one frame, head and video at a time; shapes as in wsch_core.methods.wsch.ssd.ssd."""
    outputs = torch.zeros_like(inputs)
    for b in range(inputs.shape[0]):
        for h in range(inputs.shape[2]):
            state = torch.zeros(write.shape[-1], inputs.shape[-1], dtype=inputs.dtype)
            for t in range(inputs.shape[1]):
                dt = step[b, t, h]
                state = torch.exp(decay[h] * dt) * state + torch.outer(write[b, t], dt * inputs[b, t, h])
                outputs[b, t, h] = read[b, t] @ state + skip[h] * inputs[b, t, h]
    return outputs


def attention(layer: Attention, tokens):
    """Softmax attention over all tokens, head by head: (batch, tokens, width)."""
    width = tokens.shape[-1] // layer.heads
    parts = []
    for head in range(layer.heads):
        rows = slice(head * width, (head + 1) * width)
        q, k, v = (tokens @ p.weight[rows].T for p in (layer.query, layer.key, layer.value))
        parts.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(width), dim=-1) @ v)
    return torch.cat(parts, dim=-1) @ layer.output.weight.T + layer.output.bias


def decode_all_tokens(model: WSCH, codes, hidden: int):
    """The decoder over visible codes and `hidden` mask tokens: a reconstruction for each, (batch, hidden, D)."""
    decoder = model.decoder
    masks = decoder.mask_token.expand(len(codes), hidden, -1)
    tokens = torch.cat([codes, masks], dim=1) @ decoder.input_projection.weight.T
    tokens = tokens + attention(decoder.attention, decoder.attention_norm(tokens))
    return decoder.output_projection(tokens)[:, -hidden:]


def decode_with_positions(model: WSCH, codes, seen, hidden):
    """The decoder that is told positions, one video at a time; seen, hidden: frame numbers, lists of lists."""
    decoder, width = model.decoder, model.decoder.input_projection.out_features
    reconstructions = []
    for video, shown, missing in zip(codes, seen, hidden, strict=True):
        tokens = []
        for code, position in [*zip(video, shown, strict=True), *((decoder.mask_token, n) for n in missing)]:
            waves = [
                math.sin(position / 10000 ** (c / width))
                if c % 2 == 0
                else math.cos(position / 10000 ** ((c - 1) / width))
                for c in range(width)
            ]
            tokens.append(decoder.input_projection.weight @ code + torch.tensor(waves, dtype=codes.dtype))
        tokens = torch.stack(tokens)[None]
        tokens = tokens + attention(decoder.attention, decoder.attention_norm(tokens))
        reconstructions.append(decoder.output_projection(tokens)[0, len(shown) :])
    return torch.stack(reconstructions)


def training_losses(model: WSCH, frames, views, centers, settings):
    """The three losses of all views, each view on its own, every hidden frame read: frames (batch, L, D).

    A decoder that is told positions is given them.
    """
    losses = dict.fromkeys(("reconstruction", "cluster", "contrast"), 0.0)
    video_codes = []
    for view in views:
        visible = torch.stack([video[numbers] for video, numbers in zip(frames, view, strict=True)])
        missing = [[n for n in range(len(frames[0])) if n not in numbers] for numbers in view.tolist()]
        hidden = torch.stack([video[numbers] for video, numbers in zip(frames, missing, strict=True)])
        codes = model.frame_codes(visible)
        if settings.decoder_positions == "none":
            outputs = decode_all_tokens(model, codes, hidden.shape[1])
        else:
            outputs = decode_with_positions(model, codes, view.tolist(), missing)
        losses["reconstruction"] += 2 / len(views) * reconstruction(outputs, hidden)
        losses["cluster"] += 2 / len(views) * cluster(codes, centers, settings.cluster_temperature)
        mean = codes.mean(dim=1)
        video_codes.append(mean / mean.norm(dim=-1, keepdim=True))
    losses["contrast"] = contrast(torch.stack(video_codes), settings.contrast_temperature, settings.tau_plus)
    return losses


def reconstruction(outputs, hidden):
    return 1 - F.cosine_similarity(outputs, hidden, dim=-1, eps=1e-8).mean()


def cluster(codes, centers, temperature):
    """codes: (batch, visible, b); the nearest centre by whole numbers, the first of equals."""
    total = 0.0
    for video in codes:
        products = [round((c @ video.detach().sum(dim=0)).item()) for c in centers]
        nearest = products.index(max(products))
        logits = torch.stack([F.cosine_similarity(video.mean(dim=0), c, dim=0) for c in centers]) / temperature
        total = total - torch.log_softmax(logits, dim=0)[nearest]
    return total / len(codes)


def contrast(codes, temperature, tau_plus):
    """Debiased contrastive loss over codes (views, batch, b), one pair of views of one video at a time.

    Of more than two views the negatives' sum is taken as that of two.
    """
    views, batch, _ = codes.shape
    total, count = 0.0, 2 * batch - 2
    for video in range(batch):
        for one, other in itertools.permutations(range(views), 2):
            code = codes[one, video]
            positive = torch.exp(code @ codes[other, video] / temperature)
            foreign = [
                torch.exp(code @ codes[v, j] / temperature) for v in range(views) for j in range(batch) if j != video
            ]
            negative = (2 / views * sum(foreign) - tau_plus * count * positive) / (1 - tau_plus)
            floor = torch.tensor(count * math.exp(-1 / temperature), dtype=code.dtype)
            total = total - torch.log(positive / (positive + torch.maximum(negative, floor)))
    return total / (batch * views * (views - 1))
