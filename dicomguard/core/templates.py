"""Sentences of `english` filled in, and the small change of wording: lists, first letters, parentheses."""

from collections.abc import Mapping, Sequence
from typing import Any

from dicomguard.core import english
from dicomguard.errors import Broken


def say(key: str, **parameters: Any) -> str:
    """A sentence of `english.TEXTS`. Raises `Broken` as `fill` does."""
    return fill(english.TEXTS, key, parameters)


def fill(templates: Mapping[str, str], key: str, parameters: Mapping[str, Any]) -> str:
    """A sentence of one of the tables; `Broken` for an unknown key or a parameter that is not there."""
    template = templates.get(key)
    if template is None:
        raise Broken(
            f'There is no sentence with the key "{key}". Use the version of dicomguard that wrote the verdict.'
        )
    try:
        return template.format_map(parameters)
    except (KeyError, ValueError) as error:
        raise Broken(f'The sentence "{key}" lacks or cannot print a parameter ({error}). Analyse again.') from None


def inside(sentence: str) -> str:
    """A whole sentence as it stands in parentheses: "it is CT, for which …"."""
    bare = sentence.rstrip(". ")
    return f"i{bare[1:]}" if bare.startswith(("It ", "Its ")) else bare


def capital(words: str) -> str:
    """The words with a capital at the beginning."""
    return words[:1].upper() + words[1:]


def listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {english.TEXTS['and']} {words[-1]}"
