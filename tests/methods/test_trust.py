"""Neighbours as views: who they are, how far they are trusted, and that they change nothing where they are not."""

from dataclasses import replace

import pytest
import torch
from conftest import FRAMES, SIZE
from shared import assert_same_run, weights

from wsch_core import fit, load_dataset, load_run, settings_for
from wsch_core.data.features import Features, directions
from wsch_core.methods.method import Pass, State
from wsch_core.methods.wsch import neighbours
from wsch_core.methods.wsch.method import WSCHMethod
from wsch_core.methods.wsch.neighbours import find_neighbours, halves_agree, similarity_loss, trust_in
from wsch_core.storage.tensors import read_tensors, save_tensors

LEARN = Pass(1, "cycle", 0, ("cluster", "contrast"))


def grouped(videos=60, noise=0.1, seed=0):
    """Features of five groups of videos; without noise all frames of a video are alike."""
    draw = torch.Generator().manual_seed(seed)
    own = torch.randn(5, SIZE, generator=draw)[torch.arange(videos) % 5] + 0.3 * torch.randn(
        videos, SIZE, generator=draw
    )
    return Features(own.unsqueeze(1) + noise * torch.randn(videos, FRAMES, SIZE, generator=draw))


def literal_neighbours(features, count):
    sums = directions(features.tensor.double()).sum(dim=1)
    deviation = sums.std(dim=0, correction=0)
    described = directions((sums - sums.mean(dim=0)) / (deviation + 0.5 * deviation.mean()))
    similar = described @ described.T
    similar.fill_diagonal_(-torch.inf)
    return similar.argsort(dim=1, descending=True)[:, :count]


def test_neighbours_are_the_most_similar_by_standardised_directions():
    features = grouped()
    found = find_neighbours(features, 7)
    assert found["neighbours"].dtype == torch.int32
    assert torch.equal(found["neighbours"].long(), literal_neighbours(features, 7))
    torch.testing.assert_close(found["descriptor_mean"], directions(features.tensor).sum(dim=1).mean(dim=0))


def test_very_many_videos_are_searched_approximately(monkeypatch):
    features = grouped(videos=300)
    monkeypatch.setattr(neighbours, "MOST_EXACT", 10)
    monkeypatch.setattr(neighbours, "PRINCIPAL", SIZE)
    near = find_neighbours(features, 5)["neighbours"].long()
    assert near.shape == (300, 5)
    assert (near != torch.arange(300).unsqueeze(1)).all()
    assert (near.unsqueeze(2) == literal_neighbours(features, 5).unsqueeze(1)).any(dim=2).float().mean() > 0.9


def test_halves_agree_where_frames_tell_the_same():
    assert halves_agree(grouped(noise=0.01)) > 0.8
    assert abs(halves_agree(Features(torch.randn(200, FRAMES, SIZE)))) < 0.1
    levels = [halves_agree(grouped(noise=noise)) for noise in (0.01, 1.0, 10.0)]
    assert levels == sorted(levels, reverse=True)


@pytest.mark.parametrize("videos", [1, 2, 11])
def test_a_handful_of_videos_tells_nothing(videos):
    assert halves_agree(grouped(videos)) == 0


def test_trust_rises_with_agreement():
    assert [trust_in(a) for a in (-0.1, 0.2, 0.5, 0.6, 0.9)] == pytest.approx([0, 0, 0, 1, 1])
    assert trust_in(0.55) == pytest.approx(0.5)


def test_similarity_loss_is_the_mean_squared_difference_of_cosines():
    codes, descriptors = directions(torch.randn(6, 8)), torch.randn(6, 5)
    pairs = [
        (codes[i] @ codes[j] - torch.cosine_similarity(descriptors[i], descriptors[j], dim=0)) ** 2
        for i in range(6) for j in range(6)
    ]  # fmt: skip
    torch.testing.assert_close(similarity_loss(codes, descriptors), torch.stack(pairs).mean())
    assert similarity_loss(codes, codes) == pytest.approx(0, abs=1e-12)


