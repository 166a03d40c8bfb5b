/* plan_training.c: from the parts of a resolved spec that say how to train to the engine's configuration: optimizer,
 * learning rate schedule, gradients, budgets, divergence.
 *
 * Threads: pure functions of their arguments.
 */
#include "jobs/spec_internal.h"

#include <string.h>

static double real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static int64_t integer(const json_t *object, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static bool truth(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static bp_status read_optimizer(const json_t *value, struct bp_optimizer *ret, struct bp_error *err)
{
    const char *name = spec_kind(value, "type");
    const json_t *betas = json_object_get(value, "betas");
    int i = 0;
    while (i < BP_OPTIMIZER_COUNT && strcmp(bp_optimizer_name((enum bp_optimizer_kind)i), name) != 0)
        i++;
    if (i == BP_OPTIMIZER_COUNT)
        return bp_fail(err, BP_INVALID, "there is no optimizer \"%.40s\"", name);
    *ret = (struct bp_optimizer){.kind = (enum bp_optimizer_kind)i,
                                 .lr = real(value, "lr"),
                                 .momentum = real(value, "momentum"),
                                 .dampening = real(value, "dampening"),
                                 .nesterov = truth(value, "nesterov"),
                                 .beta1 = json_number_value(json_array_get(betas, 0)),
                                 .beta2 = json_number_value(json_array_get(betas, 1)),
                                 .eps = real(value, "eps"),
                                 .weight_decay = real(value, "weight_decay"),
                                 .amsgrad = truth(value, "amsgrad"),
                                 .alpha = real(value, i == BP_ADADELTA ? "rho" : "alpha"),
                                 .centered = truth(value, "centered"),
                                 .initial_accumulator = real(value, "initial_accumulator"),
                                 .momentum_decay = real(value, "momentum_decay")};
    return BP_OK;
}

static bp_status read_schedule(const json_t *value, struct bp_schedule *ret, struct bp_error *err)
{
    const char *name = spec_kind(value, "type");
    const json_t *milestones = json_object_get(value, "milestones");
    int i = 0;
    while (i < BP_SCHEDULE_COUNT && strcmp(bp_schedule_name((enum bp_schedule_kind)i), name) != 0)
        i++;
    if (i == BP_SCHEDULE_COUNT || json_array_size(milestones) > BP_MILESTONES_MAX)
        return bp_fail(err, BP_INVALID, "there is no schedule \"%.40s\"", name);
    bool plateau = i == BP_SCHEDULE_PLATEAU;
    *ret = (struct bp_schedule){.kind = (enum bp_schedule_kind)i,
                                .warmup_epochs = real(value, "warmup_epochs"),
                                .gamma = real(value, plateau ? "factor" : "gamma"),
                                .step_size = integer(value, "step_size"),
                                .nmilestones = (int)json_array_size(milestones),
                                .power = real(value, "power"),
                                .eta_min = real(value, plateau ? "min_lr" : "eta_min"),
                                .period = integer(value, "period"),
                                .growth = plateau ? 0 : integer(value, "factor"),
                                .max_lr = real(value, "max_lr"),
                                .pct_start = real(value, "pct_start"),
                                .patience = integer(value, "patience"),
                                .cooldown = integer(value, "cooldown"),
                                .threshold = real(value, "threshold")};
    for (int m = 0; m < ret->nmilestones; m++)
        ret->milestone[m] = (int64_t)json_integer_value(json_array_get(milestones, (size_t)m));
    return BP_OK;
}

static bp_status read_target(const json_t *resolved, const json_t *target, struct bp_train_config *ret,
                             struct bp_error *err)
{
    const char *name = json_string_value(json_object_get(target, "metric"));
    if (!json_is_object(target))
        return BP_OK;
    ret->has_target = true;
    ret->target_value = real(target, "value");
    if (!spec_monitor_read(resolved, name ? name : "", &ret->target))
        return bp_fail(err, BP_INVALID, "there is no metric \"%.40s\" to reach", name ? name : "");
    return BP_OK;
}

bp_status spec_read_training(const json_t *resolved, struct bp_train_config *ret, struct bp_error *err)
{
    const json_t *training = json_object_get(resolved, "training");
    const json_t *divergence = json_object_get(training, "on_divergence");
    ret->accumulate = (int)integer(training, "accumulate");
    ret->clip_grad_value = real(training, "clip_grad_value");
    ret->max_seconds = real(training, "max_seconds");
    ret->tolerance = real(training, "tolerance");
    if (strcmp(spec_kind(divergence, "action"), "rollback") == 0) {
        ret->rollbacks = integer(divergence, "max");
        ret->rollback_factor = real(divergence, "lr_factor");
    }
    bp_status status = read_target(resolved, json_object_get(training, "target"), ret, err);
    if (!status)
        status = read_schedule(json_object_get(resolved, "lr_schedule"), &ret->schedule, err);
    return status ? status : read_optimizer(json_object_get(resolved, "optimizer"), &ret->optimizer, err);
}
