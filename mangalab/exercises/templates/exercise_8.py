"""Exercise 8: a gate that does not creep.

Write ``gate(champion, candidate, floor, margin)``. ``champion`` and ``candidate`` are lists of 0
and 1, right or wrong on the same test messages. Return (passes, reason). The candidate passes when

- its accuracy is at least ``floor``, an absolute number that no release moves, and
- the lower end of the 95 % interval of (candidate - champion), paired by message, is at least
  -``margin``.

Use the normal interval of the mean of the paired differences, with the sample standard deviation
(n - 1). The reason of a refusal contains the word "floor" or the word "champion"; check the floor
first. Lists of different length are a ValueError.
"""


def gate(champion, candidate, floor, margin):
    raise NotImplementedError("write gate() in this file")
