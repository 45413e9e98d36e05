import json
import math
import re
import warnings
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from shared import assert_same_run, weights

from wsch_core import Settings, encode, evaluate_run, fit, load_run
from wsch_core.data import load_dataset
from wsch_core.methods.method import Pass
from wsch_core.methods.wsch.method import WSCHMethod, learning_rate
from wsch_core.runs.outputs import list_runs
from wsch_core.storage.lines import format_seconds
from wsch_core.storage.tensors import read_tensors, save_tensors
from wsch_core.training.checkpoint import state_tensors
from wsch_core.training.loop import Interrupted, _read_losses, new_state
from wsch_core.training.progress import Progress, ProgressLine, describe


class Interrupt:
    """A callback that interrupts training at the end of a pass, as Ctrl-C would."""

    def __init__(self, after_pass: int):
        self.after_pass = after_pass

    def __call__(self, progress: Progress) -> None:
        if progress.entry is not None and progress.current.number == self.after_pass:
            raise KeyboardInterrupt


def test_arun_folder_holds_the_whole_run(tiny, tiny_settings):
    run = fit(tiny_settings, tiny, name="first", callbacks=[])
    assert run.finished
    assert run.settings == tiny_settings
    assert run.record["dataset"]["train_videos"] == 21
    assert {"torch", "python"} <= run.record["versions"].keys()
    history = run.history
    assert [line["tasks"] for line in history] == [[], *[["centers"], ["cluster"], ["contrast"]] * 2]
    assert history[2]["losses"].keys() == {"reconstruction", "cluster", "total"}
    assert history[3]["losses"]["total"] == pytest.approx(
        history[3]["losses"]["reconstruction"] + history[3]["losses"]["contrast"], rel=1e-5
    )
    assert history[1]["inertia"] > 0
    assert {path.name for path in run.folder.glob("[!.]*")} == {
        "settings.json",
        "history.jsonl",
        "weights.safetensors",
        "checkpoint-000007.safetensors",
    }
    codes = encode(load_run("first").model(), tiny.query.features)
    assert codes.shape == (5, 16)


def test_training_lowers_the_loss(tiny, tiny_settings):
    run = fit(replace(tiny_settings, pretrain_epochs=15, epochs=0), tiny, name="r", callbacks=[])
    losses = [line["losses"]["reconstruction"] for line in run.history]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "cycle", ["contrast", "centers, cluster+contrast", "centers, contrast, cluster", "centers, cluster"]
)
def test_every_cycle_trains(tiny, tiny_settings, cycle):
    run = fit(replace(tiny_settings, cycle=cycle, epochs=1), tiny, name="r", callbacks=[])
    learned = {task for line in run.history for task in line["losses"]}
    assert learned - {"total", "reconstruction"} == {"cluster", "contrast"} & set(cycle.replace("+", ", ").split(", "))


def test_the_order_of_joint_tasks_does_not_matter(tiny, tiny_settings):
    """Nor are their losses mixed up in the history."""
    runs = [
        fit(replace(tiny_settings, cycle=f"centers, {joint}"), tiny, name=joint, callbacks=[])
        for joint in ("cluster+contrast", "contrast+cluster")
    ]
    one, other = (run.history[-1]["losses"] for run in runs)
    assert one == pytest.approx(other, rel=1e-3)
    assert one["cluster"] != pytest.approx(one["contrast"], rel=0.05)


@pytest.mark.parametrize(
    "change",
    [
        {"weight_reconstruction": 0.0},
        {"cluster_targets": "swapped"},
        {"learning_rate_schedule": "cosine"},
        {"precision": "bfloat16"},
        {"batch_size": 20},  # leaves a last batch of one video
        {"epochs": 0},
        {"pretrain_epochs": 0},
        {"views": 3},
        {"views": 3, "decoder_positions": "sinusoidal"},
        {"encoder_width": 128, "decoder_width": 64, "attention_heads": 8, "ssd_head_width": 64, "state_size": 16},
    ],
    ids=str,
)
def test_every_option_trains_and_differs(tiny, tiny_settings, change):
    tiny_settings = replace(tiny_settings, precision="float32")
    plain = fit(tiny_settings, tiny, name="plain", callbacks=[])
    changed = fit(replace(tiny_settings, **change), tiny, name="changed", callbacks=[])
    assert all(torch.isfinite(tensor).all() for tensor in weights(changed).values())
    one, other = weights(plain)["encoder.input_projection.weight"], weights(changed)["encoder.input_projection.weight"]
    assert one.shape != other.shape or not torch.equal(one, other)


