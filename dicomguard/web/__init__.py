"""The page: upload a study, read its verdict, follow the work, retrain. Served on loopback by one process.

It asks `store`, `flow.client` and `analyze.client`; it knows no SQL, no DBOS, no pixel decoder and no DICOM socket.
"""
