"""The key `model.build`, which names a user's own net: parsed and pinned without torch or running its file.

The net is a function in a Python file that replaces AlexNet; `models/own.py` runs it.

`model.build=mynet.build` names the function `build` of `mynet.py` in the folder of `--config-dir` (`paths.code`).
Composing pins it to the file's content: `mynet.build@` and 12 hex digits of its hash, so that a changed net is another
run. A function that takes the configuration is pinned as `mynet.build(config)@...`; AlexNet's keys apply to it.
"""

from __future__ import annotations

import ast
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from alexlab.config import Config, ConfigError, ModelConfig, PoolConfig, did_you_mean, walk
from alexlab.errors import UserError

OF_CONFIG, OF_SIZES = ["config"], ["num_classes", "crop_size"]  # the parameters that a function may have
# Keys that only AlexNet has or uses.
UNUSED_KEYS = (
    *(name for name, _, _ in walk(ModelConfig(), "model.") if name != "model.build"),
    *(name for name, _, _ in walk(PoolConfig(), "pool.")),
    *("trainer.channels_last", "trainer.fused_lrn"),
)
_BUILD = re.compile(r"([A-Za-z_]\w*)\.([A-Za-z_]\w*)(\(config\))?(?:@([0-9a-f]{12}))?")


class Build(NamedTuple):
    """`model.build`, parsed."""

    module: str
    function: str
    takes_config: bool
    digest: str | None  # None unless pinned

    @property
    def file(self) -> str:
        return f"{self.module}.py"


def parse(build: str) -> Build:
    """Parse `model.build`.

    Raises:
        ConfigError: if it is not FILE.FUNCTION.
    """
    found = _BUILD.fullmatch(build)
    if found is None:
        raise ConfigError(f"model.build={build}: must be FILE.FUNCTION, such as mynet.build of mynet.py")
    return Build(found[1], found[2], found[3] is not None, found[4])


def has_own_keys(config: Config) -> bool:
    """Whether the net is the user's own and takes no configuration, so that AlexNet's keys have no effect."""
    return config.model.build is not None and not parse(config.model.build).takes_config


def unpinned(build: str) -> str:
    """`mynet.build`, without what composing adds to it."""
    return ".".join(parse(build)[:2])


def pin(config: Config) -> None:
    """Add the hash of its file, read from `paths.code`, to `model.build`.

    Raises:
        ConfigError: if the file or the function is missing, or the function takes other parameters.
    """
    assert config.model.build is not None
    build = parse(config.model.build)
    content = _read(config, build)
    digest = _digest(content)
    if build.digest not in (None, digest):
        raise ConfigError(f"model.build={config.model.build}: {build.file} has changed (hash {digest})")
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigError(f"model.build={unpinned(config.model.build)}: {build.file}{line}: {error}") from error
    functions = {one.name: one.args for one in tree.body if isinstance(one, ast.FunctionDef)}
    if build.function not in functions:
        near = did_you_mean(build.function, functions)
        raise ConfigError(f"model.build={unpinned(config.model.build)}: {build.file} has no such function{near}")
    names = [one.arg for one in functions[build.function].args]
    if names not in (OF_CONFIG, OF_SIZES):
        raise ConfigError(
            f"model.build={unpinned(config.model.build)}: takes ({', '.join(names)}); must take "
            f"({', '.join(OF_SIZES)}), or ({', '.join(OF_CONFIG)})"
        )
    config.model.build = f"{build.module}.{build.function}{'(config)' * (names == OF_CONFIG)}@{digest}"


def source(config: Config) -> bytes:
    """The content of the file that `model.build` names, after a check of its hash.

    Raises:
        UserError: if the file is missing, or is not the one that the run was planned or trained with.
    """
    assert config.model.build is not None
    build = parse(config.model.build)
    content = _read(config, build)
    if _digest(content) != build.digest:
        raise UserError(
            f"model.build={config.model.build}: {config.paths.code}/{build.file} has another hash, {_digest(content)}; "
            "a record has its version as net.py, which you can read and copy there"
        )
    return content


def copied(config: Config, folder: Path) -> Config:
    """The configuration with a copy of its net's file in `folder`, so that later edits do not matter."""
    if config.model.build is None:
        return config
    build = parse(config.model.build)
    own = folder / f"code_{build.digest}"
    own.mkdir(exist_ok=True)
    (own / build.file).write_bytes(source(config))
    return replace(config, paths=replace(config.paths, code=str(own)))


def _read(config: Config, build: Build) -> bytes:
    if config.paths.code is None:
        raise ConfigError(
            f"model.build={config.model.build}: its Python file is missing; add --config-dir DIR, your folder with "
            f"{build.file}, which is run"
        )
    path = Path(config.paths.code) / build.file
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"model.build={config.model.build}: {path}: {error.strerror}") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
