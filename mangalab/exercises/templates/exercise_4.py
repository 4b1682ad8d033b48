"""Exercise 4: remove duplicates, and nothing else.

Write ``deduplicated(rows)``. A row is a dict with ``input`` and ``output``. Two rows are the same
when input and output agree after Unicode NFKC, lower case, and with runs of white space as one
space and none at the ends. Keep the first of each, unchanged, in their order. Rows with the same
input and different outputs are not duplicates: somebody has to look at them.
"""


def deduplicated(rows):
    raise NotImplementedError("write deduplicated() in this file")
