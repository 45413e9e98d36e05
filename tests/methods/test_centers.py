import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from wsch_core.methods.wsch.centers import _update, find_centers, kmeans, kmeans_plus_plus


def clustered_codes(count=600, bits=24, clusters=8, flips=3, seed=0):
    """Codes around a few centres, some bits flipped."""
    draw = torch.Generator().manual_seed(seed)
    centers = torch.randint(0, 2, (clusters, bits), generator=draw) * 2 - 1
    codes = centers[torch.randint(clusters, (count,), generator=draw)].clone()
    for row in codes:
        row[torch.randperm(bits, generator=draw)[:flips]] *= -1
    return codes.float()


def generator():
    return torch.Generator().manual_seed(7)


def test_lloyd_equals_scikit_learn_from_the_same_start():
    codes = clustered_codes()
    start = kmeans_plus_plus(codes, 12, generator())
    # no ties, which each may break its own way, and double precision, in which nothing is nearly a tie
    codes = codes.double() + 0.01 * torch.randn(codes.shape, generator=generator())
    ours = kmeans(codes, start.double())
    theirs = KMeans(12, init=start.numpy(), n_init=1, max_iter=300, tol=1e-4, algorithm="lloyd").fit(codes.numpy())
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-4)
    np.testing.assert_allclose(ours.means, theirs.cluster_centers_, atol=1e-4)


def test_start_is_as_good_as_scikit_learns():
    codes = clustered_codes(seed=3)
    ours = [kmeans(codes, kmeans_plus_plus(codes, 12, torch.Generator().manual_seed(s))).inertia for s in range(8)]
    theirs = [KMeans(12, n_init=1, random_state=s).fit(codes.numpy()).inertia_ for s in range(8)]
    assert np.mean(ours) <= np.mean(theirs) * 1.03


def test_results_are_consistent():
    codes = clustered_codes()
    found = kmeans(codes, kmeans_plus_plus(codes, 12, generator()))
    distances = torch.cdist(codes, found.means).square()
    assert found.inertia == pytest.approx(distances.min(dim=1).values.sum().item(), rel=1e-4)
    to_its_own = distances.gather(1, found.nearest[:, None])
    assert (to_its_own <= distances.min(dim=1, keepdim=True).values + 1e-3).all()


def test_an_empty_cluster_takes_the_farthest_code():
    codes = torch.tensor([[1.0, 1, 1, 1]] * 5 + [[1, 1, 1, -1]] * 5 + [[-1, -1, -1, -1]])
    start = torch.tensor([[1.0, 1, 1, 0], [-9, -9, 9, 9], [9, 9, -9, -9]])
    found = kmeans(codes, start)
    assert found.inertia == 0
    assert found.nearest.unique().tolist() == [0, 1, 2]


def test_an_empty_cluster_passes_over_codes_that_are_alone():
    """The farthest code is the only one of its cluster: the next one is taken, and no cluster gives all of its codes."""
    codes = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, -1], [-1, -1, -1, -1]])
    start = torch.tensor([[1.0, 1, 1, 1], [-4, -4, -4, -4], [99, 99, 99, 99], [98, 98, 98, 98]])
    sums = _update(codes, torch.tensor([0, 0, 0, 1]), torch.tensor([0.0, 0, 4, 36]), start)
    assert sums[2].tolist() == [1, 1, 1, -1]
    assert sums[3].tolist() == start[3].tolist()
    assert sums[1].tolist() == [-1, -1, -1, -1]


def test_more_centres_than_different_codes():
    codes = torch.tensor([[1.0, 1], [-1, -1]]).repeat(5, 1)
    centers, found = find_centers(codes, 6, None, generator())
    assert centers.shape == (6, 2)
    assert found.inertia == 0
    assert torch.isfinite(centers).all()


def test_centres_are_bits_and_a_mean_of_zero_keeps_the_former_bit():
    codes = torch.tensor([[1, 1], [1, -1]])
    first, _ = find_centers(codes, 1, None, generator())
    assert first.tolist() == [[1, 1]]
    again, _ = find_centers(codes, 1, torch.tensor([[-1.0, -1.0]]), generator())
    assert again.tolist() == [[1, -1]]


def test_deterministic_for_a_seed_and_started_from_the_former_centres():
    codes = clustered_codes().to(torch.int8)
    (first, one), (second, _) = find_centers(codes, 12, None, generator()), find_centers(codes, 12, None, generator())
    assert torch.equal(first, second)
    refreshed, two = find_centers(codes, 12, first, generator())
    assert set(refreshed.unique().tolist()) == {-1, 1}
    assert two.inertia <= one.inertia * 1.05


def test_fewer_codes_than_centres_is_refused():
    with pytest.raises(ValueError, match="centers is 800, but the training set gives only 600 codes"):
        find_centers(clustered_codes(), 800, None, generator())
