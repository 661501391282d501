"""What of a changed configuration a running node takes over, and what has to wait for a restart. Pure."""

from dataclasses import fields, replace

from dicomguard.config.checks import check
from dicomguard.config.sections import SECTIONS, Config
from dicomguard.config.source import Source
from dicomguard.errors import Refused

# Keys of [receive] that processes read once. Everything else of it is taken over, and the whole of [completion].
_FIXED = ("processes", "max_instance_bytes")


def renewed(old: Config, new: Config) -> Config:
    """The old configuration with what can be taken over of the new one: peers, and most of [receive] and [completion].

    Running associations keep what they began with. Raises `Refused` where what is taken over and what stays contradict
    each other: every process would refuse that, and one that dies could not be started again.
    """
    receive = replace(new.receive, **{key: getattr(old.receive, key) for key in _FIXED})
    now = replace(old, receive=receive, completion=new.completion, peers=new.peers)
    try:
        check(now, Source(new.file, ""))
    except Refused:
        # Its sentence would ask for what the file says already.
        raise Refused(
            "The changes belong together and need a restart of the node, so nothing of them is taken over. "
            f"Restart it: {', '.join(changed(now, new))} cannot change before, "
            f"and {', '.join(changed(old, now))} would not fit without."
        ) from None
    return now


def changed(old: Config, new: Config) -> list[str]:
    """Names of the keys that differ, as the file has them: `receive.idle_s`, `peers.ct1`, `routes`."""
    names = []
    for kind in SECTIONS:
        section = kind.__name__.lower()
        before, after = getattr(old, section), getattr(new, section)
        names += [
            f"{section}.{key.name}" for key in fields(kind) if getattr(before, key.name) != getattr(after, key.name)
        ]
    for section in ("peers", "destinations"):
        was = {item.name: item for item in getattr(old, section)}
        now = {item.name: item for item in getattr(new, section)}
        names += [f"{section}.{name}" for name in sorted({*was, *now}) if was.get(name) != now.get(name)]
    return names + [section for section in ("routes", "rules") if getattr(old, section) != getattr(new, section)]
