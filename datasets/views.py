"""The renderer: rows in, mixed views out. Both stages, evaluation and inspection make every view here."""

import functools
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..runtime.errors import InputError
from .augment import pixels
from .augment.kernels import UInt8Image
from .augment.own import keep, own_ops
from .augment.plans import UNMIXED, MixPlan, ViewPlan, plan_mix, plan_view
from .augment.recipes import Recipe
from .order import ALONE, Rows
from .samples import SampleError, Samples


class Views(NamedTuple):
    """The views of some rows: images uint8 (n, height, width, RGB), checks int64 (n,), shares of the own view (n,)."""

    images: torch.Tensor
    check: torch.Tensor
    lam: torch.Tensor

    @classmethod
    def over(cls, memory: torch.Tensor, n: int, size: int) -> "Views":
        """Return n views of `size` pixels that lie in `memory`, uint8 (bytes), one column behind the other."""
        check, lam = memory[: 8 * n], memory[8 * n : 12 * n]
        images = memory[12 * n : cls.nbytes(n, size)]
        return cls(images.view(n, size, size, 3), check.view(torch.int64), lam.view(torch.float32))

    @staticmethod
    def nbytes(n: int, size: int) -> int:
        """Return how much memory `over` takes, in bytes."""
        return 12 * n + n * size * size * 3

    def pin_memory(self) -> "Views":
        """Return a copy from which a GPU can read."""
        return Views(*(column.pin_memory() for column in self))


class Renderer:
    """Makes views of a fixed set of samples by a fixed recipe; holds no randomness and no state.

    Rows of one group that follow each other share the decoded images, and both sides of a mix share the two views.
    """

    def __init__(self, recipe: Recipe, samples: Samples) -> None:
        self.recipe = recipe
        self.samples = samples
        self._own_ops = own_ops(recipe.own_ops)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Know in a process that renders what its parent knows."""
        self.__dict__.update(state)
        keep(self._own_ops)

    def __call__(self, rows: Rows, pool: Executor | None = None, parts: int = 1) -> Views:
        """Return the mixed views of `rows`, in their order, rendered in `parts` by `pool`. Raises SampleError."""
        n, size = len(rows), self.recipe.size
        views = Views.over(torch.empty(Views.nbytes(n, size), dtype=torch.uint8), n, size)
        if not pool:
            self.render(rows, views)
            return views
        slices = [slice(i * n // parts, (i + 1) * n // parts) for i in range(parts)]
        list(pool.map(lambda part: self.render(rows[part], Views(*(column[part] for column in views))), slices))
        return views

    def render(self, rows: Rows, into: Views) -> None:
        """Write the mixed views of `rows` to `into`. Raises SampleError."""
        self._render(rows, *(column.numpy() for column in into))

    def _render(self, rows: Rows, images: UInt8Image, check: NDArray[np.int64], lam: NDArray[np.float32]) -> None:
        image = functools.lru_cache(maxsize=self.recipe.group)(self.decode)
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
        except InputError as error:
            if error.where:  # of the shard, not of this image: it did not come to the mirror
                raise
            raise SampleError(shard, sample, self.samples.file_name(shard, sample), error) from error
        except OSError as error:
            gone = InputError(
                "", "a file that can be read", f"{error.filename}: {error.strerror}", "mend that and run again"
            )
            raise SampleError(shard, sample, self.samples.file_name(shard, sample), gone) from error
