"""WSCH: a wide, shallow autoencoder that turns a video's frame features into a hash code.

    visible frames -> Encoder -> HashLayer -> codes -> Decoder -> the direction of the hidden frames

One state-space block and one attention layer in the encoder, one attention layer in the decoder. For ablations, either of
the encoder's two can be left out, and the decoder can be told where in the video each frame is.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .settings import check_heads
from .ssd import SSDMixer

EPSILON = 1e-5  # of every normalisation


class WSCH(nn.Module):
    """The network. Every size is free; heads that do not divide the widths are refused (ValueError)."""

    def __init__(
        self,
        feature_size: int,  # D
        bits: int,  # b
        encoder_width: int = 1024,  # H
        decoder_width: int = 1024,  # H_d
        attention_heads: int = 4,
        ssd_head_width: int = 128,
        state_size: int = 64,
        encoder_blocks: str = "ssd+attention",
        decoder_positions: str = "none",
    ):
        super().__init__()
        check_heads(encoder_width, decoder_width, attention_heads, ssd_head_width)
        self.encoder = Encoder(feature_size, encoder_width, attention_heads, ssd_head_width, state_size, encoder_blocks)
        self.hash_layer = HashLayer(encoder_width, bits)
        self.decoder = Decoder(bits, decoder_width, feature_size, attention_heads)
        self.tells_positions = decoder_positions != "none"

    @property
    def bits(self) -> int:
        return self.hash_layer.norm.normalized_shape[0]

    def forward(self, visible: Tensor, hidden: int) -> tuple[Tensor, Tensor]:
        """visible: (batch, visible, D); hidden: how many frames are hidden, at least 1.

        Returns the visible frames' codes, (batch, visible, b) of ±1, and the reconstruction, (batch, D).
        """
        codes = self.frame_codes(visible)
        return codes, self.decoder(codes, hidden)

    def reconstruct_each(self, visible: Tensor, seen: Tensor, unseen: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, but the decoder is told where every frame stands, so that hidden frames differ.

        visible: (batch, visible, D); seen: (batch, visible) their frame numbers; unseen: (batch, hidden) the others
        Returns the visible frames' codes and a reconstruction of every hidden frame, (batch, hidden, D).
        """
        codes = self.frame_codes(visible)
        return codes, self.decoder.with_positions(codes, seen, unseen)

    def frame_codes(self, frames: Tensor) -> Tensor:
        """frames: (batch, frames, D) -> (batch, frames, b) of ±1, with a straight-through gradient"""
        return binarise(self.hash_layer(self.encoder(frames)))

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """All frames of each video, (batch, L, D) -> the codes for retrieval, (batch, b) int8 of ±1."""
        prebinary = self.hash_layer(self.encoder(frames))
        return majority(binarise(prebinary), prebinary)


class Encoder(nn.Module):
    """Visible frames (batch, frames, D) -> one vector for each, (batch, frames, H)."""

    def __init__(
        self, feature_size: int, width: int, attention_heads: int, ssd_head_width: int, state_size: int, blocks: str
    ):
        super().__init__()
        self.blocks = blocks.split("+")
        self.frame_norm = nn.LayerNorm(feature_size, eps=EPSILON)
        self.input_projection = nn.Linear(feature_size, width, bias=False)  # W_in
        if "ssd" in self.blocks:
            self.mixer_norm = nn.RMSNorm(width, eps=EPSILON)
            self.expansion = nn.Linear(width, 4 * width, bias=False)  # W_expand
            self.convolution = CausalConvolution(groups=width)
            self.mixer = SSDMixer(2 * width, ssd_head_width, state_size)
            self.contraction = nn.Linear(2 * width, width)  # W_out
        if "attention" in self.blocks:
            self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
            self.attention = Attention(width, attention_heads)

    def forward(self, frames: Tensor) -> Tensor:
        # the residual stream keeps the frames' precision, whatever autocast makes of the products
        tokens = self.input_projection(self.frame_norm(frames)).to(frames.dtype)
        if "ssd" in self.blocks:
            tokens = tokens + self.contraction(self.mix(self.mixer_norm(tokens)))
        if "attention" in self.blocks:
            normed = self.attention_norm(tokens)
            tokens = tokens + self.attention(normed, normed)
        return tokens

    def mix(self, tokens: Tensor) -> Tensor:
        """The gated state-space block: (batch, frames, H) -> (batch, frames, 2H)"""
        inputs, gate = self.expansion(tokens).chunk(2, dim=-1)
        return self.mixer(self.convolution(inputs)) * F.silu(gate)


