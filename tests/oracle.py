"""The papers' equations as plain float64 NumPy loops, written from the papers' texts. Imports nothing of ours.

One position at a time: `teacher` is t, `student` the student's logits x, `probs` the softmax p, `target` what is kept
of t; all 1-D arrays of length V. Every loss also accepts complex logits, so that `numerical_gradient` can
differentiate it by a complex step, exact to rounding and independent of the gradients printed in the papers.
A name that ends in `_as_printed` is a printed formula or listing that is wrong; its neighbour is what was meant.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Loss = Callable[[Vector], complex]


def numerical_gradient(loss: Loss, logits: Vector) -> Vector:
    """d loss / d x_j = Im loss(x + i h e_j) / h, error of order h^2 = 1e-40; `loss` must be analytic in the logits."""
    step = 1e-20
    gradient = np.zeros(len(logits))
    for j in range(len(logits)):
        moved = logits.astype(np.complex128)
        moved[j] += 1j * step
        gradient[j] = np.imag(loss(moved)) / step
    return gradient


# RS-KD: loss and gradient (App. A.1, A.2)


def softmax(logits: Vector) -> Vector:
    """p_i = exp(x_i) / sum_j exp(x_j); RS-KD A.1."""
    shift = max(value.real for value in logits)
    exponentials = np.array([np.exp(value - shift) for value in logits])
    total = sum(exponentials)
    return np.array([value / total for value in exponentials])


def powered(teacher: Vector, exponent: float) -> Vector:
    """t_i^e / sum_j t_j^e: SALT's temperature rho (above its Eq. 3), RS-KD's proposal t^tau (Section 4)."""
    powers = [t**exponent for t in teacher]
    return np.array([power / sum(powers) for power in powers])


def kl(target: Vector, student: Vector) -> complex:
    """L = sum_i t_i log(t_i / p_i), with 0 log 0 = 0 and t not renormalised; RS-KD Eq. 3 and A.4."""
    probs = softmax(student)
    return sum(t * np.log(t / p) for t, p in zip(target, probs, strict=True) if t > 0)


def kl_gradient(target: Vector, student: Vector) -> Vector:
    """(sum_i t_i) p_j - t_j; RS-KD Eq. 4, which is Eq. 1 for sum t = 1 and Eq. 2 = Eq. 5 for a top-K target."""
    mass, probs = sum(target), softmax(student)
    return np.array([mass * p - t for t, p in zip(target, probs, strict=True)])


def cross_entropy(target: Vector, student: Vector) -> complex:
    """-sum_i t_i log p_i; RS-KD A.2."""
    return -sum(t * np.log(p) for t, p in zip(target, softmax(student), strict=True) if t > 0)


# RS-KD: other divergences (Table 15), for which the paper prints no gradient


def reverse_kl(target: Vector, student: Vector) -> complex:
    """sum_i p_i log(p_i / t_i), for t_i > 0."""
    return sum(p * np.log(p / t) for t, p in zip(target, softmax(student), strict=True))


def forward_reverse_kl(target: Vector, student: Vector, forward_weight: float) -> complex:
    """w KL(t || p) + (1 - w) KL(p || t)."""
    return forward_weight * kl(target, student) + (1 - forward_weight) * reverse_kl(target, student)


def l1(target: Vector, student: Vector) -> complex:
    """sum_i |p_i - t_i|."""
    total: complex = 0.0
    for t, p in zip(target, softmax(student), strict=True):
        total += (p - t) if (p - t).real >= 0 else (t - p)
    return total


def mse(target: Vector, student: Vector) -> complex:
    """sum_i (p_i - t_i)^2: summed, not averaged, over classes."""
    return sum((p - t) ** 2 for t, p in zip(target, softmax(student), strict=True))


# RS-KD: targets (Sections 2 to 4)


def one_hot(label: int, classes: int) -> Vector:
    return np.array([1.0 if i == label else 0.0 for i in range(classes)])


def largest(teacher: Vector, k: int) -> list[int]:
    """The classes of the K largest probabilities, largest first, ties to the lower id."""
    return sorted(range(len(teacher)), key=lambda i: (-teacher[i], i))[:k]


def kept(teacher: Vector, ids: Sequence[int]) -> Vector:
    """t^s_i = t_i on `ids`, else 0."""
    return np.array([teacher[i] if i in ids else 0.0 for i in range(len(teacher))])


def top_k(teacher: Vector, k: int) -> Vector:
    """RS-KD Section 2: not renormalised."""
    return kept(teacher, largest(teacher, k))


def top_p(teacher: Vector, p: float, cap: int) -> Vector:
    """RS-KD Section 2: the fewest largest classes whose mass reaches p, never more than `cap`."""
    ids: list[int] = []
    for i in largest(teacher, min(cap, len(teacher))):
        if sum(teacher[j] for j in ids) >= p:
            break
        ids.append(i)
    return kept(teacher, ids)


def smoothed_top_k(teacher: Vector, k: int) -> Vector:
    """RS-KD 3.1: the residual 1 - sum_K t is spread equally over all V classes."""
    target = top_k(teacher, k)
    residual = 1 - sum(target)
    return np.array([t + residual / len(teacher) for t in target])


def naive_fix(teacher: Vector, k: int, label: int) -> Vector:
    """RS-KD 3.3: the residual goes to the ground truth."""
    target = top_k(teacher, k)
    target[label] += 1 - sum(target)
    return target


def random_sampling(teacher: Vector, drawn: Sequence[int], tau: float) -> Vector:
    """RS-KD Section 4: each draw counts t_i / q_i, q = t^tau normalised; then normalised. tau = 1 gives c_i / N."""
    proposal = powered(teacher, tau)
    target = np.zeros(len(teacher))
    for i in drawn:
        target[i] += teacher[i] / proposal[i]
    return target / sum(target)


def outcomes(classes: int, draws: int) -> Iterator[tuple[int, ...]]:
    """Every vector of counts of `draws` draws over `classes` classes."""
    for bars in itertools.combinations(range(draws + classes - 1), classes - 1):
        edges = (-1, *bars, draws + classes - 1)
        yield tuple(edges[i + 1] - edges[i] - 1 for i in range(classes))


def expected_random_sampling(teacher: Vector, tau: float, draws: int) -> Vector:
    """E[t^s] by enumeration of all multinomial outcomes (small V and N only); equal to t only at tau = 1 (A.6)."""
    proposal = powered(teacher, tau)
    expectation = np.zeros(len(teacher))
    for counts in outcomes(len(teacher), draws):
        chance = float(math.factorial(draws))
        for count, q in zip(counts, proposal, strict=True):
            chance *= q**count / math.factorial(count)
        drawn = [i for i, count in enumerate(counts) for _ in range(count)]
        if chance > 0:
            expectation += chance * random_sampling(teacher, drawn, tau)
    return expectation


def expected_over_counts(chances: Sequence[float], draws: int, value: Callable[[tuple[int, ...]], Vector]) -> Vector:
    """E[value(counts)] over the multinomial of `draws` draws."""
    expectation: Vector = np.zeros(())
    for counts in outcomes(len(chances), draws):
        chance = float(math.factorial(draws))
        for count, q in zip(counts, chances, strict=True):
            chance *= q**count / math.factorial(count)
        if chance > 0:
            expectation = expectation + chance * np.array(value(counts))
    return expectation


def sampled(teacher: Vector, counts: Sequence[int], tau: float, normalise: bool) -> Vector:
    """RS-KD Section 4: count times t_i / q_i, over their sum, or over the number of draws (A.6)."""
    proposal = powered(teacher, tau)
    weights = np.array([c * t / q if c else 0.0 for c, t, q in zip(counts, teacher, proposal, strict=True)])
    return weights / (sum(weights) if normalise else sum(counts))


def variance_of_sampled(teacher: Vector, draws: int, tau: float, normalise: bool) -> float:
    """E |t^s|^2 - |E t^s|^2: the variances of all classes, summed."""
    chances = powered(teacher, tau)
    mean = expected_over_counts(chances, draws, lambda counts: sampled(teacher, counts, tau, normalise))
    square = expected_over_counts(
        chances, draws, lambda counts: np.array(sum(w * w for w in sampled(teacher, counts, tau, normalise)))
    )
    return float(square) - sum(m * m for m in mean)


def entropy_slope(teacher: Vector, exponent: float) -> float:
    """d H(t^e / sum t^e) / de = -e Var[log t]: what an exponent on probabilities does to the entropy."""
    chances, logs = powered(teacher, exponent), [math.log(t) for t in teacher]
    mean = sum(q * log for q, log in zip(chances, logs, strict=True))
    return -exponent * sum(q * (log - mean) ** 2 for q, log in zip(chances, logs, strict=True))


def drawn_by_inverse(teacher: Vector, point: float) -> int:
    """The class on which `point` of [0, 1) falls, in fractions of the teacher's exact sum; never one of chance 0."""
    left = Fraction(float(point)) * sum(Fraction(float(t)) for t in teacher)
    for i, t in enumerate(teacher):
        left -= Fraction(float(t))
        if left < 0:
            return i
    raise AssertionError("a point below one falls on a class")


