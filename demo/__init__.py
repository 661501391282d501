"""The demonstration: four brain studies through a real node into a real PACS."""
