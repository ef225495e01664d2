"""The public API: its names and signatures, and the dataset as training loops use it."""

import inspect
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import distillcache as dc
from distillcache.datasets.shards.files import expand
from distillcache.replay.batches import Replay
from distillcache.replay.training_set import TrainingSet

from .conftest import CLASSES, SIZE, run

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = {
    "InputError": None,
    "Mirror": "(folder=None, limit=None)",
    "NonFiniteLossError": None,
    "PeerError": None,
    "ReplayError": None,
    "Reporter": "()",
    "RunInterruptedError": None,
    "StopRequested": None,
    "Store": None,
    "Student": None,
    "Teacher": None,
    "Tracker": None,
    "UnfinishedError": None,
    "ViewBatch": "(**fields)",
    "ViewDataset": "(store, shards, *, batch_size, rank=None, world=None, workers=0, mean=None, std=None, "
    "layout='channels_first', smoothing=0.1, soft=False, reuse_views=False, allow_drift=False, window=None, "
    "subset=None, missing='stop')",
    "as_student": "(model, *, classes, image_size, mean, std, heads=1)",
    "as_teacher": "(model, *, name, classes, input_size, mean, std, device='cpu', amp=False, sha256='', "
    "class_names=(), crop_pct=0.875)",
    "build_student": "(name, *, classes, seed, drop_path=0.1, **kwargs)",
    "cache_teacher": "(path, shards, teacher, *, views=None, recipe=None, overrides=(), image_size=None, "
    "teacher_size=None, seed=None, topk=None, logits=None, amp=None, add_shards=(), part=None, exclude=None, "
    "skip_bad_images=False, top1=None, batch_size=256, workers=0, wait=True, take_over=False, mirror=DEFAULT, "
    "reporter=SILENT)",
    "compare_students": "(checkpoints, shards, *, store=None, crop_pct=None, batch_size=256, amp=None, device='auto', "
    "workers=None, mirror=DEFAULT, reporter=SILENT)",
    "distillation_loss": "(logits, target, teacher, *, distill, alpha=0.5, tau=3.0)",
    "ensemble": "(teachers, *, name='')",
    "evaluate_student": "(checkpoint, shards, *, head=None, real=False, predictions=None, model=None, model_kwargs=(), "
    "crop_pct=None, batch_size=256, amp=None, device='auto', workers=None, mirror=DEFAULT, reporter=SILENT)",
    "export_student": "(run, out, *, to, push=None, license='unknown')",
    "load_teacher": "(name, *, device='cpu', amp=None, size=None, compiled=False)",
    "mixed_target": "(target, partner, lam, classes, smoothing=0.1)",
    "open_store": "(path, mirror=DEFAULT)",
    "register_op": "(name, *, draw, apply)",
    "register_recipe": "(name, *, base='deit', overrides=())",
    "train_student": "(out, shards, *, store=None, val_shards=(), subset=None, missing='stop', recipe=None, "
    "overrides=(), image_size=None, model_kwargs=(), device='auto', workers=None, take_over=False, log_every=50, "
    "wandb=None, trackio=None, trackers=(), mirror=DEFAULT, reporter=SILENT, command=(), options=None, **asked)",
    "train_teacher": "(out, shards, *, model, epochs=30, batch_size=128, lr=0.004, seed=0, recipe=None, overrides=(), "
    "image_size=None, val_shards=(), device='auto', workers=None, mirror=DEFAULT, reporter=SILENT, command=())",
}
MEMBERS = {
    "Store": "agreement() counts keys(shard) labels(shard) missing targets() to_xarray() views",
    "ViewDataset": "__iter__() __len__() batch_size classes epoch load_state_dict(state) rank set_epoch(epoch, step=0) "
    "state_dict() steps(epochs) world",
    "Reporter": "advance(n=1) log(text) part(what, total, unit) start_at(n, total=None)",
    "Teacher": "logits(images)",
    "Tracker": "finish() log(figures, step)",
    "Student": "classes distilled forward(images) heads image_size model",
}


