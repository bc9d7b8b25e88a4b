"""Settings of Sphinx: `make docs` builds the pages, with warnings as errors."""

import sprockets_amqp

project = "sprockets_amqp"
copyright = "sprockets_amqp contributors"  # noqa: A001 (Sphinx's name)
version = release = sprockets_amqp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"sprockets_amqp {release}"
html_show_sphinx = False
templates_path: list[str] = []
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "attrs_block"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