def test_the_same_settings_give_the_same_run(tiny, tiny_settings):
    torch.manual_seed(1)
    one = fit(tiny_settings, tiny, name="one", callbacks=[])
    state = torch.random.get_rng_state()
    other = fit(tiny_settings, load_dataset("tiny"), name="other", callbacks=[])
    assert_same_run(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)  # training leaves torch's own random state alone
    third = fit(replace(tiny_settings, seed=1), tiny, name="third", callbacks=[])
    assert not torch.equal(weights(one)["hash_layer.projection.weight"], weights(third)["hash_layer.projection.weight"])


@pytest.mark.parametrize("after_pass", range(7))
def test_an_interrupted_run_ends_as_if_it_had_not_been(tiny, tiny_settings, after_pass):
    whole = fit(tiny_settings, tiny, name="whole", callbacks=[])
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_settings, tiny, name="cut", callbacks=[Interrupt(after_pass)])
    cut = load_run("cut")
    assert not cut.finished
    assert encode(cut.model(), tiny.query.features).shape == (5, 16)  # usable as it is
    resumed = fit(tiny_settings, tiny, name="cut", callbacks=[], resume=True)
    assert resumed.finished
    assert_same_run(whole, resumed)


def test_a_callback_may_stop_a_run_after_the_pass(tiny, tiny_settings, monkeypatch):
    """Also where checkpoints are seldom written."""
    monkeypatch.setattr("wsch_core.training.checkpoint.LARGEST_SHARE", 1e-9)
    whole = fit(tiny_settings, tiny, name="whole", callbacks=[])
    with pytest.raises(
        Interrupted, match=r"run cut was interrupted after 3 of 7 passes: .*run = 'cut' and resume = True"
    ):
        fit(tiny_settings, tiny, name="cut", callbacks=[lambda progress: progress.current.number == 2])
    cut = load_run("cut")
    assert cut.checkpoints()[0].name == "checkpoint-000003.safetensors"
    seen = []
    fit(tiny_settings, tiny, name="cut", callbacks=[lambda p: seen.append((p.run.name, p.current.number))], resume=True)
    assert seen[0] == ("cut", 3)
    assert_same_run(whole, cut)
    assert fit(tiny_settings, tiny, name="last", callbacks=[lambda progress: progress.finished]).finished


def test_more_epochs_can_be_added(tiny, tiny_settings):
    fit(tiny_settings, tiny, name="short", callbacks=[])
    longer = replace(tiny_settings, epochs=4)
    assert_same_run(
        fit(longer, tiny, name="long", callbacks=[]), fit(longer, tiny, name="short", callbacks=[], resume=True)
    )
    assert load_run("short").settings.epochs == 4


def test_resuming_with_other_settings_is_refused(tiny, tiny_settings):
    fit(tiny_settings, tiny, name="r", callbacks=[])
    with pytest.raises(ValueError, match=r"run r cannot be resumed with other settings \(bits was 16, is 32\)"):
        fit(replace(tiny_settings, bits=32), tiny, name="r", callbacks=[], resume=True)
    with pytest.raises(ValueError, match="epochs was 2, is 1"):
        fit(replace(tiny_settings, epochs=1), tiny, name="r", callbacks=[], resume=True)


