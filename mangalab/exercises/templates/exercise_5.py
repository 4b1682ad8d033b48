"""Exercise 5: choose without peeking.

Write ``choose(runs)``. A run is a dict with ``setting``, ``seed``, ``validation`` and ``test``
(scores, higher is better) and ``seconds``. Return a dict:

    setting  the setting with the best mean validation score over its seeds
    test     that setting's mean test score (it reports, it does not choose)
    front    settings that no other setting beats in mean validation score and mean seconds (at
             least as good in both, better in one), from the fastest to the slowest
"""


def choose(runs):
    raise NotImplementedError("write choose() in this file")
