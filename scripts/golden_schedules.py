#!/usr/bin/env python3
"""Writes tests/unit/train/golden/schedules.h: the learning rates of PyTorch's schedulers (made with 1.13).

40 epochs of 7 steps, from the rate 0.3: the rate of each epoch's last step. plateau is driven by a made-up loss that
falls, stays, rises and is not a number for a while; its values are written down too.
"""
import math
import pathlib
import sys

import torch
from torch.optim import lr_scheduler

LR, EPOCHS, STEPS = 0.3, 40, 7

# name, initializer of struct bp_schedule, scheduler, whether it is called each step
CASES = [
    ("step", ".kind = BP_SCHEDULE_STEP, .step_size = 7, .gamma = 0.3", lambda o: lr_scheduler.StepLR(o, 7, 0.3), False),
    ("multistep", ".kind = BP_SCHEDULE_MULTISTEP, .gamma = 0.4, .nmilestones = 3, .milestone = {3, 20, 21}",
     lambda o: lr_scheduler.MultiStepLR(o, [3, 20, 21], 0.4), False),
    ("exponential", ".kind = BP_SCHEDULE_EXPONENTIAL, .gamma = 0.93",
     lambda o: lr_scheduler.ExponentialLR(o, 0.93), False),
    ("polynomial", ".kind = BP_SCHEDULE_POLYNOMIAL, .power = 1.7",
     lambda o: lr_scheduler.PolynomialLR(o, EPOCHS, 1.7), False),
    ("cosine", ".kind = BP_SCHEDULE_COSINE, .eta_min = 0.01",
     lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, 0.01), False),
    ("restarts", ".kind = BP_SCHEDULE_COSINE_RESTARTS, .period = 6, .growth = 1",
     lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 6), False),
    ("restarts_grow", ".kind = BP_SCHEDULE_COSINE_RESTARTS, .period = 3, .growth = 2, .eta_min = 0.02",
     lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, 0.02), False),
    ("one_cycle", ".kind = BP_SCHEDULE_ONE_CYCLE, .max_lr = 0.7, .pct_start = 0.25",
     lambda o: lr_scheduler.OneCycleLR(o, 0.7, total_steps=EPOCHS * STEPS, pct_start=0.25), True),
    ("plateau", ".kind = BP_SCHEDULE_PLATEAU, .gamma = 0.5, .patience = 2, .cooldown = 3, .threshold = 0.01, "
                ".eta_min = 0.02",
     lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=2, cooldown=3, threshold=0.01, min_lr=0.02),
     False),
]


def loss(epoch):
    if 24 <= epoch < 27:
        return math.nan
    return max(0.2, 1.0 - 0.1 * epoch) + (0.3 if 15 <= epoch < 20 else 0.0) - (0.1 if epoch == 30 else 0.0)


def rates(make, per_step):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = make(optimizer)
    out = []
    for epoch in range(EPOCHS):
        for _ in range(STEPS):
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            if per_step:
                scheduler.step()
        out.append(rate)
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss(epoch))
        elif not per_step:
            scheduler.step()
    return out


def array(values):
    words = ["NAN" if math.isnan(v) else repr(v) for v in values]
    return ",\n".join("     " + ", ".join(words[i:i + 4]) for i in range(0, len(words), 4)).lstrip()


def main():
    out = ["/* Made by scripts/golden_schedules.py; not to be edited. clang-format off */\n",
           f"enum {{ GOLDEN_EPOCHS = {EPOCHS}, GOLDEN_STEPS = {STEPS} }};\n#define GOLDEN_LR {LR}\n",
           f"static const double golden_loss[GOLDEN_EPOCHS] = {{\n    {array([loss(e) for e in range(EPOCHS)])}}};\n",
           "static const struct {\n    const char *name;\n    struct bp_schedule schedule;\n"
           "    double rates[GOLDEN_EPOCHS];\n} golden_schedules[] = {"]
    for name, text, make, per_step in CASES:
        out.append(f'    {{"{name}", {{{text}}},\n    {{{array(rates(make, per_step))}}}}},')
    out.append("};")
    path = pathlib.Path(__file__).parent.parent / "tests/unit/train/golden/schedules.h"
    path.write_text("\n".join(out) + "\n")
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