def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(tiny, tiny_settings):
    whole = fit(tiny_settings, tiny, name="whole", callbacks=[])
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_settings, tiny, name="cut", callbacks=[Interrupt(5)])
    newest, before = load_run("cut").checkpoints()
    assert newest.name > before.name
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(RuntimeWarning, match=f"{newest.name} is damaged"):
        resumed = fit(tiny_settings, tiny, name="cut", callbacks=[], resume=True)
    assert_same_run(whole, resumed)
    (only,) = resumed.checkpoints()
    only.write_bytes(b"")
    with pytest.warns(RuntimeWarning), pytest.raises(OSError, match="every checkpoint is damaged"):
        fit(tiny_settings, tiny, name="cut", callbacks=[], resume=True)


@pytest.mark.parametrize("damage", ["no checkpoint", "short history", "foreign", "incomplete"])
def test_a_run_that_cannot_go_on_is_refused_and_left_as_it_is(tiny, tiny_settings, damage):
    run = fit(tiny_settings, tiny, name="r", callbacks=[])
    (checkpoint,) = run.checkpoints()
    if damage == "no checkpoint":
        checkpoint.unlink()
    elif damage == "short history":
        lines = (run.folder / "history.jsonl").read_text().splitlines(keepends=True)
        (run.folder / "history.jsonl").write_text("".join(lines[:-2]))
    else:
        tensors = read_tensors(checkpoint)
        if damage == "foreign":
            tensors["model.hash_layer.norm.bias"] = torch.zeros(3)
        else:
            del tensors["generator"]
        save_tensors(checkpoint, tensors)
    before = {path.name: path.read_bytes() for path in run.folder.glob("[!.]*")}
    complaint = {"no checkpoint": "holds no checkpoint to go on from", "short history": "holds 5 of the 7 passes"}
    warnings.simplefilter("ignore", RuntimeWarning)
    with pytest.raises(OSError, match=complaint.get(damage, "every checkpoint is damaged")):
        fit(replace(tiny_settings, epochs=9), tiny, name="r", callbacks=[], resume=True)
    assert before == {path.name: path.read_bytes() for path in run.folder.glob("[!.]*")}


def test_more_epochs_make_old_results_void(tiny, tiny_settings):
    run = fit(tiny_settings, tiny, name="r", callbacks=[])
    evaluate_run(run, tiny, baselines=())
    with pytest.raises(KeyboardInterrupt):
        fit(replace(tiny_settings, epochs=4), tiny, name="r", callbacks=[Interrupt(9)], resume=True)
    assert not run.finished
    assert not run.evaluated
    assert run.stored_codes(tiny.database) is None


def test_a_cosine_learning_rate_cannot_be_given_more_epochs(tiny, tiny_settings):
    cosine = replace(tiny_settings, learning_rate_schedule="cosine")
    fit(cosine, tiny, name="r", callbacks=[])
    with pytest.raises(ValueError, match="cannot be given more epochs"):
        fit(replace(cosine, epochs=3), tiny, name="r", callbacks=[], resume=True)


def test_resuming_needs_a_run(tiny, tiny_settings):
    with pytest.raises(ValueError, match="resume needs the name of the run"):
        fit(tiny_settings, tiny, callbacks=[], resume=True)
    fit(tiny_settings, tiny, name="first", callbacks=[])
    with pytest.raises(ValueError, match="'frist' is not a known run: did you mean 'first'"):
        fit(tiny_settings, tiny, name="frist", callbacks=[], resume=True)


def test_settings_for_another_data_set_are_refused(tiny, tiny_settings):
    with pytest.raises(ValueError, match="dataset is 'demo' in the settings, but the data set given is 'tiny'"):
        fit(replace(tiny_settings, dataset="demo"), tiny, callbacks=[])


def test_weights_that_are_not_finite_never_reach_a_checkpoint(tiny, tiny_settings):
    settings = replace(tiny_settings, learning_rate=1e38, batch_size=21, pretrain_epochs=1, epochs=0)
    with pytest.raises(FloatingPointError, match="weights are not finite after pass 1"):
        fit(settings, tiny, name="r", callbacks=[])
    assert not load_run("r").finished


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"settings": {"bits": 0}, "dataset": {}}'])
def test_a_damaged_settings_file_is_named(tiny, tiny_settings, content):
    run = fit(tiny_settings, tiny, name="r", callbacks=[])
    (run.folder / "settings.json").write_text(content)
    with pytest.raises((OSError, ValueError), match=r"r/settings\.json"):
        _ = load_run("r").settings


