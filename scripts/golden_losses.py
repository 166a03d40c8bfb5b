#!/usr/bin/env python3
"""Writes tests/unit/train/golden/losses.h: losses and their gradients by PyTorch, metrics by their definitions.

For each loss a batch of predictions with targets and row weights: the loss of each row, the weighted mean over the
rows, and its gradient by the predictions, computed by PyTorch in float64 from float32 numbers. For the metrics of a
classification, predictions with many ties: precision, recall and F1 by class and their means over the classes that
occur, top k, and the area under the ROC curve as the share of pairs in the right order (ties count half), in numpy.
Needs torch (made with 1.13) and numpy.
"""
import pathlib
import sys

import numpy
import torch
import torch.nn.functional as F

ROWS = 7


def numbers(values):
    return ", ".join(repr(float(v)) for v in numpy.asarray(values, dtype=numpy.float64).ravel())


def floats(values):
    return ", ".join(repr(float(v)) + "f" for v in numpy.asarray(values, dtype=numpy.float32).ravel())


def smooth(t, a):
    return t * (1 - a) + a / 2


# name, engine's loss, outputs, parameter, targets, loss of each row
CASES = [
    ("cross_entropy", "CROSS_ENTROPY", 5, 0.0, "label", lambda x, t, a: F.cross_entropy(x, t, reduction="none")),
    ("cross_entropy, smoothed", "CROSS_ENTROPY", 19, 0.15, "label",
     lambda x, t, a: F.cross_entropy(x, t, reduction="none", label_smoothing=a)),
    ("bce", "BCE", 3, 0.0, "share",
     lambda x, t, a: F.binary_cross_entropy_with_logits(x, t, reduction="none").mean(1)),
    ("bce, smoothed", "BCE", 17, 0.2, "share",
     lambda x, t, a: F.binary_cross_entropy_with_logits(x, smooth(t, a), reduction="none").mean(1)),
    ("mse", "MSE", 4, 0.0, "number", lambda x, t, a: F.mse_loss(x, t, reduction="none").mean(1)),
    ("mae", "MAE", 18, 0.0, "number", lambda x, t, a: F.l1_loss(x, t, reduction="none").mean(1)),
    ("huber", "HUBER", 18, 1.0, "number", lambda x, t, a: F.huber_loss(x, t, reduction="none", delta=a).mean(1)),
    ("huber, delta 0.3", "HUBER", 2, 0.3, "number",
     lambda x, t, a: F.huber_loss(x, t, reduction="none", delta=a).mean(1)),
    ("hinge", "HINGE", 1, 0.0, "side", lambda x, t, a: torch.clamp(1 - (2 * t - 1) * x, min=0).mean(1)),
    ("multi_margin", "MULTI_MARGIN", 21, 0.0, "label", lambda x, t, a: F.multi_margin_loss(x, t, reduction="none")),
    ("poisson", "POISSON", 3, 0.0, "count",
     lambda x, t, a: F.poisson_nll_loss(x, t, log_input=True, full=False, reduction="none").mean(1)),
    ("quantile", "QUANTILE", 3, 0.9, "number",
     lambda x, t, a: torch.maximum(a * (t - x), (a - 1) * (t - x)).mean(1)),
    ("kl_div", "KL_DIV", 20, 0.0, "distribution",
     lambda x, t, a: F.kl_div(F.log_softmax(x, 1), t, reduction="none").sum(1)),
]


def targets(kind, outputs, r):
    if kind == "label":
        return r.integers(0, outputs, ROWS).astype(numpy.float32)
    if kind == "share":
        return r.random((ROWS, outputs)).astype(numpy.float32)
    if kind == "side":
        return r.integers(0, 2, (ROWS, outputs)).astype(numpy.float32)
    if kind == "count":
        return r.poisson(2.0, (ROWS, outputs)).astype(numpy.float32)
    if kind == "distribution":
        t = r.random((ROWS, outputs)) * (r.random((ROWS, outputs)) < 0.7)
        t[:, 0] += 0.1
        return (t / t.sum(1, keepdims=True)).astype(numpy.float32)
    return r.normal(0, 2, (ROWS, outputs)).astype(numpy.float32)


