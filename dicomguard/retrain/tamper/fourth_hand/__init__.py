"""A further author's forgeries: written from a description of each method, without a look at the other hands.

Own ways to choose a place, to soften an edge, to make grain, to clean up: what the hands share is the label rule and
the stored grid.
"""
