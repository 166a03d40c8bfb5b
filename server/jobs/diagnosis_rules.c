/* diagnosis_rules.c: one function for each ill, with the thresholds it goes by and where they come from.
 *
 * Figures of the end are medians over the last third of the samples, so that no single batch decides.
 */
#include "jobs/diagnosis_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Dead: outputs 0 for every row of the probe. With a rate that is too high "as much as 40 % of your network can be dead"
 * (Karpathy, CS231n notes, Neural Networks 1); sparse, healthy layers stay well below. */
#define DEAD_SHARE 0.4
/* Saturated: the slope below 5 % of the steepest. Glorot and Bengio (2010), figures 2 and 3: healthy tanh and sigmoid
 * layers keep most units away from the flat ends, saturated ones sit there almost entirely. */
#define SATURATED_SHARE 0.5
/* Error signal of the first layer over that of the last. Each sigmoid layer multiplies by at most 1/4 (Hochreiter 1991;
 * Bengio, Simard and Frasconi 1994): 1e-3 is what five of them leave at best. */
#define VANISHING_RATIO 1e-3
#define EXPLODING_RATIO 1e2
/* Norm of the whole gradient: usual clipping thresholds are 1 to 15 (Pascanu, Mikolov and Bengio 2013). */
#define EXPLODING_NORM 1e3
#define DEPTH_MIN 3 /* layers with weights between which a signal can vanish or explode */
/* Update over weights: "should be somewhere around 1e-3" (Karpathy, CS231n notes, Neural Networks 3). */
#define RATIO_HIGH 0.03
#define RATIO_WILD 0.5 /* one step that changes the weights by half their size */
#define RATIO_LOW 1e-4
#define RATIO_SMALL 1e-3 /* low too, where the loss falls at every look and has still hardly moved */
#define STEADY 0.02      /* of the ways down, the most that goes up again */
#define IMPROVED 0.1     /* of the loss at the start: less, and nothing was learned */
/* Overfitting: validation loss well above its best, while the training loss still falls (Prechelt 1998, "generalization
 * loss": stopping at 5 %; a verdict needs more than a reason to stop). */
#define OVERFIT_RISE 1.25
#define OVERFIT_FALL 0.8
#define OVERFIT_EPOCHS 5
#define OVERFIT_SHARE 0.05 /* of the first validation loss: smaller rises are noise */
/* Rows of the largest class over those of the smallest: "high imbalance" from 9 on (Fernandez et al. 2008, KEEL). */
#define IMBALANCE 9.0

static void add_layer(struct bp_diagnosis *d, int layer)
{
    json_array_append_new(d->layers, json_string(d->facts->layers->layers[layer].name));
}

static size_t last_third(const struct bp_diagnosis *d)
{
    return d->n - (d->n + 2) / 3;
}

static double at_end(const struct bp_diagnosis *d, int layer, enum bp_figure figure)
{
    return bp_diagnosis_median(d, layer, figure, last_third(d), d->n);
}

static const char *layer_name(const struct bp_diagnosis *d, int layer)
{
    return d->facts->layers->layers[layer].name;
}

/* --- shares of units ----------------------------------------------------------------------------------------------- */

static bool find_symmetry(struct bp_diagnosis *d)
{
    for (int l = 1; l < d->nlayers && d->n > 0; l++) {
        if (!d->facts->layers->layers[l].hidden || bp_diagnosis_at(d, 0, l, BP_FIGURE_ALIKE) != 1 ||
            bp_diagnosis_at(d, d->n - 1, l, BP_FIGURE_ALIKE) != 1)
            continue;
        add_layer(d, l);
        snprintf(
            d->detail, sizeof d->detail,
            "all units of layer %s began with the same weights and still have the same ones, to the bit: they get "
            "the same error signal at every step, so the whole layer is worth a single unit",
            layer_name(d, l));
    }
    bp_diagnosis_evidence(d, "alike_share", 1);
    return json_array_size(d->layers) > 0;
}

