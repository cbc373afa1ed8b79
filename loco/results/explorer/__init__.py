"""The page of ``loco explore``. This file imports nothing, so that the command line can import its constant quickly."""

VIEWS = 20  # default of the maximum number of views of a page
