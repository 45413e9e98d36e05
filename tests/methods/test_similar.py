import numpy as np
import pytest
import torch

from wsch_core.methods.parts import similar as module
from wsch_core.methods.parts.similar import nearest_videos, similar_videos


def literal_graph(features, neighbours, reach):
    """The rules, word by word."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-8)
    videos, similarity = range(len(features)), unit @ unit.T
    np.fill_diagonal(similarity, 2)
    near = [np.argsort(-similarity[i], kind="stable")[: neighbours + 1].tolist() for i in videos]
    extended = []
    for i in videos:
        ranked = sorted(videos, key=lambda j: (-len(set(near[i]) & set(near[j])), j))
        extended.append(set().union(*(near[j] for j in ranked[:reach])))
    return near, [[int(i == j or j in extended[i] or i in extended[j]) for j in videos] for i in videos]


@pytest.mark.parametrize("at_a_time", [60, 10_000], ids=["row by row", "at once"])
def test_the_neighbourhood_graph_follows_the_rules(monkeypatch, at_a_time):
    monkeypatch.setattr(module, "COSINES", at_a_time)
    monkeypatch.setattr(module, "OVERLAPS", at_a_time)
    features = np.random.default_rng(0).normal(size=(60, 16)).round(3)
    near, graph = literal_graph(features, neighbours=4, reach=3)
    found = nearest_videos(torch.from_numpy(features), 4)
    assert found.tolist() == near
    similar = similar_videos(found, 3)
    assert similar.toarray().tolist() == graph
    assert similar.indptr[-1] == similar.nnz == np.sum(graph)


def test_videos_of_zeros_have_neighbours_too():
    features = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    features[3] = 0
    near = nearest_videos(features, 3)
    assert torch.equal(near[:, 0], torch.arange(12))
    assert all(len(set(row)) == 4 for row in near.tolist())
