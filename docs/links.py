"""MkDocs hook: resolve links from pages to files outside docs/, which a code host resolves by itself.

An image is copied into the site. Another file becomes a link to the repository (`repo_url` in mkdocs.yml), or plain
text if there is none. A file that does not exist stays as it is, so that MkDocs reports it.
"""

import os.path
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\((\.\.[^)#\s]*)(#[^)\s]*)?\)")


def _outside(target: str, page: str) -> str | None:
    """Path below the project of a link's target, or None if it is inside docs/ or does not exist."""
    path = os.path.normpath(Path("docs") / Path(page).parent / target)
    return None if path.startswith(("docs/", "..")) or not (ROOT / path).exists() else path


def on_files(files: Any, config: Any) -> Any:
    """Add the images that pages show from elsewhere in the project."""
    for page in files.documentation_pages():
        for image, _, target, _ in LINK.findall(page.content_string):
            path = _outside(target, page.src_uri)
            if image and path and files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Rewrite the links of one page."""

    def replace(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        path = _outside(target, page.file.src_uri)
        if path is None:
            return match.group()
        if image:
            return f"![{text}]({os.path.relpath(path, Path(page.file.src_uri).parent)})"
        return f"[{text}]({config.repo_url}/blob/main/{path}{anchor or ''})" if config.repo_url else text

    return LINK.sub(replace, markdown)
