#!/usr/bin/env python3
"""Writes tests/unit/train/golden/optimizers.h: what PyTorch makes of a small network in 100 steps.

A tanh network of 6 inputs and 8 hidden units learns 40 rows in 5 batches of 8, in the order of the rows, for 20
epochs: once with cross_entropy over 4 classes, once with mse on 2 values. Data and first weights are float32 numbers;
PyTorch computes in float64, so that what differs in the test is our own rounding alone. What PyTorch does not have, lamb
and lion, is written out here in numpy, after the algorithms of their papers (You et al. 2019, algorithm 2; Chen et al.
2023, algorithm 2); so is nadam (Dozat 2016, as PyTorch has it since 2.0): version 1.13 has one factor too many in it.
Needs torch (made with 1.13) and numpy.
"""
import pathlib
import sys

import numpy
import torch

ROWS, INPUTS, HIDDEN, BATCH, EPOCHS = 40, 6, 8, 8, 20

# name, kind, keywords of the optimizer, global norm to clip to, largest value to clip to (0: none)
CASES = [
    ("sgd", "SGD", dict(lr=0.1), 0.0, 0.0),
    ("momentum", "SGD", dict(lr=0.05, momentum=0.9, dampening=0.1), 0.0, 0.0),
    ("nesterov", "SGD", dict(lr=0.05, momentum=0.9, nesterov=True), 0.0, 0.0),
    ("sgd_decay", "SGD", dict(lr=0.05, momentum=0.8, weight_decay=0.02), 0.0, 0.0),
    ("adam", "Adam", dict(lr=0.01), 0.0, 0.0),
    ("adam_decay", "Adam", dict(lr=0.02, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.02), 0.0, 0.0),
    ("adamw", "AdamW", dict(lr=0.02, weight_decay=0.1), 0.0, 0.0),
    ("clipped", "SGD", dict(lr=0.1, momentum=0.9), 0.25, 0.0),
    ("clipped_value", "SGD", dict(lr=0.1, momentum=0.9), 0.0, 0.02),
    ("clipped_both", "SGD", dict(lr=0.1, momentum=0.9), 0.25, 0.05),
    ("rmsprop", "RMSprop", dict(lr=0.01), 0.0, 0.0),
    ("rmsprop_momentum", "RMSprop", dict(lr=0.002, alpha=0.9, momentum=0.8, weight_decay=0.02), 0.0, 0.0),
    ("rmsprop_centered", "RMSprop", dict(lr=0.002, alpha=0.9, eps=1e-2, momentum=0.5, centered=True), 0.0, 0.0),
    ("adagrad", "Adagrad", dict(lr=0.1), 0.0, 0.0),
    ("adagrad_initial", "Adagrad", dict(lr=0.1, initial_accumulator_value=0.1, weight_decay=0.02), 0.0, 0.0),
    ("adadelta", "Adadelta", dict(lr=1.0), 0.0, 0.0),
    ("adadelta_decay", "Adadelta", dict(lr=0.5, rho=0.95, eps=1e-5, weight_decay=0.02), 0.0, 0.0),
    ("amsgrad", "Adam", dict(lr=0.01, betas=(0.9, 0.9), amsgrad=True), 0.0, 0.0),
    ("amsgrad_decay", "AdamW", dict(lr=0.02, betas=(0.8, 0.9), weight_decay=0.1, amsgrad=True), 0.0, 0.0),
    ("nadam", "NAdam", dict(lr=0.01), 0.0, 0.0),
    ("nadam_decay", "NAdam", dict(lr=0.02, betas=(0.8, 0.99), momentum_decay=0.01, weight_decay=0.02), 0.0, 0.0),
    ("adamax", "Adamax", dict(lr=0.01), 0.0, 0.0),
    ("adamax_decay", "Adamax", dict(lr=0.02, betas=(0.8, 0.99), weight_decay=0.02), 0.0, 0.0),
    ("lamb", "LAMB", dict(lr=0.02, eps=1e-6), 0.0, 0.0),
    ("lamb_decay", "LAMB", dict(lr=0.02, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1), 0.25, 0.0),
    ("lion", "Lion", dict(lr=0.003, betas=(0.9, 0.99)), 0.0, 0.0),
    ("lion_decay", "Lion", dict(lr=0.003, betas=(0.8, 0.95), weight_decay=0.5), 0.0, 0.0),
]


