"""The live lines of running jobs: what they say, and a Snakemake in a terminal that shows them."""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

import xlift
from xlift.live import MOST, TAIL, LiveLines, follow, last_line

SNAKEFILE = """
rule all:
    input: "good", "bad"
rule work:
    output: "{name}"
    log: "logs/work/{name}.log"
    shell: "echo 'step 1/9  9 s left' > {log}; sleep {config[seconds]}; test {wildcards.name} = good; touch {output}"
"""


def test_a_line_for_each_running_job(tmp_path):
    now = [100.0]
    live = LiveLines(io.StringIO(), lambda: now[0])
    log = tmp_path / "logs" / "train_target" / "xnli" / "x1" / "seed1.log"
    follow(live, {"event": LogEvent.JOB_INFO, "jobid": 7, "rule_name": "train_target", "log": [str(log)]})
    now[0] += 90
    follow(live, {"event": LogEvent.JOB_INFO, "jobid": 8, "rule_name": "score_cells", "log": []})
    follow(live, {"event": None, "msg": "a record of no job"})
    assert live.lines() == ["> train_target xnli/x1/seed1  90 s", "> score_cells  0 s"]
    log.parent.mkdir(parents=True)
    log.write_text("step 10/40  loss 1.0\nstep 20/40  loss 0.9\n\n")
    assert live.lines()[0] == "> train_target xnli/x1/seed1  90 s  step 20/40  loss 0.9"
    follow(live, {"event": LogEvent.JOB_FINISHED, "job_id": 7})
    assert live.lines() == ["> score_cells  0 s"]
    follow(live, {"event": LogEvent.JOB_ERROR, "jobid": 8})
    assert live.lines() == []


def test_lines_take_the_place_of_those_before_and_are_cut_to_the_terminal(monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((10, 24)))
    stream = io.StringIO()
    live = LiveLines(stream, lambda: 0.0)
    live.begin(1, "train_target", None)
    live.begin(2, "b", None)
    live.draw()
    live.end(1)
    live.draw()
    live.erase()
    live.erase()
    assert stream.getvalue() == "> train_t\n> b  0 s\n\r\033[2A\033[J> b  0 s\n\r\033[1A\033[J"


def test_many_jobs_are_counted():
    live = LiveLines(io.StringIO(), lambda: 0.0)
    for number in range(MOST + 3):
        live.begin(number, "r", None)
    assert len(live.lines()) == MOST + 1
    assert live.lines()[-1] == "> and 3 more"


def test_the_last_line_of_a_long_log(tmp_path):
    log = tmp_path / "a.log"
    assert last_line(log) == ""
    log.write_text("x" * 3 * TAIL + "\nthe end \n")
    assert last_line(log) == "the end"


def in_terminal(folder: Path, *options: str, stop: bool = False) -> tuple[int, str]:
    """Run Snakemake in a terminal; Control-C is typed once it shows a running job's progress, with `stop`."""
    (folder / "Snakefile").write_text(SNAKEFILE)
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(Path(xlift.__file__).parents[1])
        os.execv(sys.executable, [sys.executable, "-m", "snakemake", "--cores", "2", "--logger", "xlift", *options])
    said, typed, ends = b"", False, time.monotonic() + 300
    while time.monotonic() < ends:
        try:
            some = os.read(terminal, 65536)
        except OSError:  # how the terminal of a process that ended reads
            break
        if not some:
            break
        said += some
        if stop and not typed and b"9 s left" in said:
            os.write(terminal, b"\x03")
            typed = True
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said.decode()


@pytest.mark.timeout(400)
def test_a_study_in_a_terminal_shows_its_jobs_and_ends_with_snakemakes_code(tmp_path):
    code, said = in_terminal(tmp_path, "--keep-going", "--config", "seconds=4")
    assert code == 1
    line = r"> work (good|bad)  [0-9]+ s  step 1/9  9 s left\r\n"
    assert re.search(rf"{line}{line}\r\033\[2A", said)
    assert "Error in rule work" in said
    assert (tmp_path / "good").exists()
    # Nothing of the lines is left at the end, and no traceback.
    assert "> work" not in said[said.rindex("\033[J") :]
    assert "Traceback" not in said


@pytest.mark.timeout(400)
def test_control_c_reaches_snakemake_and_its_jobs(tmp_path):
    code, said = in_terminal(tmp_path, "--config", "seconds=250", stop=True)
    assert code in (1, 130, -signal.SIGINT)
    assert "Traceback" not in said
    assert not (tmp_path / "good").exists()
