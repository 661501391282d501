"""Rows and durable files: the only room with SQL, and the only one that writes what must survive a power cut.

It knows no network, no DBOS and not what a verdict means. Functions take a transaction that the caller opened
(`with store.begin() as tx:`); `intake.receive` and `results.keep` open their own, because files come before rows.
"""
