"""What ``make docs`` does beside mkdocs: files that pages link to outside docs/ go along."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

INSIDE = re.compile(r"\]\((?!\.\.|https?:|#)([^)#]+)")
SEARCH = f"<script>{Path(__file__).with_name('search_from_files.js').read_text('utf-8')}</script>"
OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)")  # such as ../reports/control/control.png


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside docs/ that a page links to, at the same path within the site."""
    root = Path(config.docs_dir).parent
    pages = [path.read_text(encoding="utf-8") for path in Path(config.docs_dir).glob("*.md")]
    linked = {name for text in pages for name in OUTSIDE.findall(text)}
    for page in [name for name in linked if name.endswith(".md")]:
        text = (root / page).read_text(encoding="utf-8")
        linked |= {f"{Path(page).parent}/{name}" for name in INSIDE.findall(text)}
    for name in sorted(linked):
        if (root / name).is_file():
            files.append(File.generated(config, name, abs_src_path=str(root / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to these files begin at the site's own root."""
    return OUTSIDE.sub(r"](\1", markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Put our own script in the place of the one that would come from a network."""
    return re.sub(r'<script src="https://[^"]*"></script>', lambda _: SEARCH, output)
