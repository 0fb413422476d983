"""The Hugging Face hub: whether it answers, asked once; and what a name stands for, a folder here or a model there."""

from __future__ import annotations

import difflib
import os
import re
import threading
from functools import cache
from pathlib import Path

PATIENCE = 5.0  # seconds; a request of the hub's own library that fails is repeated for a minute
HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
OFFLINE = "HF_HUB_OFFLINE is set"


@cache
def silence() -> str:
    """Why the hub does not answer; "" where it does. Where it does not, only its cache is asked from then on."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return OFFLINE
    said = [f"no answer within {PATIENCE:g} s"]

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=PATIENCE)
            said[0] = ""
        except Exception as error:  # whatever its HTTP library raises
            said[0] = (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")

    # in a thread, since nothing else ends the wait for a name server
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE)
    if said[0]:
        constants.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"  # for the libraries that are not loaded yet
    return said[0]


def unanswered() -> str:
    """Why a hub that may be asked does not answer; "" where it does, or may not be."""
    why = silence()
    return "" if why == OFFLINE else why


def located(name: str | Path) -> str:
    """What `from_pretrained` takes: a folder that is here, or a name on the hub. ValueError, one line, for neither."""
    name = str(name)
    place = Path(os.path.expanduser(name))
    if place.is_dir():
        return str(place)
    if place.exists():
        raise ValueError(f"{place} is a file; a model is a folder, as save_pretrained writes it. Give that folder.")
    looked_for = f"Cannot find {name!r}: there is no folder {place.absolute()}{nearest(place)}"
    if not HUB_NAME.fullmatch(name):
        raise ValueError(f"{looked_for}, and it is no Hugging Face name (owner/model). Give one that is there.")
    why = silence()
    if why and not in_cache(name):
        from huggingface_hub import constants

        raise ValueError(
            f"{looked_for}, the Hugging Face hub cannot be asked ({constants.ENDPOINT}: {why}), and its cache "
            f"{constants.HF_HUB_CACHE} does not hold it. Give a folder that is here; where the hub can be reached, "
            f"'hf download {name} --local-dir FOLDER' makes one."
        )
    return name


def in_cache(name: str) -> bool:
    """Whether the hub's cache here holds something of this model."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")).is_dir()


def nearest(place: Path) -> str:
    """The folder beside it whose name is most like its own, in words."""
    if not place.parent.is_dir():
        return ""
    names = [each.name for each in place.parent.iterdir() if each.is_dir()]
    near = difflib.get_close_matches(place.name, names, n=1)
    return f" (did you mean {str(place.parent / near[0])!r}?)" if near else ""
