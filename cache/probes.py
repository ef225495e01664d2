"""Probes: a few whole views that a store keeps, so that a replay can say how far it drifted."""

import numpy as np

from ..datasets.order import ALONE, Rows
from ..datasets.samples import Samples
from ..datasets.views import Renderer
from .manifest import Manifest
from .records import Probes
from .teacher import Teacher

_PROBES = 8


def probe(manifest: Manifest, samples: Samples, teacher: Teacher) -> Probes:
    """Render view 0 of a few samples, unmixed, spread over the shards, and ask the teacher."""
    shards = np.linspace(0, len(samples.count) - 1, min(_PROBES, int(samples.count.sum()))).astype(int)
    places = [(int(s), i % int(samples.count[s])) for i, s in enumerate(shards)]
    shard, sample = np.array(places, np.int32).T
    rows = Rows(shard=shard, sample=sample, partner=np.full_like(shard, ALONE), view=np.zeros_like(shard))
    views = Renderer(manifest.recipe, samples)(rows)
    at = np.stack([rows.shard, rows.sample, rows.view], axis=1)
    return Probes(views=views.images.numpy(), logits=teacher.logits(views.images).cpu().numpy(), at=at)
