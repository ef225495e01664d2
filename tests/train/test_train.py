"""Stage 2: exact, resumable, without a teacher, and the same as asking the teacher in the loop."""

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from click.testing import Result
from safetensors.torch import load_file

from distillcache.cache.store import Store
from distillcache.datasets.augment.philox import Stream, words
from distillcache.datasets.shards.files import expand
from distillcache.datasets.views import Renderer
from distillcache.models.students import Student, build_student
from distillcache.models.teachers import Teacher
from distillcache.replay.batches import Replay, ReplayError
from distillcache.replay.training_set import TrainingSet
from distillcache.train.config import Config, Place
from distillcache.train.run import run_training
from distillcache.train.stopping import RunInterruptedError

from ..conftest import CLASSES, SIZE, OnAdvance, cached, run

KWARGS = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
MODEL = "deit_tiny_distilled_patch16_224"


pytestmark = pytest.mark.usefixtures("one_thread")


def config(store: Store, **changes: object) -> Config:
    defaults = {"epochs": 3, "batch_size": 8, "lr": 0.05, "warmup_epochs": 1, "crop_pct": 1.0}
    fixed = {"model": MODEL, "model_kwargs": KWARGS, "classes": CLASSES, "size": SIZE}
    return Config(data=store.manifest.fingerprint, **{**fixed, **defaults, **changes})


def student(c: Config) -> Student:
    return build_student(c.model, classes=CLASSES, seed=c.seed, drop_path=c.drop_path, **c.model_kwargs)


def place(out: Path, workers: int = 0, **more: object) -> Place:
    return Place(device=torch.device("cpu"), workers=workers, out=out, **more)


def stored(store: Store, shards: str) -> TrainingSet:
    return TrainingSet.stored(store, expand(shards))


def replay(store: Store, shards: str, workers: int = 0, rank: int = 0, world: int = 1, **changes: object) -> Replay:
    options = {"batch_size": 8, **changes}
    return Replay(stored(store, shards), rank=rank, world=world, workers=workers, **options)


def test_global_batches_are_the_same_for_any_workers_and_any_slicing(store: Store, shards: str) -> None:
    whole = list(replay(store, shards).batches(0, 0, 6))
    steps = replay(store, shards)
    counts = [steps.steps(epoch) for epoch in range(6)]
    assert len(whole) == sum(counts) and set(counts) == {2, 3}
    for workers in (1, 3):
        for ours, theirs in zip(replay(store, shards, workers).batches(0, 0, 6), whole, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True) if b is not None)
    ranks = [replay(store, shards, rank=rank, world=2).batches(0, 0, 6) for rank in range(2)]
    for one, other, both in zip(*ranks, whole, strict=True):
        assert torch.equal(torch.cat([one.images, other.images]), both.images)
    later = list(replay(store, shards).batches(4, 1, 6))
    assert torch.equal(later[0].images, whole[sum(counts[:4]) + 1].images) and len(later) == sum(counts[4:]) - 1


def test_a_view_that_differs_stops_the_run_and_is_named(tmp_path: Path, store: Store, shards: str) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for url in expand(shards):
        shutil.copy(url, folder)
    data = bytearray((folder / "train-1.tar").read_bytes())
    samples = store.samples(expand(shards))
    middle = int(samples.offset[1, 4]) + int(samples.nbytes[1, 4]) // 2
    data[middle : middle + 64] = bytes(64)  # the tar stays as long and as valid as it was
    (folder / "train-1.tar").write_bytes(data)
    with pytest.raises((ReplayError, ValueError), match=r"shard train-1\.tar, key .*photo104") as error:
        list(replay(store, str(folder / "*.tar")).batches(0, 0, 3))
    if isinstance(error.value, ReplayError):
        assert "not the image that the teacher saw; the shard was changed" in str(error.value)


def test_a_mismatch_names_view_and_libraries_and_exits_with_1(tmp_path: Path, store: Store, shards: str) -> None:
    copy = tmp_path / "c.zarr"
    shutil.copytree(store.path, copy)
    Store(copy)._arrays["check"][0, 0, 7] ^= 1
    text = (copy / "zarr.json").read_text()
    version = store.manifest.versions["torchvision"]
    (copy / "zarr.json").write_text(text.replace(f'"torchvision": "{version}"', '"torchvision": "0.1"'))
    found = train(copy, shards, tmp_path / "out", "--epochs", 3)
    assert found.exit_code == 1
    assert "shard train-0.tar, key photo007, view 0 (mixed with key photo0" in found.output
    assert f"torchvision 0.1, here {version}" in found.output


