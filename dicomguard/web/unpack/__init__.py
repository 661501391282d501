"""The child that opens what people upload: ZIPs, pictures, unknown bytes.

It runs under limits of memory and time, so that a crafted file ends it and not the web process. It knows no
database, no study and no session; it leaves files in a folder and says of each input what it is.
"""
