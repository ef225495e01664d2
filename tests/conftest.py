"""Real photos for every test: scikit-learn ships two, so nothing is downloaded."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """24 JPEGs of different sizes, cut from two real photographs."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    encoded = []
    for i in range(24):
        photo = Image.fromarray(load_sample_images().images[i % 2])
        width, height = rng.integers(180, 400, 2)
        left, top = rng.integers(0, [photo.width - width, photo.height - height])
        buffer = io.BytesIO()
        photo.crop((left, top, left + width, top + height)).save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    return encoded


@pytest.fixture(scope="session")
def views(photos: list[bytes]) -> list[np.ndarray]:
    """Six photos at 224 pixels, as RandAugment would find them."""
    return [np.asarray(Image.open(io.BytesIO(p)).resize((224, 224), Image.Resampling.BICUBIC)) for p in photos[:6]]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real ImageNet photos and a real teacher; tests that use them are skipped, loudly, where they are absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"SKIPPED: no real photos at {folder}")
    return folder
