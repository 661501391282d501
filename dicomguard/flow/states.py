"""The states of a revision, in order, and what they allow."""

OPENED, ANALYSING, JUDGED, BUILT, DELIVERING, DONE = "opened", "analysing", "judged", "built", "delivering", "done"
# Waits for a person; was overtaken by a later revision; a person wanted none.
FAILED, SUPERSEDED, CANCELLED = "failed", "superseded", "cancelled"
# The work on one in these ends without a word.
WITHDRAWN = (SUPERSEDED, CANCELLED)
# A later revision may still take the place of one in these.
BEFORE_DELIVERY = (OPENED, ANALYSING, JUDGED, BUILT)
# The report of one in these may have left the house: the next report names it as its predecessor.
BEGAN_DELIVERY = (DELIVERING, DONE)
IN_ORDER = (*BEFORE_DELIVERY, *BEGAN_DELIVERY)
