"""A decoder that never answers."""

import time

from dicomguard import child

channel = child.parent()
channel.send({"ready": True})
channel.receive(None)
time.sleep(600)
