"""A trained student for other programs, with its model card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..models import export
from ..models.students import trained_student
from ..runtime import atomic
from ..runtime.errors import InputError
from ..runtime.hub import upload
from ..runtime.markdown import front_matter, table
from ..runtime.paths import AnyPath, PathLike, path_of, read_if_there, require_folder
from .checkpoint import read_weights

Form = Literal["timm", "transformers", "onnx"]
_USE = {
    "timm": 'import timm\n\nmodel = timm.create_model("SOURCE:PLACE", pretrained=True)',
    "transformers": "from transformers import DeiTForImageClassificationWithTeacher\n\n"
    'model = DeiTForImageClassificationWithTeacher.from_pretrained("PLACE")',
    "onnx": 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("PLACE/student.onnx")\n'
    'logits_of_each_head = session.run(None, {"images": images})',
}
_HUB = "hf://"


def export_student(
    run: PathLike, out: PathLike, *, to: Form, push: str | None = None, license: str = "unknown"
) -> None:
    """Write a trained student as timm, transformers or ONNX load it, and its model card.

    Args:
        run: A run's folder, or a file of weights in it; a path or URL.
        out: A folder of this machine that is not there yet.
        to: `timm`, any of its models, with two heads; `transformers`, DeiT's with a distillation token; `onnx`, any.
        push: `hf://USER/NAME`, to put the folder to the Hugging Face Hub, too.
        license: For the card, as the Hub has it.

    Raises:
        InputError: A ValueError, one line of text: where the run is none, the form can't hold the model, `out` holds
            files, or a package is missing.
    """
    run, folder = path_of(run), path_of(out)
    if to not in _USE:
        raise InputError("`to`", f"one of {', '.join(_USE)}", to)
    if push and not (push.startswith(_HUB) and push.removeprefix(_HUB).count("/") == 1):
        raise InputError("`push`", "hf://USER/NAME", push)
    if not isinstance(folder, Path):
        raise InputError("`out`", "a folder of this machine", folder)
    require_folder("out", folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError("`out`", "a folder that is not there yet", f"files in {folder}", "name another")
    weights, config = read_weights(run)
    if not config:
        raise InputError(run, "a student that train-student wrote", "other weights")
    student = trained_student(config["model"], weights, str(run), classes=config["classes"], **config["model_kwargs"])
    kept = _kept(run)
    class_names = kept["config"].get("trained_on", {}).get("class_names", ())
    more = {"crop_pct": config.get("crop_pct", 0.875), "class_names": class_names}
    folder.mkdir(parents=True, exist_ok=True)
    if to == "timm":
        architecture, kwargs = config["model"].partition(".")[0], config["model_kwargs"]
        export.to_timm(student, folder, architecture=architecture, model_kwargs=kwargs, **more)
    elif to == "transformers":
        export.to_transformers(student, folder, **more)
    else:
        export.to_onnx(student, folder / "student.onnx")
    place = push.removeprefix(_HUB) if push else str(folder)
    use = _USE[to].replace("SOURCE", "hf-hub" if push else "local-dir").replace("PLACE", place)
    atomic.write_text(folder / "README.md", _card(kept, config, to, use, license))
    if push:
        upload(folder, place, kind="model")


def _kept(run: AnyPath) -> dict[str, Any]:
    """Return what a run's folder says of it: its config.json and summary.json, empty where there is none."""
    folder = run if run.is_dir() else run.parent
    return {name: json.loads(read_if_there(folder / f"{name}.json") or "{}") for name in ("config", "summary")}


def _card(kept: Mapping[str, Any], config: Mapping[str, Any], to: Form, use: str, license: str) -> str:
    """Return the model card: what was trained, by what, on what, and how good each head is."""
    trained_on, summary = kept["config"].get("trained_on", {}), kept["summary"]
    teacher, recipe = trained_on.get("teacher"), trained_on.get("recipe")
    rows = [("model", f"{config['model']} {' '.join(f'{k}={v}' for k, v in config['model_kwargs'].items())}".strip())]
    rows += [("classes", str(config["classes"])), ("images", f"{config['size']} x {config['size']} pixels")]
    rows += [("distillation", config["distill"]), ("epochs", str(config["epochs"])), ("data", config["data"])]
    rows += [("teacher", f"{teacher['name']}, SHA-256 of its weights {teacher['sha256']}")] if teacher else []
    rows += [("store", Path(str(trained_on["store"])).name)] if "store" in trained_on else []
    rows += [("recipe", ", ".join(f"{name} {value}" for name, value in recipe.items()))] if recipe else []
    heads = [(name, value) for name, value in summary.items() if "top1_" in name]
    rows += [(f"{name.replace('top1_', 'top-1, ')} head", f"{value:.2f}%") for name, value in heads]
    tags = ["image-classification", "deit", "distillcache"]
    parts = [
        front_matter({"license": license, "tags": tags, "library_name": to}),
        f"# {config['model']}, distilled",
        "Trained by distillcache from a teacher's stored labels." if teacher else "Trained by distillcache.",
        table(("", ""), rows),
        f"```python\n{use}\n```",
    ]
    return "\n\n".join(parts) + "\n"