/* Hidden layers where a share is at least `least` at the end. */
static bool find_share(struct bp_diagnosis *d, enum bp_figure figure, double least, const char *what)
{
    double worst = 0;
    int worst_layer = 0;
    for (int l = 1; l < d->nlayers; l++) {
        double share = at_end(d, l, figure);
        if (!d->facts->layers->layers[l].hidden || !(share >= least))
            continue;
        add_layer(d, l);
        if (share > worst) {
            worst = share;
            worst_layer = l;
        }
    }
    if (!worst_layer)
        return false;
    double first = bp_diagnosis_at(d, 0, worst_layer, figure);
    bp_diagnosis_evidence(d, "share", worst);
    bp_diagnosis_evidence(d, "share_at_start", first);
    bp_diagnosis_evidence(d, "threshold", least);
    snprintf(d->detail, sizeof d->detail, "%.0f %% of the units of layer %s are %s (%.0f %% were at the first step)",
             100 * worst, layer_name(d, worst_layer), what, 100 * first);
    return true;
}

static bool find_dead(struct bp_diagnosis *d)
{
    return find_share(d, BP_FIGURE_DEAD, DEAD_SHARE, "0 for every row, so no gradient flows through them");
}

static bool find_saturation(struct bp_diagnosis *d)
{
    return find_share(d, BP_FIGURE_SATURATED, SATURATED_SHARE,
                      "at the flat ends of their activation, where its slope is nearly 0");
}

/* --- the error signal ---------------------------------------------------------------------------------------------- */

/* The first and the last layer with weights; returns how many there are. */
static int weight_layers(const struct bp_diagnosis *d, int *first, int *last)
{
    int n = 0;
    for (int l = 1; l < d->nlayers && d->n > 0; l++) {
        if (isnan(bp_diagnosis_at(d, 0, l, BP_FIGURE_WEIGHT_NORM)))
            continue;
        *first = n++ == 0 ? l : *first;
        *last = l;
    }
    return n;
}

/* The largest update ratio of the first steps. */
static double early_ratio(const struct bp_diagnosis *d)
{
    double most = 0;
    for (size_t s = 0; s < d->n && s < 4; s++) {
        double ratio = bp_diagnosis_at(d, s, 0, BP_FIGURE_UPDATE_RATIO);
        most = ratio > most ? ratio : most;
    }
    return most;
}

static bool find_exploding(struct bp_diagnosis *d)
{
    int first = 0, last = 0, depth = weight_layers(d, &first, &last);
    /* After a wild step anything explodes: what counts then is how it was before. */
    size_t early = early_ratio(d) >= RATIO_WILD ? 1 : d->n < 5 ? d->n : 5;
    if (depth == 0)
        return false;
    double below = bp_diagnosis_median(d, first, BP_FIGURE_DELTA_NORM, 0, early);
    double above = bp_diagnosis_median(d, last, BP_FIGURE_DELTA_NORM, 0, early);
    double norm = bp_diagnosis_median(d, 0, BP_FIGURE_GRADIENT_NORM, 0, early);
    double ratio = below / above;
    bool grows = depth >= DEPTH_MIN && ratio >= EXPLODING_RATIO;
    if (!grows && !(norm >= EXPLODING_NORM))
        return false;
    add_layer(d, first);
    bp_diagnosis_evidence(d, "gradient_norm", norm);
    bp_diagnosis_evidence(d, "delta_first", below);
    bp_diagnosis_evidence(d, "delta_last", above);
    bp_diagnosis_evidence(d, "ratio", ratio);
    if (grows)
        snprintf(
            d->detail, sizeof d->detail,
            "the error signal grows on its way back: %.3g at the last layer, %.3g at %s, %.3g times as much; the "
            "norm of the whole gradient is %.3g",
            above, below, layer_name(d, first), ratio, norm);
    else
        snprintf(d->detail, sizeof d->detail, "the norm of the whole gradient is %.3g from the first steps on", norm);
    return true;
}

