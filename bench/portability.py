"""Where views are the same bytes: other library versions, other Pythons, CPUs that do without what this one has.

    python bench/portability.py [--lowest | PYTHON ...]

Writes docs/portability.md. PYTHONs are interpreters of the versions that the project names, by default those found as
python3.11 to python3.14. For each, two virtual environments are made in .portability with uv: of the newest and of the
lowest versions that pyproject.toml allows. On x86-64, where qemu-aarch64 (8 or newer: torch's wheels crash in 7.2) and
mmdebstrap are installed, a root of Debian's arm64 packages is made beside them, with the real aarch64 wheels (6 GB),
and emulated, which takes half an hour. Ends with exit code 1 if any view differs anywhere.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from figures import photo_shards

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".portability"
UV = [sys.executable, "-m", "uv", "--native-tls"]  # with the machine's certificates, as pip has it
VERSION = ".".join(platform.python_version_tuple()[:2])
NAMED = ("3.11", "3.12", "3.13", "3.14")
LIMITS = {
    "no AVX-512": {"ATEN_CPU_CAPABILITY": "avx2", "OPENCV_CPU_DISABLE": "AVX512-SKX", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "torch below AVX2, OpenCV without IPP": {"ATEN_CPU_CAPABILITY": "default", "OPENCV_IPP": "disabled"},
    "OpenCV below AVX2": {"OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FMA3,AVX,FP16"},
    "numba for any x86-64": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
}
QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static") or ""
CPUS = {"cortex-a72": 0x410FD083, "neoverse-n1": 0x413FD0C1}
"""Those that qemu is to emulate, and what Linux says that each is (MIDR_EL1), which oneDNN reads."""
PROBE = """
import hashlib, json, sys
from distillcache.datasets.augment.evidence import differing
from distillcache.datasets.augment.libraries import library_versions
from distillcache.datasets.augment.recipes import named
from distillcache.datasets.order import Order
from distillcache.datasets.samples import samples_of
from distillcache.datasets.shards.index import index_shards
from distillcache.datasets.views import Renderer