class Lamb:
    """You et al. (2019), algorithm 2, with phi(z) = z; the ratio is 1 where a norm is 0."""

    def __init__(self, w, lr, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
        self.w, self.lr, self.betas, self.eps, self.decay, self.t = w, lr, betas, eps, weight_decay, 0
        self.m = [numpy.zeros(tuple(p.shape)) for p in w]
        self.v = [numpy.zeros(tuple(p.shape)) for p in w]

    def zero_grad(self):
        for p in self.w:
            p.grad = None

    def step(self):
        self.t += 1
        b1, b2 = self.betas
        for i, p in enumerate(self.w):
            g, x = p.grad.numpy(), p.detach().numpy()
            self.m[i] = b1 * self.m[i] + (1 - b1) * g
            self.v[i] = b2 * self.v[i] + (1 - b2) * g * g
            r = self.m[i] / (1 - b1 ** self.t) / (numpy.sqrt(self.v[i] / (1 - b2 ** self.t)) + self.eps)
            u = r + self.decay * x
            norms = numpy.linalg.norm(x), numpy.linalg.norm(u)
            x -= self.lr * (norms[0] / norms[1] if min(norms) > 0 else 1.0) * u


class Lion(Lamb):
    """Chen et al. (2023), algorithm 2."""

    def step(self):
        b1, b2 = self.betas
        for i, p in enumerate(self.w):
            g, x = p.grad.numpy(), p.detach().numpy()
            c = b1 * self.m[i] + (1 - b1) * g
            x -= self.lr * (numpy.sign(c) + self.decay * x)
            self.m[i] = b2 * self.m[i] + (1 - b2) * g


class Nadam(Lamb):
    """Dozat (2016) with PyTorch's momentum schedule: the second correction is the product of t + 1 momenta."""

    def __init__(self, w, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, momentum_decay=4e-3):
        super().__init__(w, lr, betas, eps, weight_decay)
        self.momentum_decay, self.product = momentum_decay, 1.0

    def step(self):
        self.t += 1
        b1, b2 = self.betas
        mu, after = (b1 * (1 - 0.5 * 0.96 ** (t * self.momentum_decay)) for t in (self.t, self.t + 1))
        self.product *= mu
        for i, p in enumerate(self.w):
            x = p.detach().numpy()
            g = p.grad.numpy() + self.decay * x
            self.m[i] = b1 * self.m[i] + (1 - b1) * g
            self.v[i] = b2 * self.v[i] + (1 - b2) * g * g
            m = after * self.m[i] / (1 - self.product * after) + (1 - mu) * g / (1 - self.product)
            x -= self.lr * m / (numpy.sqrt(self.v[i] / (1 - b2 ** self.t)) + self.eps)


OURS = {"LAMB": Lamb, "Lion": Lion, "NAdam": Nadam}


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
    _, kind, keywords, clip, clip_value = case
    x, label, value = data()
    w = [p.double().requires_grad_() for p in first_weights(4 if classes else 2)]
    optimizer = OURS[kind](w, **keywords) if kind in OURS else getattr(torch.optim, kind)(w, **keywords)
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
            if clip_value:
                torch.nn.utils.clip_grad_value_(w, clip_value)
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


# Where PyTorch's default is another than 0, and what a keyword is called in struct bp_optimizer.
DEFAULTS = {"Adagrad": dict(eps=1e-10), "Adadelta": dict(eps=1e-6, rho=0.9), "RMSprop": dict(eps=1e-8, alpha=0.99),
            "SGD": {}, "Lion": {}, "AdamW": dict(eps=1e-8, betas=(0.9, 0.999), weight_decay=0.01),
            "NAdam": dict(eps=1e-8, betas=(0.9, 0.999), momentum_decay=4e-3)}
MEMBERS = {"rho": "alpha", "initial_accumulator_value": "initial_accumulator"}


def fields(kind, keywords):
    """The optimizer as an initializer of struct bp_optimizer."""
    values = {**DEFAULTS.get(kind, dict(eps=1e-8, betas=(0.9, 0.999))), **keywords}
    if "betas" in values:
        values["beta1"], values["beta2"] = values.pop("betas")
    text = [f".{MEMBERS.get(k, k)} = {str(v).lower()}" for k, v in values.items()]
    return ", ".join([f".kind = BP_{kind.upper()}"] + text)


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
        name, kind, keywords, clip, clip_value = case
        for classes in (True, False):
            which = "classes" if classes else "values"
            weights, losses = train(case, classes)
            out.append(array("double", f"golden_{name}_{which}", weights.tolist(), number))
            out.append(array("double", f"golden_{name}_{which}_loss", losses, number))
            cases.append(f'    {{"{name}_{which}", {str(classes).lower()}, {{{fields(kind, keywords)}}}, {clip}, '
                         f"{clip_value}, golden_{name}_{which}, golden_{name}_{which}_loss}},")
    out.append("static const struct {\n    const char *name;\n    bool classes;\n    struct bp_optimizer optimizer;\n"
               "    double clip, clip_value;\n    const double *weights, *losses;\n} golden_cases[] = {\n" + "\n".join(cases) +
               "\n};\n")
    path = pathlib.Path(__file__).parent.parent / "tests/unit/train/golden/optimizers.h"
    path.write_text("\n".join(out))
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
