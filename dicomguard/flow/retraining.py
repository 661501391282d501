"""A training run, from the frozen list to a candidate that waits for a person: freeze, train, evaluate, decide.

Each step looks for its own finished effect in the run's folder, so a killed node goes on where it was; training itself
resumes from the child's checkpoint. No model judges a study before a second person approved it.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dicomguard import log
from dicomguard.analyze import weights
from dicomguard.analyze.client import software
from dicomguard.clock import Clock
from dicomguard.config import Config
from dicomguard.core import canon
from dicomguard.errors import Broken, Refused, Unavailable
from dicomguard.flow import judge
from dicomguard.flow.engine import RETRAIN, Engine
from dicomguard.retrain import client, figures, promotion, record
from dicomguard.retrain.archive import frozen, golden
from dicomguard.retrain.schedule import Schedule
from dicomguard.store import accounts, ephemeral, models, runs
from dicomguard.store.db import Store

WORKFLOW = "retrain_v1"
FOLDER = "retrain"
# Who asks for the runs of the cron line.
SCHEDULE = "schedule"
ATTEMPTS = 5
_PAUSE_S = 60.0
_PROGRESS_S = 1.0
_FOREVER = datetime(9999, 1, 1, tzinfo=UTC)

_log = log.get("retrain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the configuration says about training."""

    archive: Path | None
    minutes: float
    nice: int
    small: bool
    device: str
    # Overrides the approved and the shipped model.
    weights: Path | None
    bars: promotion.Bars = field(default_factory=promotion.Bars)


class Wall(Protocol):
    """`retrain.client`, or what a test puts in the child's place."""

    def freeze(
        self, archive: Path, out: Path, *, nice: int, progress: client.Progress | None = None
    ) -> dict[str, Any]: ...

    def train(
        self,
        data: Path,
        out: Path,
        *,
        incumbent: Path,
        seed: int,
        minutes: float,
        small: bool,
        device: str,
        version: str,
        nice: int,
        progress: client.Progress | None = None,
        stop: client.Stop | None = None,
    ) -> dict[str, Any]: ...

    def evaluate(
        self,
        data: Path,
        out: Path,
        *,
        weights: Path,
        seed: int,
        small: bool,
        device: str,
        nice: int,
        progress: client.Progress | None = None,
        stop: client.Stop | None = None,
    ) -> dict[str, Any]: ...


