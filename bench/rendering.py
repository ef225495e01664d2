"""Views a second on one core, beside timm's transform, DALI's CPU pipeline and bare JPEG decoding; loader workers."""

import io
import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from figures import Figure, Skipped, median, on_cores, photo_shards, rates, ratio, report
from PIL import Image

from distillcache.datasets.augment import pixels
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.loader import Loader
from distillcache.datasets.order import Order, Rows
from distillcache.datasets.samples import samples_of
from distillcache.datasets.shards.index import index_shards
from distillcache.datasets.views import Renderer

BATCH = 64


def main() -> Iterator[Figure | Skipped]:
    on_cores(1)
    indexes = index_shards(photo_shards(Path("runs/bench")))
    samples, names = samples_of(indexes, 0), [index.shard.name for index in indexes]
    files = [samples.read(s, i) for s, count in enumerate(samples.count.tolist()) for i in range(count)]

    def rows(repeats: int, cycles: int = 1) -> tuple[Renderer, list[Rows]]:
        recipe = named("deit", overrides=[f"repeats={repeats}"])
        order = Order(seed=0, shards=names, samples=samples.count.tolist(), recipe=recipe)
        views = [order.unit(shard, range(cycles * repeats)) for shard in range(len(names))]
        return Renderer(recipe, samples), [batch for unit in views for batch in unit.batches(BATCH)]

    contenders: dict[str, Callable[[], int]] = {
        "ours, repeats 1": render(*rows(1)),
        "ours, repeats 3": render(*rows(3)),
        "timm": by_timm(files),
        "torchvision": decode(files),
        "simplejpeg": lambda: len([pixels.decode(data) for data in files]),
    }
    found = rates(contenders)
    dali, why = by_dali(files)  # last and by itself: its threads slow down whatever else runs in the process
    if dali:
        found |= rates({"DALI": dali})

    def beside(what: str, ours: str, theirs: str, target: float) -> Figure:
        mine, other = (median(found, name) for name in (ours, theirs))
        value = ratio(found, ours, theirs)
        return Figure(what=what, ours=mine, theirs=other, value=value, unit="x", target=target)

    yield beside("views on one core, repeats 1, beside timm's transform", "ours, repeats 1", "timm", 1.9)
    if dali:
        yield beside("views on one core, repeats 1, beside DALI's CPU pipeline", "ours, repeats 1", "DALI", 2.4)
    else:
        yield Skipped(what="views on one core beside DALI's CPU pipeline", reason=why)
    yield beside("views on one core, repeats 3, beside timm's transform", "ours, repeats 3", "timm", 3.3)
    for decoder in ("torchvision", "simplejpeg"):  # a tenth faster, and what we decode with
        what = f"beside bare JPEG decoding by {decoder}"
        yield beside(f"views on one core, repeats 1, {what}", "ours, repeats 1", decoder, 0.65)
        yield beside(f"views on one core, repeats 3, {what}", "ours, repeats 3", decoder, 1.1)
    yield checking(*rows(3))
    if os.cpu_count() == 1:
        yield Skipped(what="two workers beside one", reason="one core")
    else:
        yield workers(*rows(3, cycles=8))


def render(renderer: Renderer, batches: list[Rows]) -> Callable[[], int]:
    return lambda: sum(len(renderer(batch).images) for batch in batches)


def by_timm(files: list[bytes]) -> Callable[[], int]:
    """timm's transform, from a file on."""
    one = timms_transform()
    return lambda: len([one(data) for data in files])


def timms_transform() -> Callable[[bytes], torch.Tensor]:
    """timm's transform with DeiT's options: file to normalised tensor."""
    transform = timm.data.create_transform(
        224, is_training=True, color_jitter=0.3, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic",
        re_prob=0.25, re_mode="pixel", re_count=1,
    )  # fmt: skip

    def one(data: bytes) -> torch.Tensor:
        while True:
            try:
                return transform(Image.open(io.BytesIO(data)).convert("RGB"))
            except ValueError as error:  # Pillow 13 refuses timm's posterizing to 0 bits: draw again
                if "bits" not in str(error):
                    raise

    return one


def decode(files: list[bytes]) -> Callable[[], int]:
    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    rgb = torchvision.io.ImageReadMode.RGB
    return lambda: len([torchvision.io.decode_image(data, mode=rgb) for data in encoded])


def by_dali(files: list[bytes]) -> tuple[Callable[[], int] | None, str]:
    """DALI on one CPU thread: decode with a random crop, bicubic resize, flip, its own RandAugment m9 n2."""
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="nvidia")
    try:
        from nvidia.dali import fn, pipeline_def, types
        from nvidia.dali.auto_aug import rand_augment
    except ImportError:
        return None, "nvidia-dali is not installed; run: pip install -e '.[bench]'"
    arrays = itertools.cycle([np.frombuffer(data, np.uint8) for data in files])

    # Synchronous: what it would render ahead, it would render during somebody else's turn.
    @pipeline_def(
        batch_size=32, num_threads=1, device_id=None, enable_conditionals=True, exec_async=False, exec_pipelined=False,
        prefetch_queue_depth=1,
    )  # fmt: skip
    def pipeline():  # type: ignore[no-untyped-def]
        encoded = fn.external_source(lambda: next(arrays), batch=False)
        image = fn.decoders.image_random_crop(encoded, device="cpu", random_area=[0.08, 1], output_type=types.RGB)
        image = fn.resize(image, size=[224, 224], interp_type=types.INTERP_CUBIC, antialias=True)
        image = fn.flip(image, horizontal=fn.random.coin_flip())
        return rand_augment.rand_augment(image, shape=[224, 224], n=2, m=9)

    built = pipeline()
    built.build()

    def work() -> int:
        for _ in range(len(files) // 32):
            built.run()
        return len(files) // 32 * 32

    return work, ""


def checking(renderer: Renderer, batches: list[Rows]) -> Figure:
    images = [image for batch in batches[:2] for image in renderer(batch).images.numpy()]
    found = rates(
        {
            "check": lambda: len([pixels.check(image) for image in images]),
            "render": lambda: sum(len(renderer(batch).images) for batch in batches[:2]),
        }
    )
    share = 100 / ratio(found, "check", "render")
    return Figure(
        what="checking a view, of the time to render it", ours=median(found, "check"), theirs=median(found, "render"),
        value=share, unit="%", target=3, at_least=False,
    )  # fmt: skip


def workers(renderer: Renderer, batches: list[Rows]) -> Figure:
    """The whole loader to a collated batch: one worker, and two."""

    on_cores(2)
    with Loader(renderer, workers=2) as two, Loader(renderer, workers=1) as one:  # whose start is not what is measured
        found = rates(
            {
                "two": lambda: sum(len(views.images) for _, views in two.load(batches)),
                "one": lambda: sum(len(views.images) for _, views in one.load(batches)),
            }
        )
    return Figure(
        what="two workers on two cores beside one on one", ours=median(found, "two"), theirs=median(found, "one"),
        value=ratio(found, "two", "one"), unit="x", target=1.85,
    )  # fmt: skip


if __name__ == "__main__":
    report(main)
