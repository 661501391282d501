"""What the files themselves say, beside the network: `inspect` looks at pixels, `gather` at the rest.

Pure: facts in, sentences out. It knows no score and changes none. Each kind says how often authentic studies show it;
`python -m dicomguard.analyze.counting FOLDER` counts it.
"""

from dicomguard.analyze.evidence.facts import Facts, Found
from dicomguard.analyze.evidence.gathering import gather
from dicomguard.analyze.evidence.pixels import inspect

__all__ = ["Facts", "Found", "gather", "inspect"]
