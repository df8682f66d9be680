"""Reading a page as a parser and as a browser do."""

from __future__ import annotations

import html.parser
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_SCRIPT = (
    "<script>addEventListener('load', () => { const all = [...document.images]; "
    "document.title = all.filter(i => i.complete && i.naturalWidth > 0).length + ' of '"
    " + all.length + ' wide ' + (document.documentElement.scrollWidth <= innerWidth); });"
    "</script></body>"
)


class Page(html.parser.HTMLParser):
    """Start tags with their attributes, and whether every element is closed."""

    VOID = frozenset({"meta", "img", "br", "link", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def in_browser(page: Path, folder: Path, width: int) -> tuple[str, np.ndarray]:
    """What a browser ``width`` pixels wide makes of a page.

    The title says how many images were loaded and whether the page fits the window ("7 of 7 wide
    true"); the screenshot is (height, width, 3). Skips where there is no Chromium.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    copy, picture = folder / "page.html", folder / "page.png"
    text = page.read_text(encoding="utf-8").replace("</body>", _SCRIPT)
    copy.write_text(text, encoding="utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--window-size={width},900",
        f"--user-data-dir={folder / 'profile'}",
    ]
    dom = _run([*command, "--dump-dom", copy.as_uri()])
    _run([*command, f"--screenshot={picture}", copy.as_uri()])
    title = dom.split("<title>")[1].split("</title>")[0]
    return title, np.asarray(Image.open(picture).convert("RGB"))


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
