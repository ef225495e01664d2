"""Every op beside the published one, over its whole range of arguments, on real photos."""

import numpy as np
import pytest
from PIL import Image
from timm.data import auto_augment

from distillcache.datasets.augment import ops, plans

from .published import DEIT3_OPS

FILL = {"fillcolor": (124, 116, 104), "resample": Image.Resampling.BICUBIC}
TIMM = {
    "AutoContrast": auto_augment.auto_contrast,
    "Equalize": auto_augment.equalize,
    "Invert": auto_augment.invert,
    "Rotate": auto_augment.rotate,
    "Posterize": auto_augment.posterize,
    "Solarize": auto_augment.solarize,
    "SolarizeAdd": auto_augment.solarize_add,
    "Color": auto_augment.color,
    "Contrast": auto_augment.contrast,
    "Brightness": auto_augment.brightness,
    "Sharpness": auto_augment.sharpness,
    "ShearX": auto_augment.shear_x,
    "ShearY": auto_augment.shear_y,
    "TranslateX": auto_augment.translate_x_abs,
    "TranslateY": auto_augment.translate_y_abs,
}
PLAIN = ("AutoContrast", "Equalize", "Invert")
RESAMPLED = ("ShearX", "ShearY", "TranslateX", "TranslateY")


def timm_op(name: str, view: np.ndarray, value: float) -> np.ndarray:
    """Return what timm makes of a view with the same argument."""
    return np.asarray(TIMM[name](Image.fromarray(view), *(() if name in PLAIN else (value,)), **FILL))


def arguments(name: str) -> list[float]:
    """Return the arguments of an op over all levels and both signs, as a plan would hold them."""
    values = {plans._op_value(name, level, sign, 224) for level in np.linspace(0, 1, 21) for sign in (1, -1)}
    return sorted(values - {0} if name == "Posterize" else values)  # Pillow 13 refuses 0 bits


@pytest.mark.parametrize("name", plans.RANDAUGMENT_OPS)
def test_op_equals_timm(name: str, real_views: list[np.ndarray]) -> None:
    for i, value in enumerate(arguments(name)):
        view = real_views[i % len(real_views)]
        ours = ops.apply_op(view, plans.Op(name=name, value=value)).astype(int)
        theirs = timm_op(name, view, value)
        difference = np.abs(ours - theirs)
        if name in RESAMPLED:
            assert difference.max() <= 1 and difference.mean() < 0.02, (name, value)
        else:
            assert not difference.any(), (name, value)


@pytest.mark.parametrize("name", plans.RANDAUGMENT_OPS)
def test_op_on_flat_and_extreme_images_equals_timm(name: str) -> None:
    value = arguments(name)[0]
    for level in (0, 1, 127, 255):
        view = np.full((32, 48, 3), level, np.uint8)
        ours = ops.apply_op(view, plans.Op(name=name, value=value)).astype(int)
        theirs = timm_op(name, view, value)
        assert np.abs(ours - theirs).max() <= (name in RESAMPLED), (name, level)


def deit3_arguments(name: str) -> list[float]:
    """Return arguments of one of DeiT III's ops: all that it can have, or 48 of them with both ends."""
    if name in ("Grayscale", "Solarize"):
        return [{"Grayscale": 0, "Solarize": 128}[name]] * 8  # one for each photo
    low, high = (0.1, 2) if name == "GaussianBlur" else (0, 2)  # `color_jitter` goes up to 1
    return [plans._binary_fraction(value, 12) for value in np.linspace(low, high, 48)]


@pytest.mark.parametrize("name", DEIT3_OPS)
def test_op_equals_deit3s(name: str, real_views: list[np.ndarray]) -> None:
    for i, value in enumerate(deit3_arguments(name)):
        view = real_views[i % len(real_views)]
        theirs = DEIT3_OPS[name](Image.fromarray(view), value)
        assert ops.apply_op(view, plans.Op(name=name, value=value)).tobytes() == theirs.tobytes(), (name, value)


@pytest.mark.parametrize("name", DEIT3_OPS)
def test_op_on_flat_and_extreme_images_equals_deit3s(name: str) -> None:
    for level in (0, 1, 127, 128, 255):
        view = np.full((32, 48, 3), level, np.uint8)
        for value in (deit3_arguments(name)[0], deit3_arguments(name)[-1]):
            theirs = DEIT3_OPS[name](Image.fromarray(view), value)
            assert ops.apply_op(view, plans.Op(name=name, value=value)).tobytes() == theirs.tobytes(), (name, level)


def test_posterize_to_no_bits_is_black(views: list[np.ndarray]) -> None:
    assert not ops.apply_op(views[0], plans.Op(name="Posterize", value=0)).any()


def test_every_op_that_a_plan_can_hold_has_its_proof() -> None:
    assert set(ops.OPS) == set(TIMM) | set(DEIT3_OPS)
    assert set(plans.THREE_AUGMENT_OPS + plans.JITTER_OPS) == set(DEIT3_OPS)


def test_op_names_are_timms_increasing_ops() -> None:
    names = [n.removesuffix("Increasing").removesuffix("Rel") for n in auto_augment._RAND_INCREASING_TRANSFORMS]
    assert tuple(names) == plans.RANDAUGMENT_OPS
