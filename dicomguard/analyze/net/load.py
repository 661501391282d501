"""Weights file ↔ network, and where the network runs: device, half precision.

Stored in half precision (safetensors, no pickle); the JSON head is read by `analyze.weights` without torch.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from dicomguard.analyze import weights
from dicomguard.analyze.net.model import Network
from dicomguard.errors import Broken, Refused


def best_device(asked: str) -> torch.device:
    """The device asked for; "" is CUDA where there is one."""
    if asked:
        if asked.startswith("cuda") and not torch.cuda.is_available():
            raise Refused(f'Device "{asked}" is not there. Use "cpu", or leave the device empty.')
        return torch.device(asked)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision where the hardware multiplies in it: bfloat16 on CUDA and on CPUs with AMX."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Float32 tensors of a weights file, checked against the architecture in its head."""
    weights.check(weights.read_head(path), path.name)
    return {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}


def load_network(path: Path, device: torch.device) -> Network:
    """The network of a weights file, ready to run."""
    network = Network()
    try:
        network.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        raise Broken(f"The tensors of {path.name} do not fit the network it names. Restore the file.") from error
    return network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]