static bool find_vanishing(struct bp_diagnosis *d)
{
    int first = 0, last = 0, depth = weight_layers(d, &first, &last);
    size_t to = d->found[BP_ILL_DEAD] ? 1 : d->n; /* no signal gets past dead units: how was it before they died? */
    if (depth < DEPTH_MIN || d->found[BP_ILL_SYMMETRY])
        return false;
    double below = bp_diagnosis_median(d, first, BP_FIGURE_DELTA_NORM, 0, to);
    double above = bp_diagnosis_median(d, last, BP_FIGURE_DELTA_NORM, 0, to);
    if (!(below > 0) || !(below < VANISHING_RATIO * above))
        return false;
    add_layer(d, first);
    bp_diagnosis_evidence(d, "delta_first", below);
    bp_diagnosis_evidence(d, "delta_last", above);
    bp_diagnosis_evidence(d, "ratio", below / above);
    bp_diagnosis_evidence(d, "depth", depth);
    bp_diagnosis_evidence(d, "gradient_norm_first", bp_diagnosis_median(d, first, BP_FIGURE_GRADIENT_NORM, 0, d->n));
    snprintf(
        d->detail, sizeof d->detail,
        "the error signal fades on its way back through %d layers: %.3g at the last, %.3g at %s, %.1g of it; the "
        "first layers learn next to nothing",
        depth, above, below, layer_name(d, first), below / above);
    return true;
}

/* --- the learning rate --------------------------------------------------------------------------------------------- */

static double rate_of(const struct bp_diagnosis *d)
{
    return json_number_value(json_object_get(json_object_get(d->facts->spec, "optimizer"), "lr"));
}

/* The loss of the probe from sample to sample: what it began with, its least, its end, and how far it went up and down. */
struct path {
    double start, least, most, end, rises, falls;
};

static struct path loss_path(const struct bp_diagnosis *d)
{
    struct path p = {.start = NAN, .least = INFINITY, .end = at_end(d, 0, BP_FIGURE_LOSS)};
    double before = NAN;
    for (size_t s = 0; s < d->n; s++) {
        double loss = bp_diagnosis_at(d, s, 0, BP_FIGURE_LOSS);
        if (!isfinite(loss))
            continue;
        p.start = isnan(p.start) ? loss : p.start;
        p.least = loss < p.least ? loss : p.least;
        p.most = loss > p.most ? loss : p.most;
        if (loss > before)
            p.rises += loss - before;
        else if (loss < before)
            p.falls += before - loss;
        before = loss;
    }
    return p;
}

static bool find_divergence(struct bp_diagnosis *d)
{
    const struct bp_diagnosis_facts *f = d->facts;
    if (!f->diverged && f->rollbacks == 0)
        return false;
    struct path p = loss_path(d);
    bp_diagnosis_evidence(d, "loss_at_start", p.start);
    bp_diagnosis_evidence(d, "learning_rate", rate_of(d));
    if (f->where)
        json_object_set_new(d->evidence, "where", json_string(f->where));
    if (f->rollbacks > 0) {
        bp_diagnosis_evidence(d, "rollbacks", f->rollbacks);
        bp_diagnosis_evidence(d, "rate_factor", f->rollback_factor);
    }
    const char *where = f->where ? f->where : "an op";
    if (f->diverged)
        snprintf(d->detail, sizeof d->detail,
                 "a loss or a gradient stopped being a finite number, first seen in %.100s; the step was not carried "
                 "out, and the weights are those before it%s",
                 where,
                 d->n > 0 && isnan(p.start)
                     ? ". It was the first step: no rate is to blame, but numbers that are too large. Scale the "
                       "inputs (scale: standard) and the target (target_scale: standard)"
                     : "");
    else
        snprintf(
            d->detail, sizeof d->detail,
            "a loss or a gradient stopped being a finite number %d time%s, the last time in %.100s; each time "
            "training went back to the start of the epoch, and on with a smaller rate: now %.3g times the one of "
            "the spec",
            f->rollbacks, f->rollbacks == 1 ? "" : "s", where, f->rollback_factor);
    return true;
}

/* A loss in words: one that ran away is no number. */
static const char *loss_text(double loss, char text[16])
{
    snprintf(text, 16, "%.3g", loss);
    return isfinite(loss) ? text : "no number";
}

