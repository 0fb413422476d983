"""What stands under a name is replaced and the same command given again: nothing old is shown as new, no student has
two teachers. Each of six inputs, after the run had finished and when it was killed half-way; advice is followed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from replication.__main__ import main
from replication.cache.manifest import Plan, read_manifest, write_plan
from replication.data.corpus import open_corpus
from replication.data.tokenizer import open_tokenizer
from replication.experiment.scale import load_scale
from replication.machine.remembered import remembered
from replication.planning.plan import plan
from tests.small import SCALE, write_text
from workflow.__main__ import main as workflow

RECIPE = 'teacher = "teacher"\nstudent = "student"\ntarget = { name = "TopK", k = 5 }\n'
RUN = ["run", "recipe.toml", "--scale", "small.toml"]
MODELS = {"teacher": 1, "student": 2}  # and the seeds of their weights


def write_model(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=64, **shape)).save_pretrained(folder)


def other_weights(model: str) -> None:
    write_model(Path(model), 7)


def other_config() -> None:
    path = Path("teacher/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 0.5}))


def other_tokenizer() -> None:
    for model in MODELS:
        path = Path(model, "tokenizer.json")
        stored = json.loads(path.read_text())
        vocabulary = stored["model"]["vocab"]
        vocabulary["e"], vocabulary["t"] = vocabulary["t"], vocabulary["e"]
        path.write_text(json.dumps(stored))


def other_text() -> None:
    with open("text/abc.txt", "a") as file:
        file.write("# one line more\n")


def other_shard() -> None:
    (path,) = Path("artifacts").rglob("shard-*.bin")
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(raw)


REPLACE: dict[str, Callable[[], None]] = {
    "teacher weights": lambda: other_weights("teacher"),
    "teacher config": other_config,
    "tokenizer": other_tokenizer,
    "text": other_text,
    "student checkpoint": lambda: other_weights("student"),
    "cache shard": other_shard,
}
SAID = {
    "teacher weights": "another teacher teacher (",
    "teacher config": "another teacher teacher (",
    "tokenizer": "another tokenizer teacher (",
    "text": "another text path:text (",
    "student checkpoint": "another student student (",
    "cache shard": "damaged or replaced since",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A folder in which the recipe was run, and one in which it was killed after 7 of its 12 steps."""
    place = tmp_path_factory.mktemp("runs") / "finished"
    write_text(place / "text")
    (place / "small.toml").write_text(SCALE.format(text="text"))
    (place / "recipe.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        settled_in(place, patch)
        tokenizer = open_tokenizer("bpe:300", open_corpus("path:text"), place / "made")
        for model, seed in MODELS.items():
            write_model(place / model, seed)
            tokenizer.save(place / model)
        assert main(RUN) == 0
    killed = place.with_name("killed")
    shutil.copytree(place, killed)
    shutil.rmtree(killed / "results")
    shutil.rmtree(killed / "artifacts/small/models")
    with pytest.MonkeyPatch.context() as patch:
        settled_in(killed, patch)
        step, taken = torch.optim.AdamW.step, []

        def stopping(self: torch.optim.AdamW) -> object:
            taken.append(step)
            if len(taken) > 7:
                raise KeyboardInterrupt
            return step(self)

        patch.setattr(torch.optim.AdamW, "step", stopping)
        assert main(RUN) == 130
    (checkpoint,) = (killed / "artifacts/small/checkpoints").glob("*/*")
    assert checkpoint.name == "000000006"
    yield {"finished": place, "killed": killed}


def settled_in(place: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(place)
    patch.setenv("RESULTS", "results")
    patch.setenv("ARTIFACTS", "artifacts")


def record() -> Path:
    (config,) = Path("results/small").glob("*/config.json")
    return config.parent


def metrics(folder: Path) -> dict[str, float]:
    return dict(json.loads((folder / "summary.json").read_text())["metrics"])


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that was refused; its record is as it was."""
    before = {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(RUN) == 2
    said = capsys.readouterr()
    assert {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()} == before
    assert "lm_loss" not in said.out
    return next(line for line in said.err.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize("state", ["finished", "killed"])
@pytest.mark.parametrize("item", REPLACE)
def test_what_was_replaced_is_noticed_and_the_advice_works(
    item: str,
    state: str,
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "place"
    shutil.copytree(places[state], place)
    settled_in(place, monkeypatch)
    run_id, old = record().name, json.loads((record() / "config.json").read_text())
    REPLACE[item]()
    line = refused(capsys)
    assert SAID[item] in line and "--again" in line, line
    if state == "killed" and item != "cache shard":
        # the first advice: put back what was there, and it goes on to the end that it would have had
        for name in ("text", *MODELS):
            shutil.rmtree(name)
            shutil.copytree(places[state] / name, name)
        assert main(RUN) == 0
        assert metrics(record()) == metrics(next((places["finished"] / "results/small").glob("*/summary.json")).parent)
        return
    assert main([*RUN, "--again"]) == 0
    new = json.loads((record() / "config.json").read_text())
    assert record().name == run_id
    if item == "cache shard":  # built again, to the same bits: the record is of it
        assert new == old
        assert metrics(record()) == metrics(next((places["finished"] / "results/small").glob("*/summary.json")).parent)
        return
    assert (new["inputs"], new["corpus"]) != (old["inputs"], old["corpus"])
    kept = Path(f"results/small/replaced/{run_id}-1")
    assert json.loads((kept / "config.json").read_text()) == old and (kept / "summary.json").exists()
    assert Path(f"artifacts/small/models/replaced/{run_id}-1/model.safetensors").exists()
    assert metrics(record()) != metrics(kept)
    assert main(RUN) == 0  # and is believed from now on


def test_begun_anew_after_a_kill_is_a_run_that_never_knew_the_old_teacher(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --again, and with the record deleted by hand: no step of the old checkpoint is left."""
    found = []
    for name, arguments in (("again", [*RUN, "--again"]), ("deleted", [*RUN, "--again"]), ("fresh", RUN)):
        shutil.copytree(places["killed"], tmp_path / name)
        settled_in(tmp_path / name, monkeypatch)
        other_weights("teacher")
        if name == "deleted":
            shutil.rmtree(record())
        if name == "fresh":
            shutil.rmtree("results")
            shutil.rmtree("artifacts")
        assert main(arguments) == 0
        found.append(metrics(record()))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("state", ["finished", "begun"])
def test_a_cache_of_another_teacher_is_built_anew_where_no_record_knows(
    state: str,
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`run` refuses it, and goes on once `cache build` has put it aside."""
    place = tmp_path / "place"
    shutil.copytree(places["finished"], place)
    settled_in(place, monkeypatch)
    shutil.rmtree("results")
    if state == "begun":
        (folder,) = Path("artifacts/small/caches").iterdir()
        manifest = read_manifest(folder)
        write_plan(folder, Plan(**{key: getattr(manifest, key) for key in Plan.model_fields}))
        (folder / "manifest.json").unlink()
    other_weights("teacher")
    build = ["cache", "build", "recipe.toml", "--scale", "small.toml"]
    capsys.readouterr()
    assert main(RUN) == 2
    assert "This is another cache: teacher is" in (said := capsys.readouterr().err) and "--again" in said
    assert main(build) == 0
    assert main(RUN) == 0
    assert len(list(Path("artifacts/small/caches/replaced").iterdir())) == 1


def test_a_teacher_that_was_trained_here_is_compared_too(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights replaced, the student is made anew; the text replaced, both are."""
    place = tmp_path / "place"
    shutil.copytree(places["finished"], place, ignore=shutil.ignore_patterns("results", "artifacts"))
    settled_in(place, monkeypatch)
    Path("recipe.toml").write_text('target = { name = "TopK", k = 5 }\n')
    assert main(RUN) == 0
    (teacher,) = Path("artifacts/small/models").glob("teacher-*")
    model = LlamaForCausalLM.from_pretrained(teacher)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.save_pretrained(teacher)
    assert "another teacher 3B (" in refused(capsys)
    assert main([*RUN, "--again"]) == 0
    (student,) = Path("results/small/replaced").iterdir()
    assert student.name.startswith("topk")
    other_text()
    assert f"{teacher.name} was made with another text" in refused(capsys)
    assert main([*RUN, "--again"]) == 0
    names = sorted(path.name for path in Path("results/small/replaced").iterdir())
    assert names == sorted([student.name, f"{student.name[:-1]}2", f"{teacher.name}-1"])
    shutil.rmtree("text")  # what is gone was not replaced: the numbers are still those of the record
    assert main(RUN) == 0


def test_artifacts_may_be_deleted(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A student more wants a teacher whose record is done and whose weights are gone: equal ones are made again."""
    place = tmp_path / "place"
    shutil.copytree(places["finished"], place, ignore=shutil.ignore_patterns("results", "artifacts"))
    settled_in(place, monkeypatch)
    summaries = []
    for classes in (5, 6):
        Path("recipe.toml").write_text(f'target = {{ name = "TopK", k = {classes} }}\n')
        assert main(RUN) == 0
        (teacher,) = Path("results/small").glob("teacher-*")
        summaries.append(json.loads((teacher / "summary.json").read_text())["metrics"])
        shutil.rmtree("artifacts")
    assert f"{teacher.name} is made again, since its weights are not in" in capsys.readouterr().err
    assert [path.name for path in Path("results/small/replaced").iterdir()] == [f"{teacher.name}-1"]
    assert summaries[0] == summaries[1]


def test_the_workflow_believes_no_record_of_another_text(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It starts only runs without a record, so it asks before it counts them; its advice takes the record away."""
    place = tmp_path / "place"
    shutil.copytree(places["finished"], place, ignore=shutil.ignore_patterns("results", "artifacts"))
    settled_in(place, monkeypatch)
    run_id = next(iter(plan(["rskd/table06"], load_scale("small.toml"), [0]).runs))
    folder = Path("results/small", run_id)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"corpus": {"name": "path:text", "fingerprint": "0" * 16}}))
    (folder / "summary.json").write_text("{}")
    started: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda command, **_: started.append(command) or 0)
    arguments = ["rskd/table06", "--scale", "small.toml"]
    assert workflow(arguments) == 2
    assert f"{run_id} was made with another text path:text ({'0' * 16} then, " in capsys.readouterr().err
    assert not started and folder.exists()
    assert workflow([*arguments, "--again"]) == 0
    assert len(started) == 1 and not folder.exists()
    assert (folder.parent / "replaced" / f"{run_id}-1" / "summary.json").exists()


def test_what_is_remembered_is_asked_again_only_of_changed_files(tmp_path: Path) -> None:
    file, asked = tmp_path / "file", []
    file.write_text("one")

    def find() -> str:
        asked.append(file.read_text())
        return asked[-1]

    def ask() -> str:
        return remembered("content", [file], find, tmp_path / "known")

    assert [ask(), ask()] == ["one", "one"] and asked == ["one"]
    then = file.stat()
    file.write_text("two")  # as long as before, and with its date
    os.utime(file, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert [ask(), ask()] == ["two", "two"] and asked == ["one", "two"]
    (tmp_path / "new").write_text("two")
    os.replace(tmp_path / "new", file)
    assert ask() == "two" and len(asked) == 3