def signature(function: Any) -> str:
    shown = []
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        if type(default).__name__ in ("Mirror", "Reporter"):
            parameter = parameter.replace(default=inspect.Parameter.empty)
            shown.append(f"{parameter.name}={'DEFAULT' if 'irror' in type(default).__name__ else 'SILENT'}")
            continue
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        shown.append(str(parameter.replace(annotation=inspect.Parameter.empty)))
    return f"({', '.join(shown)})"


def test_public_names_and_their_signatures_are_these() -> None:
    assert {*dc.__all__} == {*PUBLIC}
    for name, expected in PUBLIC.items():
        value = getattr(dc, name)
        assert value.__doc__ and not value.__doc__.startswith("Alias")
        if expected and name != "ViewBatch":
            assert signature(value) == expected, name
    assert [*dc.ViewBatch.__annotations__] == (
        ["image", "target", "partner", "lam", "soft_target", "key", "teacher_label", "teacher_log_probs"]
    )
    for name, members in MEMBERS.items():
        kind = getattr(dc, name)
        for member in members.replace(", ", ",").split():
            attribute, call, parameters = member.partition("(")
            have = inspect.getattr_static(kind, attribute, None) or kind.__annotations__.get(attribute)
            assert have is not None or f"self.{attribute}" in inspect.getsource(kind), member
            if call:
                assert signature(getattr(kind, attribute)).replace(", ", ",") == f"({parameters}", member


def test_a_program_without_torch_opens_a_store_and_reads_it(store: dc.Store) -> None:
    code = (
        "import sys, distillcache as dc\n"
        "store = dc.open_store(sys.argv[1])\n"
        "print(store.views, store.labels(0).shape, store.targets().shape, store.keys(0)[0], store.agreement())\n"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules), 'torch was loaded'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels, targets = store.read(range(6)).label, store.targets()
    real = np.arange(labels.shape[2]) < store.counts[:, None]
    agreement = (labels == targets)[:, real].mean()
    assert done.stdout.split()[-1] == str(float(agreement)) and 0 < agreement < 1
    dataset = store.to_xarray()
    np.testing.assert_array_equal(dataset.label.values, labels)


def batches_of(store: dc.Store, shards: str, epoch: int) -> list[Any]:
    return list(Replay(TrainingSet.stored(store, shards), batch_size=8, soft=True).batches(epoch, 0, epoch + 1))


def assert_same(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs) > 1
    for view, batch in zip(ours, theirs, strict=True):
        assert torch.equal(view["image"], batch.images.permute(0, 3, 1, 2))
        for name, column in (("target", 1), ("partner", 2), ("lam", 3), ("teacher_label", 4)):
            assert torch.equal(view[name], batch[column]), name


@pytest.mark.parametrize("how", ["alone", "own workers", "loader", "persistent loader", "spawned loader"])
def test_a_dataset_yields_train_students_batches_however_it_is_rendered(store: dc.Store, shards: str, how: str) -> None:
    dataset = dc.ViewDataset(store, shards, batch_size=8, soft=True, workers=2 if how == "own workers" else 0)
    views: Any = dataset
    if "loader" in how:
        more = {"multiprocessing_context": "spawn"} if how == "spawned loader" else {}
        views = DataLoader(
            dataset, batch_size=None, num_workers=2, persistent_workers=how == "persistent loader", **more
        )
    for epoch in (4, 1) if "persistent" in how or how == "alone" else (1,):
        dataset.set_epoch(epoch)
        assert_same(list(views), batches_of(store, shards, epoch))
        assert len(views) == len(batches_of(store, shards, epoch))
    if how == "spawned loader":  # a worker that still starts when another has failed dies of that, and torch says so
        return
    with pytest.raises(ValueError, match="`set_epoch`: expected to be called before each epoch, found epoch 1 for a"):
        list(views)