# draws: the mean over draws of sum_i (weight_i - t_i)^2


def with_replacement_error(teacher: Vector, draws: int) -> float:
    """Each of D draws has variance t_i (1 - t_i) in class i; RS-KD A.6."""
    return sum(float(t * (1 - t)) for t in teacher) / draws


def stratified_error(teacher: Vector, draws: int) -> float:
    """The draw of stratum [d / D, (d + 1) / D) falls on a class with the share of the stratum that the class covers."""
    total, end = 0.0, 0.0
    for t in teacher:
        begin, end = end, end + t
        for d in range(draws):
            covered = draws * max(0.0, min(end, (d + 1) / draws) - max(begin, d / draws))
            total += covered * (1 - covered)
    return total / draws**2


def systematic_error(teacher: Vector, draws: int) -> float:
    """A class's count is D t rounded down, or with a chance of its fraction up."""
    return sum((draws * t % 1) * (1 - draws * t % 1) for t in teacher) / draws**2


def head_and_tail_error(teacher: Vector, k: int, draws: int) -> float:
    """The head is exact; the tail has the error of its own draws, scaled by the square of its mass."""
    tail = np.array([t for i, t in enumerate(teacher) if i not in largest(teacher, k)])
    mass = sum(tail)
    return mass**2 * with_replacement_error(tail / mass, draws) if mass > 0 else 0.0


