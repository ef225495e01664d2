"""How Sphinx builds the site; docs/site.py calls it."""

project = "distillcache"
html_title = "distillcache"
html_theme = "furo"
html_show_copyright = False
html_show_sphinx = False
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
highlight_language = "none"  # for what a command printed
default_role = "code"  # docstrings have their names in single backticks
autodoc_default_options = {"members": True, "undoc-members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
