"""`--config`: a command's options out of a YAML file, as each run writes one."""

from typing import Any

import click
import yaml

from ..runtime.errors import InputError
from ..runtime.own_code import import_own
from ..runtime.paths import AnyPath, read_bytes
from ..runtime.spelling import did_you_mean
from .paths import PATH

MODULES = f"{__name__}.modules"
"""Under which a context's `meta` has the modules of a user's that were imported."""


def _read(context: click.Context, _: click.Parameter, path: AnyPath | None) -> None:
    if path is None:
        return
    if path.is_dir():
        path = path / "config.yaml"
    try:
        options = yaml.safe_load(read_bytes(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError("`config`", "a YAML file", f"{path}: {reason}") from error
    if not isinstance(options, dict):
        raise InputError("`config`", "options and their values", f"none in {path}")
    for module in _several(options.pop("import", [])):
        import_own(str(module))
    names = {_long_name(p): p for p in context.command.params if isinstance(p, click.Option) and p.name != "config"}
    defaults: dict[str, Any] = {}
    for key, value in options.items():
        name = str(key).replace("_", "-")
        if name not in names:
            raise InputError("`config`", f"options of {context.info_name}", f"{key}{did_you_mean(name, list(names))}")
        option = names[name]
        defaults[str(option.name)] = _several(value) if option.multiple else value
    context.default_map = {**(context.default_map or {}), **defaults}


config_option = click.option(
    "--config", type=PATH, is_eager=True, expose_value=False, callback=_read,
    help="Options out of a YAML file, or of a run's folder its config.yaml; those that are given here count for more.",
)  # fmt: skip


def options_given() -> dict[str, Any]:
    """Return the options of the command at work by their long names, as its `config_option` reads them."""
    context = click.get_current_context()
    given: dict[str, Any] = {"import": list(modules)} if (modules := context.meta.get(MODULES)) else {}
    for option in context.command.params:
        value = context.params.get(str(option.name))
        if isinstance(option, click.Option) and value not in (None, (), ""):
            given[_long_name(option)] = _plain(value)
    if more := context.params.get("more_model_kwargs"):
        given["model-kwargs"] = [*given.get("model-kwargs", []), *more]
    return given


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (bool, int, float)) else str(value)


def _long_name(option: click.Parameter) -> str:
    return max(option.opts, key=len).lstrip("-")
