"""Studies an hour of the whole node, from C-STORE to the report in the PACS."""
