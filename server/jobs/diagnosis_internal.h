/* diagnosis_internal.h: what the parts of the diagnosis share: the rules, and what is said about them. */
#ifndef BP_JOBS_DIAGNOSIS_INTERNAL_H
#define BP_JOBS_DIAGNOSIS_INTERNAL_H

#include "base/status.h"
#include "jobs/diagnosis.h"

enum bp_ill {
    BP_ILL_SYMMETRY, /* in the order in which they are looked for: a later one may depend on an earlier */
    BP_ILL_DEAD,
    BP_ILL_SATURATION,
    BP_ILL_EXPLODING,
    BP_ILL_VANISHING,
    BP_ILL_DIVERGENCE,
    BP_ILL_RATE_HIGH,
    BP_ILL_RATE_LOW,
    BP_ILL_TIME,
    BP_ILL_OVERFITTING,
    BP_ILL_WORSE,
    BP_ILL_NOTHING,
    BP_ILL_IMBALANCE,
    BP_ILL_COUNT
};

struct bp_diagnosis {
    const struct bp_diagnosis_facts *facts;
    int nlayers;                          /* of the history, the network included */
    size_t n;                             /* samples */
    const struct bp_layer_point **points; /* (n, nlayers); NULL where a layer is missing in a sample */
    double *sorting;                      /* room for n numbers */
    bool found[BP_ILL_COUNT];
    /* of the finding being made */
    json_t *layers, *evidence;
    char detail[480];
    const char *advice; /* set by a rule that knows better than the table; else NULL */
};

/* A rule: true when the ill is there, with layers, evidence and detail filled in. */
typedef bool bp_rule(struct bp_diagnosis *d);
extern bp_rule *const bp_diagnosis_rules[BP_ILL_COUNT];

/* Puts a figure into the evidence. */
void bp_diagnosis_evidence(struct bp_diagnosis *d, const char *key, double value);
/* Mean of the last tenth of a series, of three values at least; the series has three. */
double bp_diagnosis_tail(const struct bp_curve *c);

/* Rules of diagnosis_target.c. */
bp_rule bp_find_worse, bp_find_nothing;

/* Value of a figure of a layer in a sample; NaN where there is none. */
double bp_diagnosis_at(const struct bp_diagnosis *d, size_t sample, int layer, enum bp_figure figure);
/* Median of the finite values of samples [from, to); NaN where there are none. */
double bp_diagnosis_median(const struct bp_diagnosis *d, int layer, enum bp_figure figure, size_t from, size_t to);

#endif
