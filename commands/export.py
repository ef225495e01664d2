"""`distillcache export-student`."""

import json
from pathlib import Path
from typing import Any

import click

from ..runtime.errors import InputError
from ..runtime.paths import AnyPath
from .options import say, with_options
from .paths import LOCAL_FOLDER, NAME, PATH

_FORMS = ("timm", "transformers", "onnx")
_USE = {
    "timm": 'import timm\n\nmodel = timm.create_model("SOURCE:PLACE", pretrained=True)',
    "transformers": "from transformers import DeiTForImageClassificationWithTeacher\n\n"
    'model = DeiTForImageClassificationWithTeacher.from_pretrained("PLACE")',
    "onnx": 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("PLACE/student.onnx")\n'
    'logits_of_each_head = session.run(None, {"images": images})',
}
_HUB = "hf://"


@click.command("export-student")
@with_options(click.argument("run", type=PATH))
@click.option("--to", type=click.Choice(_FORMS), required=True, help="Who is to load it.")
@click.option("--out", type=LOCAL_FOLDER, required=True, help="A folder that is not there yet.")
@click.option("--push", type=NAME, metavar="hf://USER/NAME", help="Also put it to the Hugging Face Hub.")
@click.option("--license", "license_", type=NAME, default="unknown", show_default=True, help="As the Hub has it.")
def export_student(run: AnyPath, to: str, out: Path, push: str | None, license_: str) -> None:
    """Write a trained student, RUN, as timm, transformers or ONNX load it, and its model card.

    timm loads any model of its own, with its two heads; transformers DeiT's with a distillation token.

    \b
    Example: distillcache export-student runs/tiny --to timm --out tiny-timm --push hf://me/tiny
    """
    from ..models import export
    from ..models.students import trained_student
    from ..runtime import atomic
    from ..runtime.hub import upload
    from ..train.checkpoint import read_weights
    from .opening import require_checkpoint

    if push and not (push.startswith(_HUB) and push.removeprefix(_HUB).count("/") == 1):
        raise InputError("`push`", "hf://USER/NAME", push)
    if out.exists() and any(out.iterdir()):
        raise InputError("`out`", "a folder that is not there yet", f"files in {out}", "name another")
    require_checkpoint(run)
    weights, config = read_weights(run)
    if not config:
        raise InputError(run, "a student that train-student wrote", "other weights")
    student = trained_student(config["model"], weights, str(run), classes=config["classes"], **config["model_kwargs"])
    kept = _kept(run)
    class_names = kept["config"].get("trained_on", {}).get("class_names", ())
    more = {"crop_pct": config.get("crop_pct", 0.875), "class_names": class_names}
    out.mkdir(parents=True, exist_ok=True)
    if to == "timm":
        architecture, kwargs = config["model"].partition(".")[0], config["model_kwargs"]
        export.to_timm(student, out, architecture=architecture, model_kwargs=kwargs, **more)
    elif to == "transformers":
        export.to_transformers(student, out, **more)
    else:
        export.to_onnx(student, out / "student.onnx")
    place = push.removeprefix(_HUB) if push else str(out)
    source = "hf-hub" if push else "local-dir"
    atomic.write_text(out / "README.md", _card(kept, config, to, place, source, license_))
    if push:
        upload(out, push.removeprefix(_HUB), kind="model")
    say(f"{push or out}: {', '.join(sorted(file.name for file in out.iterdir()))}")


def _kept(run: AnyPath) -> dict[str, Any]:
    """Return what a run's folder says of it: its config.json and summary.json, empty where there is none."""
    from ..runtime.paths import read_if_there

    folder = run if run.is_dir() else run.parent
    return {name: json.loads(read_if_there(folder / f"{name}.json") or "{}") for name in ("config", "summary")}


def _card(kept: dict[str, Any], config: dict[str, Any], to: str, place: str, source: str, license_: str) -> str:
    """Return the model card: what was trained, by what, on what, and how good each head is."""
    from ..inspection.card import table

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
    library = {"library_name": to} if to != "onnx" else {"library_name": "onnx"}
    head = {"license": license_, "tags": ["image-classification", "deit", "distillcache"], **library}
    parts = [
        "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in head.items()), "---"]),
        f"# {config['model']}, distilled",
        "Trained by distillcache from a teacher's stored labels." if teacher else "Trained by distillcache.",
        table(("", ""), rows),
        f"```python\n{_USE[to].replace('SOURCE', source).replace('PLACE', place)}\n```",
    ]
    return "\n\n".join(parts) + "\n"