def test_a_name_in_use_is_refused(tiny, tiny_settings):
    fit(tiny_settings, tiny, name="r", callbacks=[])
    with pytest.raises(FileExistsError, match="choose another run name, resume this run"):
        fit(tiny_settings, tiny, name="r", callbacks=[])


@pytest.mark.parametrize("name", ["../up", "/tmp/x", "a/b", ".hidden", "x" * 101, "two words", 2024])
def test_a_name_that_is_no_folder_name_is_refused(tiny, tiny_settings, name):
    with pytest.raises(ValueError, match="cannot be a folder name"):
        fit(tiny_settings, tiny, name=name, callbacks=[])


def test_an_unwritable_folder_is_named(tiny, tiny_settings, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WSCH_OUTPUTS", str(tmp_path / "file" / "outputs"))
    with pytest.raises(OSError, match=r"cannot be written .*set WSCH_OUTPUTS to a writable folder"):
        fit(tiny_settings, tiny, callbacks=[])


def test_training_that_diverges_is_stopped_and_says_where(tiny, tiny_settings):
    with pytest.raises(FloatingPointError, match=r"not finite .*pass 1 \(pretraining epoch 1.*lower learning_rate"):
        fit(replace(tiny_settings, learning_rate=1e30, pretrain_epochs=3), tiny, name="r", callbacks=[])
    for tensor in read_tensors(load_run("r").checkpoints()[0]).values():
        assert not tensor.is_floating_point() or torch.isfinite(tensor).all()


def test_a_loss_that_is_not_finite_is_named_with_its_step():
    current = Pass(12, "cycle", 3, ("contrast",))
    recorded = torch.tensor([[1.0, 2.0, 3.0], [1.0, torch.nan, torch.nan]])
    where = r"pass 13 \(cycle epoch 4, contrast\), step 2: reconstruction 1, contrast nan, total nan\."
    with pytest.raises(FloatingPointError, match=where):
        _read_losses(recorded, torch.tensor([4, 4]), ["reconstruction", "contrast", "total"], current)


def test_losses_are_means_over_videos():
    recorded, sizes = torch.tensor([[1.0], [1.0], [9.0]]), torch.tensor([128, 128, 1])
    assert _read_losses(recorded, sizes, ["total"], Pass(0, "cycle", 0, ()))["total"] == pytest.approx(1 + 8 / 257)


def test_settings_that_do_not_fit_the_data_are_refused(tiny, tiny_settings):
    with pytest.raises(ValueError, match="centers is 43, but tiny has 21 training videos, which give 42 codes"):
        fit(replace(tiny_settings, centers=43), tiny, callbacks=[])
    with pytest.raises(ValueError, match=r"masking ratio of 0.05 hides none of a video's 10 frames"):
        fit(replace(tiny_settings, masking_ratio=0.05), tiny, callbacks=[])
    with pytest.raises(ValueError, match=r"views is 8, .* hides 6 of a video's 10 frames.* choose at most 7"):
        fit(replace(tiny_settings, views=8), tiny, callbacks=[])
    with pytest.raises(ValueError, match="device is 'gpu': it must be auto, cpu, cuda"):
        fit(replace(tiny_settings, device="gpu"), tiny, callbacks=[])
    assert list_runs() == []


def test_a_state_is_restored_to_the_bit(tiny, tiny_settings):
    run = fit(tiny_settings, tiny, name="r", callbacks=[])
    from wsch_core.training.checkpoint import restore_newest

    method = WSCHMethod(tiny_settings, len(tiny.train), tiny.frames, tiny.feature_size)
    state = new_state(method, torch.device("cpu"))
    assert restore_newest(run, state, method)
    stored = read_tensors(run.checkpoints()[0])
    restored = state_tensors(state)
    assert restored.keys() == stored.keys()
    assert all(torch.equal(restored[name], stored[name]) for name in stored)
    assert sum(name.startswith("optimizer.exp_avg_sq.") for name in stored) == len(list(state.model.parameters()))


def test_learning_rate_schedules():
    constant, cosine = Settings(learning_rate=0.1), Settings(learning_rate=0.1, learning_rate_schedule="cosine")
    assert {learning_rate(constant, step, 100) for step in range(100)} == {0.1}
    rates = [learning_rate(cosine, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == rates[4] == rates[5] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in pairwise(rates[5:]))
    assert 0 < rates[-1] < 0.001
    assert learning_rate(cosine, 0, 1) == pytest.approx(0.1)


def test_progress_is_told_and_printed(tiny, tiny_settings, capsys):
    told = []
    fit(tiny_settings, tiny, name="r", callbacks=[told.append, ProgressLine(every_seconds=0)])
    finished = [progress for progress in told if progress.entry]
    assert [p.current.number for p in finished] == list(range(7))
    assert all(0 < p.share <= 1 for p in told)
    assert finished[-1].share == pytest.approx(1)
    assert finished[-1].seconds_left == pytest.approx(0, abs=1e-6)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(told)
    assert "pass 7/7 · cycle epoch 2, contrast · reconstruction" in lines[-1]
    assert lines[-1].startswith("100% ████")
    assert re.search(r"took \d:\d\d · \S+$", lines[-1])
    assert "pre-training epoch 1, reconstruction" in describe(told[0])
    assert [format_seconds(s) for s in (0, 75.4, 3750)] == ["0:00", "1:15", "1:02:30"]


def test_codes_in_arun_folder_round_trip(tiny, tiny_settings):
    run = fit(tiny_settings, tiny, name="r", callbacks=[])
    codes = encode(run.model(), tiny.query.features)
    run.save_codes(tiny.query, codes, run.weights)
    run.save_codes(SimpleNamespace(name="database", ids=["a", "<b>"], fingerprint="f"), codes[:2], "w")
    loaded = run.load_codes()
    assert torch.equal(loaded["query"].codes, codes)
    assert loaded["query"][1:] == (tiny.query.ids, run.weights, tiny.query.fingerprint)
    assert loaded["database"][1:] == (["a", "<b>"], "w", "f")


def test_runs_are_listed_and_found(tiny, tiny_settings):
    with pytest.raises(ValueError, match="holds no runs"):
        load_run()
    fit(tiny_settings, tiny, name="older", callbacks=[])
    newest = fit(tiny_settings, tiny, callbacks=[])
    assert newest.name.startswith("tiny-16bits-")
    assert load_run().name == newest.name
    with pytest.raises(ValueError, match=r"'oldr' is not a known run: did you mean 'older'\?"):
        load_run("oldr")


def test_half_a_history_line_is_ignored(tiny, tiny_settings):
    run = fit(tiny_settings, tiny, name="r", callbacks=[])
    with open(run.folder / "history.jsonl", "a") as file:
        file.write('{"pass": 7, "los')
    assert len(run.history) == 7


def test_settings_json_is_plain(tiny, tiny_settings):
    run = fit(tiny_settings, tiny, name="r", callbacks=[])
    record = json.loads((run.folder / "settings.json").read_text())
    assert record["settings"]["bits"] == 16
    assert record["repeats"] == "bit for bit, on this machine with as many threads"
    assert not math.isnan(record["settings"]["learning_rate"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives(tiny, tiny_settings):
    on_cpu = fit(replace(tiny_settings, epochs=0), tiny, name="cpu", callbacks=[])
    on_gpu = fit(replace(tiny_settings, epochs=0, device="cuda"), tiny, name="gpu", callbacks=[])
    for one, other in zip(on_cpu.history, on_gpu.history, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-3)
    whole = fit(replace(tiny_settings, device="cuda"), tiny, name="whole", callbacks=[])
    assert whole.record["repeats"].startswith("to rounding errors")
    assert whole.finished