def drawn_with(trust, tiny, tiny_settings):
    settings = replace(tiny_settings, neighbours=4, weight_similarity=5.0, views=3, masking_ratio=0.7)
    method = WSCHMethod(settings, len(tiny.train), FRAMES, SIZE)
    kept = find_neighbours(tiny.train.features, 4) | {"trust": torch.tensor(trust)}
    state = State(None, None, torch.Generator().manual_seed(1), kept)
    return method.draw(LEARN, state), kept["neighbours"], method.weights(LEARN, state)


def test_the_first_view_is_the_videos_own_and_others_show_neighbours(tiny, tiny_settings):
    drawn, near, learned = drawn_with(1.0, tiny, tiny_settings)
    assert drawn.videos.shape == (3, 21)
    assert sorted(drawn.videos[0].tolist()) == list(range(21))
    for shown in drawn.videos[1:]:
        assert all(video in near[own] for own, video in zip(drawn.videos[0], shown, strict=True))
    assert learned["similarity"] == 5.0


def test_without_trust_views_are_those_without_neighbours(tiny, tiny_settings):
    drawn, _, learned = drawn_with(0.0, tiny, tiny_settings)
    plain = WSCHMethod(replace(tiny_settings, views=3, masking_ratio=0.7), len(tiny.train), FRAMES, SIZE)
    expected = plain.draw(LEARN, State(None, None, torch.Generator().manual_seed(1)))
    assert torch.equal(drawn.videos, expected.videos)
    assert torch.equal(drawn.frames, expected.frames)
    assert "similarity" not in learned


@pytest.mark.parametrize("trust", [0.0, 0.4, 1.0])
def test_a_run_with_neighbours_resumes_bitwise_and_one_without_trust_is_plain(tiny, tiny_settings, monkeypatch, trust):
    monkeypatch.setattr(neighbours, "trust_in", lambda agreement: trust)
    chosen = replace(tiny_settings, neighbours=3, weight_similarity=5.0, views=3)
    whole = fit(chosen, tiny, name="whole", callbacks=[])
    told = [entry["trust"] for entry in whole.history if entry["stage"] == "cycle" and entry["losses"]]
    assert told == pytest.approx([trust] * 4)

    def stop(progress):
        if progress.entry and progress.current.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(chosen, tiny, name="cut", callbacks=[stop])
    assert_same_run(whole, fit(chosen, tiny, name="cut", callbacks=[], resume=True))
    plain = fit(replace(tiny_settings, views=3), tiny, name="plain", callbacks=[])
    same = all(torch.equal(tensor, weights(plain)[name]) for name, tensor in weights(whole).items())
    assert same == (trust == 0)


def test_memory_and_disk_give_the_same_neighbours(tiny_folder):
    memory, disk = (find_neighbours(load_dataset("tiny", hold).train.features, 5) for hold in ("memory", "disk"))
    assert memory.keys() == disk.keys()
    assert all(torch.equal(value, disk[name]) for name, value in memory.items())


def test_neighbours_that_are_not_of_this_set_are_damage(tiny, tiny_settings):
    chosen = replace(tiny_settings, neighbours=3)
    fit(chosen, tiny, name="r", callbacks=[])
    (path,) = load_run("r").checkpoints()
    tensors = read_tensors(path)
    for name, value in (("neighbours", tensors["kept.neighbours"] + 21), ("trust", torch.tensor(7.0))):
        save_tensors(path, tensors | {f"kept.{name}": value})
        with (
            pytest.raises(OSError, match="every checkpoint is damaged"),
            pytest.warns(RuntimeWarning, match="neighbours are not"),
        ):
            fit(replace(chosen, epochs=3), tiny, name="r", callbacks=[], resume=True)


def test_a_definition_names_its_own_recipe(tiny_folder):
    path = tiny_folder.parent / "tiny.toml"
    path.write_text('recipe = "plus"\n' + path.read_text())
    data = load_dataset("tiny")
    assert settings_for(data).neighbours == 10
    assert settings_for(data, "published").neighbours == 0
    path.write_text(path.read_text().replace('"plus"', '"pluss"'))
    with pytest.raises(ValueError, match="'pluss' is not a known recipe: did you mean 'plus'"):
        settings_for(load_dataset("tiny"))
