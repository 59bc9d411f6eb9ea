"""Git repositories for tests, whatever the configuration and the environment of whoever runs them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SETTINGS = ("user.name=A", "user.email=a@example.org", "init.defaultBranch=main", "protocol.file.allow=always")


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder; what it prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    line = ["git", "-C", str(folder), *(word for one in SETTINGS for word in ("-c", one)), *arguments]
    return subprocess.run(line, env={**kept, **alone}, capture_output=True, text=True, check=True).stdout


def commit_all(folder: Path) -> str:
    """Commit all that is in a folder, which becomes a repository if it is none; the commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=All")
    return git(folder, "rev-parse", "HEAD").strip()