static bool find_rate_high(struct bp_diagnosis *d)
{
    struct path p = loss_path(d);
    double ratio = bp_diagnosis_median(d, 0, BP_FIGURE_UPDATE_RATIO, d->n > 1, d->n), early = early_ratio(d);
    bool worse = p.end >= (1 - IMPROVED) * p.start;
    bool jumped = early >= RATIO_WILD && p.most >= 2 * p.start;
    bool unsteady = jumped || (p.rises >= 0.5 * p.falls && p.end >= 2 * p.least && p.end - p.least >= 0.05 * p.start);
    bool large = ratio >= RATIO_HIGH || early >= RATIO_WILD;
    bool stuck = d->found[BP_ILL_SYMMETRY] || (d->found[BP_ILL_EXPLODING] && !(early >= RATIO_WILD));
    if (stuck || !large || !(worse || unsteady || d->facts->diverged))
        return false;
    bp_diagnosis_evidence(d, "update_ratio", ratio);
    bp_diagnosis_evidence(d, "update_ratio_early", early);
    bp_diagnosis_evidence(d, "learning_rate", rate_of(d));
    bp_diagnosis_evidence(d, "loss_at_start", p.start);
    bp_diagnosis_evidence(d, "loss_best", p.least);
    bp_diagnosis_evidence(d, "loss_at_end", p.end);
    const char *how = d->facts->diverged ? "ran away" : worse ? "is no better for it" : "jumps up and down";
    char start[16], most[16], least[16], end[16];
    snprintf(
        d->detail, sizeof d->detail,
        "a step changes the weights by up to %.2g of their size (about 0.001 is usual), and the loss %s: %s at the "
        "start, %s at most, %s at best, %s at the end",
        fmax(early, ratio), how, loss_text(p.start, start), loss_text(p.most, most), loss_text(p.least, least),
        loss_text(p.end, end));
    return true;
}

static bool find_rate_low(struct bp_diagnosis *d)
{
    struct path p = loss_path(d);
    double ratio = bp_diagnosis_median(d, 0, BP_FIGURE_UPDATE_RATIO, 0, d->n);
    bool other = d->facts->diverged;
    for (int i = 0; i < BP_ILL_RATE_LOW; i++)
        other = other || d->found[i];
    bool steady = p.falls > 0 && p.rises <= STEADY * p.falls;
    if (other || d->n < 4 || !(ratio < (steady ? RATIO_SMALL : RATIO_LOW)) ||
        !(p.start - p.least < IMPROVED * p.start))
        return false;
    bp_diagnosis_evidence(d, "update_ratio", ratio);
    bp_diagnosis_evidence(d, "learning_rate", rate_of(d));
    bp_diagnosis_evidence(d, "loss_at_start", p.start);
    bp_diagnosis_evidence(d, "loss_at_end", p.end);
    snprintf(
        d->detail, sizeof d->detail,
        "a step changes the weights by %.2g of their size (about 0.001 is usual), and the loss has hardly moved: "
        "%.4g at the start, %.4g at the end",
        ratio, p.start, p.end);
    return true;
}

/* A signal that fades through time is what most recurrent layers begin with, and no ill while the network learns: the
 * last steps may be all that matters. */
static bool find_time(struct bp_diagnosis *d)
{
    struct path p = loss_path(d);
    bool other = d->facts->diverged;
    double worst = VANISHING_RATIO;
    int layer = 0;
    for (int i = 0; i < BP_ILL_TIME; i++)
        other = other || d->found[i];
    if (other || d->n < 4 || !(p.start - p.least < IMPROVED * p.start))
        return false;
    for (int l = 1; l < d->nlayers; l++) {
        double ratio = at_end(d, l, BP_FIGURE_DELTA_RATIO);
        if (!(ratio < VANISHING_RATIO))
            continue;
        add_layer(d, l);
        layer = ratio < worst || !layer ? l : layer;
        worst = ratio < worst ? ratio : worst;
    }
    if (!layer)
        return false;
    bp_diagnosis_evidence(d, "delta_step_ratio", worst);
    bp_diagnosis_evidence(d, "delta_last_step", at_end(d, layer, BP_FIGURE_DELTA_LAST));
    bp_diagnosis_evidence(d, "delta_first_step", at_end(d, layer, BP_FIGURE_DELTA_FIRST));
    bp_diagnosis_evidence(d, "loss_at_start", p.start);
    bp_diagnosis_evidence(d, "loss_at_end", p.end);
    snprintf(d->detail, sizeof d->detail,
             "in layer %s %.1g of the error signal of the last step gets back to the first, and the loss has hardly "
             "moved: %.4g at the start, %.4g at the end; what the early steps hold cannot be learned so",
             layer_name(d, layer), worst, p.start, p.end);
    return true;
}