def write_case(out, index, case, r):
    name, loss, outputs, a, kind, rows_of = case
    x = r.normal(0, 1.5, (ROWS, outputs)).astype(numpy.float32)
    t = targets(kind, outputs, r)
    w = (r.random(ROWS) * 2).astype(numpy.float32)
    w[2] = 0
    X = torch.tensor(x.astype(numpy.float64), requires_grad=True)
    T = torch.tensor(t.astype(numpy.int64) if kind == "label" else t.astype(numpy.float64))
    W = torch.tensor(w.astype(numpy.float64))
    rows = rows_of(X, T, a)
    total = (W * rows).sum() / W.sum()
    total.backward()
    for what, values in (("x", x), ("target", t), ("weight", w)):
        out.write(f"static const float golden_{what}_{index}[] = {{{floats(values)}}};\n")
    for what, values in (("rows", rows.detach()), ("gradient", X.grad)):
        out.write(f"static const double golden_{what}_{index}[] = {{{numbers(values)}}};\n")
    return (f'    {{"{name}", BP_LOSS_{loss}, {outputs}, {a!r}, {int(kind == "label")}, golden_x_{index}, '
            f"golden_target_{index}, golden_weight_{index}, golden_rows_{index}, {float(total.detach())!r}, "
            f"golden_gradient_{index}}},\n")


def pairs(score, positive):
    p, n = score[positive], score[~positive]
    if len(p) == 0 or len(n) == 0:
        return None
    return ((p[:, None] > n[None, :]).sum() + (p[:, None] == n[None, :]).sum() / 2) / (len(p) * len(n))


def write_metrics(out, index, name, loss, rows, classes, k, r):
    """Predictions in steps of 1/4, so that ties are common. The last class never occurs and is never predicted."""
    x = (r.integers(-8, 9, (rows, classes)) / 4).astype(numpy.float32)
    if loss == "CROSS_ENTROPY":
        t = r.integers(0, max(2, classes - 1), rows)
        if classes > 2:
            x[:, -1] = -9
        actual, predicted, names = t, x.argmax(1), range(classes)
        before = [sum(1 for j in range(classes) if x[i, j] > x[i, t[i]] or (x[i, j] == x[i, t[i]] and j < t[i]))
                  for i in range(rows)]
        top = numpy.mean([b < k for b in before])
        if classes == 2:
            auc = pairs(x[:, 1] - x[:, 0], t == 1)
        else:
            p = numpy.exp(x.astype(numpy.float64))
            p = (p / p.sum(1, keepdims=True)).astype(numpy.float32)
            auc = numpy.mean([a for a in (pairs(p[:, c], t == c) for c in range(classes)) if a is not None])
    else:
        t = r.integers(0, 2, rows)
        actual, predicted, names, top = t, (x[:, 0] > 0).astype(int), range(2), float("nan")
        auc = pairs(x[:, 0], t == 1)
    precision, recall, f1 = [], [], []
    for c in names:
        hits, said, there = (((actual == c) & (predicted == c)).sum(), (predicted == c).sum(), (actual == c).sum())
        if said + there == 0:
            continue
        precision.append(hits / said if said else 0)
        recall.append(hits / there if there else 0)
        f1.append(2 * hits / (said + there))
    out.write(f"static const float golden_scores_{index}[] = {{{floats(x)}}};\n")
    out.write(f"static const int32_t golden_classes_{index}[] = {{{', '.join(map(str, t))}}};\n")
    tops = "NAN" if top != top else repr(float(top))
    return (f'    {{"{name}", BP_LOSS_{loss}, {rows}, {classes}, {k}, golden_scores_{index}, golden_classes_{index}, '
            f"{tops}, {float(numpy.mean(precision))!r}, {float(numpy.mean(recall))!r}, {float(numpy.mean(f1))!r}, "
            f"{float(auc)!r}}},\n")


def main():
    root = pathlib.Path(__file__).resolve().parents[1]
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "tests/unit/train/golden/losses.h"
    r = numpy.random.default_rng(7)
    with open(path, "w", encoding="ascii") as out:
        out.write("/* Made by scripts/golden_losses.py; not to be edited. clang-format off */\n\n")
        out.write(f"enum {{ GOLDEN_ROWS = {ROWS} }};\n\n")
        rows = [write_case(out, i, case, r) for i, case in enumerate(CASES)]
        out.write("\nstatic const struct {\n    const char *name;\n    enum bp_loss loss;\n    int outputs;\n"
                  "    double parameter;\n    int labels;\n    const float *x, *target, *weight;\n"
                  "    const double *rows;\n    double total;\n    const double *gradient;\n"
                  "} golden_losses[] = {\n" + "".join(rows) + "};\n\n")
        cases = [("two classes", "CROSS_ENTROPY", 90, 2, 1), ("five classes", "CROSS_ENTROPY", 130, 5, 2),
                 ("bce", "BCE", 70, 1, 1), ("hinge", "HINGE", 33, 1, 1)]
        rows = [write_metrics(out, i, *case, r) for i, case in enumerate(cases)]
        out.write("\nstatic const struct {\n    const char *name;\n    enum bp_loss loss;\n    int rows, outputs, k;\n"
                  "    const float *x;\n    const int32_t *label;\n"
                  "    double top_k, precision, recall, f1, auc;\n} golden_metrics[] = {\n" + "".join(rows) + "};\n")


if __name__ == "__main__":
    main()
