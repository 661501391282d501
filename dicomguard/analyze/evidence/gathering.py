"""All evidence of a study, numbered, each with its false alarms on authentic studies."""

from collections.abc import Sequence

from dicomguard.analyze.evidence import headers, order
from dicomguard.analyze.evidence.alarms import FALSE_ALARMS
from dicomguard.analyze.evidence.facts import Facts, Found
from dicomguard.core.finding import Evidence

# Sentences name slices; beyond this the list says nothing more.
_MOST_SLICES = 50


def gather(stacks: Sequence[Sequence[Facts]], seen: Sequence[Found] = ()) -> tuple[Evidence, ...]:
    """All evidence of a study.

    Each stack holds the decoded slices of one series in order along the normal; `seen` is what `inspect` found in the
    pixels of the stacks.
    """
    everything = [item for stack in stacks for item in stack]
    found = [*headers.of_study(everything), *order.repeats(everything)]
    for stack in stacks:
        found += [*order.of_stack(stack), *headers.of_stack(stack)]
    found += seen
    return tuple(
        Evidence(
            id=f"E{number}",
            kind=item.kind,
            strength=item.strength,
            sentence_key=item.kind,
            parameters=item.parameters,
            slices=item.slices[:_MOST_SLICES],
            authentic_false_alarms=FALSE_ALARMS[item.kind],
        )
        for number, item in enumerate(found, start=1)
    )