/* --- the data ------------------------------------------------------------------------------------------------------ */

static bool find_overfitting(struct bp_diagnosis *d)
{
    const struct bp_curve *train = &d->facts->loss, *valid = &d->facts->val_loss;
    size_t best = 0;
    if (d->found[BP_ILL_RATE_HIGH] || valid->n < OVERFIT_EPOCHS || train->n != valid->n)
        return false;
    for (size_t i = 1; i < valid->n; i++)
        best = valid->value[i] < valid->value[best] ? i : best;
    double end = bp_diagnosis_tail(valid), fit = bp_diagnosis_tail(train), least = valid->value[best];
    if (!(end >= OVERFIT_RISE * least) || !(fit <= OVERFIT_FALL * train->value[best]) || !(fit < end) ||
        !(end - least >= OVERFIT_SHARE * valid->value[0]))
        return false;
    bp_diagnosis_evidence(d, "best_epoch", (double)(best + 1));
    bp_diagnosis_evidence(d, "val_loss_best", least);
    bp_diagnosis_evidence(d, "val_loss_at_end", end);
    bp_diagnosis_evidence(d, "loss_at_best_epoch", train->value[best]);
    bp_diagnosis_evidence(d, "loss_at_end", fit);
    snprintf(
        d->detail, sizeof d->detail,
        "the validation loss was best after epoch %zu (%.3g) and has risen to %.3g since, while the training loss "
        "went on falling, from %.3g to %.3g: the network learns its training rows by heart",
        best + 1, least, end, train->value[best], fit);
    return true;
}

static bool find_imbalance(struct bp_diagnosis *d)
{
    const json_t *counts = d->facts->class_counts;
    size_t few = 0, many = 0, n = json_array_size(counts);
    double total = 0;
    json_t *weights = json_object_get(json_object_get(d->facts->spec, "dataset"), "class_weights");
    if (n < 2 || (weights && !json_is_null(weights)))
        return false;
    for (size_t i = 0; i < n; i++) {
        double c = json_number_value(json_array_get(counts, i));
        total += c;
        few = c < json_number_value(json_array_get(counts, few)) ? i : few;
        many = c > json_number_value(json_array_get(counts, many)) ? i : many;
    }
    double least = json_number_value(json_array_get(counts, few));
    double most = json_number_value(json_array_get(counts, many));
    if (!(most >= IMBALANCE * least))
        return false;
    bp_diagnosis_evidence(d, "largest_count", most);
    bp_diagnosis_evidence(d, "smallest_count", least);
    bp_diagnosis_evidence(d, "ratio", least > 0 ? most / least : INFINITY);
    bp_diagnosis_evidence(d, "majority_share", most / total);
    json_object_set(d->evidence, "largest_class", json_array_get(d->facts->class_labels, many));
    json_object_set(d->evidence, "smallest_class", json_array_get(d->facts->class_labels, few));
    snprintf(
        d->detail, sizeof d->detail,
        "the largest class has %.0f rows, the smallest %.0f: always answering with the largest is right for %.0f %% "
        "of the rows, so an accuracy of %.2f means nothing here",
        most, least, 100 * most / total, most / total);
    return true;
}

bp_rule *const bp_diagnosis_rules[BP_ILL_COUNT] = {
    [BP_ILL_SYMMETRY] = find_symmetry,   [BP_ILL_DEAD] = find_dead,           [BP_ILL_SATURATION] = find_saturation,
    [BP_ILL_EXPLODING] = find_exploding, [BP_ILL_VANISHING] = find_vanishing, [BP_ILL_DIVERGENCE] = find_divergence,
    [BP_ILL_RATE_HIGH] = find_rate_high, [BP_ILL_RATE_LOW] = find_rate_low,   [BP_ILL_OVERFITTING] = find_overfitting,
    [BP_ILL_TIME] = find_time,           [BP_ILL_WORSE] = bp_find_worse,      [BP_ILL_NOTHING] = bp_find_nothing,
    [BP_ILL_IMBALANCE] = find_imbalance,
};
