#!/usr/bin/env python3
"""Writes tests/unit/train/golden/recurrent.h: what PyTorch makes of small recurrent networks in 100 steps.

Sequences of 7 steps of 3 numbers, 40 of them, are learned in 5 batches of 8 with Adam, in their order, for 20 epochs,
with cross_entropy over 3 classes. Data and first weights are float32 numbers; PyTorch computes in float64, so that what
differs in the test is our own rounding alone. A layer that reads from the end is PyTorch's on the flipped sequence, its
states flipped back. Needs torch (made with 1.13).
"""
import pathlib
import sys

import torch

ROWS, STEPS, FEATURES, CLASSES, BATCH, EPOCHS = 40, 7, 3, 3, 8, 20

# name: the layers as (kind, units, return_sequences, reverse)
CASES = {
    "rnn_tanh": [("rnn", 5, False, False)],
    "rnn_relu": [("rnn_relu", 5, False, False)],
    "lstm": [("lstm", 5, False, False)],
    "gru": [("gru", 5, False, False)],
    "lstm_reverse": [("lstm", 4, False, True)],
    "stacked": [("lstm", 4, True, False), ("gru", 3, True, True), ("rnn", 4, False, False)],
    "gru_sequences": [("gru", 3, True, True)],
}
MAKE = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU,
        "rnn_relu": lambda *a, **k: torch.nn.RNN(*a, nonlinearity="relu", **k)}


class Network(torch.nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers, self.modules_, width = layers, torch.nn.ModuleList(), FEATURES
        for kind, units, _, _ in layers:
            self.modules_.append(MAKE[kind](width, units, batch_first=True))
            width = units
        self.out = torch.nn.Linear(width * (STEPS if layers[-1][2] else 1), CLASSES)

    def forward(self, x):
        for (_, _, sequences, reverse), module in zip(self.layers, self.modules_):
            x = module(x.flip(1) if reverse else x)[0]
            if not sequences:
                x = x[:, -1]
            elif reverse:
                x = x.flip(1)
        return self.out(x.reshape(len(x), -1))


def data():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(ROWS, STEPS, FEATURES, generator=generator)
    label = (x[:, 0] + x[:, -1] + 0.3 * x.sum(1)).argmax(1)
    return x, label


def flat(tensors):
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def train(layers):
    torch.manual_seed(len(layers))
    network = Network(layers)
    first = flat(network.parameters()).tolist()
    network.double()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    x, label = data()
    losses = []
    for _ in range(EPOCHS):
        total = 0.0
        for at in range(0, ROWS, BATCH):
            rows = slice(at, at + BATCH)
            loss = torch.nn.functional.cross_entropy(network(x[rows].double()), label[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * BATCH / ROWS
        losses.append(total)
    return first, flat(network.parameters()).tolist(), losses


def array(kind, name, values, form):
    lines, line = [], "   "
    for word in ", ".join(form(v) for v in values).split(" "):
        if len(line) + len(word) + 1 > 117:
            lines.append(line)
            line = "   "
        line += " " + word
    return f"static const {kind} {name}[] = {{\n" + "\n".join(lines + [line]) + "};\n"


KINDS = {"rnn": "BP_OP_SIMPLE_RNN", "rnn_relu": "BP_OP_SIMPLE_RNN", "lstm": "BP_OP_LSTM", "gru": "BP_OP_GRU"}


def layer(kind, units, sequences, reverse):
    config = f"{{.units = {units}, .return_sequences = {str(sequences).lower()}, .reverse = {str(reverse).lower()}, " \
             f".use_bias = true, .activation = {'BP_RELU' if kind == 'rnn_relu' else 'BP_TANH'}}}"
    return f"{{{KINDS[kind]}, {config}}}"


def main():
    x, label = data()
    out = ["/* Made by scripts/golden_recurrent.py; not to be edited. clang-format off */\n"]
    out.append(f"enum {{ GOLDEN_ROWS = {ROWS}, GOLDEN_STEPS = {STEPS}, GOLDEN_FEATURES = {FEATURES}, "
               f"GOLDEN_CLASSES = {CLASSES}, GOLDEN_BATCH = {BATCH}, GOLDEN_EPOCHS = {EPOCHS} }};\n")
    out.append(array("float", "golden_x", flat([x]).tolist(), lambda v: f"{v!r}f"))
    out.append(array("int32_t", "golden_label", label.tolist(), str))
    cases = []
    for name, layers in CASES.items():
        first, weights, losses = train(layers)
        out.append(array("float", f"golden_{name}_first", first, lambda v: f"{v!r}f"))
        out.append(array("double", f"golden_{name}", weights, repr))
        out.append(array("double", f"golden_{name}_loss", losses, repr))
        text = ",\n      ".join(layer(*one) for one in layers)
        cases.append(f'    {{"{name}", {len(layers)}, {{{text}}},\n     golden_{name}_first, golden_{name}, '
                     f"golden_{name}_loss}},")
    out.append("static const struct {\n    const char *name;\n    int nlayers;\n    struct {\n"
               "        enum bp_op_kind kind;\n        struct bp_recurrent_config config;\n    } layers[3];\n"
               "    const float *first;\n    const double *weights, *losses;\n} golden_cases[] = {\n" +
               "\n".join(cases) + "\n};\n")
    path = pathlib.Path(__file__).parent.parent / "tests/unit/train/golden/recurrent.h"
    path.write_text("\n".join(out))
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
