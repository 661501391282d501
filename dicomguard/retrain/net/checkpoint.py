"""Checkpoints of a training run: tensors as safetensors, the rest as JSON, replaced atomically.

Two files of one folder: `checkpoint.safetensors` holds weights, their moving average and the optimiser's moments,
with the JSON state in its header, so that both change in one rename.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dicomguard.errors import Broken

_NAME = "checkpoint.safetensors"
_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands."""

    step: int
    # Training seconds so far, over all sittings.
    seconds: float
    seed: int


def save(
    folder: Path, progress: Progress, model: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.AdamW
) -> None:
    """Write a checkpoint beside the old one and rename it into place."""
    tensors: dict[str, Tensor] = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    head = {"state": json.dumps({"schema": _SCHEMA, **asdict(progress)})}
    aside = folder / f".{_NAME}.part"
    save_file(plain, str(aside), metadata=head)
    aside.replace(folder / _NAME)


def load(folder: Path, model: nn.Module, average: dict[str, Tensor], optimiser: torch.optim.AdamW) -> Progress | None:
    """Restore in place; None when the folder has no checkpoint."""
    path = folder / _NAME
    if not path.is_file():
        return None
    with safe_open(str(path), framework="pt") as file:
        state: dict[str, Any] = json.loads((file.metadata() or {}).get("state", "{}"))
        if state.get("schema") != _SCHEMA:
            raise Broken(
                f"{path} has checkpoint schema {state.get('schema')}; this code reads {_SCHEMA}. Start a new run."
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
    model.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
    average.update({name[8:]: value for name, value in tensors.items() if name.startswith("average.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, moment = name.split(".", 2)
            moments.setdefault(int(index), {})[moment] = value
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return Progress(step=int(state["step"]), seconds=float(state["seconds"]), seed=int(state["seed"]))
