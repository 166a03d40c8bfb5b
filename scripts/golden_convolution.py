#!/usr/bin/env python3
"""Writes tests/unit/train/golden/convolution.h: what PyTorch makes of small networks of convolutions, pools and
embeddings in 100 steps of sgd.

Each network learns 24 rows of 3 classes in 4 batches of 6, in the order of the rows, for 25 epochs. Data and first
weights are float32 numbers; PyTorch computes in float64, so that what differs in the test is our own rounding alone.
The test builds the same networks by their names. Needs torch (made with 1.13).
"""
import pathlib
import sys

import torch
from torch import nn

from golden_optimizers import array, number

ROWS, BATCH, EPOCHS, CLASSES, LR, MOMENTUM = 24, 6, 25, 3, 0.05, 0.9


def conv2d():
    return (1, 6, 6), [nn.Conv2d(1, 4, 3, padding="same"), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2), nn.Tanh(),
                       nn.Flatten(), nn.Linear(20, CLASSES)]


def strided():
    return (2, 7, 8), [nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Tanh(),
                       nn.Conv2d(4, 6, (2, 3), stride=(1, 2), bias=False), nn.Tanh(), nn.Flatten(),
                       nn.Linear(18, CLASSES)]


def dilated_groups():
    return (4, 7, 7), [nn.Conv2d(4, 6, 3, dilation=2, padding=2, groups=2), nn.Tanh(), nn.AvgPool2d(3, 2, padding=1),
                       nn.Conv2d(6, 3, 3, dilation=(1, 2), padding=(1, 2), groups=3), nn.Tanh(), nn.Flatten(),
                       nn.Linear(48, CLASSES)]


def depthwise():
    return (3, 6, 5), [nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.Tanh(), nn.Conv2d(6, 8, 1), nn.Tanh(),
                       nn.MaxPool2d(3, 1, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)]


def conv1d():
    return (2, 12), [nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv1d(4, 4, 2, dilation=2, groups=2),
                     nn.Tanh(), nn.Flatten(), nn.Linear(16, CLASSES)]


def embedding():
    return (5,), [nn.Embedding(7, 3), nn.Flatten(), nn.Linear(15, 6), nn.Tanh(), nn.Linear(6, CLASSES)]


CASES = [conv2d, strided, dilated_groups, depthwise, conv1d, embedding]


def data(case, shape):
    generator = torch.Generator().manual_seed(len(case.__name__))
    if case is embedding:
        x = torch.randint(0, 7, (ROWS, *shape), generator=generator).float()
    else:
        x = torch.randn(ROWS, *shape, generator=generator)
    mix = torch.randn(x[0].numel(), CLASSES, generator=generator)
    return x, (x.flatten(1) @ mix).argmax(1)


def train(case):
    torch.manual_seed(1)
    shape, layers = case()
    x, label = data(case, shape)
    net = nn.Sequential(*layers)
    first = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    net = net.double()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
    losses = []
    for _ in range(EPOCHS):
        total = 0.0
        for at in range(0, ROWS, BATCH):
            rows = slice(at, at + BATCH)
            out = net(x[rows].long() if case is embedding else x[rows].double())
            loss = nn.functional.cross_entropy(out, label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * BATCH / ROWS
        losses.append(total)
    last = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    return shape, x, label, first, last, losses


def main():
    out = ["/* Made by scripts/golden_convolution.py; not to be edited. clang-format off */\n",
           f"enum {{ GOLDEN_ROWS = {ROWS}, GOLDEN_BATCH = {BATCH}, GOLDEN_EPOCHS = {EPOCHS}, "
           f"GOLDEN_CLASSES = {CLASSES} }};\n#define GOLDEN_LR {LR}\n#define GOLDEN_MOMENTUM {MOMENTUM}\n"]
    rows = []
    for case in CASES:
        name = case.__name__
        shape, x, label, first, last, losses = train(case)
        as_float = lambda v: f"{v!r}f"
        out.append(array("float", f"golden_{name}_x", x.reshape(-1).tolist(), as_float))
        out.append(array("int32_t", f"golden_{name}_label", label.tolist(), str))
        out.append(array("float", f"golden_{name}_first", first.tolist(), as_float))
        out.append(array("double", f"golden_{name}_last", last.tolist(), number))
        out.append(array("double", f"golden_{name}_loss", losses, number))
        dims = ", ".join(map(str, shape))
        rows.append(f'    {{"{name}", {{.rank = {len(shape)}, .dim = {{{dims}}}}}, {first.numel()}, golden_{name}_x, '
                    f"golden_{name}_label, golden_{name}_first, golden_{name}_last, golden_{name}_loss}},")
    out.append("static const struct {\n    const char *name;\n    struct bp_shape shape;\n    size_t params;\n"
               "    const float *x;\n    const int32_t *label;\n    const float *first;\n"
               "    const double *last, *losses;\n} golden_cases[] = {\n" + "\n".join(rows) + "\n};\n")
    path = pathlib.Path(__file__).parent.parent / "tests/unit/train/golden/convolution.h"
    path.write_text("\n".join(out))
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
