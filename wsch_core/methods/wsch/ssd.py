"""The state-space-duality mixer of Mamba-2 (Dao & Gu 2024, "Transformers are SSMs"), for short sequences.

A video has at most some tens of frames, so one chunk holds it all: the recurrence

    state_t = exp(A dt_t) state_{t-1} + dt_t B_t u_t^T,      y_t = C_t state_t + D u_t

is computed in its dual form, as a lower-triangular frames x frames matrix applied to the inputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def ssd(inputs: Tensor, step: Tensor, decay: Tensor, write: Tensor, read: Tensor, skip: Tensor) -> Tensor:
    """Apply the mixer to whole sequences.

    inputs: (batch, frames, heads, head_width)    u
    step:   (batch, frames, heads), above 0       dt
    decay:  (heads,), below 0                     A
    write:  (batch, frames, state_size)           B, shared by all heads
    read:   (batch, frames, state_size)           C, shared by all heads
    skip:   (heads,)                              D
    Returns (batch, frames, heads, head_width).
    """
    frames = inputs.shape[1]
    # 1. log of what remains at frame t of what was written at frame s: sum of A dt over s+1..t
    log_decay = (step * decay).cumsum(dim=1).transpose(1, 2)  # (batch, heads, frames)
    remains = log_decay.unsqueeze(-1) - log_decay.unsqueeze(-2)  # (batch, heads, t, s)
    # masked before the exponential: above the diagonal it could overflow, and 0 * inf would spoil the gradient
    future = torch.ones(frames, frames, dtype=torch.bool, device=inputs.device).triu(1)
    remains = remains.masked_fill(future, -torch.inf).exp()
    # 2. the matrix: how well reading at t matches writing at s, decayed, times the step
    match = read @ write.transpose(1, 2)  # (batch, t, s)
    matrix = match.unsqueeze(1) * remains * step.transpose(1, 2).unsqueeze(2)
    # 3. apply it to every head
    heads_first = inputs.transpose(1, 2)  # (batch, heads, frames, head_width)
    mixed = matrix.to(inputs.dtype) @ heads_first
    return (mixed + skip.to(inputs.dtype).view(-1, 1, 1) * heads_first).transpose(1, 2)


class SSDMixer(nn.Module):
    """Projects a sequence to its own step sizes, write and read vectors, and mixes it with `ssd`."""

    def __init__(self, width: int, head_width: int, state_size: int):
        super().__init__()
        self.heads, self.state_size = width // head_width, state_size
        self.projection = nn.Linear(width, self.heads + 2 * state_size, bias=False)  # W_x
        self.step_bias = nn.Parameter(torch.zeros(self.heads))  # dt_bias
        self.log_decay_rate = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())  # A_log
        self.skip = nn.Parameter(torch.ones(self.heads))  # D

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: (batch, frames, width) -> (batch, frames, width)"""
        step, write, read = self.projection(inputs).split([self.heads, self.state_size, self.state_size], dim=-1)
        step = F.softplus(step.to(self.step_bias.dtype) + self.step_bias)
        heads = inputs.unflatten(-1, (self.heads, -1))
        return ssd(heads, step, -self.log_decay_rate.exp(), write, read, self.skip).flatten(-2)