def l1_error_of_normalised(teacher: Vector, ids: Sequence[int]) -> float:
    """RS-KD A.3: keeping `ids` and renormalising errs by sum_i |t_i - v_i| = 2 (1 - a), a = sum_K t."""
    mass = sum(teacher[i] for i in ids)
    return sum(abs(t - (t / mass if i in ids else 0.0)) for i, t in enumerate(teacher))


# RS-KD: storage (Section 5.5, App. D.1)


def bits(classes: int) -> int:
    """Bits of an id among `classes`."""
    return (classes - 1).bit_length()


def ratio_code_error(probs: Sequence[float]) -> float:
    """L1 error of sorted probabilities, each a ratio to the decoded one before, rounded to the middle of 1/128."""
    error, decoded = 0.0, 1.0
    for p in probs:
        step = min(int(p / decoded * 128), 127)
        decoded = decoded * (2 * step + 1) / 256
        error += abs(p - decoded)
    return error


# RS-KD: ghost token (App. A.5)


def ghost_residual(target: Vector, student: Vector) -> complex:
    """(1 - sum_K t) log((1 - sum_K t) / (1 - sum_K p)), K the classes with t > 0; 0 when no mass is missing."""
    probs, missing = softmax(student), 1 - sum(target)
    if missing <= 0:
        return 0.0
    return missing * np.log(missing / (1 - sum(p for t, p in zip(target, probs, strict=True) if t > 0)))


def ghost(target: Vector, student: Vector) -> complex:
    """sum_K t log(t / p) plus the ghost token's own term; RS-KD A.5."""
    return kl(target, student) + ghost_residual(target, student)


def ghost_residual_gradient(target: Vector, student: Vector) -> Vector:
    """Head: (1 - sum t) p_j. Tail: -(1 - sum t) / (1 - sum p) p_j sum_K p; RS-KD A.5, first pair of cases."""
    probs, missing = softmax(student), 1 - sum(target)
    head = sum(p for t, p in zip(target, probs, strict=True) if t > 0)
    return np.array(
        [missing * p if t > 0 else -missing / (1 - head) * p * head for t, p in zip(target, probs, strict=True)]
    )


def ghost_gradient(target: Vector, student: Vector) -> Vector:
    """Head: p_j - t_j, as FullKD. Tail: p_j sum_K (t - p) / (1 - sum_K p); RS-KD A.5, last pair of cases."""
    probs = softmax(student)
    head = sum(p for t, p in zip(target, probs, strict=True) if t > 0)
    return np.array(
        [p - t if t > 0 else p * (sum(target) - head) / (1 - head) for t, p in zip(target, probs, strict=True)]
    )


def ghost_residual_tail_gradient_as_printed(target: Vector, student: Vector) -> Vector:
    """p_j - (1 - sum t) / (1 - sum p) p_j for the tail, 0 for the head.

    RS-KD A.5's rewriting names it the gradient of L_ghost; it is that of the whole loss.
    """
    probs, missing = softmax(student), 1 - sum(target)
    head = sum(p for t, p in zip(target, probs, strict=True) if t > 0)
    return np.array([0.0 if t > 0 else p - missing / (1 - head) * p for t, p in zip(target, probs, strict=True)])


# TAD


def tad_parts(teacher: Vector, student: Vector, k: int) -> tuple[complex, complex, float]:
    """D_KL1 (K classes and their complement), D_KL2 (the tail, normalised), alpha = 1 - sum_K t; TAD Eq. 2."""
    head, probs = largest(teacher, k), softmax(student)
    tail = [i for i in range(len(teacher)) if i not in head]
    alpha = 1 - sum(teacher[i] for i in head)
    rest = 1 - sum(probs[i] for i in head)
    first = sum(teacher[i] * np.log(teacher[i] / probs[i]) for i in head) + alpha * np.log(alpha / rest)
    second = sum(teacher[i] / alpha * np.log((teacher[i] / alpha) / (probs[i] / rest)) for i in tail if teacher[i] > 0)
    return first, second, alpha


def tad_scale(sequence: Sequence[Vector], k: int, beta: float) -> float:
    """beta(X) = beta / mean_t alpha(t) over the positions of one sequence; TAD Eq. 3."""
    alphas = [1 - sum(teacher[i] for i in largest(teacher, k)) for teacher in sequence]
    return beta / (sum(alphas) / len(alphas))


def tad(teacher: Vector, student: Vector, k: int, scale: float) -> complex:
    """D_KL1 + beta(X) alpha D_KL2 at one position, `scale` = beta(X); TAD Eq. 3. Scale 1 is KL."""
    first, second, alpha = tad_parts(teacher, student, k)
    return first + scale * alpha * second


def tad_gradient(teacher: Vector, student: Vector, k: int, scale: float) -> Vector:
    """Head: p - t. Tail: p - t + (beta(X) - 1) (p (1 - sum_K t) / (1 - sum_K p) - t); TAD Eq. 5, 6."""
    head, probs = largest(teacher, k), softmax(student)
    ratio = (1 - sum(teacher[i] for i in head)) / (1 - sum(probs[i] for i in head))
    gradient = np.zeros(len(teacher))
    for i in range(len(teacher)):
        gradient[i] = probs[i] - teacher[i]
        if i not in head:
            gradient[i] += (scale - 1) * (probs[i] * ratio - teacher[i])
    return gradient


