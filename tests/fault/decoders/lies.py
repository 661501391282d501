"""A decoder in a stranger's hands: it claims more pixels than the shared memory holds."""

from dicomguard import child

channel = child.parent()
channel.send({"ready": True})
channel.receive(None)
shape = [1 << 20, 1 << 20]
channel.send({"ok": True, "shape": shape, "bytes": 4 << 40, "sha256": "", "colour": False, "facts": {}})
channel.receive(None)
