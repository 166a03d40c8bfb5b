/* diagnosis.c: running the rules over a job's record, and what is said about each ill; see diagnosis.h. */
#include "jobs/diagnosis_internal.h"
#include "json_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *code, *severity, *title, *advice, *learn;
} ills[BP_ILL_COUNT] = {
    [BP_ILL_SYMMETRY] = {"symmetric_start", "error", "The units of a layer are all the same",
                         "Start from random weights: leave kernel_initializer out, or use kaiming_uniform or "
                         "glorot_uniform. Biases may start at zero, weights may not.",
                         "/learn/symmetric-start"},
    [BP_ILL_DEAD] = {"dead_units", "warning", "Many ReLU units are dead",
                     "Use a smaller learning rate, he_uniform for the weights, and biases that start at zero; or "
                     "leaky_relu, elu or gelu, whose slope is nowhere 0.",
                     "/learn/dead-units"},
    [BP_ILL_SATURATION] = {"saturation", "warning", "Units are saturated",
                           "Scale the inputs (scale: standard), start with smaller weights (glorot_uniform), use a "
                           "smaller learning rate, put batch_norm before the activation, or use relu.",
                           "/learn/saturation"},
    [BP_ILL_EXPLODING] = {"exploding_gradients", "error", "The gradients explode",
                          "Start with smaller weights (he_uniform for relu, glorot_uniform for tanh), set "
                          "clip_grad_norm to 1, scale the inputs and the target, or add batch_norm.",
                          "/learn/exploding-gradients"},
    [BP_ILL_VANISHING] = {"vanishing_gradients", "warning", "The gradients vanish",
                          "Use relu instead of sigmoid or tanh, he_uniform for the weights, batch_norm between the "
                          "layers, fewer layers, or connections that skip some (add).",
                          "/learn/vanishing-gradients"},
    [BP_ILL_DIVERGENCE] = {"divergence", "error", "The training diverged",
                           "Use a smaller learning rate (a tenth), or clip_grad_norm: 1; make sure that inputs and "
                           "target are scaled.",
                           "/learn/learning-rate"},
    [BP_ILL_RATE_HIGH] = {"learning_rate_too_high", "error", "The learning rate is too high",
                          "Try a tenth of the rate, then a third of that if the loss is still unsteady.",
                          "/learn/learning-rate"},
    [BP_ILL_RATE_LOW] = {"learning_rate_too_low", "warning", "The learning rate is too low",
                         "Try ten times the rate, and again, until the loss falls clearly within the first epochs.",
                         "/learn/learning-rate"},
    [BP_ILL_TIME] = {"vanishing_through_time", "warning", "The gradients vanish through time",
                     "Use lstm or gru instead of simple_rnn, recurrent_initializer: orthogonal, shorter windows, or "
                     "multi_head_attention, which looks at every step directly.",
                     "/learn/vanishing-gradients"},
    [BP_ILL_OVERFITTING] = {"overfitting", "warning", "The network overfits",
                            "Stop early (early_stopping), use fewer units, add dropout or l2, or get more rows. The "
                            "best weights by validation loss are kept in any case.",
                            "/learn/overfitting"},
    [BP_ILL_WORSE] =
        {"worse_than_mean", "warning", "The model is worse than the mean of the target",
         "Try ten times the learning rate, or more epochs. If that does not help, look at the loss by epoch "
         "(GET …/metrics) and at rows that are far off (GET …/examples).",
         "/learn/target-scale"},
    [BP_ILL_NOTHING] =
        {"no_better_than_mean", "info", "The model is no better than the mean of the target",
         "Either these columns say nothing about the target (look for others, or for mixed up rows), or "
         "the network cannot use what they say: try more units, ten times the rate, more epochs, and "
         "scale: standard.",
         "/learn/target-scale"},
    [BP_ILL_IMBALANCE] = {"class_imbalance", "warning", "The classes are very unequal",
                          "Look at f1_macro and the confusion matrix (POST …/evaluate) instead of accuracy, and set "
                          "dataset.class_weights to \"balanced\".",
                          "/learn/class-imbalance"},
};

/* --- the record ----------------------------------------------------------------------------------------------------- */

