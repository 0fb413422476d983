"""Migrate records from format 1 to 2, once: python -m tools.migrate_records [--results FOLDER]. No number changes.

Format 1 named a digest of the source text, format 2 names an integer for each part that decides the numbers. Only
config.json is written anew, by rename; what is in format 2 already is left as it is. 0 if nothing of format 1 is left.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from replication.machine.files import ROOT
from replication.records.record import write

SHARED = ("data", "model", "loss", "optimiser", "delivery", "evaluate")
# Digest of format 1 -> the parts that behaved otherwise than today's, or of which nobody has shown that they did not:
# they get the integer 0, all else 1.
BEFORE: dict[str, tuple[str, ...]] = {
    "cb0781ff41c22665": (),  # 26 November: the source of today
    # 25 November. CE and FullKD, which draw and store nothing, were trained again at today's source to the same bits;
    # draws and their codecs were written anew since
    "5f45cd5a07e9e505": ("delivery",),
    # 22 and 23 November: trained again, losses part at step 20, by another teacher or by anything else
    "64ecacb99be42929": SHARED,
    "5425ad63bc0f167f": SHARED,
    "cf3289d1b1d24d72": SHARED,  # the teacher's own record
    "fc889df4614942cd": SHARED,  # throughput: times, which nobody can repeat
    "e5da6ee133c67334": (),  # costs, which follow from sizes
    # Toys were run again whole, six of each digest. Equal to all digits, or to the rounding of float64:
    "41de2486e44384a3": (),  # fields
    "ecd3c7a2a55544cc": (),  # martingale
    "c2c6808d28bd40e9": (),  # risk
    "70767b146f01fb1d": (),  # zipf, 25 November
    "667d9907e228a526": ("toy.zipf",),  # zipf, 22 November: other draws of the labels
    "4e0dffa801baa6bb": ("toy.listing",),  # other draws
    # what trains for minutes was not run again, and no other digest of it is on file
    "7f9cafcc53576371": (),  # classification
    "94b0af0261e128f9": (),  # cifar
}
# targets that draw otherwise since 26 November, in every study and probe
REDRAWN = ("target.RandomSampling", "target.HeadAndSampledTail")
SAME_DRAWS = ("cb0781ff41c22665", "e5da6ee133c67334")
AXES = ("target", "divergence", "positions", "samples", "schedule", "alignment", "background", "tuning")
OF_STUDENT = ("data", "model", "loss", "optimiser", "evaluate")
# probe -> the shared parts it goes through; any other measures a trained student
PARTS: dict[str, tuple[str, ...]] = {
    "gradients": ("data", "model", "loss", "delivery"),
    "frontier": ("data", "model", "delivery"),
    "storage": ("data", "model", "delivery"),
    "draws": ("data", "model", "delivery"),
    "martingale": ("data", "model"),
    "throughput": ("model", "loss", "optimiser"),
    "cost": (),
}
NO_WEIGHTS = ("throughput", "cost")  # probes whose teacher is only a size
UNDRAWN = ("Full", "OneHot")  # targets of which nothing is drawn or stored


def main(arguments: list[str] | None = None) -> int:
    """0 if nothing of format 1 is left; 2 with one line on stderr for each record that cannot be migrated."""
    top = argparse.ArgumentParser(prog="python -m tools.migrate_records", description=__doc__)
    top.add_argument("--results", type=Path, default=ROOT / "results", help="where <scale>/ and local/<scale>/ are")
    folder = top.parse_args(arguments).results
    found = sorted([*folder.glob("*/*/config.json"), *folder.glob("local/*/*/config.json")])
    done, failed = 0, 0
    for path in found:
        try:
            done += migrate(path)
        except ValueError as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr)
    print(f"{len(found)} records: {done} migrated, {len(found) - done - failed} were in format 2.")
    return 2 if failed else 0


def migrate(path: Path) -> bool:
    """Write a config.json of format 1 anew in format 2; False where it is in format 2 already.

    Raises ValueError, one line, for what is no record of format 1 or 2, and for a digest that BEFORE does not have.
    """
    try:
        before = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}. Delete the folder and run it again.") from None
    if not isinstance(before, dict) or before.get("format") not in (1, 2):
        raise ValueError(f"{path} is of no format that is known (1, 2). Delete the folder and run it again.")
    if before["format"] == 2:
        return False
    if before["code"] not in BEFORE:
        raise ValueError(
            f"{path.parent} was made by source {before['code']}, whose numerics nobody wrote down "
            f"(known: {', '.join(code[:6] for code in BEFORE)}). Delete the folder and run it again."
        )
    write(path, migrated(before))
    return True


def migrated(before: dict[str, Any]) -> dict[str, Any]:
    """A config.json of format 2 from one of format 1."""
    after = {key: value for key, value in before.items() if key not in ("code", "methods", "commit", "packing")}
    source = {"code": before["code"], "methods": before.get("methods", {}), "commit": before["commit"]}
    after |= {"format": 2, "numerics": numerics(before), "inputs": inputs(before), "source": source}
    if trains_or_reads(before["recipe"]):
        after["precision"] = {"products": "unrecorded"}
    return after


def numerics(before: dict[str, Any]) -> dict[str, int]:
    recipe, code = before["recipe"], before["code"]
    parts = [f"{axis}.{recipe[axis]['name']}" for axis in AXES if isinstance(recipe.get(axis), dict)]
    if "toy" in recipe:
        parts.append(f"toy.{recipe['toy']}")
    else:
        probe = recipe["probe"]
        drawn = () if recipe["target"]["name"] in UNDRAWN else ("delivery",)
        parts += PARTS.get(probe, (*OF_STUDENT, *drawn))
        parts += [] if probe == "train" else [f"probe.{probe}"]
    former = (*BEFORE[code], *(() if code in SAME_DRAWS else REDRAWN))
    return {part: 0 if part in former else 1 for part in parts}


def inputs(before: dict[str, Any]) -> dict[str, str]:
    recipe = before["recipe"]
    found = {} if before["packing"] == "none" else {"packing": before["packing"]}
    if trains_or_reads(recipe) and recipe["probe"] not in NO_WEIGHTS and recipe["teacher"] != "none":
        found["teacher"] = f"unrecorded ({before['code'][:6]})"
    return found


def trains_or_reads(recipe: dict[str, Any]) -> bool:
    """Whether a run multiplies weights at all: toys are in float64 or say otherwise, costs run nothing."""
    return "toy" not in recipe and recipe["probe"] != "cost"


if __name__ == "__main__":
    sys.exit(main())
