"""What a record says of packages, code and machine: enough to make it again, and nothing that is private."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import distributions, packages_distributions
from pathlib import Path
from typing import Any, ClassVar

import pytest

import alexlab
from alexlab.config import PROJECT_DIR, TrainerConfig
from alexlab.runs import environment, packages
from alexlab.runs.code_fingerprint import DECIDES, PACKAGE
from alexlab.runs.record import Record
from support.repositories import commit_all, git

TOKEN = "t0ken-of-a-remote"


def made(folder: Path) -> Path:
    """A project in a repository of its own, with one commit."""
    for name, content in {"src/net.py": "width = 1\n", "conf/x.yaml": "a: 1\n", "docs/page.md": "Text.\n"}.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(content)
    (folder / "src" / "old.py").write_text("old\n")
    (folder / "docs" / "photo.png").write_bytes(b"\x89PNG\0\1\2")
    commit_all(folder)
    git(folder, "remote", "add", "origin", f"https://someone:{TOKEN}@example.org/net.git")
    return folder


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a folder for the project of this process."""
    monkeypatch.setattr(environment, "PROJECT_DIR", folder)
    monkeypatch.setattr(environment, "CONF_DIR", folder / "conf")
    monkeypatch.delenv("ALEXLAB_COMMIT", raising=False)
    environment.code.cache_clear()
    environment.changes.cache_clear()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = made(tmp_path / "project")
    use(folder, monkeypatch)
    yield folder
    environment.code.cache_clear()
    environment.changes.cache_clear()


def dirty(folder: Path) -> None:
    (folder / "src" / "net.py").write_text("width = 2  # größer\n")
    (folder / "src" / "old.py").unlink()
    (folder / "src" / "new.py").write_text("new = True\n")
    (folder / "docs" / "page.md").write_text("Other text, without a last line feed")


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class TestChanges:
    def test_a_clean_tree_has_none(self, project: Path):
        assert environment.code()["git_dirty"] is False
        assert environment.changes() == {}

    def test_git_makes_the_same_tree_from_commit_and_changes(self, project: Path, tmp_path: Path):
        dirty(project)
        found = environment.changes()
        copy = tmp_path / "copy"
        git(tmp_path, "clone", "--quiet", str(project), str(copy))
        subprocess.run(["git", "apply"], cwd=copy, input=found["diff"].encode(), check=True)
        for name, one in found["untracked"].items():
            (copy / name).write_text(one["content"])
        assert files(copy) == files(project)
        assert found["diff"].index("src/net.py") < found["diff"].index("docs/page.md")
        hashed = subprocess.run(["sha256sum", "src/new.py"], cwd=project, capture_output=True, text=True, check=True)
        assert found["untracked"]["src/new.py"]["sha256"] == hashed.stdout.split()[0]

    def test_its_hash_is_of_the_content_of_source_files(self, project: Path, tmp_path: Path, monkeypatch):
        def hashed(folder: Path) -> str | None:
            use(folder, monkeypatch)
            return environment.changes()["sha256"]

        other = made(tmp_path / "elsewhere")
        for folder in (project, other):
            dirty(folder)
        git(other, "config", "diff.context", "9")
        (other / "docs" / "page.md").write_text("Yet another text.")
        first = hashed(project)
        assert first == hashed(other)
        (other / "src" / "new.py").write_text("new = False\n")
        assert hashed(other) != first
        git(other, "checkout", "--quiet", "--", "src", "conf")
        (other / "src" / "new.py").unlink()
        assert hashed(other) is None  # only a page of the documentation differs

    def test_binary_files_are_named_only(self, project: Path):
        (project / "docs" / "photo.png").write_bytes(b"\x89PNG\0secret")
        (project / "src" / "weights.ckpt").write_bytes(b"\0" * 100)
        found = environment.changes()
        assert "Binary files a/docs/photo.png and b/docs/photo.png differ" in found["diff"]
        assert "secret" not in found["diff"]
        assert found["untracked"] == {}
        assert found["sha256"] is None

    @pytest.mark.parametrize("line", ["x = 'a line of many'\n", "é\n", "\x01\x02\x03\n"])
    def test_large_ones_are_cut_and_say_so(self, line: str, project: Path, tmp_path: Path):
        (project / "src" / "net.py").write_text(line * 2**17)
        (project / "docs" / "page.md").write_text(line * 2**17)
        for number in range(300):
            (project / "src" / f"m{number:03}.py").write_text("x = 1\n" * 1000)
        (tmp_path / "0123456789ab").mkdir()
        record = Record(tmp_path, "0123456789ab")
        whole = len(git(project, "diff", "--full-index", "--no-renames", "HEAD", "--", "src").encode())
        record.write("environment.json", {"packages": packages.installed(), "changes": environment.changes()})
        found = record.read("environment.json")["changes"]  # types and size checked
        assert record.file("environment.json").stat().st_size < 2**19
        own, _, rest = found["diff"].partition("[cut here: ")
        body = own.partition("+++ b/src/net.py\n")[2].split("\n")
        assert {*body[1:]} <= {"-width = 1", f"+{line.rstrip()}", ""}
        assert rest.startswith(f"the whole diff has {whole:,} bytes]\n")
        assert rest.count("[cut here: ") == 1  # of the files elsewhere, for which nothing is left
        assert len(found["untracked"]) == 200
        assert found["untracked_left_out"] == 100
        assert {len(one["sha256"]) for one in found["untracked"].values()} == {64}


