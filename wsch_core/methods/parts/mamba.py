"""The mixer of Mamba (Gu & Dao 2023, "Mamba: Linear-time sequence modeling with selective state spaces"), for short
sequences: the state is followed frame by frame."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STATE, KERNEL = 16, 4  # numbers that a channel remembers; frames that a convolution sees
IN_CACHE = 2**17  # numbers of states that a CPU follows at a time


class Mixer(nn.Module):
    """Mixes the frames of a sequence, forwards in time; parameters have the names of the published weights."""

    def __init__(self, width: int):
        super().__init__()
        inner, self.rank = 2 * width, math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, KERNEL, groups=inner)
        self.x_proj = nn.Linear(inner, self.rank + 2 * STATE, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, STATE + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, tokens: Tensor, last: int | None = None) -> Tensor:
        """tokens: (batch, n, width) -> the same shape, or the `last` frames only"""
        last = tokens.shape[1] if last is None else last
        to_inputs, to_gate = self.in_proj.weight.chunk(2)
        inputs, gate = F.linear(tokens, to_inputs), F.linear(tokens[:, -last:], to_gate)
        inputs = F.silu(self.convolve(inputs))
        step, write, read = self.x_proj(inputs).split([self.rank, STATE, STATE], dim=-1)
        step = F.softplus(F.linear(step, self.dt_proj.weight).float() + self.dt_proj.bias)
        mixed = scan(step * inputs, step, -self.A_log.exp(), write.float(), read.float()) + self.D * inputs
        return self.out_proj(mixed[:, -last:] * F.silu(gate.float()))

    def convolve(self, inputs: Tensor) -> Tensor:
        """Each channel of (batch, n, inner) over time: a frame sees itself and the three before it."""
        padded, frames = F.pad(inputs, (0, 0, KERNEL - 1, 0)), inputs.shape[1]
        taps = self.conv1d.weight.squeeze(1).unbind(dim=1)
        return sum(tap * padded[:, lag : lag + frames] for lag, tap in enumerate(taps)) + self.conv1d.bias


class _Scan(torch.autograd.Function):
    """Followed again on the way back, because all states of a step would not fit into memory. Rows are sequences."""

    @staticmethod
    def forward(ctx, drive: Tensor, step: Tensor, decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
        ctx.save_for_backward(drive, step, decay, write, read)
        outputs = torch.empty_like(drive)
        for rows in _rows(drive):
            states = _follow(drive[rows], step[rows], decay, write[rows])
            for frame, (_, state) in enumerate(states):
                outputs[rows, frame] = (state * _of_state(read[rows, frame])).sum(dim=0)
        return outputs

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        drive, step, decay, write, read = ctx.saved_tensors
        to_drive, to_step, to_decay, to_write, to_read = (torch.zeros_like(tensor) for tensor in ctx.saved_tensors)
        for rows in _rows(drive):
            states = list(_follow(drive[rows], step[rows], decay, write[rows]))
            to_state = torch.zeros_like(states[0][1])
            for frame in reversed(range(drive.shape[1])):
                remains, state = states[frame]
                to_read[rows, frame] = (state * gradient[rows, frame]).sum(dim=-1).T
                to_state = torch.addcmul(to_state, _of_state(read[rows, frame]), gradient[rows, frame])
                to_drive[rows, frame] = (to_state * _of_state(write[rows, frame])).sum(dim=0)
                to_write[rows, frame] = (to_state * drive[rows, frame]).sum(dim=-1).T
                to_state = to_state * remains
                if frame:
                    to_exponent = to_state * states[frame - 1][1]
                    to_step[rows, frame] = (to_exponent * decay.T.unsqueeze(1)).sum(dim=0)
                    to_decay += (to_exponent * step[rows, frame]).sum(dim=1).T
        return to_drive, to_step, to_decay, to_write, to_read


def scan(drive: Tensor, step: Tensor, decay: Tensor, write: Tensor, read: Tensor) -> Tensor:
    """The selective scan from a state of zeros, for every channel e and each of its 16 numbers n:

        state_t = exp(step_t decay) state_(t-1) + drive_t write_t,      output_t = sum over n of read_t state_t

    drive, step: (batch, frames, channels); decay: (channels, n), below 0; write, read: (batch, frames, n)
    Returns (batch, frames, channels).
    """
    return _Scan.apply(drive, step, decay, write, read)


def _follow(drive: Tensor, step: Tensor, decay: Tensor, write: Tensor):
    """For each frame what remains of the state before, and the state: both (n, rows, channels)."""
    decay, state = decay.T.unsqueeze(1), None
    for frame in range(drive.shape[1]):
        remains, written = (step[:, frame] * decay).exp_(), drive[:, frame] * _of_state(write[:, frame])
        state = written if state is None else torch.addcmul(written, remains, state)
        yield remains, state


def _of_state(numbers: Tensor) -> Tensor:
    """(rows, n) -> (n, rows, 1)"""
    return numbers.T.unsqueeze(-1)


def _rows(drive: Tensor) -> list[slice]:
    """Sequences to follow at a time: all on a GPU, on a CPU so many that their states stay in its cache."""
    rows, _, channels = drive.shape
    step = rows if drive.is_cuda else max(1, IN_CACHE // (STATE * channels))
    return [slice(first, first + step) for first in range(0, rows, step)]
