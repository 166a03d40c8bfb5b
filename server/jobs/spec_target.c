/* spec_target.c: the targets, and for each the task and the loss.
 *
 * What was given is checked against the data, what was not is inferred, and a choice that a person might wonder about
 * is told in the warnings, with its reason. The rule for a target of numbers: whole numbers with at most 20 different
 * values, each of them ten times on average (or just two values), are classes.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define CLASSES_GUESS 20     /* more different integers look like a quantity */
#define NAMES_LISTED 100     /* names shown for a missing one: there may be thousands of columns */
#define SUM_SLACK 1e-3       /* how far from 1 the shares of a distribution may sum to, rounded as they may be */
#define SUMS_CHECKED 1000000 /* values of a table that are looked at: a submission is answered at once */

static json_t *dataset_of(const struct spec_work *w)
{
    return json_object_get(w->doc, "dataset");
}

static json_t *column_names(const struct bp_table *table)
{
    json_t *names = json_array();
    for (int i = 0; i < table->ncolumns && i < NAMES_LISTED; i++)
        json_array_append_new(names, json_string(table->columns[i].name));
    return names;
}

/* --- which columns ------------------------------------------------------------------------------------------------ */
static void column_missing(struct spec_work *w, const char *pointer, const char *name)
{
    const char *names[NAMES_LISTED];
    size_t n = 0;
    for (int i = 0; i < w->table->ncolumns && i < NAMES_LISTED; i++)
        names[n++] = w->table->columns[i].name;
    const char *near = bp_nearest(name, names, n);
    spec_fault(w, pointer, "unknown_column", near, column_names(w->table),
               "the dataset has no column \"%.80s\"%s%s%s", name, near ? ", did you mean \"" : "", near ? near : "",
               near ? "\"?" : "");
}

/* Adds a target; its column must be there. */
static void add_target(struct spec_work *w, const char *pointer, const char *name)
{
    int index = name ? bp_table_find(w->table, name) : -1;
    if (!name)
        return;
    if (index < 0) {
        column_missing(w, pointer, name);
        w->target_faults = true;
        return;
    }
    for (int i = 0; i < w->ntargets; i++)
        if (w->targets[i] == &w->table->columns[index]) {
            spec_fault(w, pointer, "duplicate", NULL, NULL, "\"%.80s\" is a target already", name);
            w->target_faults = true;
            return;
        }
    if (w->ntargets == BP_TARGETS_MAX) {
        spec_fault(w, pointer, "bad_length", NULL, NULL, "there may be at most %d targets", BP_TARGETS_MAX);
        w->target_faults = true;
        return;
    }
    w->targets[w->ntargets++] = &w->table->columns[index];
}

static void add_list(struct spec_work *w, const char *base, const json_t *target)
{
    size_t i;
    json_t *name;
    char pointer[120];
    if (json_is_string(target))
        add_target(w, base, json_string_value(target));
    json_array_foreach(target, i, name) {
        snprintf(pointer, sizeof pointer, "%s/%zu", base, i);
        add_target(w, pointer, json_string_value(name));
    }
}

/* The targets of model.heads; `target` of the dataset is then their list. */
static void add_heads(struct spec_work *w, const json_t *heads)
{
    json_t *given = json_object_get(dataset_of(w), "target"), *all = json_array(), *head;
    size_t i;
    json_array_foreach(heads, i, head) {
        char pointer[64];
        json_t *target = json_object_get(head, "target");
        snprintf(pointer, sizeof pointer, "/model/heads/%zu/target", i);
        add_list(w, pointer, target);
        w->target_faults |= !target; /* told when its members were checked */
        if (json_is_array(target))
            json_array_extend(all, target);
        else if (target)
            json_array_append(all, target);
    }
    bool one = json_is_string(given) && json_array_size(all) == 1 && json_equal(given, json_array_get(all, 0));
    if (given && !one && !json_equal(given, all)) {
        spec_fault(w, "/dataset/target", "conflict", NULL, json_incref(all),
                   "must be the targets of model.heads in their order, or left out");
        w->target_faults = true;
    }
    if (one)
        json_decref(all);
    else
        spec_set(w, dataset_of(w), "target", all);
}

