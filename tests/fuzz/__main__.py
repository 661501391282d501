"""`python -m tests.fuzz datasets --count 1000 --seed 1 --folder out`: a campaign in a process whose memory is bounded.

Prints one JSON line; what broke lies in the folder, each with the recipe that made it.
"""

import argparse
import json
import logging
import resource
from pathlib import Path

import numpy as np

from dicomguard.analyze.pixels import Reader
from dicomguard.clock import SystemClock
from dicomguard.store.db import Limits, open_store
from tests.fuzz import datasets, pdus, upper_layer
from tests.fuzz.reading import Campaign, LooseDisk

# Address space of the campaign, and of its decoding child.
MEMORY_BYTES = 4 << 30
CHILD_BYTES = 2 << 30
# New seeds beyond this would push the others out.
_MOST_SEEDS = 400
# A stream grows when it is mutated again; it has to fit into the buffers of a socket.
_MOST_STREAM_BYTES = 30_000


def run_datasets(folder: Path, *, count: int, seed: int, report_every: int, rows: bool) -> Campaign:
    """Mutants that ended in a new way become seeds; `rows` takes them through the whole door of a store."""
    mutator = datasets.Mutator(datasets.seeds(), np.random.default_rng(seed))

    def on_new(mutant: datasets.Mutant) -> None:
        if len(mutator.seeds) < _MOST_SEEDS and len(mutant.data) <= datasets.MOST_SEED_BYTES:
            name = mutant.recipe.split("+")[0]
            mutator.seeds.append(datasets.Seed(name, mutant.data, datasets.walk(mutant.data)))

    store = None
    if rows:
        limits = Limits(low_bytes=0, stop_bytes=0)
        store = open_store(folder / "state", "", SystemClock(), limits=limits, disk=LooseDisk())
    with Reader(memory_bytes=CHILD_BYTES, frame_s=10.0) as reader:
        campaign = Campaign(folder, reader, store=store, report_every=report_every)
        whole = {seed.name: seed.data for seed in mutator.seeds}
        campaign.run(datasets.Mutant(name, data) for name, data in whole.items())
        campaign.run(mutator.mutants(count), on_new=on_new)
    if store is not None:
        store.close()
    return campaign


def run_pdus(folder: Path, *, count: int, seed: int, store_every: int) -> upper_layer.Campaign:
    """Streams that were answered in a new way become seeds."""
    rng = np.random.default_rng(seed)
    mutator = pdus.Mutator(pdus.seeds(), rng)

    def on_new(mutant: pdus.Mutant) -> None:
        if len(mutator.seeds) < _MOST_SEEDS and mutant.stream and sum(map(len, mutant.stream)) < _MOST_STREAM_BYTES:
            mutator.seeds.append(mutant.stream)

    limits = Limits(low_bytes=0, stop_bytes=0)
    store = open_store(folder / "state", "", SystemClock(), limits=limits, disk=LooseDisk())
    campaign = upper_layer.Campaign(folder, store, rng, store_every)
    campaign.run([pdus.Mutant("seed", stream) for stream in pdus.seeds()])
    campaign.run(mutator.mutants(count), on_new=on_new)
    campaign.close()
    store.close()
    return campaign


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("what", choices=["datasets", "pdus"])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report-every", type=int, default=1)
    parser.add_argument("--rows", action="store_true", help="through a store instead of the readers alone")
    parser.add_argument("--store-every", type=int, default=0, help="one stream in so many meets the real store")
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    given.folder.mkdir(parents=True, exist_ok=True)
    campaign: Campaign | upper_layer.Campaign
    if given.what == "pdus":
        campaign = run_pdus(given.folder, count=given.count, seed=given.seed, store_every=given.store_every)
    else:
        logging.disable(logging.CRITICAL)
        campaign = run_datasets(
            given.folder, count=given.count, seed=given.seed, report_every=given.report_every, rows=given.rows
        )
    print(json.dumps(campaign.document()))


if __name__ == "__main__":
    main()
