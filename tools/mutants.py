"""Whether the rehearsals see what they are for: faults and harmless changes, put into a copy of the code.

    python -m tools.mutants              all of them; minutes
    python -m tools.mutants autocast     those whose name has one of these words

Every change of what is computed must turn a rehearsal red, no harmless one any. Exits with 1 where it is otherwise.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COPIED = ("paper_tables", "replication", "tests", "toy", "pyproject.toml")
TESTS = "tests/test_rehearsals.py"


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    before: str  # stands in the file exactly once
    after: str
    shown_by: str = ""  # the rehearsals to look at first, as pytest's -k has it; "" for a harmless change


HEEDED = """asks = self.run.recipe.training_recipe.positions.asks_target
        return self.pace(step / self.run.horizon)[0] > 0 or asks"""
MUTANTS = (
    Mutant("all random streams equal", "replication/seeds.py", "[seed, *purpose]", "[seed]", "data"),
    Mutant(
        "training order reversed",
        "replication/training/run_data.py",
        "    if samples.until == 1:\n        return kept_K",
        "    if samples.until == 1:\n        return kept_K[::-1].copy()",
        "data",
    ),
    Mutant(
        "autocast switched off", "replication/machine/device.py", "enabled=self.autocast", "enabled=False", "autocast"
    ),
    Mutant(
        "other rows cached",
        "replication/training/needs.py",
        "data)[: self.sequences]",
        "data)[-self.sequences :]",
        "data",
    ),
    Mutant(
        "gradient probe reports its first point",
        "replication/probes/gradients.py",
        "in points[-1].items()",
        "in points[0].items()",
        "gradients",
    ),
    Mutant(
        "frontier probe measures half of the rows",
        "replication/probes/frontier.py",
        "data)[: run.scale.probe_sequences]",
        "data)[: run.scale.probe_sequences // 2]",
        "frontier",
    ),
    # dcp.load fills the optimiser's own tensors: leaving set_state_dict out would change nothing
    Mutant(
        "optimiser state not restored",
        "replication/model/checkpoint.py",
        "    return int(found[-1].name)",
        "    optimiser.state.clear()\n    return int(found[-1].name)",
        "OneHot or killed",
    ),
    Mutant(
        "Adam's eps 1e-7",
        "replication/training/optimiser.py",
        "weight_decay=0.0, fused=True",
        "weight_decay=0.0, eps=1e-7, fused=True",
        "optimiser",
    ),
    Mutant(
        "weight decay 1e-4",
        "replication/training/optimiser.py",
        "weight_decay=0.0, fused=True",
        "weight_decay=1e-4, fused=True",
        "optimiser",
    ),
    Mutant(
        "rate 0.1 % higher",
        "replication/training/training.py",
        'group["lr"] = rate',
        'group["lr"] = 1.001 * rate',
        "optimiser",
    ),
    Mutant(
        "exponent 0.9999",
        "replication/axes/targets/sampled.py",
        "exponent: float = 1.0",
        "exponent: float = 0.9999",
        "RandomSampling",
    ),
    Mutant(
        "51 draws",
        "replication/axes/targets/sampled.py",
        "counted(draw(teacher_logits_NV, self.draws, generator, self.exponent))",
        "counted(draw(teacher_logits_NV, self.draws + 1, generator, self.exponent))",
        "RandomSampling",
    ),
    Mutant(
        "an error reworded",
        "replication/training/training.py",
        "which does not divide this process's",
        "no divisor of this process's",
    ),
    Mutant(
        "an import moved",
        "replication/training/training.py",
        "from replication.training.optimiser import learning_rate, optimiser_of, refuse_shards\n",
        "from replication.training import optimiser\n\nlearning_rate = optimiser.learning_rate\n"
        "optimiser_of, refuse_shards = optimiser.optimiser_of, optimiser.refuse_shards\n",
    ),
    Mutant(
        "a local name changed",
        "replication/training/training.py",
        HEEDED,
        HEEDED.replace("asks ", "looks ").replace("or asks", "or looks"),
    ),
    Mutant("a progress bar's interval", "replication/training/loop.py", "mininterval=2.0", "mininterval=3.0"),
    Mutant(
        "an error of TailAware reworded",
        "replication/axes/divergences.py",
        "so no tail is left; give fewer.",
        "and no tail is left: give fewer.",
    ),
    Mutant("a name that nothing uses", "replication/axes/samples.py", "SAMPLES = {", "student = None\nSAMPLES = {"),
)


def red(mutants: tuple[Mutant, ...]) -> str:
    """The first rehearsal that is red with all these changes at once, and why; "" where none is."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        for name in COPIED:
            place = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy.mkdir(exist_ok=True)
            place(ROOT / name, copy / name)
        for mutant in mutants:
            apply(mutant, copy / mutant.file)
        first = " or ".join(mutant.shown_by for mutant in mutants if mutant.shown_by)
        for chosen in (["-k", first], []) if first else ([],):
            said = Path(folder, "said.txt")
            if code := run_in(copy, [TESTS, *chosen], said):
                failed = [line for line in said.read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
                return failed[0] if failed else f"pytest says {code}: {said.read_text()[-300:]}"
    return ""


def run_in(copy: Path, chosen: list[str], said: Path) -> int:
    """pytest's verdict on the copy, in a process that has PyTorch already and imports all of ours anew."""
    process = os.fork()
    if process == 0:
        output = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(copy)
        sys.path.insert(0, str(copy))
        for name in [name for name in sys.modules if name.partition(".")[0] in COPIED]:
            del sys.modules[name]
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", f"--rootdir={copy}", *chosen])
        sys.stdout.flush()
        os._exit(int(code))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def apply(mutant: Mutant, path: Path) -> None:
    text = path.read_text()
    if text.count(mutant.before) != 1:
        raise ValueError(
            f"Mutant {mutant.name!r} wants {mutant.before!r} once in {mutant.file}, which has it "
            f"{text.count(mutant.before)} times: adapt the table of tools/mutants.py."
        )
    path.write_text(text.replace(mutant.before, mutant.after))


def main(words: list[str]) -> int:
    for known in ("tests.conftest", "tests.rehearsals"):  # and PyTorch with them: seconds, once for all mutants
        import_module(known)
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    harmless = tuple(mutant for mutant in chosen if not mutant.shown_by)
    # together first, since each is a whole run; one at a time only where that is red
    quiet = bool(harmless) and not red(harmless)
    wrong = 0
    print(f"{'mutant':42} {'wanted':8} found", flush=True)
    for mutant in chosen:
        found = "" if mutant in harmless and quiet else red((mutant,))
        wanted = "red" if mutant.shown_by else "green"
        wrong += (found != "") != (wanted == "red")
        print(f"{mutant.name:42} {wanted:8} {found or 'green'}", flush=True)
    print(f"{len(chosen)} mutants, {wrong} otherwise than wanted")
    return 1 if wrong or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
