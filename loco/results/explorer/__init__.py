"""The page of ``loco explore``. This file imports nothing, because the command line reads its constant."""

VIEWS = 20  # default number of views of a page