class TestPlaces:
    """Where the code may be, other than in a plain clone."""

    def test_names_of_any_bytes(self, project: Path, monkeypatch: pytest.MonkeyPatch):
        """A line feed, and what is no UTF-8: each file's content counts, and the record is text."""
        odd = Path(os.fsdecode(os.fsencode(project / "src") + b"/\xff"))
        odd.mkdir()
        hashes = []
        for content in (b"a = 1\n", b"a = 2\n"):
            (odd / "new\nline.py").write_bytes(content)
            use(project, monkeypatch)
            found = environment.changes()
            json.dumps(found, ensure_ascii=False).encode()
            assert found["untracked"] == {
                "src/\\xff/new\nline.py": {"sha256": sha256(content).hexdigest(), "content": content.decode()}
            }
            hashes.append(found["sha256"])
        assert hashes[0] != hashes[1]

    def test_a_worktree_and_a_shallow_clone(self, project: Path, tmp_path: Path, monkeypatch):
        head = git(project, "rev-parse", "HEAD").strip()
        git(project, "worktree", "add", "--quiet", str(tmp_path / "tree"))
        git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{project}", "shallow")
        for name in ("tree", "shallow"):
            dirty(tmp_path / name)
            use(tmp_path / name, monkeypatch)
            assert environment.code() == {"git_commit": head, "git_dirty": True}
            assert "größer" in environment.changes()["diff"]

    def test_a_submodule_and_one_with_a_submodule(self, project: Path, tmp_path: Path, monkeypatch):
        outer = made(tmp_path / "outer")
        git(outer, "submodule", "--quiet", "add", str(project), "src/inner")
        git(outer, "commit", "--quiet", "--message=Inner")
        dirty(outer / "src" / "inner")
        use(outer, monkeypatch)
        assert environment.code()["git_dirty"] is True
        assert "-dirty" in environment.changes()["diff"]
        use(outer / "src" / "inner", monkeypatch)
        assert environment.code()["git_commit"] == git(project, "rev-parse", "HEAD").strip()
        assert "größer" in environment.changes()["diff"]

    def test_a_repository_without_a_commit(self, tmp_path: Path, monkeypatch):
        (tmp_path / "conf").mkdir()
        git(tmp_path, "init", "--quiet")
        use(tmp_path, monkeypatch)
        assert environment.code()["git_commit"] is None
        assert environment.changes() == {}

    @pytest.mark.parametrize(
        "script",
        [None, "echo 'fatal: detected dubious ownership in repository' >&2; exit 128", "exec sleep 100"],
        ids=["missing", "refuses", "slow"],
    )
    def test_without_a_git_that_answers(self, script: str | None, project: Path, tmp_path: Path, monkeypatch):
        dirty(project)
        (tmp_path / "bin").mkdir()
        if script is not None:
            (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
            (tmp_path / "bin" / "git").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        monkeypatch.setattr(environment, "_PATIENCE", 0.2)
        assert environment.code() == {"git_commit": None, "git_dirty": None}
        assert environment.changes() == {}

    @pytest.mark.parametrize("language", ["C", "de_DE.UTF-8"])
    def test_a_repository_of_another_user(self, language: str, project: Path, tmp_path: Path, monkeypatch):
        """By git's own switch for its tests; the fix is git's, and works."""
        real = shutil.which("git")
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "git").write_text(f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {real} "$@"\n')
        (tmp_path / "bin" / "git").chmod(0o755)
        assert environment.ownership_fix() is None
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("LC_ALL", language)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        refused = subprocess.run(["git", "-C", str(project), "rev-parse", "HEAD"], capture_output=True)
        if not refused.returncode:
            pytest.skip("this git has no such switch")
        assert environment.code() == {"git_commit": None, "git_dirty": None}
        fix = environment.ownership_fix()
        assert fix is not None
        assert fix == f"git config --global --add safe.directory {project}"
        subprocess.run(fix.split(), check=True)
        assert environment.ownership_fix() is None

    def test_the_folder_of_another_repository_needs_no_fix(self, project: Path, monkeypatch):
        """Its commit says nothing about the project, so nobody need trust it."""
        (project / "inner" / "conf").mkdir(parents=True)
        use(project / "inner", monkeypatch)
        monkeypatch.setattr(
            environment, "_run_git", lambda arguments, file: "git config --global --add safe.directory x"
        )
        assert environment.ownership_fix() is None

    def test_a_git_that_is_slow_with_the_tree_still_gives_the_commit(self, project: Path, tmp_path: Path, monkeypatch):
        dirty(project)
        (tmp_path / "bin").mkdir()
        real = shutil.which("git")
        slow = f'#!/bin/sh\ncase "$*" in *rev-parse*) exec {real} "$@";; esac\nexit 1\n'
        (tmp_path / "bin" / "git").write_text(slow)
        (tmp_path / "bin" / "git").chmod(0o755)
        head = git(project, "rev-parse", "HEAD").strip()
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        assert environment.code() == {"git_commit": head, "git_dirty": None}
        assert environment.changes() == {}

    def test_installed_from_a_repository(self, tmp_path: Path, monkeypatch):
        """Its commit is known to pip, whose file also has the address, with whatever was typed in it."""
        metadata = tmp_path / "site" / "alexlab-0.9.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text("Name: alexlab\nVersion: 0.9\n")
        direct = {"url": f"https://someone:{TOKEN}@example.org/net.git", "vcs_info": {"vcs": "git"}}
        direct["vcs_info"]["commit_id"] = "0123456789abcdef0123456789abcdef01234567"
        (metadata / "direct_url.json").write_text(json.dumps(direct))
        use(tmp_path, monkeypatch)
        monkeypatch.setattr(environment, "CONF_DIR", tmp_path / "site" / "alexlab" / "conf")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        assert environment.code() == {"git_commit": direct["vcs_info"]["commit_id"], "git_dirty": None}
        found = environment.environment(TrainerConfig())
        assert found["packages"]["alexlab"] == alexlab.__version__
        assert TOKEN not in json.dumps(found)


def test_nothing_private_is_recorded(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_TOKEN", "c4n4ry")
    monkeypatch.setenv("HOME", str(project.parent / "home-of-someone"))
    dirty(project)
    (project / "src" / ".env").write_text("KEY=c4n4ry\n")
    (project / "src" / "id.pem").write_text("c4n4ry\n")
    (project / "src" / "link.py").symlink_to(project.parent / "home-of-someone")
    (project / "notes.py").write_text("c4n4ry\n")  # neither in src/ nor in conf/
    text = json.dumps(environment.environment(TrainerConfig()))
    for private in (TOKEN, "c4n4ry", str(project), str(PROJECT_DIR), sys.prefix, "home-of-someone"):
        assert private not in text, private


class TestPackages:
    def test_all_that_importlib_finds(self):
        listed: dict[str, str] = {}
        for one in distributions():
            listed.setdefault(one.name.lower().replace("_", "-").replace(".", "-"), one.version)
        listed["alexlab"] = alexlab.__version__
        found = packages.installed()
        assert found == listed
        assert list(found) == sorted(found)

    def test_older_metadata_and_the_order_of_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        first, second = tmp_path / "first", tmp_path / "second"
        for folder in (first, second):
            folder.mkdir()
        (first / "Some_Net-1.0+local.dist-info").mkdir()
        (second / "some.net-2.0.dist-info").mkdir()
        (second / "old-3.1-py3.11.egg-info").write_text("Metadata-Version: 1.0\nName: Old.Tool\nVersion: 3.1\n")
        (second / "~alf-1.0.dist-info").mkdir()  # as an interrupted pip leaves it
        (second / "nothing.dist-info").mkdir()
        monkeypatch.setattr(sys, "path", [str(first), str(second), str(tmp_path / "missing"), "archive.zip"])
        found = packages.installed.__wrapped__()
        assert found == {"alexlab": alexlab.__version__, "old-tool": "3.1", "some-net": "1.0+local"}

    def test_whatever_the_code_that_decides_results_imports_computes(self):
        """But what only shows progress or counts cores."""
        files = [path for name in DECIDES for path in ([PACKAGE / name], (PACKAGE / name).rglob("*.py"))]
        imported = set()
        for path in {path for group in files for path in group if path.is_file()}:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add(str(node.module).partition(".")[0])
        owners = packages_distributions()
        names = {name.lower() for module in imported - {"alexlab"} for name in owners.get(module, ())}
        assert {"torch", "numpy", "pillow"} <= names
        assert {name for name in names if not packages.computes(name)} == {"rich", "loky"}
        assert packages.computes("nvidia-cudnn-cu13")
        assert not any(map(packages.computes, ("wandb", "hydra-core", "pytest", "torch-fake")))


class TestEarlierAttempts:
    NOW: ClassVar[dict[str, Any]] = {"git_commit": "b", "packages": {"torch": "2.12.0", "rich": "2"}, "changes": {}}

    def test_what_differs_is_named_and_kept_without_its_bulk(self):
        changes = {"sha256": "f" * 64, "diff": "x" * 1000, "untracked": {}}
        before = {"git_commit": "a", "packages": {"torch": "2.11.0", "rich": "1"}, "changes": changes}
        found, changed = environment.with_earlier(self.NOW, before)
        assert changed == ["git_commit", "packages", "changes"]
        kept = {"git_commit": "a", "packages": {"torch": "2.11.0"}, "changes": {"sha256": "f" * 64}}
        assert found == {**self.NOW, "earlier": [kept]}

    def test_a_package_that_computes_nothing_is_no_difference(self):
        before = {**self.NOW, "packages": {"torch": "2.12.0", "rich": "1"}}
        assert environment.with_earlier(self.NOW, before) == (self.NOW, [])

    def test_two_machines_by_turns_are_kept_once_each(self):
        other = {**self.NOW, "git_commit": "a"}
        record: dict = {}
        for attempt in range(50):
            record, _ = environment.with_earlier(other if attempt % 2 else self.NOW, record)
        assert len(record["earlier"]) == 2
        assert [one["git_commit"] for one in record["earlier"]] == ["b", "a"]

    def test_records_of_older_versions(self):
        before = {"git_commit": "b", "packages": {"torch": "2.11.0"}, "earlier": [{"git_commit": "0"}]}
        found, changed = environment.with_earlier(self.NOW, before)
        assert changed == ["packages"]
        assert [one["git_commit"] for one in found["earlier"]] == ["0", "b"]