def train(cache: Path, shards: str, out: Path, *more: object) -> Result:
    kwargs = [f"{key}={value}" for key, value in KWARGS.items()]
    return run(
        "train-student", "--shards", shards, "--cache", cache, "--out", out, "--device", "cpu", "--workers", 0,
        "--batch-size", 8, "--model-kwargs", *kwargs, *more,
    )  # fmt: skip


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every loss that is propagated back, as it happens."""
    noted, original = [], torch.Tensor.backward
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: (noted.append(loss.item()), original(loss))[1])
    return noted


def online(store: Store, shards: str, teacher: Teacher, c: Config) -> int:
    """Train in a plain loop that asks the teacher at every step, on the same views; return the number of near-ties."""
    model = student(c).train()
    named = dict(model.model.named_parameters())
    spared = {name for name, weight in named.items() if weight.ndim == 1} | {"cls_token", "pos_embed"}
    optimizer = torch.optim.AdamW(
        [
            {"params": [weight for name, weight in named.items() if (name in spared) == plain], "weight_decay": decay}
            for plain, decay in ((True, 0.0), (False, 0.05))
        ],
        lr=0.05 * 8 / 512,
    )
    schedule = timm.scheduler.CosineLRScheduler(optimizer, t_initial=6, lr_min=1e-5, warmup_t=1, warmup_lr_init=1e-6)
    samples, order, near_ties = store.samples(expand(shards)), store.order(), 0
    renderer = Renderer(store.manifest.recipe, samples)
    for epoch in range(6):
        schedule.step(max(epoch - 1, 0))
        rows = order.epoch(epoch)
        for step, batch in enumerate(list(rows.batches(8))[: len(rows) // 8]):
            views = renderer(batch)
            logits = teacher.logits(views.images)
            top = logits.topk(2).values
            near_ties += int((top[:, 0] - top[:, 1] < 1e-4).sum())
            partner = np.where(batch.partner < 0, batch.sample, batch.partner)
            targets = [
                torch.from_numpy(samples.target[batch.shard, s].astype(np.int64)) for s in (batch.sample, partner)
            ]
            one_hot = [
                torch.full((len(batch), CLASSES), 0.1 / CLASSES).scatter_(1, t[:, None], 0.9 + 0.1 / CLASSES)
                for t in targets
            ]
            mixed = one_hot[0] * views.lam[:, None] + one_hot[1] * (1 - views.lam[:, None])
            torch.manual_seed(int(words(0, Stream.STEP, (epoch, step, 0), 1)[0]) >> 1)
            out, out_dist = model(views.images)
            base = -(mixed * F.log_softmax(out, -1)).sum(-1).mean()
            if c.distill == "hard":
                loss = 0.5 * base + 0.5 * F.cross_entropy(out_dist, logits.argmax(1))
            else:
                p, q = ((values / 3).log_softmax(1) for values in (logits, out_dist))
                loss = 0.9 * base + 0.1 * F.kl_div(q, p, reduction="sum", log_target=True) * 9 / out_dist.numel()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return near_ties


def test_offline_equals_online(
    tmp_path: Path, store: Store, shards: str, teacher: Teacher, losses: list[float]
) -> None:
    """A plain loop that asks the teacher for its hard label, on the same views, has the same losses to the bit."""
    c = config(store, epochs=6)
    run_training(student(c), stored(store, shards), None, c, place(tmp_path / "run"))
    offline = losses.copy()
    losses.clear()
    assert online(store, shards, teacher, c) == 0
    assert len(offline) == 16 and losses == offline


@pytest.mark.parametrize(("form", "rounding"), [({"topk": CLASSES}, 2**-11), ({"logits": 8}, 2**-10)])
def test_offline_equals_online_for_soft_labels_but_for_rounding(
    tmp_path: Path, shards: str, teacher: Teacher, losses: list[float], form: dict[str, int], rounding: float
) -> None:
    every = cached(tmp_path / "c.zarr", expand(shards), teacher, **form)
    c = config(every, epochs=6, distill="soft", alpha=0.1)
    run_training(student(c), stored(every, shards), None, c, place(tmp_path / "run"))
    offline = losses.copy()
    losses.clear()
    online(every, shards, teacher, c)
    assert len(offline) == 16 and offline == pytest.approx(losses, rel=rounding)
    assert offline != losses


def test_a_run_stopped_anywhere_ends_with_the_same_weights(tmp_path: Path, store: Store, shards: str) -> None:
    """SIGTERM in the middle of an epoch and SIGINT at the end of one, through the loop's own handlers."""
    data, c = stored(store, shards), config(store, epochs=3)
    run_training(student(c), data, data.samples, c, place(tmp_path / "whole"))
    done = 0

    def stop_at(images: int) -> None:
        nonlocal done
        done += images
        if done in (8, 3 * 8, 4 * 8):  # after the first step, the last of the first epoch, the first of the second
            os.kill(os.getpid(), signal.SIGTERM if done == 8 else signal.SIGINT)

    for _ in range(3):
        with pytest.raises(RunInterruptedError) as stopped:
            run_training(student(c), data, data.samples, c, place(tmp_path / "parts", reporter=OnAdvance(stop_at)))
    assert stopped.value.exit_code == 128 + signal.SIGINT
    run_training(student(c), data, data.samples, c, place(tmp_path / "parts", workers=1))
    whole, parts = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    metrics = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("whole", "parts")]
    for a, b in zip(*metrics, strict=True):
        assert {k: v for k, v in a.items() if k != "images_per_second"} == {
            k: v for k, v in b.items() if k != "images_per_second"
        }


