"""A decoder that a file brings down at C level."""

import os
import signal

from dicomguard import child

channel = child.parent()
channel.send({"ready": True})
channel.receive(None)
os.kill(os.getpid(), signal.SIGSEGV)
