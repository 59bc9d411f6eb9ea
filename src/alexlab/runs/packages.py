"""The installed distributions, and which of them compute a run's numbers."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import alexlab

# The imports of the code that decides results, without those that only display or lock, and PyTorch's own libraries.
_COMPUTING = frozenset(
    {"torch", "torchvision", "torchmetrics", "lightning", "pytorch-lightning"}
    | {"numpy", "scipy", "pillow", "simplejpeg", "pyarrow", "triton", "pytorch-triton", "mkl", "intel-openmp"}
)
_OF_CUDA = re.compile(r"(nvidia|cuda)-")  # CUDA, cuBLAS, cuDNN, NCCL
_FOLDER = re.compile(r"([A-Za-z0-9][\w.]*)-([\w.+!]{1,100})\.dist-info")  # as the packaging specification names it
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,100}")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def computes(name: str) -> bool:
    """Whether another version of a distribution can change a run's numbers."""
    return name in _COMPUTING or is_of_cuda(name)


def is_of_cuda(name: str) -> bool:
    """Whether a distribution is one of the CUDA libraries that PyTorch depends on."""
    return _OF_CUDA.match(name) is not None


def computing(packages: Mapping[str, str]) -> dict[str, str]:
    """Those of `packages` that compute a run's numbers."""
    return {name: version for name, version in packages.items() if computes(name)}


@cache
def installed() -> dict[str, str]:
    """{normalised name: version} of every distribution that this process can import, by name.

    They are read from the names of the metadata folders, in a millisecond; importlib.metadata parses each file, which
    takes a quarter of a second for two hundred. For alexlab it is the version of the code that is running.
    """
    found = {"alexlab": alexlab.__version__}
    for folder in dict.fromkeys(sys.path):  # the first one counts, as in an import
        with suppress(OSError):
            for path in Path(folder).iterdir():
                if path.suffix in (".dist-info", ".egg-info"):
                    name, version = _name_and_version(path)
                    if _NAME.fullmatch(name):
                        found.setdefault(name, version)
    return dict(sorted(found.items()))


def _name_and_version(path: Path) -> tuple[str, str]:
    if match := _FOLDER.fullmatch(path.name):
        return _normalised(match[1]), match[2]
    with suppress(OSError, KeyError, ValueError):  # a folder of older tools; without a name it is skipped
        metadata = Distribution.at(path).metadata
        return _normalised(metadata["Name"] or ""), (metadata["Version"] or "unknown")[:100]
    return "", ""


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_commit() -> str | None:
    """The commit from which pip installed alexlab, if it was from a repository, whose address is not kept."""
    with suppress(PackageNotFoundError, OSError, ValueError, AttributeError):
        direct = json.loads(distribution("alexlab").read_text("direct_url.json") or "{}")
        commit = direct.get("vcs_info", {}).get("commit_id")
        return commit if isinstance(commit, str) and _COMMIT.fullmatch(commit) else None
    return None
