"""What the benchmarks measure against computes the same as what is measured."""

import numpy as np
import peer
import pytest
import retrieval
import torch

from wsch_core.data.features import Features
from wsch_core.data.loader import visible_batches
from wsch_core.device import autocast
from wsch_core.metrics import evaluate
from wsch_core.model import WSCH
from wsch_core.settings import Settings
from wsch_core.train import TrainingState, batch_losses

WEIGHTS = {"reconstruction": 1.0, "cluster": 0.02, "contrast": 1.0}


@pytest.mark.parametrize("hidden", [3, 6, 9])
def test_the_literal_training_step_has_the_same_losses_and_gradients(hidden):
    torch.manual_seed(5)  # which draws no two equally near centres, between which the literal step's rounding chooses
    settings = Settings()
    model = WSCH(feature_size=12, bits=16, encoder_width=128, decoder_width=32).double()
    torch.nn.init.normal_(model.decoder.mask_token)
    features = Features(torch.randn(7, 10, 12, dtype=torch.float64))
    centers = torch.randn(5, 16, dtype=torch.float64).sign()
    videos, masks = next(iter(peer.loader(features.tensor, hidden, batch_size=7)))
    order = (videos[:, None] == features.tensor).flatten(2).all(dim=2).long().argmax(dim=1)  # the loader shuffles
    views = (~masks).nonzero()[:, 2].view(7, 2, 10 - hidden).transpose(0, 1)

    batch = next(visible_batches(features, order, views, 7, torch.device("cpu"), "sums"))
    state = TrainingState(model, None, None, centers)
    fast, _ = batch_losses(state, batch, hidden, WEIGHTS, settings, autocast(torch.device("cpu"), "float32"))
    slow = peer.losses(model, videos, masks, centers, settings, WEIGHTS)
    gradients = []
    for losses in (fast, slow):
        model.zero_grad()
        sum(weight * losses[task] for task, weight in WEIGHTS.items()).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for task in WEIGHTS:
        torch.testing.assert_close(fast[task], slow[task])
    torch.testing.assert_close(*gradients)


def test_the_usual_evaluation_lies_within_our_bounds():
    """It breaks ties at will, so it may be anywhere between the worst and the best order."""
    codes, labels = retrieval.made_up(300, 16, 5, 1)
    queries, query_labels = retrieval.made_up(20, 16, 5, 2)
    usual = np.array(retrieval.usual_map(queries, codes, query_labels, labels))
    found = evaluate(queries, codes, query_labels, labels)
    assert (found.lower - 1e-6 <= usual).all()
    assert (usual <= found.upper + 1e-6).all()
    assert (found.upper - found.lower).max() < 0.5  # bounds that say something