def tad_complement(teacher: Vector, student: Vector, k: int) -> complex:
    """L_{K+1} = (1 - sum_K t) log((1 - sum_K t) / (1 - sum_K p)); TAD App. C."""
    head, probs = largest(teacher, k), softmax(student)
    alpha = 1 - sum(teacher[i] for i in head)
    return alpha * np.log(alpha / (1 - sum(probs[i] for i in head)))


def tad_complement_gradient(teacher: Vector, student: Vector, k: int) -> Vector:
    """Head: p_i alpha. Tail: -p_i alpha / (1 - sum_K p) sum_K p; TAD Eq. 13 as its Eq. 14 needs it."""
    head, probs = largest(teacher, k), softmax(student)
    alpha, student_head = 1 - sum(teacher[i] for i in head), sum(probs[i] for i in head)
    return np.array(
        [p * alpha if i in head else -p * alpha / (1 - student_head) * student_head for i, p in enumerate(probs)]
    )


def tad_complement_gradient_as_printed(teacher: Vector, student: Vector, k: int) -> Vector:
    """TAD Eq. 13: the last sum of the tail runs over the teacher's probabilities instead of the student's."""
    head, probs = largest(teacher, k), softmax(student)
    teacher_head, student_head = sum(teacher[i] for i in head), sum(probs[i] for i in head)
    alpha = 1 - teacher_head
    return np.array(
        [p * alpha if i in head else -p * alpha / (1 - student_head) * teacher_head for i, p in enumerate(probs)]
    )


def tail_growth(teacher: Vector, student: Vector, k: int, scale: float) -> float:
    """How fast the student's tail mass grows if its logits follow minus TAD Eq. 6; dp_i = p_i (dx_i - sum p dx)."""
    probs, step = softmax(student), -tad_gradient(teacher, student, k, scale)
    mean = sum(p * d for p, d in zip(probs, step, strict=True))
    return sum(probs[i] * (step[i] - mean) for i in range(len(teacher)) if i not in largest(teacher, k))


# SE-KD


def entropy(student: Vector) -> float:
    """H(q) = -sum q log q, in nats."""
    return -sum(q * math.log(q) for q in softmax(student))


def top_fraction(scores: Sequence[float], keep: str) -> list[int]:
    """m_t = [u(t) >= threshold], exactly ceil(keep * L) ones of a sequence of L predictions; SE-KD Eq. 6.

    `keep` is a decimal in a string: in floats 0.07 * 100 exceeds 7.
    """
    chosen = math.ceil(Fraction(keep) * len(scores))
    ranked = sorted(range(len(scores)), key=lambda i: -scores[i])[:chosen]
    return [1 if i in ranked else 0 for i in range(len(scores))]


def global_threshold(batches: Sequence[Sequence[float]], keep: str, queue: int, own: bool = True) -> list[list[int]]:
    """m_t = [u(t) >= threshold] of each batch in turn; the threshold is a queue's (1 - keep) quantile ("GLS" in SE-KD).

    The queue holds the last `queue` values, a batch's own among them (Wang et al. 2021, Algorithm 1) or, as in SE-KD's
    code, not; of n values it is that which ceil(keep * n) of them reach. An empty queue rules nothing out.
    """
    recent: list[float] = []
    masks = []
    for batch in batches:
        known = [*recent, *batch][-queue:] if own else recent
        if known:
            threshold = sorted(known, reverse=True)[math.ceil(Fraction(keep) * len(known)) - 1]
            masks.append([1 if value >= threshold else 0 for value in batch])
        else:
            masks.append([1 for _ in batch])
        recent = [*recent, *batch][-queue:]
    return masks


def curriculum(scores: Sequence[float], keep: str, phase: Fraction) -> list[int]:
    """ceil(keep * L) positions of neighbouring ranks, from rank floor((L - that) * phase) on; SE-KD Section 5."""
    chosen = math.ceil(Fraction(keep) * len(scores))
    begin = math.floor((len(scores) - chosen) * phase)
    window = sorted(range(len(scores)), key=lambda i: scores[i])[begin : begin + chosen]
    return [1 if i in window else 0 for i in range(len(scores))]


def z_scores(values: Sequence[float]) -> list[float]:
    """(u - mean) over the population's deviation, in one sequence."""
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return [(value - mean) / deviation for value in values]


def decoupled(target: Vector, student: Vector, label: int, label_weight: float, rest_weight: float) -> complex:
    """alpha KL(label or not) + beta KL(what is not the label, normalised); Zhao et al. 2022, Eq. 6 and 7."""
    probs = softmax(student)
    rest, student_rest = 1 - target[label], sum(p for i, p in enumerate(probs) if i != label)
    first = target[label] * np.log(target[label] / probs[label]) + rest * np.log(rest / student_rest)
    second: complex = 0.0
    for i, (t, p) in enumerate(zip(target, probs, strict=True)):
        if i != label:
            second += t / rest * np.log((t / rest) / (p / student_rest))
    return label_weight * first + rest_weight * second