double bp_diagnosis_at(const struct bp_diagnosis *d, size_t sample, int layer, enum bp_figure figure)
{
    const struct bp_layer_point *p = d->points[sample * (size_t)d->nlayers + (size_t)layer];
    return p ? p->value[figure] : NAN;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bp_diagnosis_median(const struct bp_diagnosis *d, int layer, enum bp_figure figure, size_t from, size_t to)
{
    size_t n = 0;
    for (size_t s = from; s < to; s++) {
        double v = bp_diagnosis_at(d, s, layer, figure);
        if (isfinite(v))
            d->sorting[n++] = v;
    }
    if (n == 0)
        return NAN;
    qsort(d->sorting, n, sizeof *d->sorting, ascending);
    return n % 2 ? d->sorting[n / 2] : d->sorting[n / 2 - 1] / 2 + d->sorting[n / 2] / 2;
}

void bp_diagnosis_evidence(struct bp_diagnosis *d, const char *key, double value)
{
    json_object_set_new(d->evidence, key, bp_json_number(value));
}

double bp_diagnosis_tail(const struct bp_curve *c)
{
    size_t n = c->n / 10 > 3 ? c->n / 10 : 3;
    double sum = 0;
    for (size_t i = c->n - n; i < c->n; i++)
        sum += c->value[i];
    return sum / (double)n;
}

/* Lays the points out as (samples, layers). False without memory. */
static bool arrange(struct bp_diagnosis *d)
{
    const struct bp_layer_history *h = d->facts->layers;
    size_t n = 0;
    for (size_t i = 0; i < h->n; i++)
        n += i == 0 || h->points[i].step != h->points[i - 1].step;
    d->nlayers = h->nlayers;
    d->points = calloc(n * (size_t)h->nlayers + 1, sizeof(void *));
    d->sorting = malloc((n + 1) * sizeof *d->sorting);
    if (!d->points || !d->sorting)
        return false;
    for (size_t i = 0; i < h->n; i++) {
        d->n += i == 0 || h->points[i].step != h->points[i - 1].step;
        d->points[(d->n - 1) * (size_t)d->nlayers + (size_t)h->points[i].layer] = &h->points[i];
    }
    return true;
}

/* --- the verdict ---------------------------------------------------------------------------------------------------- */

static json_t *finding_json(const char *code, const char *severity, const char *title, const char *detail,
                            json_t *layers_steal, json_t *evidence_steal, const char *advice, const char *learn)
{
    return json_pack("{ss ss ss ss so so ss ss*}", "code", code, "severity", severity, "title", title, "detail",
                     detail, "layers", layers_steal, "evidence", evidence_steal, "advice", advice, "learn", learn);
}

/* Runs a rule; its finding, or NULL. */
static json_t *apply(struct bp_diagnosis *d, int ill)
{
    d->layers = json_array();
    d->evidence = json_object();
    d->detail[0] = 0;
    d->advice = NULL;
    d->found[ill] = bp_diagnosis_rules[ill](d);
    if (d->found[ill])
        return finding_json(ills[ill].code, ills[ill].severity, ills[ill].title, d->detail, d->layers, d->evidence,
                            d->advice ? d->advice : ills[ill].advice, ills[ill].learn);
    json_decref(d->layers);
    json_decref(d->evidence);
    return NULL;
}

/* What there is to say where no rule found anything. */
static json_t *nothing_found(const struct bp_diagnosis *d)
{
    json_t *evidence = json_pack("{sI sI}", "samples", (json_int_t)d->n, "epochs", (json_int_t)d->facts->loss.n);
    if (d->n == 0)
        return finding_json("not_measured", "info", "There is nothing to judge by yet",
                            "no step was sampled: the job has not begun, or training.layer_stats is false",
                            json_array(), evidence, "Wait for the first epochs, or train with layer_stats: true.",
                            NULL);
    return finding_json(
        "healthy", "ok", "Nothing found",
        "gradients, updates and activations of every layer, the losses and the classes were looked at, "
        "and none is out of the ordinary",
        json_array(), evidence, "Go on. GET …/layers shows the figures.", NULL);
}

json_t *bp_diagnosis_make(const struct bp_diagnosis_facts *facts)
{
    struct bp_diagnosis d = {.facts = facts};
    json_t *findings = json_array(), *looked = json_array(), *out = NULL;
    if (!arrange(&d) || !findings || !looked) {
        json_decref(findings);
        json_decref(looked);
        goto out;
    }
    for (int i = 0; i < BP_ILL_COUNT; i++) {
        json_t *finding = apply(&d, i);
        if (finding)
            json_array_append_new(findings, finding);
        json_array_append_new(
            looked, json_pack("{ss ss sb}", "code", ills[i].code, "title", ills[i].title, "found", (int)d.found[i]));
    }
    bool any = json_array_size(findings) > 0;
    if (!any)
        json_array_append_new(findings, nothing_found(&d));
    out = json_pack("{so so so}", "healthy",
                    any   ? json_false()
                    : d.n ? json_true()
                          : json_null(),
                    "findings", findings, "looked_at", looked);
out:
    free(d.points);
    free(d.sorting);
    return out;
}
