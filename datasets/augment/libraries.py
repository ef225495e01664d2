"""The libraries that touch a pixel."""

from importlib.metadata import PackageNotFoundError, version

_NAMES = (
    "torch",
    "torchvision",
    "simplejpeg",
    "opencv-python-headless",
    "numba",
    "pillow",
    "numpy",
    "google-crc32c",
)


def library_versions() -> dict[str, str]:
    """Return the installed version of every library that touches a pixel."""
    found = {}
    for name in _NAMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
