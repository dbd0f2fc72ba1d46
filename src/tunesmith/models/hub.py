"""Models from the hub, through huggingface_hub and its own cache, which other tools on the machine share."""

from __future__ import annotations

from pathlib import Path

from tunesmith.core import packages
from tunesmith.core.errors import Mistake
from tunesmith.core.files import disk_mistakes
from tunesmith.models.folder import allow_pickle, is_whole

_OTHER_FORMS = ["[!1]*/*", "1[!_]*/*"]
"""Subfolders, which hold other formats of the same weights; all but `1_Pooling`, which says how states are pooled."""
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.tiktoken", "README.md"]


def snapshot(repo: str, revision: str | None = None) -> Path | None:
    """The folder of a model that the hub's cache holds, perhaps not whole, or None; the network is not touched."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot_download(repo, revision, _weights(), local_files_only=True)
    except LocalEntryNotFoundError as error:  # also for a snapshot that lacks something, which need not be the weights
        partial = getattr(error, "snapshot_path", None)
        return Path(partial) if partial else None


def _snapshot_download(repo: str, revision: str | None, files: list[str], *, local_files_only: bool = False) -> Path:
    """`files` of the top folder, and how states are pooled."""
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        repo,
        revision=revision,
        allow_patterns=files,
        ignore_patterns=_OTHER_FORMS,
        local_files_only=local_files_only,
    )
    return Path(folder)


def download(repo: str, revision: str | None = None, *, offline: bool | None = None) -> Path:
    """The folder of a hub model, downloaded the first time; what is whole in the cache is used as it is.

    Only safetensors, configuration and tokenizer are fetched, from the top folder, so other formats cost nothing.
    Raises Mistake when there is no such model, when it asks for an agreement first, and without a network.
    """
    folder = snapshot(repo, revision)
    if folder is not None and is_whole(folder):
        return folder
    if packages.without_network(offline):
        pull = f"tunesmith models pull {repo}" + (f"@{revision}" if revision else "")
        raise Mistake(
            f"model {repo}: there is no such folder, it is not in the hub's cache, and we are offline; "
            f"type `{pull}` once with a network"
        )
    return _download(repo, revision, _weights())


def describe(repo: str, revision: str | None = None, *, offline: bool | None = None) -> Path:
    """A folder with a hub model's config.json and README.md: a few kilobytes, for a look before anything is fetched.

    Raises Mistake as `download` does.
    """
    if packages.without_network(offline):
        raise Mistake(f"model {repo} is not in the hub's cache and we are offline; type this once with a network")
    return _download(repo, revision, ["config.json", "README.md"])


def _weights() -> list[str]:
    return [*_FILES, *(["*.bin"] if allow_pickle() else [])]


def _download(repo: str, revision: str | None, files: list[str]) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The transport (requests, httpx, httpx2) changes with huggingface_hub's version; its errors share this base.
    transport: tuple[type[Exception], ...] = (OSError, HfHubHTTPError, *HfHubHTTPError.__bases__)
    try:
        with disk_mistakes(Path(constants.HF_HUB_CACHE) / repo, "set HF_HOME to a folder with room"):
            return _snapshot_download(repo, revision, files)
    except GatedRepoError as error:
        raise Mistake(
            f"model {repo}: its owner asks for an agreement; accept it on its page and set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise Mistake(
            f"model {repo}: there is no revision '{revision}'; leave @{revision} out for the newest"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise Mistake(
            f"model: there is no folder '{repo}' here, and the hub has no such model that we may see; "
            "check the name, or set HF_TOKEN"
        ) from error
    except transport as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Mistake(f"model {repo}: the hub cannot be reached ({reason}); check the network and try again") from error
