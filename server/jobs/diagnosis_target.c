/* diagnosis_target.c: the rules for numbers as a target: is the model any better than the mean of the target?
 *
 * r2 says so: 1 - (sum of squared errors) / (sum of squared deviations from the mean). It is 0 for the mean itself, which
 * every network with a bias in its output layer can say. Well below 0 on the training rows, too, training has not got
 * there; about 0, it has found nothing else to say. A run is judged when it is over, or when it is plain that it is not
 * on its way; and only where nothing else was found to be wrong, which then is the reason.
 * Where r2 is not among the metrics (it is by default) nothing is said.
 */
#include "jobs/diagnosis_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WORSE (-0.1)     /* r2 below it is worse than the mean by more than the noise of one epoch, or of a median */
#define NOTHING 0.03     /* and below this no better: with few rows chance alone explains as much */
#define EPOCHS_MIN 5     /* before the end nothing is said of fewer */
#define STILL_RISES 0.05 /* of what is missing to 0, gained in the last half of the epochs: more of them help */

static const char advice_scale[] =
    "Set dataset.target_scale to \"standard\" (the default for this loss): the network then learns numbers around 0 "
    "with a spread of 1, and errors and predictions are still given in the target's units. Without it: a much "
    "higher learning rate and many more epochs.";
static const char advice_longer[] = "It is still getting better: train for more epochs (POST …/clone with "
                                    "training.epochs), and with a higher learning rate, three to ten times.";

static const json_t *part(const json_t *spec, const char *object, const char *key)
{
    return json_object_get(json_object_get(spec, object), key);
}

static bool is_text(const json_t *value, const char *text)
{
    const char *have = json_string_value(value);
    return have && strcmp(have, text) == 0;
}

static bool has_loss(const struct bp_diagnosis *d, const char *name)
{
    const json_t *loss = json_object_get(d->facts->spec, "loss");
    return is_text(json_is_object(loss) ? json_object_get(loss, "type") : loss, name);
}

/* Whether r2 can judge: a loss whose best constant is the mean. That of mae is the median, and huber's lies between: where
 * most of the targets are 0, doing well by them is worse than the mean. */
static bool judges(const struct bp_diagnosis *d)
{
    for (int i = 0; i < BP_ILL_WORSE; i++)
        if (d->found[i])
            return false;
    return has_loss(d, "mse") || has_loss(d, "poisson");
}

/* Whether scaling the target is a cure: it is not scaled, and it can be. poisson wants counts, and an output with bounds
 * would not reach a scaled target. */
static bool wants_scale(const struct bp_diagnosis *d)
{
    const json_t *layers = part(d->facts->spec, "model", "layers");
    const json_t *output = json_array_get(layers, json_array_size(layers) - 1);
    const json_t *activation = json_object_get(output, "activation");
    return is_text(part(d->facts->spec, "dataset", "target_scale"), "none") && has_loss(d, "mse") &&
           is_text(json_object_get(output, "type"), "dense") && (!activation || is_text(activation, "linear"));
}

static double last(const struct bp_curve *c)
{
    return c->n >= 3 ? bp_diagnosis_tail(c) : c->n > 0 ? c->value[c->n - 1] : NAN;
}

static double epochs_of(const struct bp_diagnosis *d)
{
    return json_number_value(part(d->facts->spec, "training", "epochs"));
}

/* r2 gained in the last half of the epochs. */
static double gain(const struct bp_curve *c)
{
    return c->n >= 2 ? c->value[c->n - 1] - c->value[(c->n - 1) / 2] : 0;
}

/* Whether a run that goes on gets to the mean by its end, at the pace of its last half. */
static bool on_its_way(const struct bp_diagnosis *d, const struct bp_curve *c)
{
    double left = epochs_of(d) - (double)c->n, pace = gain(c) / ((double)c->n / 2);
    return c->n < EPOCHS_MIN || c->value[c->n - 1] + pace * left > WORSE;
}

static void show(struct bp_diagnosis *d, double fit, double valid)
{
    const struct bp_diagnosis_facts *f = d->facts;
    static const char *const keys[][2] = {{"mean", "target_mean"}, {"min", "target_min"}, {"max", "target_max"}};
    bp_diagnosis_evidence(d, "r2", fit);
    if (f->val_r2.n > 0)
        bp_diagnosis_evidence(d, "val_r2", valid);
    bp_diagnosis_evidence(d, "r2_at_start", f->r2.value[0]);
    bp_diagnosis_evidence(d, "epochs", (double)f->r2.n);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (json_object_get(f->target, keys[i][0]))
            json_object_set(d->evidence, keys[i][1], json_object_get(f->target, keys[i][0]));
}

bool bp_find_worse(struct bp_diagnosis *d)
{
    const struct bp_curve *train = &d->facts->r2;
    double fit = last(train), valid = last(&d->facts->val_r2);
    /* Dropout makes the training rows look worse than they are: the validation rows must say the same. */
    if (!judges(d) || !(fit < WORSE) || valid >= WORSE || (!d->facts->final && on_its_way(d, train)))
        return false;
    show(d, fit, valid);
    bool unscaled = wants_scale(d);
    if (unscaled)
        d->advice = advice_scale;
    else if (gain(train) > STILL_RISES * -fit)
        d->advice = advice_longer;
    snprintf(
        d->detail, sizeof d->detail,
        "r2 is %.3g on the training rows after %zu epoch%s: below 0 the predictions are worse than the mean of the "
        "target would be%s",
        fit, train->n, train->n == 1 ? "" : "s",
        unscaled ? ". The target is learned in its own units (target_scale: none), so the output layer has to "
                   "get from numbers around 0 to the target's in steps as small as the learning rate"
                 : "");
    return true;
}

bool bp_find_nothing(struct bp_diagnosis *d)
{
    const struct bp_curve *train = &d->facts->r2;
    double fit = last(train), valid = last(&d->facts->val_r2);
    bool late = d->facts->final || 2 * (double)train->n > epochs_of(d);
    if (!judges(d) || d->found[BP_ILL_WORSE] || !late || train->n < EPOCHS_MIN || !(fit < NOTHING) ||
        valid >= NOTHING)
        return false;
    show(d, fit, valid);
    snprintf(
        d->detail, sizeof d->detail,
        "r2 is %.3g on the training rows after %zu epochs%s: the predictions are worth as much as the mean of the "
        "target, whatever the row",
        fit, train->n, d->facts->val_r2.n ? ", and no better on the validation rows" : "");
    return true;
}
