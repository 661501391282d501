"""The receiver: C-ECHO and C-STORE as SCP. It knows neither pixels, verdicts nor work.

On pynetdicom's acceptor; everything of that stays inside this room.
"""
