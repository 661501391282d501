import sys
from pathlib import Path

import pytest

from dicomguard.errors import Broken, Refused, Unavailable
from dicomguard.retrain import client, record


def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, **given: object) -> dict[str, object]:
    """The client against a child that a test writes."""
    (tmp_path / "stand_in.py").write_text(
        f"from dicomguard import child\nimport time\nch = child.parent()\njob = ch.receive(9)\n{body}"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3]}")
    options = {"nice": 0, "cpu_s": 20.0, "progress": None, "stop": None, "module": "stand_in", **given}
    return client._ask({"kind": "x"}, **options)  # type: ignore[arg-type]


def test_progress_and_answer_pass_the_wall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    body = 'ch.send({"alive": True})\nch.send({"progress": {"step": 1}})\nch.send({"done": {"kind": job["kind"]}})\n'
    assert ask(tmp_path, monkeypatch, body, progress=seen.append) == {"kind": "x"}
    assert seen == [{"step": 1}]


@pytest.mark.parametrize(("family", "error"), [("Refused", Refused), ("Unavailable", Unavailable), ("Odd", Broken)])
def test_errors_keep_their_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match="So it is"):
        ask(tmp_path, monkeypatch, f'ch.send({{"error": "{family}", "message": "So it is. Do that."}})\n')


@pytest.mark.parametrize(
    ("body", "given", "sentence"),
    [
        ("import os; os._exit(3)\n", {}, "ended with status 3.*resumes from its last checkpoint"),
        ("time.sleep(60)\n", {"silence_s": 1.0}, "said nothing for 1 s"),
        ("time.sleep(60)\n", {"stop": lambda: True}, "was stopped"),
    ],
)
def test_death_silence_and_stop_are_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, given: dict[str, object], sentence: str
) -> None:
    with pytest.raises(Unavailable, match=sentence):
        ask(tmp_path, monkeypatch, body, **given)


def test_the_real_child_refuses_an_unknown_job(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sys.executable
    with pytest.raises(Broken, match='The job "x" is unknown'):
        client._ask({"kind": "x"}, nice=0, cpu_s=60.0, progress=None, stop=None)


def test_curve_is_thinned_and_survives_a_half_written_line(tmp_path: Path) -> None:
    lines = [f'{{"step": {n}, "losses": {{"a": {1000 - n}, "b": 0.5}}}}' for n in range(1000)]
    (tmp_path / record.PROGRESS).write_text("\n".join(lines) + '\n{"step": 10')
    kept = record.progress(tmp_path)
    assert len(kept) <= 502 and kept[0]["step"] == 0 and kept[-1]["step"] == 999
    assert "Loss 1000.500 at step 0, 1.500 at step 999" in record.curve(kept)
    assert record.progress(tmp_path / "none") == []
    assert "Too few steps" in record.curve([])
