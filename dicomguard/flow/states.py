"""The states of a revision, in order, and what they allow."""

OPENED, ANALYSING, JUDGED, BUILT, DELIVERING, DONE = "opened", "analysing", "judged", "built", "delivering", "done"
# Waits for a person; was overtaken by a later revision.
FAILED, SUPERSEDED = "failed", "superseded"
# A later revision may still take the place of one in these.
BEFORE_DELIVERY = (OPENED, ANALYSING, JUDGED, BUILT)
# The report of one in these may have left the house: the next report names it as its predecessor.
BEGAN_DELIVERY = (DELIVERING, DONE)
IN_ORDER = (*BEFORE_DELIVERY, *BEGAN_DELIVERY)
