"""Folders put to the Hugging Face Hub."""

from pathlib import Path
from typing import Literal

from .errors import InputError


def upload(folder: Path, repository: str, *, kind: Literal["dataset", "model"]) -> None:
    """Put the files of `folder` to the Hub's `repository`, USER/NAME, which is made if it is not there.

    Raises InputError for what the Hub answers.
    """
    from huggingface_hub import HfApi  # timm's own client: whoever has no need of it does not wait for it

    try:
        api = HfApi()
        api.create_repo(repository, repo_type=kind, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository, repo_type=kind, commit_message="distillcache")
    except (OSError, ValueError) as error:  # the hub's own are among them
        reason = str(error).strip().partition("\n")[0]
        what = "data set" if kind == "dataset" else "model"
        raise InputError(repository, f"a {what} that can be written", reason, "log in: hf auth login") from error
