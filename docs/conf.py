"""The site: what Sphinx builds of these pages, without a network. ``make docs`` calls it."""

project = "pytest-loraperf"
copyright = "the pytest-loraperf authors"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser"]
html_theme = "furo"
html_title = project
html_copy_source = False
# Links to a heading of another page are held as GitHub makes their names.
myst_heading_anchors = 3
nitpicky = True
