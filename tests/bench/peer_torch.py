"""PyTorch as a peer: eager as its tutorials write it, or compiled.

    peer_torch.py [--compile]      requests on standard input, see peer.py

Compiled: the forward pass and the loss by torch.compile, and the optimizer in its fused form. One gather of the shuffled
rows an epoch, which is the fastest way in plain PyTorch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import torch
from peer import CannotExpress, Request, Step, serve
from torch import nn

COMPILED = "--compile" in sys.argv[1:]
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "sigmoid": nn.Sigmoid}


def network(workload: dict) -> nn.Module:
    modules: list[nn.Module] = []
    shape = list(workload["input"])
    for kind, *rest in workload["layers"]:
        if kind == "dense":
            if len(shape) > 1:
                modules.append(nn.Flatten())
            modules.append(nn.Linear(math.prod(shape), rest[0]))
            shape = [rest[0]]
            rest = rest[1:]
        elif kind == "conv2d":
            modules.append(nn.Conv2d(shape[0], rest[0], rest[1], padding="same"))
            shape = [rest[0], *shape[1:]]
            rest = rest[2:]
        elif kind == "maxpool2d":
            modules.append(nn.MaxPool2d(rest[0]))
            shape = [shape[0], *(side // rest[0] for side in shape[1:])]
            rest = []
        elif kind == "batchnorm":
            modules.append(nn.BatchNorm1d(shape[0]) if len(shape) == 1 else nn.BatchNorm2d(shape[0]))
        elif kind in ACTIVATIONS:
            rest = [kind]
        else:
            raise CannotExpress(kind)
        modules.extend(ACTIVATIONS[name]() for name in rest)
    return nn.Sequential(*modules)


def batches(x: torch.Tensor, y: torch.Tensor, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        order = torch.randperm(len(x))
        shuffled, targets = x[order], y[order]
        for first in range(0, len(x) - size + 1, size):
            yield shuffled[first : first + size], targets[first : first + size]


def prepare(request: Request) -> Step:
    workload = request.workload
    torch.manual_seed(0)
    torch.set_num_threads(request.threads)
    model = network(workload)
    criterion = nn.CrossEntropyLoss() if request.classes else nn.MSELoss()
    x = torch.rand(workload["rows"], *workload["input"]) * 2 - 1
    y = torch.randint(0, request.classes, (len(x),)) if request.classes else torch.rand(len(x), 1) * 2 - 1
    fused = {"fused": True} if COMPILED else {}
    if workload["optimizer"] == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **fused)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, **fused)

    def judge(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return criterion(model(inputs), targets)

    loss = torch.compile(judge) if COMPILED else judge
    stream = batches(x, y, workload["batch"])

    def step() -> int:
        inputs, targets = next(stream)
        optimizer.zero_grad(set_to_none=True)
        loss(inputs, targets).backward()
        optimizer.step()
        return len(inputs)

    for _ in range(5):
        step()
    return step


serve(f"PyTorch {torch.__version__.split('+')[0]}{' compiled' if COMPILED else ''}", prepare)
