"""The same bytes for everything that a spec can say: every layer, activation, loss, optimizer, initializer and schedule,
for 1, 2, 3 and 5 threads, every instruction set, and a resume in the middle of an epoch.

The lists are those of /v1/capabilities: what is added there and not here fails."""

import pytest

from conftest import Daemon
from smooth import fingerprint, table

THREADS = [1, 2, 3, 5]
SIXTEEN = [f"x{i}" for i in range(3, 19)]
OUT = {"type": "dense", "units": "auto"}


def classes(*layers, features=SIXTEEN, **more):
    return {"dataset": {"name": "smooth", "target": "kind", "features": features},
            "model": {"layers": [*layers, OUT]}, "training": {"epochs": 2, "batch_size": 150}, **more}


def values(**more):
    return {"dataset": {"name": "smooth", "target": "level", "features": SIXTEEN}, "layers": [24, 9],
            "training": {"epochs": 2, "batch_size": 140}, **more}


def image(*layers):
    return classes({"type": "reshape", "shape": [1, 4, 4]}, *layers, {"type": "flatten"})


def sequence(*layers):
    return classes({"type": "reshape", "shape": [4, 4]}, *layers, {"type": "flatten"})


DENSE = {"type": "dense", "units": 21, "activation": "relu"}
CONV = {"type": "conv2d", "filters": 5, "kernel_size": 3, "padding": "same", "activation": "relu"}
BRANCHES = [{"name": "a", "type": "dense", "units": 13, "activation": "tanh"},
            {"name": "b", "type": "dense", "units": 13, "activation": "relu", "inputs": ["input"]}]
LAYERS = {
    "dense": classes(DENSE),
    "conv1d": sequence({"type": "conv1d", "filters": 6, "kernel_size": 3, "padding": 1, "activation": "relu"}),
    "conv2d": image(CONV, {"type": "conv2d", "filters": 7, "kernel_size": 2, "strides": 2}),
    "depthwise_conv2d": image(CONV, {"type": "depthwise_conv2d", "kernel_size": 3, "depth_multiplier": 2}),
    "max_pool2d": image(CONV, {"type": "max_pool2d"}),
    "avg_pool2d": image(CONV, {"type": "avg_pool2d"}),
    "global_avg_pool2d": classes({"type": "reshape", "shape": [1, 4, 4]}, CONV, {"type": "global_avg_pool2d"}),
    "flatten": image(CONV),
    "reshape": classes(DENSE, {"type": "reshape", "shape": [3, 7]}, {"type": "flatten"}),
    "batch_norm": classes(DENSE, {"type": "batch_norm"}, DENSE),
    "layer_norm": classes(DENSE, {"type": "layer_norm"}, DENSE),
    "group_norm": image(CONV, {"type": "group_norm", "groups": 5}),
    "dropout": classes(DENSE, {"type": "dropout", "rate": 0.3}),
    "embedding": classes({"type": "embedding", "input_dim": 3, "output_dim": 5}, {"type": "flatten"}, DENSE,
                         features=["color"]),
    "activation": classes(DENSE, {"type": "activation", "activation": "softplus"}),
    "add": classes(*BRANCHES, {"type": "add", "inputs": ["a", "b"]}),
    "multiply": classes(*BRANCHES, {"type": "multiply", "inputs": ["a", "b"]}),
    "concat": classes(*BRANCHES, {"type": "concat", "inputs": ["a", "b"]}),
    "simple_rnn": sequence({"type": "simple_rnn", "units": 9, "return_sequences": True}),
    "lstm": sequence({"type": "lstm", "units": 9, "return_sequences": True}, {"type": "lstm", "units": 7,
                                                                             "return_sequences": True, "reverse": True}),
    "gru": sequence({"type": "gru", "units": 9, "return_sequences": True}),
    "multi_head_attention": sequence({"type": "multi_head_attention", "heads": 2, "causal": True, "dropout": 0.1}),
}
LOSSES = {
    "cross_entropy": classes(DENSE, loss={"type": "cross_entropy", "label_smoothing": 0.1}),
    "bce": {**values(loss="bce"), "dataset": {"name": "smooth", "target": "share", "features": SIXTEEN}},
    "mse": values(loss="mse"),
    "mae": values(loss="mae"),
    "huber": values(loss={"type": "huber", "delta": 0.7}),
    "hinge": classes(DENSE, loss="hinge"),
    "poisson": {**values(loss="poisson"), "dataset": {"name": "smooth", "target": "share", "features": SIXTEEN}},
    "quantile": values(loss={"type": "quantile", "quantile": 0.8}),
    "kl_div": {**values(loss="kl_div"), "dataset": {"name": "smooth", "target": ["share", "rest"], "features": SIXTEEN}},
}
SCHEDULES = {
    "constant": {"type": "constant", "warmup_epochs": 1}, "step": {"type": "step", "step_size": 1},
    "multistep": {"type": "multistep", "milestones": [2]}, "exponential": {"type": "exponential", "gamma": 0.9},
    "polynomial": {"type": "polynomial"}, "cosine": {"type": "cosine"},
    "cosine_restarts": {"type": "cosine_restarts", "t_0": 2}, "one_cycle": {"type": "one_cycle", "max_lr": 0.01},
    "plateau": {"type": "plateau", "patience": 1},
}
REGULAR = [{**DENSE, "l1": 1e-4, "l2": 1e-3}, {"type": "batch_norm", "momentum": 0.03}, {"type": "dropout", "rate": 0.4}]