def test_fields_are_what_they_are_called(store: dc.Store, shards: str) -> None:
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    dataset = dc.ViewDataset(store, shards, batch_size=8, soft=True, mean=mean, std=std, layout="channels_last")
    plain = dc.ViewDataset(store, shards, batch_size=8)
    rows = TrainingSet.stored(store, shards).order.epoch(0)
    keys = store.key_table()
    for step, (batch, uint8) in enumerate(zip(dataset, plain, strict=True)):
        mine = rows[8 * step : 8 * step + 8]
        assert batch["key"] == [str(keys[s, i]) for s, i in zip(mine.shard, mine.sample, strict=True)]
        assert batch["image"].shape == (8, SIZE, SIZE, 3) and batch["image"].dtype == torch.float32
        by_hand = (uint8["image"].permute(0, 2, 3, 1) / 255 - torch.tensor(mean)) / torch.tensor(std)
        torch.testing.assert_close(batch["image"], by_hand, rtol=0, atol=1e-5)
        one_hot = torch.nn.functional.one_hot
        lam = batch["lam"][:, None]
        mixed = lam * one_hot(batch["target"], CLASSES) + (1 - lam) * one_hot(batch["partner"], CLASSES)
        torch.testing.assert_close(batch["soft_target"], 0.9 * mixed + 0.1 / CLASSES)
        torch.testing.assert_close(batch["teacher_log_probs"].exp().sum(1), torch.ones(8))
        assert torch.equal(batch["teacher_log_probs"].argmax(1), batch["teacher_label"])
        assert "teacher_log_probs" not in uint8
    with pytest.raises(ValueError, match="`epochs`: expected 9 views for 7 epochs, found 6 in the store"):
        dataset.set_epoch(6)
    with pytest.raises(ValueError, match="`mean` and `std`: expected both or neither, found one"):
        dc.ViewDataset(store, shards, batch_size=8, mean=mean)


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_share_out_each_batch(store: dc.Store, shards: str, workers: int) -> None:
    halves = [dc.ViewDataset(store, shards, batch_size=8, rank=rank, world=2) for rank in range(2)]
    loaders = [DataLoader(half, batch_size=None, num_workers=workers) for half in halves]
    whole = batches_of(store, shards, 0)
    for one, other, batch in zip(*loaders, whole, strict=True):
        assert torch.equal(torch.cat([one["image"], other["image"]]), batch.images.permute(0, 3, 1, 2))
        assert torch.equal(torch.cat([one["teacher_label"], other["teacher_label"]]), batch.label)


def test_a_dataset_goes_on_where_its_state_was_saved(store: dc.Store, shards: str) -> None:
    whole = batches_of(store, shards, 2)
    first = dc.ViewDataset(store, shards, batch_size=8)
    first.set_epoch(2)
    iterator = iter(first)
    next(iterator)
    state = pickle.loads(pickle.dumps(first.state_dict()))
    assert state["epoch"] == 2 and state["step"] == 1
    second = dc.ViewDataset(store, shards, batch_size=8)
    second.load_state_dict(state)
    second.set_epoch(2)  # as loops do at the beginning of each epoch, also of one that they go on with
    rest = list(second)
    assert len(rest) == len(whole) - 1 and torch.equal(rest[0]["image"], whole[1].images.permute(0, 3, 1, 2))
    second.set_epoch(3)
    assert_same(list(second), batches_of(store, shards, 3))
    with pytest.raises(ValueError, match="`batch_size`: expected that of the saved state, 8, found 4"):
        dc.ViewDataset(store, shards, batch_size=4).load_state_dict(state)


@pytest.mark.parametrize(("workers", "taken"), [(0, 1), (2, 1), (2, 2)])
def test_a_stateful_loader_goes_on_in_mid_epoch(store: dc.Store, shards: str, workers: int, taken: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="SKIPPED: no torchdata")

    def loader() -> Any:
        dataset = dc.ViewDataset(store, shards, batch_size=4)
        return dataset, stateful.StatefulDataLoader(dataset, batch_size=None, num_workers=workers)

    dataset, before = loader()
    dataset.set_epoch(1)
    whole = list(before)
    dataset.set_epoch(1)
    iterator = iter(before)
    for _ in range(taken):
        next(iterator)
    state = before.state_dict()
    dataset, after = loader()
    after.load_state_dict(state)
    dataset.set_epoch(1)
    rest = list(after)
    assert len(rest) == len(whole) - taken > 0
    for ours, theirs in zip(rest, whole[taken:], strict=True):
        assert torch.equal(ours["image"], theirs["image"]) and ours["key"] == theirs["key"]


