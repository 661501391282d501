"""The receiver: C-ECHO, C-STORE and storage commitment as SCP. It knows neither pixels, verdicts nor work.

On an upper layer of its own (docs/decisions/0003); codecs and negotiation are pynetdicom's.
"""
