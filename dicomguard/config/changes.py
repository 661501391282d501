"""What of a changed configuration a running node takes over, and what has to wait for a restart. Pure."""

from dataclasses import fields, replace

from dicomguard.config.sections import SECTIONS, Config

# Keys of [receive] that processes read once. Everything else of it is taken over, and the whole of [completion].
_FIXED = ("processes", "max_instance_bytes")


def renewed(old: Config, new: Config) -> Config:
    """The old configuration with what can be taken over of the new one: peers, and most of [receive] and [completion].

    Running associations keep what they began with.
    """
    receive = replace(new.receive, **{key: getattr(old.receive, key) for key in _FIXED})
    return replace(old, receive=receive, completion=new.completion, peers=new.peers)


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