class CausalConvolution(nn.Module):
    """A convolution over time in groups of 2 channels: a frame sees itself and the three before it.

    Written as one product with a banded (frames x 2) matrix per group: sequences are short, and grouped convolutions
    are slow where a batched matrix product is not.
    """

    CHANNELS, KERNEL = 2, 4

    def __init__(self, groups: int):
        super().__init__()
        bound = 1 / math.sqrt(self.CHANNELS * self.KERNEL)  # what torch gives a convolution of this size
        weight = torch.empty(groups * self.CHANNELS, self.CHANNELS, self.KERNEL).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight)  # (channels out, channels in a group, kernel), the last tap is the present

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: (batch, frames, groups x 2) -> the same shape"""
        batch, frames, _ = inputs.shape
        grouped = (
            inputs.unflatten(-1, (-1, self.CHANNELS)).permute(2, 0, 1, 3).reshape(-1, batch, frames * self.CHANNELS)
        )
        mixed = grouped @ self.band(frames)
        return mixed.view(-1, batch, frames, self.CHANNELS).permute(1, 2, 0, 3).reshape(inputs.shape)

    def band(self, frames: int) -> Tensor:
        """The convolution as matrices: (groups, frames in x 2, frames out x 2)."""
        time = torch.arange(frames, device=self.weight.device)
        lag = time - time.unsqueeze(1)  # (frames in, frames out)
        tap = torch.where((lag >= 0) & (lag < self.KERNEL), self.KERNEL - 1 - lag, self.KERNEL)
        taps = F.pad(self.weight, (0, 1)).unflatten(0, (-1, self.CHANNELS))  # (groups, out, in, kernel + a zero)
        return taps[..., tap].permute(0, 3, 2, 4, 1).reshape(len(taps), frames * self.CHANNELS, frames * self.CHANNELS)


class HashLayer(nn.Module):
    """A frame's vector (..., H) -> its pre-binary values q (..., b)."""

    def __init__(self, width: int, bits: int):
        super().__init__()
        self.projection = nn.Linear(width, bits)  # W_hash
        self.norm = nn.LayerNorm(bits, eps=EPSILON)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.projection(tokens).to(self.norm.weight.dtype))