def adaptive_teaching(
    targets: Sequence[Vector], students: Sequence[Vector], labels: Sequence[int], easy_weight: float, hard: int
) -> complex:
    """lambda mean_easy(second part) + (1 - lambda) mean_hard(both); the `hard` ones trust the label least."""
    ranks = sorted(range(len(labels)), key=lambda n: targets[n][labels[n]])
    of_hard = [decoupled(targets[n], students[n], labels[n], 1, 1) for n in ranks[:hard]]
    of_easy = [decoupled(targets[n], students[n], labels[n], 0, 1) for n in ranks[hard:]]
    return easy_weight * sum(of_easy) / len(of_easy) + (1 - easy_weight) * sum(of_hard) / len(of_hard)


def tempered(target: Vector, student: Vector, temperature: float) -> complex:
    """T^2 KL(t at T || p at T): logits over T in both; Hinton et al. 2015."""
    return temperature**2 * kl(powered(target, 1 / temperature), student / temperature)


def top_samples(entropies: Sequence[Sequence[float]], selected: int) -> list[int]:
    """The `selected` sequences with the highest U_i, the mean over t of H(q_t), in their order; SE-KD Table 1."""
    ranked = sorted(range(len(entropies)), key=lambda i: -sum(entropies[i]) / len(entropies[i]))
    return sorted(ranked[:selected])


SAMPLE_SCORES: dict[str, Callable[[Sequence[Vector], Sequence[Vector], Sequence[int]], float]] = {
    # of a sequence's logits: the student's, another model's, and labels
    "student_entropy": lambda student, other, labels: mean([entropy(q) for q in student]),
    "kl": lambda student, other, labels: mean(
        [float(np.real(kl(softmax(p), q))) for q, p in zip(student, other, strict=True)]
    ),
    # L_student(x) / L_teacher(x); SE-KD Section 2
    "ce_ratio": lambda student, other, labels: mean(losses(student, labels)) / mean(losses(other, labels)),
    # SE-KD's published code (sample_skipper.py)
    "mean_ce_ratio": lambda student, other, labels: mean(
        [mine / (its + 1e-6) for mine, its in zip(losses(student, labels), losses(other, labels), strict=True)]
    ),
}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def losses(logits: Sequence[Vector], labels: Sequence[int]) -> list[float]:
    """-log p(x_t) of each token."""
    return [-math.log(softmax(each)[label]) for each, label in zip(logits, labels, strict=True)]


def difference_score(teacher: Sequence[Vector], reference: Sequence[Vector], labels: Sequence[int]) -> float:
    """(1/L) sum_t log p(x_t) - log p_ref(x_t); MiniPLM (Gu et al. 2025)."""
    return mean([theirs - its for its, theirs in zip(losses(teacher, labels), losses(reference, labels), strict=True)])


def top_accuracy(logits: Sequence[Vector], labels: Sequence[int], k: int) -> float:
    """mean(1{x_t in argtop_k}); SALT Eq. 70."""
    return mean([float(label in largest(each, k)) for each, label in zip(logits, labels, strict=True)])


SIGNALS: dict[str, Callable[[Vector, Vector, int], float]] = {  # (teacher, student, label)
    "student_entropy": lambda teacher, student, label: entropy(student),
    "student_entropy_bfloat16": lambda teacher, student, label: entropy(student),
    "confidence": lambda teacher, student, label: float(teacher[label]),
    "student_ce": lambda teacher, student, label: -math.log(softmax(student)[label]),
    "teacher_entropy": lambda teacher, student, label: -sum(t * math.log(t) for t in teacher),
    "teacher_ce": lambda teacher, student, label: -math.log(teacher[label]),
    "kl": lambda teacher, student, label: float(np.real(kl(teacher, student))),
    "reverse_kl": lambda teacher, student, label: float(np.real(reverse_kl(teacher, student))),
    "entropy_plus_kl": lambda teacher, student, label: float(np.real(kl(teacher, student))) + entropy(student),
    "ce_ratio": lambda teacher, student, label: math.log(softmax(student)[label]) / math.log(teacher[label]),
    "gradient_norm": lambda teacher, student, label: math.sqrt(sum((softmax(student) - teacher) ** 2)),
    "ce_ratio_plus_entropy": lambda teacher, student, label: (
        math.log(softmax(student)[label]) / math.log(teacher[label]) + entropy(student)
    ),
}


def selective_loss(
    losses: Sequence[Sequence[complex]], masks: Sequence[Sequence[int]], selected: Sequence[int]
) -> float:
    """Mean over the selected samples of the mean over their selected positions; SE-KD Eq. 4, 5."""
    total = 0.0
    for row, mask, chosen in zip(losses, masks, selected, strict=True):
        if chosen:
            total += sum(m * loss for m, loss in zip(mask, row, strict=True)) / sum(mask)
    return total / sum(selected)


def selective_position_loss(teacher: Vector, student: Vector, label: int, kd_weight: float) -> complex:
    """lambda KL_C(p || q) + (1 - lambda) CE(y, q), the class subset C being where `teacher` is not 0; SE-KD Eq. 3."""
    hard = cross_entropy(one_hot(label, len(teacher)), student)
    return kd_weight * kl(teacher, student) + (1 - kd_weight) * hard


