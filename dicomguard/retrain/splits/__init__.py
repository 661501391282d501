"""The frozen lists of patient keys, one JSON file a source."""