static void target_required(struct spec_work *w)
{
    char user[64];
    spec_origin(w, "/dataset/target", user, sizeof user);
    for (size_t i = 0; i < json_array_size(w->problems->errors); i++) {
        const char *at = json_string_value(json_object_get(json_array_get(w->problems->errors, i), "pointer"));
        if (at && (strncmp(at, user, strlen(user)) == 0 || strncmp(at, "/model/heads", 12) == 0))
            return; /* given, and wrong in itself */
    }
    spec_fault(
        w, "/dataset/target", "required", NULL, column_names(w->table),
        "\"target\" is required: the column to predict, a list of several, or \"features\" for an autoencoder");
}

/* The targets: those named; of a dataset of arrays the column that is made for it; "features" is the input itself. */
void spec_find_targets(struct spec_work *w)
{
    json_t *dataset = dataset_of(w), *target = json_object_get(dataset, "target");
    const json_t *heads = json_object_get(json_object_get(w->doc, "model"), "heads");
    const char *format = json_string_value(json_object_get(w->table->description, "format"));
    const char *name = json_string_value(target);
    if (json_is_array(heads)) {
        add_heads(w, heads);
    } else if (name && strcmp(name, "features") == 0 && bp_table_find(w->table, name) < 0) {
        w->autoencoder = true;
        return;
    } else if (target) {
        add_list(w, "/dataset/target", target);
    } else if (format && strcmp(format, "idx") == 0 && bp_table_find(w->table, "target") >= 0) {
        spec_set(w, dataset, "target", json_string("target"));
        add_target(w, "/dataset/target", "target");
    } else {
        target_required(w);
    }
    w->target = w->ntargets > 0 && !w->target_faults ? w->targets[0] : NULL;
}

bool spec_is_target(const struct spec_work *w, const struct bp_table_column *c)
{
    for (int i = 0; i < w->ntargets; i++)
        if (w->targets[i] == c)
            return true;
    return false;
}

/* --- task and loss ------------------------------------------------------------------------------------------------ */
/* Whether the column is read as a category: by what it is, or by what the spec says it is. */
static bool is_category(const struct spec_work *w, const struct bp_table_column *c)
{
    const json_t *column = json_object_get(json_object_get(dataset_of(w), "columns"), c->name);
    const char *type = json_string_value(json_object_get(column, "type"));
    return c->kind != BP_COLUMN_NUMBER || (type && strcmp(type, "category") == 0);
}

static const char *natural_task(const struct spec_work *w, const struct bp_table_column *c, char *reason, size_t size)
{
    const json_t *column = json_object_get(json_object_get(dataset_of(w), "columns"), c->name);
    if (is_category(w, c)) {
        snprintf(reason, size, "it is a category");
        if (c->kind == BP_COLUMN_CATEGORY)
            snprintf(reason, size, "it is text with %d different values", c->nlevels);
        return "classification";
    }
    if (c->count > 1)
        snprintf(reason, size, "it has %d numbers a row", c->count);
    else if (json_object_get(column, "type"))
        snprintf(reason, size, "it is declared a number");
    else if (c->integral && c->distinct > 0 && c->distinct <= CLASSES_GUESS &&
             (c->distinct <= 2 || (uint64_t)c->distinct * 10 <= w->table->nrows)) {
        snprintf(reason, size, "it has only %lld different integers", (long long)c->distinct);
        return "classification";
    } else
        snprintf(reason, size, "it is a number with %s", c->integral ? "many different integers" : "fractions");
    return "regression";
}

/* Only 0 and 1, no fraction between. */
static bool is_binary(const struct bp_table_column *c)
{
    return c->kind == BP_COLUMN_NUMBER && c->integral && c->min >= 0 && c->max <= 1;
}

/* Whether a column of numbers can be what the loss takes. */
static bool numbers_fit(struct spec_work *w, const struct bp_table_column *c, enum bp_loss loss, const char *at)
{
    if (is_category(w, c)) {
        spec_fault(
            w, at, "incompatible", "cross_entropy", NULL,
            loss == BP_LOSS_BCE
                ? "%s needs a target of numbers from 0 to 1, but \"%.80s\" is a category; use cross_entropy for "
                  "classes"
                : "%s needs a target of numbers, but \"%.80s\" is a category; use cross_entropy for classes",
            strstr(at, "loss") ? bp_loss_name(loss) : "regression", c->name);
        return false;
    }
    if (loss == BP_LOSS_BCE && !(c->min >= 0 && c->max <= 1)) {
        spec_fault(
            w, at, "incompatible", "cross_entropy", NULL,
            "bce needs a target of numbers from 0 to 1, but \"%.80s\" has others; use cross_entropy for classes",
            c->name);
        return false;
    }
    if (loss == BP_LOSS_POISSON && !(c->min >= 0)) {
        spec_fault(w, at, "incompatible", "mse", NULL,
                   "poisson is for counts, which are never negative, but \"%.80s\" goes down to %g; use mse or huber "
                   "for quantities with a sign",
                   c->name, c->min);
        return false;
    }
    return true;
}

