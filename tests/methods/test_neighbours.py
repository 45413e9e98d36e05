"""Partners are drawn from the videos whose tags allow it, each as likely, against the dense matrices of the text."""

import numpy as np
import pytest
import torch

from wsch_core.methods.parts.neighbours import ALIKE, ROWS, Neighbours, find_anchors, nearest_anchors

VIDEOS, ANCHORS = 40, 9


@pytest.fixture(scope="module")
def graph():
    latents = torch.from_numpy(np.random.default_rng(3).normal(size=(VIDEOS, 6))).float()
    anchors = latents[:ANCHORS]
    return latents, anchors, *nearest_anchors(latents, anchors)


def literal_tags(latents, anchors) -> np.ndarray:
    distances = torch.cdist(latents.double(), anchors.double()).numpy()
    similar = {}
    for k in (3, 4, 5):
        order = distances.argsort(axis=1)[:, :k]
        c = np.take_along_axis(distances, order, axis=1)[:, -1].mean() ** 2
        z = np.zeros_like(distances)
        for row, columns in enumerate(order):
            weights = np.exp(-(distances[row, columns] ** 2) / c)
            z[row, columns] = weights / weights.sum()
        masses = z.sum(axis=0)
        similar[k] = (z / np.where(masses > 0, masses, 1)) @ z.T > ALIKE
    return similar[3].astype(int) + 2 * (similar[5].astype(int) - similar[4].astype(int))


def test_tags_are_those_of_the_dense_matrices(graph):
    latents, anchors, nearest, distances = graph
    neighbours = Neighbours(nearest, distances, ANCHORS)
    assert {0, 1, 2} == set(np.unique(literal_tags(latents, anchors)))
    assert np.array_equal(neighbours.tags(0, VIDEOS).toarray(), literal_tags(latents, anchors))
    assert np.array_equal(neighbours.tags(7, 12).toarray(), literal_tags(latents, anchors)[7:12])


def test_partners_are_those_that_the_tags_allow_each_as_often(graph):
    """Draws go evenly from 0 to 1, so that each partner's share of them is told to one draw."""
    latents, anchors, nearest, distances = graph
    neighbours, tags, draws = Neighbours(nearest, distances, ANCHORS), literal_tags(latents, anchors), 200
    for similar in (True, False):
        met = np.zeros((VIDEOS, VIDEOS), dtype=int)
        for draw in (np.arange(draws) + 0.5) / draws:
            partners = neighbours._partners_of(0, np.full(VIDEOS, similar), np.full(VIDEOS, draw), alone=True)
            met[np.arange(VIDEOS), partners] += 1
        for video in range(VIDEOS):
            others = np.arange(VIDEOS) != video
            wanted = (
                ((tags[video] == 1),) if similar else ((tags[video] == 2), (tags[video] == 0), tags[video] != 1, others)
            )
            allowed = next(some & others for some in wanted if (some & others).any())
            assert (met[video][~allowed] == 0).all(), (similar, video)
            assert (np.abs(met[video][allowed] - draws / allowed.sum()) <= 1).all(), (similar, video)


def test_a_video_alone_is_its_own_partner_and_others_take_what_there_is():
    """Two groups that share no anchor, and a video far from all: no video is nearly alike to any."""
    nearest = torch.tensor([[0, 1, 2, 3, 4]] * 3 + [[5, 6, 7, 8, 9]] * 3 + [[10, 11, 12, 13, 14]])
    neighbours = Neighbours(nearest, torch.ones(7, 5, dtype=torch.float64), 15)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        similar = neighbours.partners(torch.ones(7, dtype=torch.bool), generator)
        assert similar[6] == 6
        assert all(one // 3 == other // 3 and one != other for one, other in enumerate(similar[:6].tolist()))
        unlike = neighbours.partners(torch.zeros(7, dtype=torch.bool), generator)
        assert all(one // 3 != other // 3 for one, other in enumerate(unlike.tolist()))
    assert neighbours.partners(torch.ones(7, dtype=torch.bool), generator, alone=False)[6] == 6
    only = Neighbours(nearest[:1], torch.ones(1, 5, dtype=torch.float64), 15)
    assert only.partners(torch.zeros(1, dtype=torch.bool), generator).tolist() == [0]
    alike = Neighbours(nearest[:3], torch.ones(3, 5, dtype=torch.float64), 15)
    assert all(one != other for one, other in enumerate(alike.partners(torch.zeros(3, dtype=torch.bool), generator)))


def test_videos_are_their_own_partners_in_the_published_code(graph):
    *_, nearest, distances = graph
    neighbours, generator = Neighbours(nearest, distances, ANCHORS), torch.Generator().manual_seed(1)
    everyone, videos = torch.ones(VIDEOS, dtype=torch.bool), torch.arange(VIDEOS)
    drawn = torch.stack([neighbours.partners(everyone, generator, alone=False) for _ in range(200)])
    assert (drawn == videos).any(dim=0).all()


def test_rows_are_handled_some_at_a_time(graph, monkeypatch):
    *_, nearest, distances = graph
    neighbours, similar = Neighbours(nearest, distances, ANCHORS), torch.arange(VIDEOS) % 2 == 0
    whole = neighbours.partners(similar, torch.Generator().manual_seed(5))
    monkeypatch.setattr("wsch_core.methods.parts.neighbours.ROWS", 7)
    assert ROWS > VIDEOS
    assert torch.equal(neighbours.partners(similar, torch.Generator().manual_seed(5)), whole)


def test_anchors_may_start_from_the_same_video_twice():
    latents = torch.from_numpy(np.random.default_rng(3).normal(size=(30, 4))).float()
    once = find_anchors(latents, 30, torch.Generator().manual_seed(0))
    assert torch.allclose(once.sort(dim=0).values, latents.sort(dim=0).values, atol=1e-5)
    assert len(find_anchors(latents, 30, torch.Generator().manual_seed(0), repeated=True)) < 30
