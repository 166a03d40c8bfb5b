/* spec_sequence.c: windows, groups and time in the spec: what they mean for the split.
 *
 * Rows that belong together are not divided by chance, so there is nothing to stratify, and a person is told which side
 * a row will be on. The columns are looked at by the transform.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

static const char *name_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* The side of the split in words, where it is not what was asked for in so many words. */
static void tell(struct spec_work *w, const json_t *dataset)
{
    const json_t *window = json_object_get(dataset, "window");
    const char *by = name_of(window, "by"), *split_by = name_of(dataset, "split_by");
    const char *order_by = name_of(dataset, "order_by");
    if (split_by && order_by && json_is_object(window))
        spec_warn(w, "/dataset/split_by", "inferred",
                  "each group of \"%.60s\" stays on one side of the split; \"%.60s\" orders the rows of a window and "
                  "does not decide about the split",
                  split_by, order_by);
    else if (split_by && order_by)
        spec_warn(
            w, "/dataset/split_by", "inferred",
            "each group of \"%.60s\" stays on one side of the split; the groups that begin last by \"%.60s\" are "
            "for validation and test",
            split_by, order_by);
    else if (json_is_object(window) && order_by)
        spec_warn(w, "/dataset/window", "inferred",
                  "validation and test are the last windows by \"%.60s\"; windows that reach over a cut are left out",
                  order_by);
    else if (json_is_object(window) && by && !split_by)
        spec_warn(
            w, "/dataset/window", "inferred",
            "windows share rows, so each group of \"%.60s\" stays on one side of the split; \"order_by\" splits "
            "by time instead",
            by);
    else if (json_is_object(window) && !split_by)
        spec_warn(w, "/dataset/window", "inferred",
                  "windows share rows, so validation and test are the last rows of the table, and windows that reach "
                  "over a cut are left out; \"split_by\" or \"order_by\" choose otherwise");
}

bool spec_settle_sequence(struct spec_work *w)
{
    json_t *dataset = json_object_get(w->doc, "dataset");
    bool window = json_is_object(json_object_get(dataset, "window"));
    const char *why = name_of(dataset, "split_by")   ? "split_by"
                      : name_of(dataset, "order_by") ? "order_by"
                                                     : "window";
    if (!window && !name_of(dataset, "split_by") && !name_of(dataset, "order_by"))
        return false;
    if (json_is_true(json_object_get(dataset, "stratify")))
        spec_fault(w, "/dataset/stratify", "incompatible", NULL, NULL,
                   "must be false or left out: \"%s\" decides on which side of the split a row is", why);
    tell(w, dataset);
    return true;
}