/* Whether a column can be the class that the loss takes. */
static bool classes_fit(struct spec_work *w, const struct bp_table_column *c, const char *at)
{
    bool number = !is_category(w, c);
    if (number && (!c->integral || c->distinct < 0 || c->count > 1)) {
        spec_fault(w, at, "incompatible", "mse", NULL,
                   "classification needs a target of text or of few whole numbers, but \"%.80s\" has %s; use "
                   "regression with mse for quantities",
                   c->name,
                   c->count > 1   ? "several numbers a row"
                   : !c->integral ? "fractions"
                                  : "too many values");
        return false;
    }
    if (c->kind != BP_COLUMN_TEXT && (c->kind == BP_COLUMN_NUMBER ? c->distinct : c->nlevels) == 1) {
        spec_fault(w, "/dataset/target", "single_class", NULL, NULL,
                   "\"%.80s\" has a single class: there is nothing to tell apart", c->name);
        return false;
    }
    return true;
}

/* The columns of a head with kl_div: shares of at least 0 that sum to 1 in each row. */
static bool shares_fit(struct spec_work *w, const struct bp_table_column *const *columns, int n, const char *at)
{
    int outputs = n > 1 ? n : columns[0]->count;
    if (outputs < 2) {
        spec_fault(
            w, at, "incompatible", "bce", NULL,
            "kl_div compares distributions: it needs several target columns that sum to 1 in each row, such as "
            "\"target\": [\"p_a\", \"p_b\"]; with one column use bce");
        return false;
    }
    for (uint64_t r = 0; r < w->table->nrows && r < SUMS_CHECKED / (uint64_t)outputs; r++) {
        double sum = 0;
        bool negative = false;
        for (int i = 0; i < n; i++)
            for (int k = 0; k < columns[i]->count; k++) {
                double v = bp_column_load(columns[i], w->table->rows + r * w->table->stride, k);
                negative |= v < 0;
                sum += v;
            }
        if (isnan(sum) || (!negative && fabs(sum - 1) <= SUM_SLACK))
            continue; /* rows without a target are left out */
        spec_fault(w, at, "incompatible", "mse", NULL,
                   "kl_div needs targets of at least 0 that sum to 1 in each row, but those of row %llu %s %g",
                   (unsigned long long)r + 1, negative ? "have a negative one and sum to" : "sum to", sum);
        return false;
    }
    return true;
}

/* Whether the columns of a head fit its loss. */
static bool head_fits(struct spec_work *w, const struct bp_table_column *const *columns, int n, enum bp_loss loss,
                      const char *at)
{
    if (spec_loss_is_of_classes(loss))
        return classes_fit(w, columns[0], at);
    for (int i = 0; i < n; i++)
        if (!numbers_fit(w, columns[i], loss, at))
            return false;
    return loss != BP_LOSS_KL_DIV || shares_fit(w, columns, n, at);
}

/* Loss as it is echoed: its name alone where it has no parameters, or a smoothing of 0. */
static json_t *echo_loss(const json_t *loss, const char *name)
{
    const json_t *smoothing = json_object_get(loss, "label_smoothing");
    if (!json_is_object(loss) || (smoothing && json_number_value(smoothing) == 0))
        return json_string(name);
    return json_incref((json_t *)loss);
}

