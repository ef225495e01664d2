"""Real photos from two sources: scikit-learn's, and ImageNet's where they are at hand."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def imagenet_photos(shared_data: Path) -> list[bytes]:
    """Eight ImageNet photos, from the smallest of a shard to its largest."""
    with tarfile.open(min((shared_data / "imagenet-sample").glob("*.tar"))) as tar:
        encoded = [tar.extractfile(member).read() for member in tar if member.name.endswith(".jpg")]
    by_size = sorted(encoded, key=lambda data: np.prod(Image.open(io.BytesIO(data)).size))
    return [by_size[i] for i in np.linspace(0, len(by_size) - 1, 8).astype(int)]


@pytest.fixture(scope="session", params=["scikit-learn", "ImageNet"])
def real_photos(request: pytest.FixtureRequest) -> list[bytes]:
    """Eight JPEGs of different sizes."""
    name = {"scikit-learn": "photos", "ImageNet": "imagenet_photos"}[request.param]
    return request.getfixturevalue(name)[:8]


@pytest.fixture(scope="session")
def real_views(real_photos: list[bytes]) -> list[np.ndarray]:
    """The photos at 224 pixels, as an op would find them."""
    opened = [Image.open(io.BytesIO(photo)).convert("RGB") for photo in real_photos]
    return [np.asarray(photo.resize((224, 224), Image.Resampling.BICUBIC)) for photo in opened]
