"""Settings of Sphinx: `make docs` builds the pages, with warnings as errors."""

from typing import Any

from sphinx.application import Sphinx

import sprockets_amqp

project = "sprockets_amqp"
copyright = "sprockets_amqp contributors"  # noqa: A001 (Sphinx's name)
version = release = sprockets_amqp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
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

# What stands in single backticks in a docstring is a name, and leads to where that is documented.
default_role = "py:obj"
napoleon_custom_sections = [("The future raises", "params_style"), ("Each call raises", "params_style")]

_sentences: dict[str, list[str]] = {}


def setup(app: Sphinx) -> None:
    """Keep napoleon from taking what stands before a colon in a property's docstring for its type."""

    def keep(_app: Sphinx, what: str, name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
        if what in {"property", "attribute", "data"}:
            _sentences[name] = lines[:]

    def restore(_app: Sphinx, _what: str, name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
        lines[:] = _sentences.pop(name, lines)

    # napoleon's own priority is 500.
    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