def hard_token_weights(confidences: Sequence[float], ratio: float, hard: int) -> list[float]:
    """RS-KD 6.3: the `hard` tokens of least confidence learn `ratio` times as fast, the average rate unchanged."""
    least = sorted(range(len(confidences)), key=lambda i: confidences[i])[:hard]
    raw = [ratio if i in least else 1.0 for i in range(len(confidences))]
    return [value * len(raw) / sum(raw) for value in raw]


# TAD: what lies around its divergence


def hidden_cosine(student: Vector, teacher: Vector) -> float:
    """1 - s . t / (|s| |t|) of two hidden states: DistilBERT's cosine loss, added to Eq. 4; TAD 3.2.2."""
    product = sum(s * t for s, t in zip(student, teacher, strict=True))
    return 1 - product / math.sqrt(sum(s * s for s in student)) / math.sqrt(sum(t * t for t in teacher))


def cut_projection(weight: Vector, heads: int, of_head: int, width: int) -> Vector:
    """W[h][i][j] -> W[h][i][j] for i < of_head, j < width: attention truncated for each head; TAD Section 3.2.

    `weight` is [heads * head width, width] as of queries, keys and values; the output's is cut as its transpose.
    """
    before = len(weight) // heads
    found = np.zeros((heads * of_head, width))
    for h in range(heads):
        for i in range(of_head):
            for j in range(width):
                found[h * of_head + i, j] = weight[h * before + i, j]
    return found


# SALT


def salt_loss(
    teachers: Sequence[Vector], students: Sequence[Vector], labels: Sequence[int], omega: float, rho: float
) -> complex:
    """(1 - omega) CE(one-hot, p) + omega CE(t^rho, p), averaged over T positions; SALT Eq. 1, 3, 4."""
    total: complex = 0.0
    for teacher, student, label in zip(teachers, students, labels, strict=True):
        hard = cross_entropy(one_hot(label, len(teacher)), student)
        total += (1 - omega) * hard + omega * cross_entropy(powered(teacher, rho), student)
    return total / len(teachers)


def prefix_loss(losses: Sequence[complex], prefix: int) -> complex:
    """Mean loss of the tokens behind a prefix of so many; losses[j] is of token j + 1. UL2's prefix LM, SALT's data."""
    behind = [loss for token, loss in enumerate(losses, 1) if token >= prefix]
    return sum(behind) / len(behind)


