"""A third hand: the common attacks once more, by somebody who has not read how the first hand does them.

Own outlines, blends, interpolation, grain and clean-ups. A detector that has met one author's forgeries only learns
that author's habits; this package is drawn from in training beside the first hand, family by family.
"""
