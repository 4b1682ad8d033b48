"""What to do next: the book's records read together, one price per point, roadmaps under uncertainty.

Nothing here trains or measures. Gains come from the comparisons that other chapters recorded; costs
come from `data/text/interventions.yml`, where every one of them is an assumption.
"""