class RetrainWork:
    """The steps, with what they need."""

    def __init__(self, *, store: Store, clock: Clock, settings: Settings, wall: Wall) -> None:
        self._store, self._clock, self._settings, self._wall = store, clock, settings, wall

    def run(self, engine: Engine, key: str, attempt: int = 0) -> dict[str, Any]:
        """The workflow of one run; what each step answers is small."""
        steps: tuple[tuple[str, Callable[[], dict[str, Any]]], ...] = (
            ("freeze", lambda: self.freeze(key)),
            ("train", lambda: self.train(key)),
            ("evaluate", lambda: self.evaluate(key)),
            ("decide", lambda: self.decide(key)),
        )
        answer: dict[str, Any] = {}
        for name, step in steps:
            answer = engine.step(name, guarded, name, step, key)
            if answer["outcome"] == "done":
                continue
            if answer["outcome"] == "unavailable" and attempt + 1 < ATTEMPTS:
                engine.enqueue(
                    RETRAIN, WORKFLOW, key, attempt + 1,
                    workflow_id=f"retrain/{key}/a{attempt + 1}", delay_s=_PAUSE_S,
                )  # fmt: skip
            else:
                engine.step("fail", self.fail, key, answer["reason"])
            return answer
        return answer

    # --- steps -----------------------------------------------------------------------------------------------------

    def freeze(self, key: str) -> dict[str, Any]:
        """Name the cases and the incumbent, once."""
        run = self._enter(key, "freezing")
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / frozen.RECORD).is_file():
            archive = self._archive()
            golden.ensure(archive, by=run.started_by, clock=self._clock, disk=self._store.disk)
            self._wall.freeze(archive, folder, nice=self._settings.nice)
        if not (folder / "incumbent.json").is_file():
            path = self._incumbent()
            _write(folder / "incumbent.json", {"path": str(path), "sha256": weights.read_head(path).sha256})
        listed = frozen.Frozen.read(folder)
        _log.event("archive.frozen", run=key, count=len(listed.train), total=len(listed.golden))
        return {"outcome": "done", "archive": listed.head, "cases": len(listed.train), "golden": len(listed.golden)}

    def train(self, key: str) -> dict[str, Any]:
        """Better weights from the incumbent, in a niced child."""
        run = self._enter(key, "training")
        folder = self.folder(key)
        made = self._wall.train(
            folder / frozen.TRAIN,
            folder,
            incumbent=self._frozen_incumbent(folder),
            seed=seed_of(run.period),
            minutes=self._settings.minutes,
            small=self._settings.small,
            device=self._settings.device,
            version=run.period,
            nice=self._settings.nice,
            progress=self._told(key, "training"),
        )
        with self._store.begin() as tx:
            runs.advance(tx, key, "training", now=self._clock.now(), candidate_sha256=made["sha256"])
        _log.event("candidate.trained", run=key, model=made["id"])
        return {"outcome": "done", "candidate": made["sha256"]}

    def evaluate(self, key: str) -> dict[str, Any]:
        """Both models on the golden set, through the production path."""
        self._enter(key, "evaluating")
        folder = self.folder(key)
        for name, path in (
            ("incumbent", self._frozen_incumbent(folder)),
            ("candidate", folder / "candidate.safetensors"),
        ):
            if not (folder / f"{name}-figures.json").is_file():
                _write(folder / f"{name}-figures.json", self._measured(key, name, path).to_json())
        return {"outcome": "done"}

    def decide(self, key: str) -> dict[str, Any]:
        """Propose the candidate or refuse it, with reasons; write the report."""
        folder = self.folder(key)
        with self._store.read() as tx:
            run = _present(runs.row(tx, key), key)
        candidate, incumbent = (_figures(folder / f"{name}-figures.json") for name in ("candidate", "incumbent"))
        decision = promotion.decide(candidate, incumbent, self._settings.bars)
        promoted = isinstance(decision, promotion.Promote)
        listed = frozen.Frozen.read(folder)
        report = record.Report(
            key=key,
            period=run.period,
            started_by=run.started_by,
            candidate=candidate,
            incumbent=incumbent,
            promoted=promoted,
            reasons=decision.reasons,
            frozen=listed.to_json(),
        )
        record.write(folder, report)
        source = folder / "candidate.safetensors"
        kept = models.keep_weights(self._store, source, candidate.weights_sha256) if promoted else ""
        now = self._clock.now()
        with self._store.begin() as tx:
            counts_as = partial(accounts.counts_as, tx, now=now, since=run.started_at)
            row = models.propose(
                tx,
                id=candidate.model_id,
                sha256=candidate.weights_sha256,
                path=kept or str(source.relative_to(self._store.root)),
                decision={
                    "reasons": list(decision.reasons),
                    "people": list(people(run, listed, counts_as=counts_as)),
                    "run": key,
                    "incumbent": incumbent.weights_sha256,
                },
                rejected=not promoted,
                by=run.started_by,
                now=now,
            )
            runs.advance(
                tx,
                key,
                "waiting" if promoted else "refused",
                now=now,
                message=" ".join(decision.reasons),
                report_path=str((folder / record.REPORT).relative_to(self._store.root)),
            )
        _log.event("run.decided", run=key, model=row.id, state="waiting" if promoted else "refused")
        return {"outcome": "done", "promoted": promoted, "reasons": list(decision.reasons)}

    def fail(self, key: str, reason: str) -> dict[str, Any]:
        """End the run without a candidate."""
        with self._store.begin() as tx:
            runs.advance(tx, key, "failed", now=self._clock.now(), message=reason)
        _log.error("run.failed", run=key, reason=reason)
        return {"outcome": "failed"}

    # --- their parts -----------------------------------------------------------------------------------------------

    def folder(self, key: str) -> Path:
        """Where the run keeps what it makes."""
        return self._store.root / FOLDER / key

    def _enter(self, key: str, state: runs.State) -> runs.RunRow:
        with self._store.begin() as tx:
            runs.advance(tx, key, state, now=self._clock.now())
            return _present(runs.row(tx, key), key)

    def _archive(self) -> Path:
        if self._settings.archive is None:
            raise Refused("No archive is configured, so there is nothing to train on. Set archive in [retrain].")
        return self._settings.archive

    def _incumbent(self) -> Path:
        with self._store.read() as tx:
            return judge.weights_in_use(self._store, tx, self._settings.weights)

    def _frozen_incumbent(self, folder: Path) -> Path:
        named = json.loads((folder / "incumbent.json").read_bytes())
        path = Path(named["path"])
        if weights.read_head(path).sha256 != named["sha256"]:
            raise Broken(f"The incumbent {path.name} has changed since the run began. Start a new run.")
        return path

    def _measured(self, key: str, name: str, path: Path) -> promotion.Figures:
        """The figures of one model; taken from an earlier run when that measured the same on the same."""
        folder, head = self.folder(key), weights.read_head(path)
        golden_sha256 = frozen.Frozen.read(folder).golden_sha256
        measured: dict[str, Any] = {
            "golden": golden_sha256,
            "weights": head.sha256,
            "small": self._settings.small,
            "analyze": software().analyze_version,
            "figures": promotion.FIGURES_VERSION,
        }
        known = self._store.root / FOLDER / "figures" / f"{canon.sha256(measured)[:32]}.json"
        if known.is_file():
            return _figures(known)
        report = self._wall.evaluate(
            folder / frozen.GOLDEN,
            folder / name,
            weights=path,
            # The set is frozen with its forgeries: every model is asked about the same ones.
            seed=seed_of(golden_sha256),
            small=self._settings.small,
            device=self._settings.device,
            nice=self._settings.nice,
            progress=self._told(key, "evaluating"),
        )
        found = figures.read(report, model_id=head.id, sha256=head.sha256, golden_sha256=golden_sha256)
        known.parent.mkdir(exist_ok=True)
        _write(known, found.to_json())
        return found

    def _told(self, key: str, state: runs.State) -> client.Progress:
        last = -_PROGRESS_S

        def told(line: Mapping[str, Any]) -> None:
            nonlocal last
            now = self._clock.monotonic()
            if now - last >= _PROGRESS_S:
                last = now
                with self._store.begin() as tx:
                    runs.advance(tx, key, state, now=self._clock.now(), progress=line)

        return told


