"""Learning rate schedules through the API: the series `lr` is PyTorch's, to the last digits of a double."""

import pytest
import torch

import data

LR, EPOCHS, BATCH, ROWS = 0.02, 12, 20, 120  # six steps an epoch


def torch_rates(make, per_step=False):
    """The rate of the last step of each epoch, by a scheduler of PyTorch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = make(optimizer)
    rates = []
    for _ in range(EPOCHS):
        for _ in range(ROWS // BATCH):
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            if per_step:
                scheduler.step()
        rates.append(rate)
        if not per_step:
            scheduler.step()
    return rates


lr_scheduler = torch.optim.lr_scheduler
SCHEDULES = [
    ({"type": "step", "step_size": 3, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 3, 0.5), False),
    ({"type": "multistep", "milestones": [2, 5, 9], "gamma": 0.3},
     lambda o: lr_scheduler.MultiStepLR(o, [2, 5, 9], 0.3), False),
    ({"type": "exponential", "gamma": 0.8}, lambda o: lr_scheduler.ExponentialLR(o, 0.8), False),
    ({"type": "polynomial", "power": 2.5}, lambda o: lr_scheduler.PolynomialLR(o, EPOCHS, 2.5), False),
    ({"type": "cosine", "eta_min": 0.001}, lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, 0.001), False),
    ({"type": "cosine_restarts", "period": 2, "factor": 2, "eta_min": 0.001},
     lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2, 0.001), False),
    ({"type": "cosine_restarts", "period": 5},
     lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5), False),
    ({"type": "one_cycle", "max_lr": 0.1, "pct_start": 0.4},
     lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=EPOCHS * ROWS // BATCH, pct_start=0.4), True),
]


@pytest.fixture(scope="module")
def ready(daemon):
    daemon.upload("flowers", data.flowers(ROWS))
    return daemon


def spec(schedule, **more):
    return {"dataset": {"name": "flowers", "target": "species", "validation_split": 0.0}, "layers": [6],
            "optimizer": {"type": "sgd", "lr": LR}, "lr_schedule": schedule,
            "training": {"epochs": EPOCHS, "batch_size": BATCH, "log_every_steps": 1}, **more}


def series(daemon, job, name):
    return daemon.get(f"/v1/jobs/{job['id']}/metrics", params={"names": name}).json()[name]["value"]


@pytest.mark.parametrize("schedule,make,per_step", SCHEDULES)
def test_rates_are_pytorchs(ready, schedule, make, per_step):
    job = ready.train(spec(schedule))
    assert series(ready, job, "lr") == pytest.approx(torch_rates(make, per_step), rel=1e-10)


def test_a_constant_rate_is_no_series(ready):
    job = ready.train(spec("constant"))
    assert "lr" not in job["metrics"]["last"]


def test_warm_up_is_a_linear_factor(ready):
    job = ready.train(spec({"type": "exponential", "gamma": 0.8, "warmup_epochs": 2.5}))
    steps = ROWS // BATCH
    wanted = [LR * 0.8 ** e * min(1.0, (e + 1) * steps / (2.5 * steps)) for e in range(EPOCHS)]
    assert series(ready, job, "lr") == pytest.approx(wanted, rel=1e-12)


def test_the_rate_reaches_the_weights(ready):
    """A rate of almost nothing from epoch 2 on leaves the weights where they were."""
    job = ready.train(spec({"type": "multistep", "milestones": [2], "gamma": 1e-12}))
    loss = series(ready, job, "loss")
    assert loss[1] < loss[0] and abs(loss[-1] - loss[3]) < 1e-6 and abs(loss[1] - loss[0]) > 1e-4


def test_plateau_drops_when_nothing_improves(ready):
    made = spec({"type": "plateau", "factor": 0.5, "patience": 1, "threshold": 0.2, "cooldown": 1, "min_lr": 0.003})
    job = ready.train(made)
    loss, rates = series(ready, job, "loss"), series(ready, job, "lr")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, threshold=0.2, cooldown=1,
                                               min_lr=0.003)
    wanted = []
    for value in loss:
        wanted.append(optimizer.param_groups[0]["lr"])
        scheduler.step(value)
    assert rates == pytest.approx(wanted, rel=1e-12)
    assert rates[-1] == 0.003


def test_capabilities_list_them_all(ready):
    listed = {s["name"]: s["available"] for s in ready.get("/v1/capabilities").json()["schedules"]}
    assert set(listed) == {"constant", *(s["type"] for s, _, _ in SCHEDULES), "plateau"} and all(listed.values())