def test_a_resume_with_another_configuration_is_refused(tmp_path: Path, store: Store, shards: str) -> None:
    assert train(store.path, shards, tmp_path / "out", "--epochs", 3).exit_code == 0
    again = train(store.path, shards, tmp_path / "out", "--epochs", 3)
    assert again.exit_code == 0 and "not measured (--val-shards)" in again.output
    for option, value, message in (
        ("--lr", 0.1, "lr: expected the 0.0005 of the run"),
        ("--epochs", 6, "epochs: expected the 3 of the run"),
    ):
        refused = train(
            store.path, shards, tmp_path / "out", *(() if option == "--epochs" else ("--epochs", 3)), option, value
        )
        assert refused.exit_code == 2 and message in refused.output and "Traceback" not in refused.output


def test_more_epochs_than_views_need_to_be_asked_for(tmp_path: Path, store: Store, shards: str) -> None:
    refused = train(store.path, shards, tmp_path / "out", "--epochs", 8)
    assert refused.exit_code == 2
    assert "expected 9 views for 8 epochs, found 6 in the store; run cache-teacher with --views 9" in refused.output
    batches = list(replay(store, shards, reuse_views=True).batches(6, 0, 7))
    assert torch.equal(batches[0].images, next(replay(store, shards).batches(0, 0, 1)).images)


def test_a_batch_larger_than_the_shortest_epoch_is_refused(tmp_path: Path, store: Store, shards: str) -> None:
    lengths = [len(store.order().epoch(epoch)) for epoch in range(6)]
    assert min(lengths) < max(lengths) and lengths[:3] == lengths[3:]
    for size in (min(lengths) + 1, 1000):
        with pytest.raises(ValueError, match=f"expected at most an epoch's {min(lengths)} views, found {size}"):
            replay(store, shards, batch_size=size).require_views(3)
    replay(store, shards, batch_size=min(lengths)).require_views(3)


