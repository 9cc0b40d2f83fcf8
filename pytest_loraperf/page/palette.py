"""The colours of the page and its charts by what they stand for, once for light and once for dark.

Charts are drawn in the light ones. In the page each becomes a CSS variable, so that one drawing serves both.
"""

from __future__ import annotations

LIGHT = {
    "paper": "#fcfcfb",
    "card": "#ffffff",
    "ink": "#1b1f24",
    "soft": "#5a6370",
    "line": "#d9dde2",
    "grid": "#eceef1",
    "accent": "#0b62a8",
    "muted": "#7b8592",
    "pass": "#1a7340",
    "fail": "#b3261e",
    "unsure": "#8a5a00",
    "step-build": "#9aa5b1",
    "step-attach": "#2f7fc1",
    "step-fuse": "#0b4f8a",
    "step-quantize": "#c77400",
    "step-offload": "#8455a8",
    "step-compile": "#2b8a57",
    "step-first": "#c2477a",
    "step-other": "#6f5f52",
}
"""Roles and their colours on a light page; no two are the same, so that a colour tells its role."""

DARK = {
    "paper": "#14171a",
    "card": "#1b1f23",
    "ink": "#e8eaed",
    "soft": "#a5aeb8",
    "line": "#363c43",
    "grid": "#2a2f35",
    "accent": "#6db3f2",
    "muted": "#8d97a3",
    "pass": "#63c98c",
    "fail": "#ff8a80",
    "unsure": "#e8b04b",
    "step-build": "#78838f",
    "step-attach": "#5aa5e6",
    "step-fuse": "#3f7fc4",
    "step-quantize": "#e39a35",
    "step-offload": "#b28ad4",
    "step-compile": "#5dbb88",
    "step-first": "#e57aa6",
    "step-other": "#b09e8f",
}


def as_variables(svg: str) -> str:
    """Return a drawing whose colours are CSS variables of their roles."""
    for role, colour in LIGHT.items():
        svg = svg.replace(f'"{colour}"', f'"var(--{role})"')
    return svg


def css_variables(colours: dict[str, str]) -> str:
    """Return the declarations of these variables."""
    return "".join(f"--{role}:{colour};" for role, colour in colours.items())
