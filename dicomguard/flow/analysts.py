"""As many warm analysis children as studies are judged at once; a job waits for a free one."""

import queue
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from dicomguard.analyze.client import Analyst
from dicomguard.core.job import AnalysisJob, AnalysisReport


class Analysts:
    """A fixed number of children, each started with its first job. Use it in a `with`."""

    def __init__(self, count: int) -> None:
        self._free: queue.Queue[Analyst] = queue.Queue(maxsize=count)
        self._all = ExitStack()
        for _ in range(count):
            self._free.put(self._all.enter_context(Analyst()))

    def analyse(
        self, job: AnalysisJob, *, on_progress: Callable[[int, int], None] | None, stop: Callable[[], bool] | None
    ) -> AnalysisReport:
        """One job by the next free child; the study queue admits no more jobs than there are children."""
        analyst = self._free.get(timeout=job.deadline_s)
        try:
            return analyst.run(job, on_progress=on_progress, stop=stop)
        finally:
            self._free.put(analyst)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.close()
