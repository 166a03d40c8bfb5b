/* transform_planning.h: a plan in the making, shared by transform_plan.c and transform_column.c. Private to them. */
#ifndef BP_DATA_TRANSFORM_PLANNING_H
#define BP_DATA_TRANSFORM_PLANNING_H

#include "data/transform_internal.h"

enum { BP_CHOSEN_NOT, BP_CHOSEN_BY_PATTERN, BP_CHOSEN_BY_NAME };

struct bp_planning {
    const struct bp_table *table;
    const json_t *dataset;
    struct bp_problems *problems;
    struct bp_transform *t;
    const char **names; /* of the table's columns, for bp_nearest */
    uint8_t *chosen;    /* by column: BP_CHOSEN_… */
    int nheads;
    const struct bp_transform_want *heads;
};

/* Targets and weights (transform_target.c): takes their columns away from the features, and makes the heads. BP_NOMEM;
 * faults go to the problems. */
void bp_planning_targets(struct bp_planning *p);
bp_status bp_planning_weight(struct bp_planning *p, struct bp_error *err);
bp_status bp_planning_heads(struct bp_planning *p, struct bp_error *err);

json_t *bp_planning_names(const struct bp_planning *p); /* of the columns: what a fault says is allowed */

/* window, split_by and order_by (transform_sequence.c), and whether any window is left. BP_NOMEM. */
bp_status bp_planning_sequence(struct bp_planning *p, struct bp_error *err);
bp_status bp_planning_windows(struct bp_planning *p, struct bp_error *err);

/* Adds a column as a feature, as the spec asks for; faults go to the problems. BP_NOMEM. */
bp_status bp_planning_feature(struct bp_planning *p, const struct bp_table_column *c, struct bp_error *err);

/* The levels of a category, or the values of a number that is read as one. BP_NOMEM. */
bp_status bp_planning_levels(const struct bp_table_column *c, struct bp_levels *ret, struct bp_error *err);

bool bp_planning_is_word(const char *word, const char *expected); /* NULL is no word */

#endif