def corrupted_spans(row: Sequence[int], text: Sequence[int], noise: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """(given, to be written) of a row whose spans of text and noise have these lengths, in turn; T5's Figure 2.

    A sentinel is ("span", its number).
    """
    given: list[Any] = []
    written: list[Any] = []
    place = 0
    for number, (kept, taken) in enumerate(zip(text, noise, strict=True)):
        given += [*row[place : place + kept], ("span", number)]
        written += [("span", number), *row[place + kept : place + kept + taken]]
        place += kept + taken
    return given, [*written, ("span", len(noise))]


def salt_decay(progress: float, start: float, until: float, omega: float, ratio: bool) -> float:
    """The weight of distillation where it, or its ratio to the rest, falls linearly to zero; SALT App. K."""
    share = min(1.0, max(0.0, (until - progress) / (until - start)))
    if not ratio:
        return omega * share
    falling = share * omega / (1 - omega)
    return falling / (1 + falling)


def adafactor(weights: Any, gradients: Sequence[Any], rate: float) -> Any:
    """A matrix after these steps of Adafactor (Shazeer and Stern 2018, Algorithm 4), without momentum."""
    rows = columns = 0.0
    for step, gradient in enumerate(gradients, 1):
        decay = 1 - step**-0.8
        squares = gradient**2 + 1e-30
        rows = decay * rows + (1 - decay) * squares.mean(1)
        columns = decay * columns + (1 - decay) * squares.mean(0)
        update = gradient / np.sqrt(np.outer(rows, columns) / np.mean(rows))
        update = update / max(1.0, float(np.sqrt((update**2).mean())))
        weights = weights - rate * max(1e-3, float(np.sqrt((weights**2).mean()))) * update
    return weights


def salt_weights(step: int, kd_steps: int, omega: float) -> tuple[float, float]:
    """(distillation, cross-entropy) weights at step 1, 2, ..., n: KD for the first n_KD steps; SALT Algorithm 1."""
    return (omega, 1 - omega) if step <= kd_steps else (0.0, 1.0)


def salt_last_difference(truth: Vector, teacher: Vector, student: Vector, omega: float) -> tuple[float, float, float]:
    """E[xi_T^2] from its definition, (1 - omega)^2 Var and the printed (1 - omega) Var, for T = 1; SALT Eq. 68, 69."""
    losses = []
    for label in range(len(truth)):
        mixed = [(1 - omega) * hot + omega * t for hot, t in zip(one_hot(label, len(truth)), teacher, strict=True)]
        losses.append(float(np.real(cross_entropy(np.array(mixed), student))))
    mean = sum(d * loss for d, loss in zip(truth, losses, strict=True))
    second_moment = sum(d * (mean - loss) ** 2 for d, loss in zip(truth, losses, strict=True))
    logs = [math.log(p) for p in softmax(student)]
    centre = sum(d * log for d, log in zip(truth, logs, strict=True))
    variance = sum(d * (log - centre) ** 2 for d, log in zip(truth, logs, strict=True))
    return second_moment, (1 - omega) ** 2 * variance, (1 - omega) * variance


def salt_score(probs: Sequence[Vector], labels: Sequence[int], k: int) -> float:
    """The median loss of the labels among the k most probable classes; SALT Eq. 10 as its text has it."""
    losses = sorted(-math.log(row[y]) for row, y in zip(probs, labels, strict=True) if y in largest(row, k))
    middle = len(losses) // 2
    return losses[middle] if len(losses) % 2 else (losses[middle - 1] + losses[middle]) / 2


def salt_score_as_printed(probs: Sequence[Vector], labels: Sequence[int], k: int) -> float:
    """The formula of SALT Eq. 10: a loss times an indicator that is zero stays in the set, as zero."""
    every = sorted(-math.log(row[y]) * (y in largest(row, k)) for row, y in zip(probs, labels, strict=True))
    middle = len(every) // 2
    return every[middle] if len(every) % 2 else (every[middle - 1] + every[middle]) / 2


# SALT on a language of V^T sequences. A model is a table: row 0 for the first token, row 1 + v after token v.

Tokens = tuple[int, ...]


def rows(table: Sequence[Vector], tokens: Tokens) -> list[Vector]:
    """The row used at each position of a sequence."""
    return [table[0] if t == 0 else table[1 + tokens[t - 1]] for t in range(len(tokens))]


def sentences(truth: Sequence[Vector], length: int) -> dict[Tokens, float]:
    """Every sequence with its chance, by the chain rule."""
    chances = {}
    for tokens in itertools.product(range(len(truth[0])), repeat=length):
        chances[tokens] = math.prod(row[x] for row, x in zip(rows(truth, tokens), tokens, strict=True))
    return chances


def sentence_loss(
    student: Sequence[Vector], teacher: Sequence[Vector], tokens: Tokens, omega: float, rho: float
) -> float:
    """l^omega(x); SALT Eq. 4. Logarithms of probabilities are logits of them."""
    logits = [np.array([math.log(p) for p in row]) for row in rows(student, tokens)]
    return float(np.real(salt_loss(rows(teacher, tokens), logits, tokens, omega, rho)))


def known(losses: dict[Tokens, float], chances: dict[Tokens, float], prefix: Tokens) -> float:
    """E[loss | the sequence begins with `prefix`]."""
    fitting = [x for x in chances if x[: len(prefix)] == prefix]
    return sum(chances[x] * losses[x] for x in fitting) / sum(chances[x] for x in fitting)


def salt_differences(losses: dict[Tokens, float], chances: dict[Tokens, float], x: Tokens) -> list[float]:
    """xi_1 ... xi_T of a sequence that may occur; SALT Eq. 8."""
    return [known(losses, chances, x[:t]) - known(losses, chances, x[: t + 1]) for t in range(len(x))]


def salt_second_moments(losses: dict[Tokens, float], chances: dict[Tokens, float], t: int) -> dict[Tokens, float]:
    """E[xi_{t+1}^2 | the first t tokens], for every beginning that may occur."""
    moments: dict[Tokens, float] = {}
    for prefix in {x[:t] for x, chance in chances.items() if chance > 0}:
        fitting = {x: chance for x, chance in chances.items() if x[:t] == prefix and chance > 0}
        square = sum(chance * salt_differences(losses, chances, x)[t] ** 2 for x, chance in fitting.items())
        moments[prefix] = square / sum(fitting.values())
    return moments


def samples(losses: dict[Tokens, float], chances: dict[Tokens, float], size: int) -> list[tuple[float, float]]:
    """The mean loss of every training sample of `size` sequences, and the sample's chance."""
    found = []
    for sample in itertools.product(chances, repeat=size):
        found.append((sum(losses[x] for x in sample) / size, math.prod(chances[x] for x in sample)))
    return found


def wrong_tokens(truth: Sequence[Vector], student: Sequence[Vector], length: int) -> float:
    """The expected number of tokens that are not the student's most probable one; SALT Eq. 63."""
    total = 0.0
    for tokens, chance in sentences(truth, length).items():
        total += chance * sum(int(np.argmax(row)) != x for row, x in zip(rows(student, tokens), tokens, strict=True))
    return total


# RS-KD App. K: the listings


def listed_draws_as_printed(drawn: Sequence[int], classes: int) -> Vector:
    """Each drawn id is *set* to 1/N, so that a repeated draw counts once."""
    target = np.zeros(classes)
    for i in drawn:
        target[i] = 1 / len(drawn)
    return target


def listed_draws(drawn: Sequence[int], classes: int) -> Vector:
    """Each draw *adds* 1/N: c_i / N of Section 4."""
    target = np.zeros(classes)
    for i in drawn:
        target[i] += 1 / len(drawn)
    return target


def listed_loss_as_printed(targets: Sequence[Vector], students: Sequence[Vector]) -> float:
    """The KL divergence summed over batch and classes, divided by batch x classes."""
    total = sum(float(np.real(kl(t, x))) for t, x in zip(targets, students, strict=True))
    return total / (len(targets) * len(targets[0]))


def listed_loss(targets: Sequence[Vector], students: Sequence[Vector]) -> float:
    """The mean over the batch of Section 4's sum over classes."""
    return sum(float(np.real(kl(t, x))) for t, x in zip(targets, students, strict=True)) / len(targets)


def listed_mixture_as_printed(alpha: float, ce_loss: float, kd_loss: float) -> float:
    """The listing weighs the distillation loss with alpha."""
    return alpha * kd_loss + (1 - alpha) * ce_loss


def listed_mixture(alpha: float, ce_loss: float, kd_loss: float) -> float:
    """Section 6.3: alpha is the weight of the cross-entropy."""
    return alpha * ce_loss + (1 - alpha) * kd_loss


def toy_sampling_as_printed(rounds: Sequence[Sequence[int]], classes: int) -> tuple[Vector, float]:
    """The toy loop with the printed indentation: counting, dividing and adding happen after every single draw."""
    total, unique = np.zeros(classes), 0.0
    for drawn in rounds:
        current = np.zeros(classes)
        for i in drawn:
            current[i] += 1
            unique += np.count_nonzero(current)
            current /= len(drawn)
            total += current
    return total / sum(total), unique / len(rounds)


def toy_sampling(rounds: Sequence[Sequence[int]], classes: int) -> tuple[Vector, float]:
    """The toy loop as meant: once per round. Returns the mean target and the mean number of unique classes."""
    total, unique = np.zeros(classes), 0.0
    for drawn in rounds:
        current = np.zeros(classes)
        for i in drawn:
            current[i] += 1
        unique += np.count_nonzero(current)
        total += current / len(drawn)
    return total / sum(total), unique / len(rounds)


# What ours are compared with, by the name of the class; the further arguments are its fields. A divergence: the loss of
# one position. A target that draws nothing: its weights. A draw: its squared error, the mean over draws.

DIVERGENCES: dict[str, Callable[..., complex]] = {
    "ForwardKL": kl,
    "ReverseKL": reverse_kl,
    "ForwardReverseKL": forward_reverse_kl,
    "L1": l1,
    "MSE": mse,
    "GhostToken": ghost,
    "Tempered": tempered,
}
TARGETS: dict[str, Callable[..., Vector]] = {
    "OneHot": lambda teacher, label: one_hot(label, len(teacher)),
    "Full": lambda teacher, label, exponent: powered(teacher, exponent),
    "TopK": lambda teacher, label, k: top_k(teacher, k),
    "TopP": lambda teacher, label, p, cap, exponent: top_p(powered(teacher, exponent), p, cap),
    "SmoothedTopK": lambda teacher, label, k: smoothed_top_k(teacher, k),
    "NaiveFix": lambda teacher, label, k: naive_fix(teacher, k, label),
}
SQUARED_ERRORS: dict[str, Callable[..., float]] = {
    "RandomSampling": lambda teacher, draws, exponent: with_replacement_error(teacher, draws),
    "Stratified": stratified_error,
    "Systematic": systematic_error,
    "HeadAndSampledTail": head_and_tail_error,
    "HeadAndCountedTail": head_and_tail_error,
}


def minillm_tokens(
    log_student: float, log_teacher: float, share: float, scaling: float, clip: float
) -> tuple[float, float]:
    """(importance weight, reward) of one token that student and teacher wrote together (Gu et al. 2024, its code)."""
    student, teacher = math.exp(log_student), math.exp(log_teacher)
    reward = (log_teacher - log_student) / scaling
    return student / ((1 - share) * student + share * teacher), max(-clip, min(clip, reward))


def minillm_advantages(
    rewards: list[list[float]], wrote: list[list[bool]], room: list[list[bool]], discount: float
) -> list[list[float]]:
    """Sum over i >= t of discount^(i - t) r_i over the number of tokens from t on, then whitened over all of `room`."""
    plain = []
    for row, written in zip(rewards, wrote, strict=True):
        found = []
        for t in range(len(row)):
            ahead = sum(discount ** (i - t) * row[i] for i in range(t, len(row)))
            found.append(ahead / max(1, sum(written[t:])))
        plain.append(found)
    places = [
        value for row, there in zip(plain, room, strict=True) for value, one in zip(row, there, strict=True) if one
    ]
    mean = sum(places) / len(places)
    spread = sum((value - mean) ** 2 for value in places) / len(places)
    return [[(value - mean) / math.sqrt(spread + 1e-8) for value in row] for row in plain]


def minillm_surrogate(
    new: list[list[float]],
    old: list[list[float]],
    weight: list[list[float]],
    advantage: list[list[float]],
    wrote: list[list[bool]],
    clip: float,
) -> float:
    """The mean over written tokens of max(-A w ratio, -A clip(w ratio)) (PPO, with MiniLLM's weight in the clip)."""
    terms = []
    for b, row in enumerate(wrote):
        for t, written in enumerate(row):
            if written:
                ratio = weight[b][t] * math.exp(new[b][t] - old[b][t])
                inside = max(1 - clip, min(1 + clip, ratio))
                terms.append(max(-advantage[b][t] * ratio, -advantage[b][t] * inside))
    return sum(terms) / len(terms)
