#!/usr/bin/env python3
"""Writes tests/unit/train/golden/optimizers.h: what PyTorch makes of a small network in 100 steps.

A tanh network of 6 inputs and 8 hidden units learns 40 rows in 5 batches of 8, in the order of the rows, for 20
epochs: once with cross_entropy over 4 classes, once with mse on 2 values. Data and first weights are float32 numbers;
PyTorch computes in float64, so that what differs in the test is our own rounding alone. Needs torch (made with 1.13).
"""
import pathlib
import sys

import torch

ROWS, INPUTS, HIDDEN, BATCH, EPOCHS = 40, 6, 8, 8, 20

# name, kind, keywords of the optimizer, global norm to clip to (0: none)
CASES = [
    ("sgd", "SGD", dict(lr=0.1), 0.0),
    ("momentum", "SGD", dict(lr=0.05, momentum=0.9, dampening=0.1), 0.0),
    ("nesterov", "SGD", dict(lr=0.05, momentum=0.9, nesterov=True), 0.0),
    ("sgd_decay", "SGD", dict(lr=0.05, momentum=0.8, weight_decay=0.02), 0.0),
    ("adam", "Adam", dict(lr=0.01), 0.0),
    ("adam_decay", "Adam", dict(lr=0.02, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.02), 0.0),
    ("adamw", "AdamW", dict(lr=0.02, weight_decay=0.1), 0.0),
    ("clipped", "SGD", dict(lr=0.1, momentum=0.9), 0.25),
]


def data():
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(ROWS, INPUTS, generator=generator)
    mix = torch.randn(INPUTS, 4, generator=generator)
    label = (x @ mix + 0.3 * torch.randn(ROWS, 4, generator=generator)).argmax(1)
    value = torch.tanh(x @ mix[:, :2]) + 0.1 * torch.randn(ROWS, 2, generator=generator)
    return x, label, value.float()


def first_weights(outputs):
    generator = torch.Generator().manual_seed(outputs)
    shapes = [(HIDDEN, INPUTS), (HIDDEN,), (outputs, HIDDEN), (outputs,)]
    return [(torch.rand(s, generator=generator) - 0.5) * 0.8 for s in shapes]


def train(case, classes):
    _, kind, keywords, clip = case
    x, label, value = data()
    w = [p.double().requires_grad_() for p in first_weights(4 if classes else 2)]
    optimizer = getattr(torch.optim, kind)(w, **keywords)
    losses = []
    for _ in range(EPOCHS):
        total = 0.0
        for first in range(0, ROWS, BATCH):
            rows = slice(first, first + BATCH)
            out = torch.tanh(x[rows].double() @ w[0].T + w[1]) @ w[2].T + w[3]
            if classes:
                loss = torch.nn.functional.cross_entropy(out, label[rows])
            else:
                loss = torch.nn.functional.mse_loss(out, value[rows].double())
            optimizer.zero_grad()
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(w, clip)
            optimizer.step()
            total += loss.item() * BATCH / ROWS
        losses.append(total)
    return torch.cat([p.detach().reshape(-1) for p in w]), losses


def array(kind, name, values, form):
    text = ", ".join(form(v) for v in values)
    lines, line = [], "   "
    for word in text.split(" "):
        if len(line) + len(word) + 1 > 117:
            lines.append(line)
            line = "   "
        line += " " + word
    return f"static const {kind} {name}[] = {{\n" + "\n".join(lines + [line]) + "};\n"


def flat(tensors):
    return torch.cat([t.reshape(-1) for t in tensors]).tolist()


def number(v):
    return repr(v) if v else "0.0"


def main():
    x, label, value = data()
    out = ["/* Made by scripts/golden_optimizers.py; not to be edited. clang-format off */\n"]
    out.append(f"enum {{ GOLDEN_ROWS = {ROWS}, GOLDEN_INPUTS = {INPUTS}, GOLDEN_HIDDEN = {HIDDEN}, "
               f"GOLDEN_BATCH = {BATCH}, GOLDEN_EPOCHS = {EPOCHS} }};\n")
    as_float = lambda v: f"{v!r}f"
    out.append(array("float", "golden_x", flat([x]), as_float))
    out.append(array("int32_t", "golden_label", label.tolist(), str))
    out.append(array("float", "golden_value", flat([value]), as_float))
    out.append(array("float", "golden_first_classes", flat(first_weights(4)), as_float))
    out.append(array("float", "golden_first_values", flat(first_weights(2)), as_float))
    cases = []
    for case in CASES:
        name, kind, keywords, clip = case
        for classes in (True, False):
            which = "classes" if classes else "values"
            weights, losses = train(case, classes)
            out.append(array("double", f"golden_{name}_{which}", weights.tolist(), number))
            out.append(array("double", f"golden_{name}_{which}_loss", losses, number))
            beta1, beta2 = keywords.get("betas", (0.9, 0.999))
            cases.append(
                f'    {{"{name}_{which}", {str(classes).lower()}, {{.kind = BP_{kind.upper()}, '
                f'.lr = {keywords["lr"]}, .momentum = {keywords.get("momentum", 0.0)}, '
                f'.dampening = {keywords.get("dampening", 0.0)}, '
                f'.nesterov = {str(keywords.get("nesterov", False)).lower()}, .beta1 = {beta1}, .beta2 = {beta2}, '
                f'.eps = {keywords.get("eps", 1e-8)}, .weight_decay = {keywords.get("weight_decay", 0.0)}}}, {clip}, '
                f"golden_{name}_{which}, golden_{name}_{which}_loss}},")
    out.append("static const struct {\n    const char *name;\n    bool classes;\n    struct bp_optimizer optimizer;\n"
               "    double clip;\n    const double *weights, *losses;\n} golden_cases[] = {\n" + "\n".join(cases) +
               "\n};\n")
    path = pathlib.Path(__file__).parent.parent / "tests/unit/train/golden/optimizers.h"
    path.write_text("\n".join(out))
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