def training(**more):
    """A network with statistics, dropout and penalties, and something in `training` on top of that."""
    return classes(*REGULAR, optimizer={"type": "adamw", "lr": 0.003, "weight_decay": 0.1},
                   training={"epochs": 2, "batch_size": 37, **more})


def weighed(**more):
    spec = training()
    return {**spec, "dataset": {**spec["dataset"], **more}}


TRAINING = {  # what is carried from batch to batch, or from epoch to epoch, beside the weights
    "plain": training(), "clip_norm": training(clip_grad_norm=0.3), "clip_value": training(clip_grad_value=0.01),
    "accumulate": training(accumulate=5), "in_order": training(shuffle=False),
    "class_weights": weighed(class_weights="balanced"), "sample_weight": weighed(sample_weight="share"),
    "decay": classes(DENSE, optimizer={"type": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.02}),
    "early_stopping": training(early_stopping={"patience": 40, "min_delta": 0.001, "restore_best": True}),
    "last_kept": training(early_stopping={"patience": 40, "min_delta": 0.001, "restore_best": False}),
    "monitor": training(early_stopping={"monitor": "val_accuracy", "patience": 60}),
    "goal": training(target={"metric": "val_accuracy", "value": 0.9}), "tolerance": training(tolerance=1e-3),
    "rollback": values(optimizer={"type": "sgd", "lr": 30.0},
                       training={"epochs": 2, "batch_size": 10,
                                 "on_divergence": {"action": "rollback", "max": 100, "lr_factor": 0.3}}),
}


def data():
    """The smooth table, and two columns more that sum to 1."""
    lines = table().splitlines()
    out = [lines[0] + ",share,rest"]
    for r, line in enumerate(lines[1:]):
        share = (r * 7919 % 1009) / 1009
        out.append(f"{line},{share:.4f},{1 - round(share, 4):.4f}")
    return "\n".join(out) + "\n"


def jobs(capabilities):
    """Every spec, by a name; the lists of the daemon and of this file must be the same."""
    there = {kind: {c["name"] for c in capabilities[kind] if c["available"]}
             for kind in ("layers", "activations", "losses", "optimizers", "initializers", "schedules")}
    assert (there["layers"], there["losses"], there["schedules"]) == (set(LAYERS), set(LOSSES), set(SCHEDULES))
    specs = {f"layer {n}": s for n, s in LAYERS.items()}
    specs |= {f"loss {n}": s for n, s in LOSSES.items()}
    specs |= {f"training {n}": s for n, s in TRAINING.items()}
    specs |= {f"schedule {n}": classes(DENSE, lr_schedule=s, training={"epochs": 4, "batch_size": 150}) for n, s in SCHEDULES.items()}
    specs |= {f"activation {n}": classes({**DENSE, "activation": n}) for n in there["activations"]}
    specs |= {f"optimizer {n}": classes(DENSE, optimizer=n) for n in there["optimizers"]}
    specs |= {f"initializer {n}": classes({**DENSE, "kernel_initializer": n}, allow_symmetric=True)
              for n in there["initializers"] - {"constant"}}
    specs["initializer constant"] = classes({**DENSE, "kernel_initializer": {"type": "constant", "value": 0.1}},
                                            allow_symmetric=True)
    return specs


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    started = []

    def start(*options, **environment):
        daemon = Daemon(tmp_path_factory.mktemp("data") / "data", *options, env=environment).start()
        started.append(daemon)
        daemon.upload("smooth", data())
        return daemon

    yield start
    for daemon in started:
        assert daemon.stop() == 0