def test_a_view_that_is_not_the_teachers_ends_the_epoch(store: dc.Store, shards: str, monkeypatch: Any) -> None:
    dataset = dc.ViewDataset(store, shards, batch_size=8)
    cycle = dc.Store.cycle

    def other(self: dc.Store, *a: Any, **k: Any) -> Any:
        labels = cycle(self, *a, **k)
        return replace(labels, check=labels.check ^ 1)

    monkeypatch.setattr(dc.Store, "cycle", other)
    with pytest.raises(dc.ReplayError, match="not the image that the teacher saw"):
        next(iter(dataset))


def test_any_module_and_any_function_is_a_teacher(
    shards: str, store: dc.Store, teacher: dc.Teacher, tmp_path: Path
) -> None:
    given = {"classes": CLASSES, "input_size": SIZE, "mean": teacher.mean, "std": teacher.std}
    module = dc.as_teacher(teacher.model, name="mine", **given)
    made = dc.cache_teacher(tmp_path / "m.zarr", shards, module, views=3, image_size=SIZE)
    np.testing.assert_array_equal(made.read(range(3)).label, store.read(range(3)).label)
    again = dc.cache_teacher(tmp_path / "m.zarr", shards, module, views=6, workers=2)
    np.testing.assert_array_equal(again.read(range(6)).label, store.read(range(6)).label)

    def brightest(images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))[:, None] * torch.arange(CLASSES)

    with pytest.raises(ValueError, match="`sha256`: expected what tells this teacher from others"):
        dc.as_teacher(brightest, name="brightest", **given)
    function = dc.as_teacher(brightest, name="brightest", sha256="brightest 1", **given)
    other = dc.cache_teacher(tmp_path / "f.zarr", shards, function, views=3, image_size=SIZE)
    assert {*np.unique(other.labels(0))} == {0, CLASSES - 1}
    with pytest.raises(ValueError, match="teacher sha256: expected the store's"):
        dc.cache_teacher(tmp_path / "m.zarr", shards, function)


def test_several_teachers_are_one_whose_probabilities_are_their_mean(teacher: dc.Teacher) -> None:
    other = dc.as_teacher(
        torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, CLASSES)),
        name="other", classes=CLASSES, input_size=16, mean=(0.1, 0.2, 0.3), std=(1, 1, 1),
    )  # fmt: skip
    images = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8)
    both = dc.ensemble([teacher, other])
    mean = (teacher.logits(images).softmax(1) + other.logits(images).softmax(1)) / 2
    torch.testing.assert_close(both.logits(images).softmax(1), mean)
    assert both.name == f"{teacher.name} + other"
    assert len({both.sha256, teacher.sha256, dc.ensemble([other, teacher]).sha256}) == 3
    three = dc.as_teacher(
        lambda x: x[:, :, 0, 0], name="3", sha256="3", classes=3, input_size=16, mean=(0,) * 3, std=(1,) * 3
    )
    with pytest.raises(ValueError, match=f"`teachers`: expected the {CLASSES} classes of .*, found 3 of 3"):
        dc.ensemble([teacher, three])


def test_an_exported_program_and_a_model_of_hugging_faces_are_teachers(teacher: dc.Teacher) -> None:
    given = {"classes": CLASSES, "input_size": SIZE, "mean": teacher.mean, "std": teacher.std}
    images = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    exported = torch.export.export(teacher.model, (torch.zeros(2, 3, SIZE, SIZE),)).module()
    torch.testing.assert_close(dc.as_teacher(exported, name="e", **given).logits(images), teacher.logits(images))
    transformers = pytest.importorskip("transformers", reason="SKIPPED: no transformers")
    config = transformers.ViTConfig(
        image_size=SIZE, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48,
        num_labels=CLASSES,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    logits = dc.as_teacher(model, name="vit", **given).logits(images)
    normalised = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(teacher.mean)[:, None, None]) / (
        torch.tensor(teacher.std)[:, None, None]
    )
    torch.testing.assert_close(logits, model(normalised).logits, rtol=1e-4, atol=1e-5)


