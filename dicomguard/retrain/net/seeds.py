"""Every source of chance of a run, from its one seed.

A batch is a function of (seed, step): a run that stops and resumes sees the batches it would have seen.
"""

import numpy as np
import torch

# Streams: numbers that keep the generators of different uses apart.
_BATCHES, _VALIDATION = 1, 2


def seed_torch(seed: int) -> None:
    """Seed torch and ask for deterministic kernels where there are any."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def batch_generator(seed: int, step: int) -> np.random.Generator:
    """The generator of one training batch."""
    return np.random.default_rng([seed, _BATCHES, step])


def validation_generator(seed: int, item: int) -> np.random.Generator:
    """The generator of one forged validation or test item; never the one of a training batch."""
    return np.random.default_rng([seed, _VALIDATION, item])