def train_all(daemon, specs, **more):
    ids = {name: daemon.submit({**spec, **more})["id"] for name, spec in specs.items()}
    ended = {name: daemon.wait(job) for name, job in ids.items()}
    assert {name: job["error"] for name, job in ended.items() if job["status"] != "succeeded"} == {}
    return {name: fingerprint(daemon, job, "latest") for name, job in ids.items()}


@pytest.fixture(scope="module")
def reference(start):
    """One thread, the best instruction set."""
    daemon = start("--threads", "5")
    specs = jobs(daemon.get("/v1/capabilities").json())
    return daemon, specs, train_all(daemon, specs, threads=1)


def test_each_choice_has_an_effect(reference):
    """No two optimizers, activations, losses or initializers give the same weights: none is ignored."""
    _, _, found = reference
    for kind in ("layer", "activation", "optimizer", "initializer", "loss", "schedule", "training"):
        same_start = {n: h for n, h in found.items() if n.startswith(kind + " ")}
        # layers that do nothing to numbers in rows that are flattened anyway, a rate that is constant so far, and a
        # bend at 6 that nothing reaches, and what ends a training later on
        harmless = {"layer flatten", "layer reshape", "schedule plateau", "activation relu6",
                    *(f"training {n}" for n in ("early_stopping", "last_kept", "monitor", "goal", "tolerance"))}
        told_apart = {n: h for n, h in same_start.items() if n not in harmless}
        assert len(set(told_apart.values())) == len(told_apart), kind


@pytest.mark.parametrize("threads", THREADS[1:])
def test_any_number_of_threads(reference, threads):
    daemon, specs, found = reference
    assert train_all(daemon, specs, threads=threads) == found


@pytest.mark.parametrize("simd", ["generic", "avx2", "avx512", "neon"])
def test_any_instruction_set(reference, start, simd):
    _, specs, found = reference
    try:
        daemon = start("--threads", "2", BACKPROPD_SIMD=simd)
    except AssertionError:
        pytest.skip(f"this CPU has no {simd}")
    assert train_all(daemon, specs) == found


def outcome(daemon, job):
    """All that a job ends with: both sets of weights, why and when it ended, and what was measured on the way."""
    ended = daemon.wait(job)
    assert ended["status"] == "succeeded", ended["error"]
    weights = [fingerprint(daemon, job, checkpoint) for checkpoint in ("latest", "best")]
    return weights, ended["stop_reason"], ended["progress"]["step"], ended["progress"]["samples"], ended["metrics"]


def test_interrupted_in_the_middle_of_an_epoch(reference, start):
    """Each job is paused as soon as it has begun, the daemon is killed, and another goes on with other threads."""
    _, specs, _ = reference
    longer = {n: {**s, "training": {**s["training"], "epochs": 600}}
              for n, s in specs.items() if n.split()[0] in ("layer", "optimizer", "loss", "schedule", "training")}
    daemon = start("--threads", "2", "--workers", "2")
    begun = {name: daemon.submit(spec)["id"] for name, spec in longer.items()}
    undisturbed = {name: outcome(daemon, job) for name, job in begun.items()}
    reasons = {o[1] for n, o in undisturbed.items() if n.startswith("training ")}
    assert reasons == {"max_epochs", "early_stopping", "target_reached", "converged"}
    rollbacks = daemon.get(f"/v1/jobs/{begun['training rollback']}/events", headers={"Accept": "application/json"}).text
    assert '"rollback"' in rollbacks
    ids, paused = {}, 0
    for name, spec in longer.items():
        ids[name] = job = daemon.submit({**spec, "threads": 1})["id"]
        daemon.wait(job, lambda j: j["progress"]["step"] > 0)
        daemon.post(f"/v1/jobs/{job}/pause")
        paused += daemon.wait(job, lambda j: j["status"] in ("paused", "succeeded"))["status"] == "paused"
    assert paused > len(ids) / 3
    daemon.kill()
    daemon.options = ("--threads", "3")
    daemon.start()
    for job in ids.values():
        daemon.post(f"/v1/jobs/{job}/resume")
    assert {n: outcome(daemon, job) for n, job in ids.items()} == undisturbed
