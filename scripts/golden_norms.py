#!/usr/bin/env python3
"""Writes tests/unit/train/golden/norms.h: what PyTorch makes of small normalized and attending networks in 100 steps.

Samples of 6 x 8 numbers, 40 of them, are learned in 5 batches of 8 in their order, for 20 epochs, with SGD and
momentum, and cross_entropy over 3 classes. (Not with Adam: the gradient of a bias that a normalization takes out again,
or of the keys' bias, is 0 but for rounding, and Adam would make steps of that.) Data and first weights are float32 numbers; PyTorch computes in float64, so that what
differs in the test is our own rounding alone. After training the running statistics are compared as well, and the
predictions that they give. Needs torch (made with 1.13).
"""
import pathlib
import sys

import torch
from torch import nn

ROWS, STEPS, FEATURES, CLASSES, BATCH, EPOCHS = 40, 6, 8, 3, 8, 20


class Attention(nn.Module):
    def __init__(self, heads, causal):
        super().__init__()
        self.inner, self.causal = nn.MultiheadAttention(FEATURES, heads, batch_first=True), causal

    def forward(self, x):
        mask = torch.triu(torch.ones(STEPS, STEPS, dtype=torch.bool), 1) if self.causal else None
        return self.inner(x, x, x, attn_mask=mask, need_weights=False)[0]


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x + self.body(x)


class Image(nn.Module):
    """The sample as 4 channels of 3 x 4."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x.reshape(-1, 4, 3, 4)).reshape(len(x), -1)


def vector(norm):
    return nn.Sequential(nn.Flatten(), nn.Linear(STEPS * FEATURES, 12), norm, nn.Tanh())


# name: the body, and the width of what it gives
CASES = {
    "batch_norm": (lambda: vector(nn.BatchNorm1d(12)), 12),
    "batch_norm_plain": (lambda: vector(nn.BatchNorm1d(12, eps=1e-3, momentum=0.3, affine=False)), 12),
    "batch_norm_2d": (lambda: Image(nn.BatchNorm2d(4)), 48),
    "layer_norm": (lambda: vector(nn.LayerNorm(12)), 12),
    "layer_norm_steps": (lambda: nn.LayerNorm(FEATURES), 48),
    "group_norm": (lambda: vector(nn.GroupNorm(2, 12)), 12),
    "group_norm_2d": (lambda: Image(nn.GroupNorm(2, 4)), 48),
    "attention": (lambda: Residual(Attention(2, False)), 48),
    "attention_causal": (lambda: Residual(Attention(4, True)), 48),
}


def data():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(ROWS, STEPS, FEATURES, generator=generator)
    label = (x[:, 0, :3] + x[:, -1, :3] * x[:, 1, :3] + 0.3 * x.sum(1)[:, :3]).argmax(1)
    return x, label


def flat(tensors):
    return torch.cat([torch.zeros(0)] + [t.detach().reshape(-1) for t in tensors])


def train(make, width):
    torch.manual_seed(width)
    network = nn.Sequential(make(), nn.Flatten(), nn.Linear(width, CLASSES))
    for p in network.parameters():
        if p.dim() == 1:  # biases, factors and offsets that all begin alike would hide a mistake
            p.data += 0.1 * torch.randn(p.shape)
    first = flat(network.parameters()).tolist()
    network.double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    x, label = data()
    losses = []
    for _ in range(EPOCHS):
        total = 0.0
        for at in range(0, ROWS, BATCH):
            rows = slice(at, at + BATCH)
            loss = nn.functional.cross_entropy(network(x[rows].double()), label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * BATCH / ROWS
        losses.append(total)
    network.eval()
    buffers = [b for name, b in network.named_buffers() if "running" in name]
    outputs = network(x[:BATCH].double())
    return first, flat(network.parameters()).tolist(), flat(buffers).tolist(), losses, flat([outputs]).tolist()


def array(kind, name, values, form):
    lines, line = [], "   "
    for word in ", ".join(form(v) for v in values or [0.0]).split(" "):
        if len(line) + len(word) + 1 > 117:
            lines.append(line)
            line = "   "
        line += " " + word
    return f"static const {kind} {name}[] = {{\n" + "\n".join(lines + [line]) + "};\n"


def main():
    x, label = data()
    out = ["/* Made by scripts/golden_norms.py; not to be edited. clang-format off */\n"]
    out.append(f"enum {{ GOLDEN_ROWS = {ROWS}, GOLDEN_STEPS = {STEPS}, GOLDEN_FEATURES = {FEATURES}, "
               f"GOLDEN_CLASSES = {CLASSES}, GOLDEN_BATCH = {BATCH}, GOLDEN_EPOCHS = {EPOCHS} }};\n")
    out.append(array("float", "golden_x", flat([x]).tolist(), lambda v: f"{v!r}f"))
    out.append(array("int32_t", "golden_label", label.tolist(), str))
    cases = []
    for name, (make, width) in CASES.items():
        first, weights, stats, losses, outputs = train(make, width)
        out.append(array("float", f"golden_{name}_first", first, lambda v: f"{v!r}f"))
        for what, values in (("", weights), ("_stats", stats), ("_loss", losses), ("_outputs", outputs)):
            out.append(array("double", f"golden_{name}{what}", values, repr))
        cases.append(f'    {{"{name}", golden_{name}_first, golden_{name}, golden_{name}_stats, golden_{name}_loss,\n'
                     f"     golden_{name}_outputs}},")
    out.append("static const struct {\n    const char *name;\n    const float *first;\n"
               "    const double *weights, *stats, *losses, *outputs;\n} golden_cases[] = {\n" + "\n".join(cases) +
               "\n};\n")
    path = pathlib.Path(__file__).parent.parent / "tests/unit/train/golden/norms.h"
    path.write_text("\n".join(out))
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
