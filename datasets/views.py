"""The renderer: rows in, mixed views out. Both stages, evaluation and inspection make every view here."""

import functools
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from .augment import pixels
from .augment.kernels import UInt8Image
from .augment.plans import UNMIXED, MixPlan, ViewPlan, plan_mix, plan_view
from .augment.recipes import Recipe
from .order import ALONE, Rows
from .samples import SampleError, Samples
from .shards.files import base_name


class Views(NamedTuple):
    """The views of some rows: images uint8 (n, height, width, RGB), checks int64 (n,), shares of the own view (n,)."""

    images: torch.Tensor
    check: torch.Tensor
    lam: torch.Tensor


class Renderer:
    """Makes views of a fixed set of samples by a fixed recipe; holds no randomness and no state.

    Rows of one pair that follow each other share the decoded images, and both sides of a mix share the two views.
    """

    def __init__(self, recipe: Recipe, samples: Samples) -> None:
        self.recipe = recipe
        self.samples = samples

    def __call__(self, rows: Rows, pool: Executor | None = None, parts: int = 1) -> Views:
        """Return the mixed views of `rows`, in their order, rendered in `parts` by `pool`. Raises SampleError."""
        n = len(rows)
        views = Views(_empty(n, self.recipe.size), torch.empty(n, dtype=torch.int64), torch.empty(n))
        slices = [slice(i * n // parts, (i + 1) * n // parts) for i in range(parts)]
        into = [(rows[part], *(column[part].numpy() for column in views)) for part in slices]
        list((pool.map if pool else map)(self._render, *zip(*into, strict=True)))
        return views

    def _render(self, rows: Rows, images: UInt8Image, check: NDArray[np.int64], lam: NDArray[np.float32]) -> None:
        image = functools.lru_cache(maxsize=2)(self.decode)
        mix_plan = functools.lru_cache(maxsize=2)(self.mix_plan)

        @functools.lru_cache(maxsize=2)
        def unmixed(shard: int, sample: int, view: int) -> UInt8Image:
            return pixels.render(self.view_plan(shard, sample, view, image(shard, sample)), image(shard, sample))

        columns = (rows.shard.tolist(), rows.sample.tolist(), rows.partner.tolist(), rows.view.tolist())
        for i, (shard, sample, partner, v) in enumerate(zip(*columns, strict=True)):
            mix = mix_plan(shard, *sorted((sample, partner)), v)
            sides = (sample, sample if mix is UNMIXED else partner)
            for side in sides:
                image(shard, side)  # decoding both first leaves the CPU's caches to rendering, then
            own, other = (unmixed(shard, side, v) for side in sides)
            pixels.mix(mix, own, other, out=images[i])
            check[i], lam[i] = pixels.check(images[i]), mix.lam

    def mix_plan(self, shard: int, sample: int, partner: int, view: int) -> MixPlan:
        """Return how a sample and its partner are mixed in a view; it is the same for both."""
        if ALONE in (sample, partner):
            return UNMIXED
        seed = self.samples.seed[shard]
        return plan_mix(self.recipe, int(seed[sample]), int(seed[partner]), view)

    def view_plan(self, shard: int, sample: int, view: int, image: UInt8Image) -> ViewPlan:
        """Return the plan of one view of a decoded sample."""
        height, width, _ = image.shape
        return plan_view(self.recipe, int(self.samples.seed[shard, sample]), view, height, width)

    def decode(self, shard: int, sample: int) -> UInt8Image:
        """Return the image of one sample, (height, width, 3) uint8. Raises SampleError."""
        try:
            return pixels.decode(self.samples.read(shard, sample))
        except (ValueError, OSError) as error:
            gone = f"{error.filename}: {error.strerror}; mend that and run again" if isinstance(error, OSError) else ""
            raise SampleError(shard, sample, base_name(self.samples.urls[shard]), gone or str(error)) from error


def _empty(n: int, size: int) -> torch.Tensor:
    """Return room for n views; in a worker process in shared memory, where the loader would else copy them."""
    nbytes = n * size * size * 3
    storage_of: Any = torch.UntypedStorage
    storage = storage_of._new_shared(nbytes) if get_worker_info() else storage_of(nbytes)
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(n, size, size, 3)
