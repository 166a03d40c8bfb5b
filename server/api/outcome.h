/* outcome.h: what a network says about one row, and what is true, as JSON: for explanations and examples. */
#ifndef BP_API_OUTCOME_H
#define BP_API_OUTCOME_H

#include "jobs/predictor.h"

/* What the outputs y of a head, as bp_predictor_run gives them, mean: {"label", "probability"},
 * {"label", "margin"} (hinge), {"value"} or {"values"}. New reference or NULL. */
json_t *bp_outcome_json(const struct bp_head *head, const struct bp_transform_target *target, const float *y);

/* The target of a head as the dataset writes it: label (of a head that takes classes), or its values as the network
 * learns them. New reference or NULL. */
json_t *bp_outcome_target(const struct bp_head *head, const struct bp_transform_target *target, int32_t label,
                          const float *value);

/* Reads a target as the dataset writes it into label, or value (head->outputs). False: it is not one; *ret_allowed then
 * is what it could be (new reference), or NULL. */
bool bp_outcome_parse(const struct bp_head *head, const struct bp_transform_target *target, const json_t *json,
                      int32_t *label, float *value, json_t **ret_allowed);

/* Factor from a head's loss, as trained, to the loss in the target's own unit. */
double bp_outcome_unit(const struct bp_head *head, const struct bp_transform_target *target);

#endif
