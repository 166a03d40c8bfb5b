/* transform_planning.h: a plan in the making, shared by transform_plan.c and transform_column.c. Private to them. */
#ifndef BP_DATA_TRANSFORM_PLANNING_H
#define BP_DATA_TRANSFORM_PLANNING_H

#include "data/transform_internal.h"

struct bp_planning {
    const struct bp_table *table;
    const json_t *dataset;
    struct bp_problems *problems;
    struct bp_transform *t;
    const char **names; /* of the table's columns, for bp_nearest */
    uint8_t *chosen;    /* by column */
    int target;         /* -1: none */
    bool regression;
};

/* Adds a column as a feature, as the spec asks for; faults go to the problems. BP_NOMEM. */
bp_status bp_planning_feature(struct bp_planning *p, const struct bp_table_column *c, struct bp_error *err);

/* The levels of a category, or the values of a number that is read as one. BP_NOMEM. */
bp_status bp_planning_levels(const struct bp_table_column *c, struct bp_levels *ret, struct bp_error *err);

bool bp_planning_is_word(const char *word, const char *expected); /* NULL is no word */

#endif
