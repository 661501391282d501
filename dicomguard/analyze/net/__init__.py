"""The detector: Mask R-CNN with a dense forgery map; only here and in retrain/net is torch."""