/* Settles task and loss of a single head; false when they and the target do not go together. */
static bool settle_single(struct spec_work *w)
{
    json_t *dataset = dataset_of(w), *given = json_object_get(w->doc, "loss");
    const char *task = json_string_value(json_object_get(dataset, "task"));
    const char *loss = spec_kind(given, "type");
    const char *at = given ? "/loss" : "/dataset/task";
    char reason[120];
    if (!task && loss[0]) {
        enum bp_loss kind = spec_loss(loss);
        bool classes = spec_loss_is_of_classes(kind) || (kind == BP_LOSS_BCE && is_binary(w->target));
        task = classes ? "classification" : "regression";
    } else if (!task) {
        task = natural_task(w, w->target, reason, sizeof reason);
        spec_warn(w, "/dataset/target", "inferred", "%s, because of the target \"%.80s\": %s; \"task\" overrides",
                  task, w->target->name, reason);
    }
    bool classes = strcmp(task, "classification") == 0;
    if (!loss[0])
        loss = classes ? "cross_entropy" : "mse";
    enum bp_loss kind = spec_loss(loss);
    if (kind != BP_LOSS_BCE && spec_loss_is_of_classes(kind) != classes) {
        spec_fault(w, "/loss", "incompatible", classes ? "cross_entropy" : "mse", NULL,
                   "%s does not go with %s; leave the loss out, or change \"task\"", loss, task);
        return false;
    }
    if (!head_fits(w, w->targets, w->ntargets, kind, at))
        return false;
    spec_set(w, dataset, "task", json_string(task));
    spec_set(w, w->doc, "loss", echo_loss(given, loss));
    return true;
}

/* The network's input as its own target. */
static bool settle_autoencoder(struct spec_work *w)
{
    json_t *dataset = dataset_of(w), *given = json_object_get(w->doc, "loss");
    const char *loss = given ? spec_kind(given, "type") : "mse", *task;
    task = json_string_value(json_object_get(dataset, "task"));
    if (!spec_loss_is_scaled(spec_loss(loss)) || strcmp(loss, "quantile") == 0) {
        spec_fault(w, "/loss", "incompatible", "mse", json_pack("[s,s,s]", "mse", "mae", "huber"),
                   "an autoencoder gives back its own input, which are numbers: its loss is mse, mae or huber");
        return false;
    }
    const json_t *window = json_object_get(dataset, "window");
    if (window && !json_is_null(window)) {
        spec_fault(w, "/dataset/target", "incompatible", NULL, column_names(w->table),
                   "an autoencoder gives back single rows: with \"window\" name the column to predict");
        return false;
    }
    if (task && strcmp(task, "regression") != 0) {
        spec_fault(w, "/dataset/task", "incompatible", "regression", NULL, "an autoencoder is a regression");
        return false;
    }
    spec_set(w, dataset, "task", json_string("regression"));
    spec_set(w, w->doc, "loss", echo_loss(given, loss));
    return true;
}

/* --- several heads ------------------------------------------------------------------------------------------------ */
/* One head of the list: its loss, given, the spec's for all, or what is natural for its target. */
static bool settle_head(struct spec_work *w, json_t *head, size_t index, const struct bp_table_column *const *columns,
                        int n)
{
    json_t *given = json_object_get(head, "loss"), *shared = json_object_get(w->doc, "loss");
    const json_t *loss = given ? given : shared;
    char at[64], reason[120];
    snprintf(at, sizeof at, given ? "/model/heads/%zu/loss" : shared ? "/loss" : "/dataset/target", index);
    const char *name = spec_kind(loss, "type");
    if (!name[0]) {
        bool classes = strcmp(natural_task(w, columns[0], reason, sizeof reason), "classification") == 0;
        name = n > 1 ? "bce" : classes ? "cross_entropy" : "mse";
        spec_warn(w, "/dataset/target", "inferred", "%s for the target \"%.80s\": %s", name, columns[0]->name,
                  n > 1 ? "several yes or no" : reason);
    }
    enum bp_loss kind = spec_loss(name);
    if (n > 1 && kind != BP_LOSS_BCE && kind != BP_LOSS_KL_DIV) {
        spec_fault(w, at, "incompatible", "bce", json_pack("[s,s]", "bce", "kl_div"),
                   "a head of several columns takes bce or kl_div; give each target a head of its own for %s", name);
        return false;
    }
    if (!head_fits(w, columns, n, kind, at))
        return false;
    json_t *echoed = echo_loss(loss, name);
    spec_set(w, head, "loss", echoed);
    return true;
}