def guarded(name: str, step: Callable[[], dict[str, Any]], key: str) -> dict[str, Any]:
    """The top of a step: what went wrong becomes its answer, by family."""
    try:
        return step()
    except Unavailable as error:
        _log.warning("step.postponed", run=key, step=name, reason=str(error))
        return {"outcome": "unavailable", "reason": str(error)}
    except (Refused, Broken) as error:
        return {"outcome": "refused" if isinstance(error, Refused) else "broken", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 -- the top of a step
        _log.crashed("step.crashed", run=key, step=name)
        reason = f"A fault of ours in the step {name} ({type(error).__name__}). Send the log to the makers."
        return {"outcome": "broken", "reason": reason}


def people(run: runs.RunRow, listed: frozen.Frozen, *, counts_as: Callable[[str], str]) -> tuple[str, ...]:
    """Who must not approve: the one who started the run, and a curator who alone added all its cases.

    `counts_as` says whom an account counts as: a second account of the same person makes no second curator.
    """
    starter = () if run.started_by == SCHEDULE else (run.started_by,)
    alone = len({counts_as(curator) for curator in listed.curators}) == 1
    return (*starter, *(listed.curators if alone else ()))


def seed_of(name: str) -> int:
    """A seed from the name of what it is for: the period of a run, the hash of a golden set."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1


def register(engine: Engine, store: Store, config: Config, clock: Clock) -> None:
    """Make the workflow known to the engine; before `launch`."""
    settings = Settings(
        archive=config.retrain.archive,
        minutes=config.retrain.minutes,
        nice=config.retrain.nice,
        small=config.retrain.small,
        device=config.analysis.device,
        weights=config.analysis.weights,
    )
    engine.register(WORKFLOW, RetrainWork(store=store, clock=clock, settings=settings, wall=client).run)


def schedule(store: Store, config: Config, clock: Clock) -> contextlib.AbstractContextManager[object]:
    """The cron of the configuration as rows in state `asked`; use it in a `with`. Nothing without an archive."""
    if config.retrain.archive is None or not config.retrain.cron:
        return contextlib.nullcontext()

    def enqueue(period: str) -> None:
        with store.begin() as tx:
            runs.ask(tx, period, by=SCHEDULE, now=clock.now())

    return Schedule(
        enqueue,
        cron=config.retrain.cron,
        timezone=config.node.timezone,
        clock=clock,
        since=_since(store, clock),
    )


def _since(store: Store, clock: Clock) -> datetime:
    """When this node's schedule began: no run is owed for the time before."""
    now = clock.now()
    with store.begin() as tx:
        kept = ephemeral.get(tx, "schedule", "since", now)
        if kept is None:
            ephemeral.put(tx, "schedule", "since", {"at": now.isoformat()}, _FOREVER)
            return now
    return datetime.fromisoformat(str(kept["at"]))


def _present(row: runs.RunRow | None, key: str) -> runs.RunRow:
    if row is None:
        raise Broken(f"The training run {key} has no row. Start a new run.")
    return row


def _figures(path: Path) -> promotion.Figures:
    return promotion.Figures.from_json(json.loads(path.read_bytes()))


def _write(path: Path, value: Mapping[str, Any]) -> None:
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(value), encoding="utf-8")
    aside.replace(path)
