/* outcome.c: see outcome.h. */
#include "api/outcome.h"

#include "json_text.h"
#include "train/metric.h"

#include <math.h>
#include <string.h>

/* Whether each output stands for a class of the target. */
static bool has_classes(const struct bp_head *head, const struct bp_transform_target *target)
{
    return bp_loss_takes_labels(head->loss) && json_array_size(target->labels) == (size_t)head->outputs;
}

/* One output that says yes or no. */
static bool is_binary(const struct bp_head *head)
{
    return head->outputs == 1 && (head->loss == BP_LOSS_BCE || head->loss == BP_LOSS_HINGE);
}

static json_t *values_json(const float *y, int n)
{
    if (n == 1)
        return bp_json_float(y[0]);
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, bp_json_float(y[i]));
    return list;
}

static json_t *binary_label(const struct bp_transform_target *target, bool yes)
{
    if (target->labels && json_array_size(target->labels) == 2)
        return json_incref(json_array_get(target->labels, yes));
    return json_integer(yes);
}

json_t *bp_outcome_json(const struct bp_head *head, const struct bp_transform_target *target, const float *y)
{
    if (has_classes(head, target)) {
        int best = 0;
        for (int i = 1; i < head->outputs; i++)
            best = y[i] > y[best] ? i : best;
        bool probable = head->loss == BP_LOSS_CROSS_ENTROPY;
        return json_pack("{sO so}", "label", json_array_get(target->labels, (size_t)best),
                         probable ? "probability" : "score", bp_json_float(y[best]));
    }
    if (head->loss == BP_LOSS_BCE && head->outputs == 1)
        return json_pack("{so so}", "label", binary_label(target, y[0] >= 0.5f), "probability", bp_json_float(y[0]));
    if (is_binary(head) && json_array_size(target->labels) == 2)
        return json_pack("{so so}", "label", binary_label(target, y[0] > 0), "margin", bp_json_float(y[0]));
    return json_pack("{so}", head->outputs == 1 ? "value" : "values", values_json(y, head->outputs));
}

json_t *bp_outcome_target(const struct bp_head *head, const struct bp_transform_target *target, int32_t label,
                          const float *value)
{
    if (bp_loss_takes_labels(head->loss)) {
        json_t *name = json_array_get(target->labels, (size_t)label);
        return name ? json_incref(name) : json_integer(label);
    }
    if (is_binary(head))
        return binary_label(target, value[0] >= 0.5f);
    json_t *list = json_array();
    for (int i = 0; i < head->outputs; i++)
        json_array_append_new(list, bp_json_float((float)((double)value[i] / target->scale + target->shift)));
    if (head->outputs > 1)
        return list;
    json_t *one = json_incref(json_array_get(list, 0));
    json_decref(list);
    return one;
}

static int find_label(const json_t *labels, const json_t *json)
{
    for (size_t i = 0; i < json_array_size(labels); i++) {
        const json_t *label = json_array_get(labels, i);
        bool same = json_is_number(label) && json_is_number(json)
                        ? json_number_value(label) == json_number_value(json)
                        : json_equal(label, json) != 0;
        if (same)
            return (int)i;
    }
    return -1;
}

bool bp_outcome_parse(const struct bp_head *head, const struct bp_transform_target *target, const json_t *json,
                      int32_t *label, float *value, json_t **ret_allowed)
{
    int index = target->labels ? find_label(target->labels, json) : -1;
    *ret_allowed = NULL;
    if (bp_loss_takes_labels(head->loss) || (is_binary(head) && index >= 0)) {
        *label = index;
        value[0] = (float)index;
        if (index < 0)
            *ret_allowed = json_incref(target->labels);
        return index >= 0;
    }
    for (int i = 0; i < head->outputs; i++) {
        const json_t *v = head->outputs == 1 && !json_is_array(json) ? json : json_array_get(json, (size_t)i);
        if (!json_is_number(v) || (json_is_array(json) && json_array_size(json) != (size_t)head->outputs))
            return false;
        value[i] = (float)((json_number_value(v) - target->shift) * target->scale);
    }
    return true;
}

double bp_outcome_unit(const struct bp_head *head, const struct bp_transform_target *target)
{
    return bp_loss_unit(head->loss, target->is_class ? 1.0 : 1.0 / target->scale);
}