def test_a_teacher_of_ones_own_code_is_named_on_the_command_line(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_models.py").write_text(
        "import torch, distillcache as dc\n"
        f"given = dict(classes={CLASSES}, input_size={SIZE}, mean=(0, 0, 0), std=(1, 1, 1))\n"
        "def reddest():\n"
        "    def logits(images):\n"
        f"        return (images[:, 0].mean((1, 2))[:, None] - 0.45) * torch.arange({CLASSES})\n"
        "    return dc.as_teacher(logits, name='reddest', sha256='1', **given)\n"
        "def number():\n    return 1\n"
        "def broken():\n    raise RuntimeError('of my own')\n"
    )
    options = [
        "--shards",
        shards,
        "--image-size",
        SIZE,
        "--views",
        3,
        "--device",
        "cpu",
        "--cache",
        tmp_path / "c.zarr",
    ]
    for function, line in (
        ("number", "teacher my_models:number: expected what distillcache.as_teacher returns, found int\n"),
        ("broken", "a function that returns a teacher, found an error: RuntimeError: of my own\n"),
        ("absent", "expected a function absent in module my_models, found none\n"),
    ):
        refused = run("cache-teacher", *options, "--teacher", f"my_models:{function}")
        assert refused.exit_code == 2 and refused.stderr.endswith(line), refused.stderr
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    done = run("cache-teacher", *options, "--teacher", "my_models:reddest", "--compile")
    assert len(compiled) == 1
    assert done.exit_code == 0, done.stderr
    store = dc.open_store(tmp_path / "c.zarr")
    assert {*np.unique(store.labels(0))} == {0, CLASSES - 1} and store.manifest.teacher.name == "reddest"


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"workers": -1}, "`workers`: expected a whole number, 0 or more, found -1"),
        ({"batch_size": 0}, "`batch_size`: expected a whole number, 1 or more, found 0"),
        ({"rank": 1}, "`rank`: expected a whole number, 0 to 0, found 1"),
        ({"layout": "NHWC"}, "`layout`: expected channels_first or channels_last, found 'NHWC'"),
        ({"missing": "skip"}, "`missing`: expected stop or drop, found 'skip'"),
        ({"smoothing": 2.0}, "`smoothing`: expected 0 to below 1, found 2.0"),
        ({"mean": (123.0,) * 3, "std": (58.0,) * 3}, "`mean`: expected three numbers, 0 to 1, of pixels from 0 to 1"),
        ({"mean": (0.5,) * 3, "std": (0.0,) * 3}, "`std`: expected three numbers, 1e-06 to 1, of pixels from 0 to 1"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_what_a_dataset_can_not_be_asked_is_said_in_a_line(
    store: dc.Store, shards: str, wrong: dict[str, Any], line: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        dc.ViewDataset(store, shards, **{"batch_size": 8, **wrong})


def test_what_is_no_step_no_state_and_no_loss_is_said_in_a_line(store: dc.Store, shards: str) -> None:
    dataset = dc.ViewDataset(str(store.path), [Path(one) for one in expand(shards)], batch_size=8)
    assert dataset.steps(6) == sum(len(batches_of(store, shards, epoch)) for epoch in range(6))
    for place in ((0, 99), (0, -1), (-1, 0), (1.5, 0)):
        with pytest.raises(ValueError, match="expected a whole number, 0 "):
            dataset.set_epoch(*place)
    with pytest.raises(ValueError, match=re.escape("`state`: expected what state_dict returned, found {}")):
        dataset.load_state_dict({})
    for place in ({"epoch": 99}, {"epoch": "1"}, {"step": -1}):
        with pytest.raises(ValueError, match="expected"):
            dataset.load_state_dict(dataset.state_dict() | place)
    with pytest.raises(ValueError, match="`alpha`: expected 0 to 1, found 2"):
        dc.distillation_loss((torch.zeros(4, 5),), torch.zeros(4, 5), torch.zeros(4).long(), distill="hard", alpha=2)
    for workers in (0, 1):
        with pytest.raises(ValueError, match="DataLoader: expected `batch_size=None`: a ViewDataset yields whole"):
            next(iter(DataLoader(dataset, num_workers=workers)))
    twice = DataLoader(dataset, batch_size=None, num_workers=1)
    assert list(twice)
    with pytest.raises(dc.InputError, match=r"^`set_epoch`: expected to be called before each epoch, found .* time$"):
        list(twice)
    dataset.set_epoch(1)
    loader = iter(DataLoader(dataset, batch_size=None, num_workers=1))
    next(loader)
    with pytest.raises(ValueError, match="state_dict: expected what a DataLoader's processes know, found only that it"):
        dataset.state_dict()
    dataset.set_epoch(1)
    assert dataset.state_dict()["step"] == 0
    with pytest.raises(ValueError, match="shard: expected a number from 0 to 1, found 2"):
        store.labels(2)
    logits, soft = (torch.zeros(4, 5), torch.zeros(4, 5)), torch.full((4, 5), 0.2)
    number = torch.zeros(4).long()
    for distill, teacher, found in (
        ("hard", soft, "labels, int64"),
        ("soft", number, "logits or log"),
        ("Hard", None, "hard or soft or none"),
        ("hard", None, "labels, int64"),
    ):
        with pytest.raises(ValueError, match=f"expected {found}"):
            dc.distillation_loss(logits, soft, teacher, distill=distill)
    with pytest.raises(ValueError, match=r"`images`: expected uint8 images \(n, height, width, 3\), found a tensor"):
        dc.build_student("test_vit", classes=5, seed=0)(torch.zeros(2, 3, 160, 160, dtype=torch.uint8))


def test_a_teacher_of_another_form_than_it_says_is_named(shards: str, teacher: dc.Teacher, tmp_path: Path) -> None:
    given = {"input_size": SIZE, "mean": teacher.mean, "std": teacher.std}
    other = dc.as_teacher(teacher.model, name="mine", classes=CLASSES + 2, **given)
    with pytest.raises(ValueError, match=r"teacher mine: expected logits \(\d+, 7\), found a tensor \(\d+, 5\)"):
        dc.cache_teacher(tmp_path / "c.zarr", shards, other, views=3, image_size=SIZE)
    fixed = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, CLASSES))
    with pytest.raises(
        ValueError, match=r"teacher fixed: expected a model of images \(\d+, 3, 32, 32\), torch.float32, found"
    ):
        dc.cache_teacher(
            tmp_path / "c.zarr", shards, dc.as_teacher(fixed, name="fixed", classes=CLASSES, **given), image_size=SIZE
        )
    for views in (0, -3, "6"):
        with pytest.raises(ValueError, match="`views`: expected a whole number, 1 or more, found"):
            dc.cache_teacher(tmp_path / "v.zarr", shards, teacher, views=views, image_size=SIZE)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/x\.zarr: expected a place in a folder, found"):
        dc.cache_teacher(tmp_path / "file" / "x.zarr", shards, teacher, views=3)
    with pytest.raises(ValueError, match="`mean`: expected three numbers, 0 to 1"):
        dc.as_teacher(fixed, name="grey", classes=CLASSES, input_size=SIZE, mean=(0.5,), std=(0.5,))
    with pytest.raises(ValueError, match="`sha256`: expected what tells this teacher from others"):
        dc.as_teacher(torch.nn.Flatten(), name="flat", classes=CLASSES, **given)
    with pytest.raises(ValueError, match="`teacher`: expected what as_teacher or load_teacher returns, found Flatten"):
        dc.cache_teacher(tmp_path / "c.zarr", shards, torch.nn.Flatten(), views=3)