def test_the_final_student_loads_in_plain_timm(tmp_path: Path, store: Store, shards: str) -> None:
    c = config(store)
    trained = student(c)
    run_training(trained, stored(store, shards), None, c, place(tmp_path))
    plain = timm.create_model(
        MODEL, num_classes=CLASSES, checkpoint_path=str(tmp_path / "student.safetensors"), **KWARGS
    ).eval()
    images = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(plain.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        heads = trained.eval()(images)
        average = plain((images.permute(0, 3, 1, 2) / 255 - mean) / std)
    assert torch.allclose(average, (heads[0] + heads[1]) / 2, atol=1e-5)


def test_stage_2_builds_no_model_but_the_student(tmp_path: Path, store: Store, shards: str) -> None:
    """In a process of its own, every model that timm builds is noted; the teacher's module is never imported."""
    script = f"""
import sys, timm
built, create = [], timm.create_model
timm.create_model = lambda name, *a, **k: (built.append(name), create(name, *a, **k))[1]
from timm.models import _registry
entry = _registry.model_entrypoint
_registry.model_entrypoint = lambda name, *a, **k: (built.append("entry " + name), entry(name, *a, **k))[1]
from distillcache.cli import main
try:
    main([{
        ", ".join(
            repr(str(a))
            for a in (
                "train-student",
                "--shards",
                shards,
                "--cache",
                store.path,
                "--out",
                tmp_path / "out",
                "--device",
                "cpu",
                "--workers",
                0,
                "--batch-size",
                8,
                "--epochs",
                3,
                "--val-shards",
                shards,
                "--model-kwargs",
                *(f"{k}={v}" for k, v in KWARGS.items()),
            )
        )
    }])
except SystemExit as stop:
    assert not stop.code, stop.code
print(built, "distillcache.models.teachers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"['{MODEL}'] False", done.stdout + done.stderr


def test_ctrl_c_saves_and_the_command_goes_on(tmp_path: Path, store: Store, shards: str) -> None:
    """A real process with workers, interrupted as a terminal does it: the whole process group."""
    run_on = command(
        store, shards, tmp_path / "out", "--workers", 2, "--batch-size", 2, "--epochs", 600, "--reuse-views"
    )
    process = subprocess.Popen(run_on, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command again to go on" in errors and "Traceback" not in errors


def command(store: Store, shards: str, out: Path, *more: object) -> list[str]:
    """Return train-student's command line, for a process of its own."""
    kwargs = [f"{key}={value}" for key, value in KWARGS.items()]
    options = ["--shards", shards, "--cache", str(store.path), "--out", str(out), "--device", "cpu", *map(str, more)]
    return [sys.executable, "-m", "distillcache.cli", "train-student", *options, "--model-kwargs", *kwargs]


def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    tmp_path: Path, store: Store, shards: str
) -> None:
    """A real write that fails: no file of this process may grow beyond 100 kB."""
    one_epoch = command(store, shards, tmp_path, "--batch-size", 8, "--epochs", 1)
    room = 100_000
    found = subprocess.run(
        one_epoch,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert found.returncode == 2 and "Traceback" not in found.stderr
    told = f"distillcache: {tmp_path}/last.pt: File too large; mend that and run again"
    assert found.stderr.splitlines()[-1] == told
    assert not list(tmp_path.glob("last.pt*"))
    assert run(*one_epoch[3:]).exit_code == 0
    assert (tmp_path / "last.pt").stat().st_size > room


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_train_as_one(tmp_path: Path, store: Store, shards: str, world: int) -> None:
    """Real processes under torchrun, each with a part of every global batch, going on from one process in mid-epoch.

    With them change the number of workers and the parts of a step; the batches and their order do not. All evaluate.
    """
    command = ["train-student", "--shards", shards, "--cache", str(store.path), "--device", "cpu"]
    command += ["--batch-size", "12", "--lr", "0.05", "--drop-path", "0", "--epochs", "3", "--warmup-epochs", "1"]
    command += ["--val-shards", shards]
    model = ["--model-kwargs", *(f"{key}={value}" for key, value in KWARGS.items())]
    data, c = stored(store, shards), config(store, epochs=3, batch_size=12, lr=0.05, drop_path=0.0, crop_pct=0.875)

    def stop(images: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunInterruptedError):
        run_training(student(c), data, None, c, place(tmp_path / "two", reporter=OnAdvance(stop)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world), "-m"]
    resumed = [*launch, "distillcache.cli", *command, "--out", str(tmp_path / "two"), "--workers", "1"]
    done = subprocess.run([*resumed, "--grad-accum-steps", "2", *model], capture_output=True, text=True)
    assert done.returncode == 0 and "going on from epoch 1, step 1" in done.stdout + done.stderr, done.stderr
    assert run(*command, "--out", tmp_path / "one", "--workers", 0, *model).exit_code == 0
    one, two = (load_file(tmp_path / name / "student.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    figures = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("one", "two")]
    for name in ("loss", "top1_class", "top1_distill", "top1_both"):
        alone, together = ([float(row[name]) for row in rows] for rows in figures)
        assert alone == pytest.approx(together, abs=1e-5)


def test_a_store_without_mixing_trains(tmp_path: Path, shards: str, teacher: Teacher) -> None:
    store = cached(tmp_path / "c.zarr", expand(shards), teacher, views=2, recipe="crop")
    c = config(store, epochs=2)
    summary = run_training(student(c), stored(store, shards), None, c, place(tmp_path / "out"))
    assert np.isfinite(summary["loss"])