class Decoder(nn.Module):
    """Visible codes (batch, visible, b) -> the reconstruction of a hidden frame (batch, D).

    The mask tokens carry no position, so all hidden frames of a video have the same query and the same
    reconstruction. One mask query is enough: its own key stands for all `hidden` copies, which adds log(hidden) to its
    attention logit. This is exact.
    """

    def __init__(self, bits: int, width: int, feature_size: int, attention_heads: int):
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(bits))
        self.input_projection = nn.Linear(bits, width, bias=False)  # W_dec
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        self.attention = Attention(width, attention_heads)
        self.output_projection = nn.Linear(width, feature_size)  # W_rec

    def forward(self, codes: Tensor, hidden: int) -> Tensor:
        batch, visible, _ = codes.shape
        mask = self.mask_token.expand(batch, 1, -1)
        tokens = self.input_projection(torch.cat([codes, mask.to(codes.dtype)], dim=1)).to(codes.dtype)
        normed = self.attention_norm(tokens)
        copies = torch.zeros(visible + 1, device=codes.device, dtype=normed.dtype)
        copies[-1] = math.log(hidden)
        token = tokens[:, -1:] + self.attention(normed[:, -1:], normed, copies)
        return self.output_projection(token).squeeze(1)

    def with_positions(self, codes: Tensor, seen: Tensor, unseen: Tensor) -> Tensor:
        """The variant with positions: visible codes (batch, visible, b) and the numbers of visible and hidden frames ->
        a reconstruction of every hidden frame, (batch, hidden, D).

        Every token carries the position of its frame, so each mask token asks for a frame of its own.
        """
        masks = self.mask_token.expand(*unseen.shape, -1).to(codes.dtype)
        tokens = self.input_projection(torch.cat([codes, masks], dim=1)).to(codes.dtype)
        tokens = tokens + sinusoids(torch.cat([seen, unseen], dim=1), tokens.shape[-1]).to(tokens.dtype)
        normed = self.attention_norm(tokens)
        visible = codes.shape[1]
        return self.output_projection(tokens[:, visible:] + self.attention(normed[:, visible:], normed))


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Positions (...), from 0 -> (..., width), sines and cosines of falling frequency (Vaswani et al. 2017)."""
    channel = torch.arange(width, device=positions.device)
    frequency = 10_000.0 ** (-(channel // 2 * 2) / width)
    angle = positions.unsqueeze(-1) * frequency
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


class Attention(nn.Module):
    """Multi-head attention, not causal; queries, keys and values without bias."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """queries: (batch, q, width); tokens: (batch, k, width); key_bias: (k,), added to the logits."""
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x in ((self.query, queries), (self.key, tokens), (self.value, tokens))
        )
        # written out: for some tens of frames this is faster on the CPU than the fused kernel, most of all backward
        logits = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if key_bias is not None:
            logits = logits + key_bias
        mixed = logits.softmax(dim=-1).to(value.dtype) @ value
        return self.output(mixed.transpose(1, 2).flatten(-2))


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, prebinary: Tensor) -> Tensor:
        ctx.save_for_backward(prebinary)
        share = ((prebinary + 1) / 2).clamp(0, 1)
        return 2 * share.round() - 1  # half to even, so exactly 0.5 becomes -1

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (prebinary,) = ctx.saved_tensors
        return gradient * (prebinary.abs() < 1)


def binarise(prebinary: Tensor) -> Tensor:
    """Pre-binary values (any shape) -> codes of ±1; the gradient passes unchanged where -1 < q < 1, else it is 0."""
    return _StraightThrough.apply(prebinary)


def majority(frame_codes: Tensor, prebinary: Tensor) -> Tensor:
    """Frame codes and pre-binary values (batch, L, b) -> the videos' codes (batch, b), int8, always ±1.

    A bit is what most frames say. Where they are evenly split, the sign of the mean pre-binary value decides; if that
    is exactly 0, the bit is -1.
    """
    votes = frame_codes.sum(dim=1)
    decided = torch.where(votes == 0, prebinary.mean(dim=1), votes)
    return torch.where(decided > 0, 1, -1).to(torch.int8)


def retrieved_codes(frame_codes: Tensor) -> Tensor:
    """As `video_codes`, but binarised as codes for retrieval are: (batch, b) of ±1 / sqrt(b), a bit without majority -1.

    The gradient is that of the mean over the frames: straight through the sign.
    """
    mean = frame_codes.mean(dim=1)
    bits = torch.where(mean > 0, 1.0, -1.0)
    return ((bits - mean).detach() + mean) / math.sqrt(frame_codes.shape[-1])


def video_codes(frame_codes: Tensor) -> Tensor:
    """Frame codes (batch, frames, b) -> the videos' codes while training: their mean, L2-normalised, (batch, b)."""
    # The sum of codes is a vector of whole numbers: its norm is 0 or at least 1. A floor of 1 therefore changes no
    # direction, and keeps the gradient bounded where the frames cancel out exactly.
    return F.normalize(frame_codes.sum(dim=1), dim=-1, eps=1.0)
