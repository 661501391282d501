"""The sealed families, for `evaluate --sealed` alone: looked at once per release, never to choose anything by."""

from collections.abc import Mapping
from types import MappingProxyType

from dicomguard.retrain.sealed import denoiser, fill, kspace
from dicomguard.retrain.tamper.families import Family

_ACQUISITION = Family(name="acquisition", group="sealed", kinds=("added", "removed"), forge=kspace.forge)
_DIFFUSION = Family(name="diffusion", group="sealed", kinds=("added", "removed"), forge=fill.forge)

# The diffusion family needs weights of its own (`sealed.diffusion` trains them) and is left out without their file.
SEALED: Mapping[str, Family] = MappingProxyType(
    {one.name: one for one in ((_ACQUISITION, _DIFFUSION) if denoiser.SHIPPED.is_file() else (_ACQUISITION,))}
)
