"""From a Vega-Lite specification to SVG for the page, or to PNG."""

from __future__ import annotations

import re
from typing import Any

import vl_convert
from markupsafe import Markup, escape

from pytest_loraperf.page.palette import as_variables
from pytest_loraperf.report.table import one_line

Spec = dict[str, Any]

_IDS = re.compile(r'(\bid="|url\(#)(?=clip|gradient)')
_ROLES = re.compile(r' (?:role|aria-[a-z]+|pointer-events)="[^"]*"')


def svg(spec: Spec, name: str, title: str) -> Markup:
    """Return a drawing for the page: no script, no style, no reference, and one text for who cannot see it.

    ``name`` is unique in the page: the ids of the drawing begin with it.
    """
    drawn = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    drawn = _IDS.sub(rf"\1{name}-", _ROLES.sub("", drawn))
    head, _, body = as_variables(drawn).partition(">")
    head = head.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    words = f'<title id="{name}-title">{escape(one_line(title))}</title>'
    # Vega escapes every text that it draws.
    return Markup(f'{head} role="img" aria-labelledby="{name}-title">{words}{body}')  # noqa: S704


def png(spec: Spec, scale: float = 1.5) -> bytes:
    """Return a picture of ``scale`` pixels for each of the drawing's."""
    picture: bytes = vl_convert.vegalite_to_png(spec, scale=scale, allowed_base_urls=[])
    return picture
