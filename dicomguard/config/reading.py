"""From TOML to frozen values; the only reader of settings and environment."""

import math
import os
import tomllib
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from dicomguard.config.accepted import kept
from dicomguard.config.checks import check
from dicomguard.config.sections import SECTIONS, Config
from dicomguard.config.source import Source, nearest
from dicomguard.core.peer import Destination, Peer
from dicomguard.core.routing import Route
from dicomguard.core.selection import Rule
from dicomguard.errors import Refused

T = TypeVar("T")
ENVIRONMENT = "DICOMGUARD_CONFIG"
# A pebibyte: what is more overflows limits and files that take it.
_MOST = 1 << 50


def load(path: Path | None = None) -> Config:
    """Read the file (else the one that DICOMGUARD_CONFIG names, else defaults); raise `Refused` with its line.

    A process of a node is given the name of what the node has accepted, in place of a file.
    """
    if path is None and os.environ.get(ENVIRONMENT):
        path = Path(os.environ[ENVIRONMENT])
    if path is None:
        return parse("", base=Path.cwd(), path=None)
    if (given := kept(path)) is not None:
        # Faults are named as those of the person's file, and what is read again is this.
        return replace(_config(given.tables, Source(given.file, ""), base=Path("/")), file=path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Refused(f"The configuration {path} cannot be read: {error.strerror}. Name a file that exists.") from None
    except UnicodeDecodeError:
        raise Refused(f"The configuration {path} is not UTF-8 text. Save it as UTF-8.") from None
    return parse(text, base=path.resolve().parent, path=path)


def parse(text: str, *, base: Path, path: Path | None) -> Config:
    """Configuration from TOML text; relative paths are below `base`."""
    source = Source(path, text)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"{path or 'configuration'} is not valid TOML: {error}. Correct that line.") from None
    return _config(document, source, base=base)


def _config(document: dict[str, Any], source: Source, *, base: Path) -> Config:
    hints = get_type_hints(Config)
    sections = {f.name: hints[f.name] for f in fields(Config) if isinstance(f.default, SECTIONS)}
    known = [*sections, "peers", "destinations", "routes", "rules"]
    for name in document:
        if name not in known:
            raise Refused(f'{source.at(name)}: there is no section "{name}".{nearest(name, known)}')
    built: dict[str, Any] = {}
    for name, kind in sections.items():
        built[name] = _build(kind, _table(document.get(name, {}), source, name), source, name, base=base)
    for name, each in (("peers", Peer), ("destinations", Destination)):
        table = _table(document.get(name, {}), source, name)
        built[name] = tuple(
            _build(each, _renamed(_table(item, source, f"{name}.{key}")), source, f"{name}.{key}", base=base, name=key)
            for key, item in table.items()
        )
    for name, kind in (("routes", Route), ("rules", Rule)):
        items = document.get(name, [])
        if not isinstance(items, list):
            raise Refused(f"{source.at(name)}: {name} is a list. Write [[{name}]] before each entry.")
        built[name] = tuple(_build(kind, _table(item, source, name), source, name, base=base) for item in items)
    config = Config(**built, file=source.path)
    check(config, source)
    return config


def _renamed(table: dict[str, Any]) -> dict[str, Any]:
    # "addresses" is the word an administrator looks for; a peer keeps them as networks.
    return {("networks" if key == "addresses" else key): value for key, value in table.items()}


def _table(value: Any, source: Source, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"{source.at(where)}: [{where}] is a section, not {value!r}. Write [{where}] and its keys below.")
    return value


def _build(kind: type[T], table: dict[str, Any], source: Source, where: str, *, base: Path, **given: Any) -> T:
    """One dataclass from one table; the field's type and metadata decide what is allowed."""
    hints = get_type_hints(kind)
    allowed = {f.name: f for f in fields(kind) if f.name not in given}  # type: ignore[arg-type]
    values: dict[str, Any] = dict(given)
    shown = {"networks": "addresses"} if kind is Peer else {}
    for key, raw in table.items():
        if key not in allowed:
            names = [shown.get(name, name) for name in allowed]
            raise Refused(f'{source.at(where, key)}: [{where}] has no key "{key}".{nearest(key, names)}')
        place = f"{source.at(where, shown.get(key, key))}: {shown.get(key, key)}"
        values[key] = _value(raw, hints[key], allowed[key], place, base)
    for key, item in allowed.items():
        if key not in values and item.default is MISSING and item.default_factory is MISSING:
            raise Refused(f'{source.at(where)}: [{where}] lacks "{shown.get(key, key)}". Add it.')
        if key not in values and isinstance(item.default, Path):
            values[key] = (base / item.default).resolve()
    try:
        return kind(**values)
    except Refused as error:
        raise Refused(f"{source.at(where)}: {error}") from None


def _value(raw: Any, hint: Any, item: "Field[Any]", place: str, base: Path) -> Any:
    kinds = [
        kind
        for kind in (get_args(hint) if get_origin(hint) not in (tuple, None) else (hint,))
        if kind is not type(None)
    ]
    kind = kinds[0]
    if get_origin(kind) is tuple:
        if not isinstance(raw, list) or not all(isinstance(part, str) for part in raw):
            raise Refused(f'{place} = {raw!r} is no list of texts. Write for example ["A", "B"].')
        return tuple(raw)
    wanted = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
    fits = {
        str: isinstance(raw, str),
        bool: isinstance(raw, bool),
        int: isinstance(raw, int) and not isinstance(raw, bool),
        float: isinstance(raw, int | float) and not isinstance(raw, bool),
        Path: isinstance(raw, str) and bool(raw),
    }
    if kind not in fits:
        # Literal types of rules: the values themselves say what is allowed.
        options = [option for option in kinds if isinstance(option, str)]
        if raw not in options:
            raise Refused(f"{place} = {raw!r} is not one of {', '.join(options)}. Use one of these.")
        return raw
    if not fits[kind]:
        raise Refused(f"{place} = {raw!r} is not {wanted[kind]}. Correct the value.")
    if kind in (int, float) and not _finite(raw):
        raise Refused(f"{place} = {raw!r} is no number to count with. Use a finite one.")
    least, most = item.metadata.get("least"), item.metadata.get("most")
    if kind is int and raw > _MOST:
        raise Refused(f"{place} = {raw!r} is more than any machine has. Use at most {_MOST}.")
    if (least is not None and raw < least) or (most is not None and raw > most):
        span = f"at least {least:.15g}" if most is None else f"{least:.15g} to {most:.15g}"
        raise Refused(f"{place} = {raw!r} is impossible. Use {span}.")
    if kind is Path:
        return (base / raw).resolve()
    return float(raw) if kind is float else raw


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        # A whole number with hundreds of digits.
        return False
