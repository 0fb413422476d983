"""docs/conformance.md: what `python -m replication conform` says of the losses of other people's trainers.

    pip install --no-deps --target others trl liger_kernel
    PYTHONPATH=others python -m tools.conformance_table

Each stands here as its trainer calls it, with a sparse target in place of what the trainer would have asked a teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional as F

from replication.axes.conformance import VERDICTS, Loss, findings
from replication.axes.divergences import Comparison, ForwardKL, GhostToken
from replication.axes.targets.base import SparseTarget

PLACE = Path(__file__).resolve().parent.parent / "docs" / "conformance.md"
HEAD = """# What other losses do with a sparse target

`python -m replication conform MODULE:FUNCTION` asks this of any loss, also of your own. The table is written by
`python -m tools.conformance_table`, whose adapters show how each loss was called, with:
{versions}.

*right*: the check is passed. *note*: a choice that one should know of. The checks are those of
`replication/axes/conformance.py`, which says what each one does. *coarse* asks the function alone: where a trainer
hands it float32 logits, as accelerate's mixed precision does, its users never meet that fault.

"""


def dense(ids_BLK: Tensor, weights_BLK: Tensor, vocabulary: int) -> Tensor:
    """The target over all classes, for losses that take no other: log of it is -inf where nothing is kept."""
    empty_BLV = torch.zeros(*ids_BLK.shape[:2], vocabulary)
    return empty_BLV.scatter_add(-1, ids_BLK, weights_BLK.float())


def ours(divergence: Comparison) -> Loss:
    def loss(
        logits_BLV: Tensor, ids_BLK: Tensor, weights_BLK: Tensor, labels_BL: Tensor, items: int | None = None
    ) -> Tensor:
        target = SparseTarget(ids_BLK.flatten(0, 1), weights_BLK.flatten(0, 1))
        each_N = divergence(logits_BLV.flatten(0, 1), target)  # type: ignore[operator]
        trained_N = (labels_BL != -100).flatten()
        return (each_N * trained_N).sum() / (trained_N.sum() if items is None else items)

    return loss


def torch_kl_div(logits_BLV: Tensor, ids_BLK: Tensor, weights_BLK: Tensor, labels_BL: Tensor) -> Tensor:
    """As PyTorch's own page recommends it: reduction "batchmean", on [B, L, V]."""
    target_BLV = dense(ids_BLK, weights_BLK, logits_BLV.shape[-1])
    return F.kl_div(logits_BLV.log_softmax(-1), target_BLV, reduction="batchmean")


def trl_gkd(
    logits_BLV: Tensor, ids_BLK: Tensor, weights_BLK: Tensor, labels_BL: Tensor, items: int | None = None
) -> Tensor:
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    teacher_BLV = dense(ids_BLK, weights_BLK, logits_BLV.shape[-1]).log()
    found: Tensor = GKDTrainer.generalized_jsd_loss(
        logits_BLV, teacher_BLV, labels=labels_BL, beta=0, num_items_in_batch=items
    )
    return found


def trl_server(tail: bool) -> Loss:
    def loss(logits_BLV: Tensor, ids_BLK: Tensor, weights_BLK: Tensor, labels_BL: Tensor) -> Tensor:
        from trl.experimental.server_distillation.server_distillation_trainer import ServerDistillationTrainer

        trainer = SimpleNamespace(
            loss_add_tail=tail, _reduce_divergence_loss=ServerDistillationTrainer._reduce_divergence_loss
        )
        teacher = {"topk_logprobs": weights_BLK.log(), "topk_token_ids": ids_BLK}
        found: Tensor = ServerDistillationTrainer._compute_server_forward_kl_loss(
            trainer, teacher, logits_BLV.log_softmax(-1), labels_BL
        )
        return found

    return loss


def liger_jsd(
    logits_BLV: Tensor, ids_BLK: Tensor, weights_BLK: Tensor, labels_BL: Tensor, items: int | None = None
) -> Tensor:
    from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDFunction

    teacher_NV = dense(ids_BLK, weights_BLK, logits_BLV.shape[-1]).log().flatten(0, 1)
    total: Tensor = LigerFusedLinearJSDFunction.distillation_loss_fn(
        logits_BLV.flatten(0, 1), teacher_NV, beta=0.0, target=labels_BL.flatten()
    )
    return total / ((labels_BL != -100).sum() if items is None else items)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "ours, ForwardKL": ours(ForwardKL()),
    "ours, GhostToken": ours(GhostToken()),
    "torch `kl_div`, batchmean": torch_kl_div,
    "TRL GKD, beta 0, on a scattered target": trl_gkd,
    "TRL server distillation, with tail": trl_server(True),
    "TRL server distillation, without tail": trl_server(False),
    "Liger JSD, beta 0, on a scattered target": liger_jsd,
}


def main() -> None:
    found = {name: list(findings(loss)) for name, loss in LOSSES.items()}
    checks = [each.check for each in next(iter(found.values()))]
    packages = ("torch", "trl", "liger_kernel")
    lines = [HEAD.format(versions=", ".join(f"{name} {version(name)}" for name in packages))]
    lines += [f"| loss | {' | '.join(checks)} |\n", f"|---|{'---|' * len(checks)}\n"]
    for name, each in found.items():
        lines.append(f"| {name} | {' | '.join(VERDICTS[one.right] for one in each)} |\n")
    for name, each in found.items():
        lines += [f"\n## {name}\n\n", *(f"* *{one.check}*, {VERDICTS[one.right]}: {one.says}\n" for one in each)]
    PLACE.write_text("".join(lines))


if __name__ == "__main__":
    main()
