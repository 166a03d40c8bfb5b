"""Three jobs on a table of smooth functions, and the hash of what they learn: for the tests that compare bytes."""

import hashlib
import struct


def table(rows=700, inputs=19):
    """A CSV of smooth functions: the same text everywhere, with a missing value and a text column."""
    lines = [",".join(f"x{i}" for i in range(inputs)) + ",color,kind,level"]
    for r in range(rows):
        x = [(r * 7919 + i * 104729) % 1009 / 1009 for i in range(inputs)]
        kind = int(4 * ((x[0] + x[1] * x[2]) % 1))
        level = x[0] * 3 - x[3] * x[4] + 0.5 * x[5]
        cells = [f"{v:.4f}" for v in x]
        if r % 50 == 3:
            cells[6] = ""
        lines.append(",".join(cells) + f",{('red', 'green', 'blue')[r % 3]},k{kind},{level:.5f}")
    return "\n".join(lines) + "\n"


SPECS = {
    "classes": {
        "dataset": {"name": "smooth", "target": "kind", "ignore": ["level"]}, "seed": 11,
        "model": {"layers": [{"type": "dense", "units": 67, "activation": "gelu", "l2": 1e-4},
                             {"type": "dropout", "rate": 0.2},
                             {"type": "dense", "units": 33, "activation": "tanh"}]},
        "optimizer": {"type": "adamw", "lr": 0.003},
        "training": {"epochs": 6, "batch_size": 150, "clip_grad_norm": 1.0},
    },
    "values": {
        "dataset": {"name": "smooth", "target": "level", "ignore": ["kind"]}, "seed": 5,
        "layers": [45, 21], "loss": "mse",
        "optimizer": {"type": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True},
        "training": {"epochs": 5, "batch_size": 31},
    },
    "sequences": {
        "dataset": {"name": "smooth", "target": "kind", "ignore": ["level", "x1*"], "order_by": "x11",
                    "window": {"rows": 7, "stride": 2, "by": "color"}}, "seed": 3,
        "model": {"layers": [{"type": "gru", "units": 17, "return_sequences": True},
                             {"type": "simple_rnn", "units": 9, "return_sequences": True, "reverse": True},
                             {"type": "lstm", "units": 21}]},
        "training": {"epochs": 3, "batch_size": 40},
    },
}


def lasting(daemon, name, seconds, **training):
    """The spec of that name, with as many epochs as take about so long on one thread of this machine, in this build."""
    def spec(epochs):
        return {**SPECS[name], "threads": 1, "training": {**SPECS[name]["training"], **training, "epochs": epochs}}
    epochs, took = 5, 0
    while took < 0.2:  # a shorter trial would tell of its start rather than of its epochs
        epochs *= 4
        took = daemon.train(spec(epochs))["progress"]["training_seconds"]
    return spec(max(epochs, int(epochs * seconds / took)))


def fingerprint(daemon, job, checkpoint="best"):
    """SHA-256 of the numbers alone: the header names the job, and differs."""
    weights = daemon.get(f"/v1/jobs/{job}/weights.safetensors?checkpoint={checkpoint}").content
    (header,) = struct.unpack("<Q", weights[:8])
    return hashlib.sha256(weights[8 + header:]).hexdigest()