/* Makes or completes model.heads. The task of each follows from its loss. */
static bool settle_heads(struct spec_work *w)
{
    json_t *model = json_object_get(w->doc, "model"), *heads = json_object_get(model, "heads"), *head;
    size_t i;
    int first = 0;
    bool fine = true;
    if (!heads) {
        heads = json_array();
        spec_set(w, model, "heads", heads);
        for (int t = 0; t < w->ntargets; t++)
            json_array_append_new(heads, json_pack("{s:s, s:f}", "target", w->targets[t]->name, "weight", 1.0));
    }
    if (json_array_size(heads) > BP_HEADS_MAX) {
        spec_fault(w, "/dataset/target", "bad_length", NULL, NULL,
                   "there may be at most %d targets with outputs of their own, got %zu; bce and kl_div take more "
                   "columns in one head",
                   BP_HEADS_MAX, json_array_size(heads));
        return false;
    }
    json_array_foreach(heads, i, head) {
        json_t *target = json_object_get(head, "target");
        int n = json_is_array(target) ? (int)json_array_size(target) : 1;
        fine = settle_head(w, head, i, w->targets + first, n) && fine;
        first += n;
    }
    const char *task = json_string_value(json_object_get(dataset_of(w), "task"));
    if (task && fine) {
        spec_fault(w, "/dataset/task", "incompatible", NULL, NULL,
                   "with several targets the loss of each says what it is: leave \"task\" out");
        fine = false;
    }
    json_object_del(w->doc, "loss");
    return fine;
}

/* Several yes or no columns, or shares, under one loss: one head with an output for each. */
static bool settle_joint(struct spec_work *w, enum bp_loss loss)
{
    json_t *given = json_object_get(w->doc, "loss");
    const char *task = json_string_value(json_object_get(dataset_of(w), "task"));
    const char *natural = loss == BP_LOSS_BCE ? "classification" : "regression";
    if (!head_fits(w, w->targets, w->ntargets, loss, "/loss"))
        return false;
    spec_set(w, dataset_of(w), "task", json_string(task ? task : natural));
    spec_set(w, w->doc, "loss", echo_loss(given, bp_loss_name(loss)));
    return true;
}

/* Class weights need classes. */
static bool class_weights_fit(struct spec_work *w)
{
    const json_t *weights = json_object_get(dataset_of(w), "class_weights");
    struct spec_heads heads;
    int classes = 0;
    if (!weights || json_is_null(weights))
        return true;
    if (json_is_string(weights) ? strcmp(json_string_value(weights), "balanced") != 0 : !json_is_object(weights)) {
        spec_fault(w, "/dataset/class_weights", "bad_value", "balanced", NULL,
                   "must be \"balanced\", or an object of weights by class such as {\"yes\": 5}");
        return false;
    }
    if (spec_heads_read(w->doc, w->table, &heads, NULL))
        return true; /* told elsewhere */
    for (int i = 0, at = 0; i < heads.n; at += heads.head[i++].want.ncolumns) {
        const struct spec_head *h = &heads.head[i];
        classes += h->want.ncolumns == 1 && !h->want.inputs &&
                   (!h->want.regression || (h->want.sides && is_binary(w->targets[at])));
    }
    bool several = classes > 1 && json_is_object(weights);
    if (several)
        spec_fault(w, "/dataset/class_weights", "incompatible", "balanced", NULL,
                   "%d targets have classes: only \"balanced\" says what is meant for each", classes);
    else if (classes == 0)
        spec_fault(w, "/dataset/class_weights", "incompatible", NULL, NULL,
                   "no target has classes: they come with cross_entropy, hinge, or bce with one target of 0 and 1");
    spec_heads_done(&heads);
    return classes > 0 && !several;
}

bool spec_settle_task(struct spec_work *w)
{
    enum bp_loss loss = spec_loss(spec_kind(json_object_get(w->doc, "loss"), "type"));
    bool heads = json_object_get(json_object_get(w->doc, "model"), "heads") != NULL;
    bool joint = !heads && w->ntargets > 1 && (loss == BP_LOSS_BCE || loss == BP_LOSS_KL_DIV);
    bool fine = w->autoencoder    ? settle_autoencoder(w)
                : heads           ? settle_heads(w)
                : joint           ? settle_joint(w, loss)
                : w->ntargets > 1 ? settle_heads(w)
                                  : settle_single(w);
    return fine && class_weights_fit(w);
}