indexes = index_shards(sys.argv[1:], digest=False)
samples, recipe = samples_of(indexes, 0), named("deit")
order = Order(seed=0, shards=[i.shard.name for i in indexes], samples=samples.count.tolist(), recipe=recipe)
checks = [Renderer(recipe, samples)(order.unit(shard, range(3))).check.tolist() for shard in range(len(indexes))]
digests = [hashlib.sha256(json.dumps(of_shard).encode()).hexdigest() for of_shard in checks]
views = {"views": sum(map(len, checks)), "digests": digests}
print(json.dumps({"differing": differing(), "versions": library_versions(), **views}))
"""


def main(pythons: list[str]) -> int:
    here = probe(sys.executable, {})
    rows = [(f"here: Python {platform.python_version()}, {of(here)}", here)]
    rows += [(f"the same, {name}", probe(sys.executable, limits)) for name, limits in LIMITS.items()]
    missing = []
    for named in NAMED:
        python = next((one for one in pythons if one.endswith(named)), None) or shutil.which(f"python{named}")
        if not python:
            missing.append(named)
            continue
        for resolution in ("lowest-direct", "highest"):
            found = probe(environment(python, named, resolution), {})
            label = "lowest" if resolution == "lowest-direct" else "newest"
            rows.append((f"Python {named}, {label} versions: {of(found)}", found))
    for cpu in CPUS if can_emulate() else ():
        found = probe(arm_root(cpu), {}, emulator=(QEMU, "-cpu", cpu, "-L", str(PLACE / "arm64")))
        rows.append((f"aarch64, a {cpu} that qemu emulates: {of(found)}", found))
    page = page_of(here, rows, missing)
    (ROOT / "docs" / "portability.md").write_text(page)
    print(page)
    return 0 if all(not found["differing"] and alike(found, here) for _, found in rows) else 1


def alike(found: dict[str, object], here: dict[str, object]) -> bool:
    """Return whether all views that were made there are the same here; under emulation those are fewer."""
    digests, all_of = found["digests"], here["digests"]
    assert isinstance(digests, list) and isinstance(all_of, list)
    return bool(digests) and digests == all_of[: len(digests)]


def lowest_alone() -> int:
    """Compare the lowest versions with those that are here, as CI does: these are the newest."""
    python = shutil.which(f"python{VERSION}") or sys.executable
    try:
        lowest = environment(python, VERSION, "lowest-direct")
    except subprocess.CalledProcessError as error:
        print(f"the lowest versions could not be installed, so they were not compared: {error}")
        return 0
    here, found = probe(sys.executable, {}), probe(lowest, {})
    print(f"lowest versions, {of(found)}: {found['views']} views {'equal' if alike(found, here) else 'differ'}")
    return 0 if not found["differing"] and alike(found, here) else 1


def page_of(here: dict[str, object], rows: list[tuple[str, dict[str, object]]], missing: list[str]) -> str:
    lines = ["# Where views are the same bytes", ""]
    lines += ["Written by `make portability`, which measures all of it again.", ""]
    lines += [
        f"On {platform.machine()}: the golden vectors (`datasets/augment/golden.json`), and {here['views']:,} whole"
    ]
    lines += ["mixed views of photos by the recipe `deit`, beside those of the first row.", ""]
    lines += ["| where | golden vectors | views |", "|---|---|---|"]
    for where, found in rows:
        golden = "differ: " + ", ".join(found["differing"]) if found["differing"] else "equal"  # type: ignore[arg-type]
        fewer = f", {found['views']} of them" if found["views"] != here["views"] else ""
        lines.append(f"| {where} | {golden} | {'equal' if alike(found, here) else 'differ'}{fewer} |")
    lines += ["", "Not run here:", ""]
    lines += [f"- Python {', '.join(missing)}: not installed on this machine."] if missing else []
    if platform.machine() == "x86_64" and not can_emulate():
        lines += ["- aarch64: no qemu-aarch64, 8 or newer, with mmdebstrap on this machine."]
    return "\n".join(lines) + "\n"


def of(found: dict[str, object]) -> str:
    versions = found["versions"]
    assert isinstance(versions, dict)
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def environment(python: str, named: str, resolution: str) -> str:
    """Return the interpreter of an environment with all that the project needs, in the versions of a resolution."""
    folder = PLACE / f"{named}-{resolution}"
    if not (folder / "done").exists():
        subprocess.run([*UV, "venv", "--quiet", "--clear", "--python", python, folder], check=True)
        install = [
            *UV,
            "pip",
            "install",
            "--quiet",
            "--only-binary",
            ":all:",
            "--resolution",
            resolution,
            "--python",
            folder / "bin" / "python",
        ]
        subprocess.run([*install, "--requirement", ROOT / "pyproject.toml", "--extra", "parquet"], check=True)
        (folder / "done").touch()
    return str(folder / "bin" / "python")


def can_emulate() -> bool:
    if platform.machine() != "x86_64" or not QEMU or not shutil.which("mmdebstrap"):
        return False
    told = subprocess.check_output([QEMU, "--version"], text=True)
    return int(told.partition("version ")[2].partition(".")[0]) >= 8


def arm_root(cpu: str) -> str:
    """Return the interpreter in a root of Debian's arm64 packages, with the newest aarch64 wheels."""
    root = PLACE / "arm64"
    if not (root / "done").exists():
        shutil.rmtree(root, ignore_errors=True)
        release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
        packages = "python3,libgomp1,libstdc++6"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--architectures=arm64",
             f"--include={packages}", release["VERSION_CODENAME"], root],
            check=True,
        )  # fmt: skip
        for_arm = ["--python-platform", "aarch64-manylinux_2_28", "--python-version", arm_python(root)]
        subprocess.run(
            [*UV, "pip", "install", "--quiet", "--only-binary", ":all:", *for_arm, "--target", root / "site",
             "--requirement", ROOT / "pyproject.toml"],
            check=True,
        )  # fmt: skip
        (root / "done").touch()
    for core in range(os.cpu_count() or 1):
        said = root / "sys/devices/system/cpu" / f"cpu{core}" / "regs/identification/midr_el1"
        said.parent.mkdir(parents=True, exist_ok=True)
        said.write_text(f"{CPUS[cpu]:#018x}\n")
    return str(root / "usr" / "bin" / f"python{arm_python(root)}")


def arm_python(root: Path) -> str:
    return next((root / "usr" / "bin").glob("python3.[0-9]*")).name.removeprefix("python")


def probe(python: str, limits: dict[str, str], emulator: tuple[str, ...] = ()) -> dict[str, object]:
    """Return what an interpreter makes of the golden vectors and of photos."""
    PLACE.mkdir(exist_ok=True)
    link = PLACE / "distillcache"
    if not link.is_symlink():
        link.symlink_to("..")
    fresh = {"PYTHONPATH": str(PLACE), "XDG_CACHE_HOME": str(PLACE / "cache"), "NUMBA_CACHE_DIR": str(PLACE / "numba")}
    shutil.rmtree(PLACE / "cache", ignore_errors=True)
    shards = photo_shards(ROOT / "runs" / "bench")[:2]
    if emulator:
        shards = shards[:1]
        fresh |= {"PYTHONPATH": f"{PLACE}:{PLACE / 'arm64' / 'site'}", "PYTHONHOME": str(PLACE / "arm64" / "usr")}
    command = [*emulator, python, "-c", PROBE, *map(str, map(os.path.abspath, shards))]
    done = subprocess.run(command, cwd=PLACE, env=os.environ | fresh | limits, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{python}: {done.stderr}")
    found: dict[str, object] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    sys.exit(lowest_alone() if sys.argv[1:] == ["--lowest"] else main(sys.argv[1:]))
