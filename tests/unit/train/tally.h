/* tally.h: what a gradient check's tests compared, printed when they have run: the figures to report. */
#ifndef BP_TESTS_TALLY_H
#define BP_TESTS_TALLY_H

#include "train/gradcheck.h"

#include <inttypes.h>
#include <stdio.h>

static struct {
    int models;
    int64_t checked, kinks;
    double worst;
} tally;

/* Counts the tensors of one checked model. */
static void tally_add(const struct bp_gradcheck_tensor *tensors, int n)
{
    tally.models++;
    for (int i = 0; i < n; i++) {
        tally.checked += tensors[i].checked;
        tally.kinks += tensors[i].kinks;
        tally.worst = tensors[i].worst > tally.worst ? tensors[i].worst : tally.worst;
    }
}

/* Prints the tally, and hands through how many tests failed. */
static int tally_print(int failed)
{
    printf("%d models, %" PRId64 " derivatives compared (%" PRId64
           " more lay at a kink), worst relative error %.1e\n",
           tally.models, tally.checked, tally.kinks, tally.worst);
    return failed;
}

#endif
