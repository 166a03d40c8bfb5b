/* spec_advice.c: warnings about what is allowed and is rarely meant: mistakes that a network hides well.
 *
 *   linear_layers     linear layers in a row can do no more than one of them
 *   across_steps      a conv1d that runs along the features of each step of a sequence, not along the steps
 *   always_right      top_k with as many labels as there are classes
 *   all_frozen        no layer is trained
 *   long_warmup       the rate is still rising when the training ends
 *   split_by_target   whole classes are on one side of the split
 *   single_member     a class with one row: it is trained on or judged by, never both
 *   constant_target   a target of one value: nothing to learn, and r2 divides by its variance, which is 0
 *   identifier        a feature that numbers the rows: it says nothing about a row that is not there yet
 *   duplicate_rows    rows of validation or test with the same features as a training row: they are remembered, not
 *                     predicted
 *
 * Threads: pure, apart from the work it is given. One pass over the table's rows, and only where it is small enough for a
 * submission to wait for it; larger ones are not looked at for duplicates.
 */
#include "jobs/inline_rows.h"
#include "jobs/spec_internal.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCAN_ROWS 1000000      /* of a table that is searched for duplicates: a hash table of 16 MB */
#define SCAN_BYTES (64u << 20) /* about 50 ms */
#define IDENTIFIER_ROWS 20     /* fewer rows may well have different values by chance */

/* --- the model ------------------------------------------------------------------------------------------------------ */

/* Whether a layer is linear as a whole: weights, and no activation. */
static bool is_linear(const json_t *layer)
{
    static const char *const types[] = {"dense", "conv1d", "conv2d", "depthwise_conv2d"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(spec_kind(layer, "type"), types[i]) == 0)
            return strcmp(spec_activation(layer), "linear") == 0;
    return false;
}

static bool only_reshapes(const json_t *layer)
{
    const char *type = spec_kind(layer, "type");
    return strcmp(type, "flatten") == 0 || strcmp(type, "reshape") == 0;
}

/* Whether a layer takes what the one above it gives. */
static bool is_chained(const json_t *layer)
{
    const json_t *inputs = json_object_get(layer, "inputs");
    return !inputs || json_is_null(inputs) || json_array_size(inputs) == 0;
}

static void advise_on_layers(struct spec_work *w)
{
    json_t *layers = spec_layers(w->doc), *layer;
    const json_t *before = NULL; /* the linear layer that this one stands on */
    size_t i;
    json_array_foreach(layers, i, layer) {
        if (!is_chained(layer))
            before = NULL;
        if (only_reshapes(layer))
            continue;
        if (before && is_linear(layer)) {
            char pointer[64];
            snprintf(pointer, sizeof pointer, "/model/layers/%zu", i);
            spec_warn(w, pointer, "linear_layers",
                      "\"%.60s\" and \"%.60s\" are linear layers in a row: together they can do no more than one of "
                      "them; give the first an activation such as relu",
                      json_string_value(json_object_get(before, "name")),
                      json_string_value(json_object_get(layer, "name")));
        }
        before = is_linear(layer) ? layer : NULL;
    }
    if (before && json_object_get(json_object_get(w->doc, "model"), "heads")) {
        char pointer[64];
        snprintf(pointer, sizeof pointer, "/model/layers/%zu", json_array_size(layers) - 1);
        spec_warn(w, pointer, "linear_layers",
                  "\"%.60s\" is linear, and so are the output layers that read it: together they can do no more than "
                  "they alone; give it an activation such as relu, or leave it out",
                  json_string_value(json_object_get(before, "name")));
    }
}

/* Whether a layer keeps the shape (steps, features) of a sequence. */
static bool keeps_steps(const json_t *layer)
{
    static const char *const types[] = {"activation", "dropout", "batch_norm", "layer_norm", "add", "multiply"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(spec_kind(layer, "type"), types[i]) == 0)
            return true;
    return false;
}

/* Whether the value that layer i reads is a sequence (steps, features) by its origin. */
static bool reads_sequence(const struct spec_work *w, size_t i)
{
    static const char *const types[] = {"embedding", "simple_rnn", "lstm", "gru", "multi_head_attention"};
    const json_t *layers = spec_layers(w->doc), *window;
    int from = spec_input_of(layers, i);
    while (from >= 0 && keeps_steps(json_array_get(layers, (size_t)from)))
        from = spec_input_of(layers, (size_t)from);
    window = json_object_get(json_object_get(w->doc, "dataset"), "window");
    if (from < 0)
        return window && !json_is_null(window);
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
        if (strcmp(spec_kind(json_array_get(layers, (size_t)from), "type"), types[t]) == 0)
            return true;
    return false;
}

/* A conv1d reads (channels, length), a sequence is (steps, features): nothing fails, and the wrong axis is convolved. */
static void advise_on_steps(struct spec_work *w)
{
    const json_t *layers = spec_layers(w->doc), *layer;
    size_t i;
    json_array_foreach(layers, i, layer) {
        char pointer[64];
        if (strcmp(spec_kind(layer, "type"), "conv1d") != 0 || !reads_sequence(w, i))
            continue;
        snprintf(pointer, sizeof pointer, "/model/layers/%zu", i);
        spec_warn(w, pointer, "across_steps",
                  "\"%.60s\" reads (channels, length), and what arrives is (steps, features): the steps are its "
                  "channels, and it runs along the features. To run along the steps, reshape to [1, steps, features] "
                  "and use a conv2d with \"kernel_size\": [k, features]",
                  json_string_value(json_object_get(layer, "name")));
    }
}

/* Among k labels of k classes the right one always is. */
static void advise_on_top_k(struct spec_work *w, const struct bp_transform *transform)
{
    const json_t *metrics = json_object_get(w->doc, "metrics"), *metric;
    int most = 0;
    size_t i;
    for (int h = 0; h < bp_transform_targets(transform); h++) {
        const struct bp_transform_target *target = bp_transform_target(transform, h);
        most = target->is_class && target->outputs > most ? target->outputs : most;
    }
    json_array_foreach(metrics, i, metric) {
        int64_t k = json_integer_value(json_object_get(metric, "k"));
        char pointer[64];
        if (strcmp(spec_kind(metric, "type"), "top_k") != 0 || k < most)
            continue;
        snprintf(pointer, sizeof pointer, "/metrics/%zu", i);
        spec_warn(
            w, pointer, "always_right",
            "the right class is always among the %lld first of %d: top_k will be 1 throughout; give a smaller k",
            (long long)k, most);
    }
}

static void advise_on_frozen(struct spec_work *w, const struct bp_graph *graph)
{
    for (int i = 0; i < graph->ntensors; i++)
        if (graph->tensors[i].trainable)
            return;
    spec_warn(w, "/model/layers", "all_frozen",
              "no weight of the network is trained: every layer has \"trainable\": false, or has no weights");
}

static void advise_on_warmup(struct spec_work *w)
{
    double warmup = json_number_value(json_object_get(json_object_get(w->doc, "lr_schedule"), "warmup_epochs"));
    double epochs = json_number_value(json_object_get(json_object_get(w->doc, "training"), "epochs"));
    if (warmup >= epochs)
        spec_warn(w, "/lr_schedule/warmup_epochs", "long_warmup",
                  "the rate rises for %g epochs, and training ends after %g: it never gets to the rate of the "
                  "optimizer; a twentieth of the epochs is a usual warm-up",
                  warmup, epochs);
}

/* --- the columns ---------------------------------------------------------------------------------------------------- */

static const struct bp_table_column *column_of(const struct spec_work *w, const char *name)
{
    int i = name ? bp_table_find(w->table, name) : -1;
    return i < 0 ? NULL : &w->table->columns[i];
}

static void advise_on_classes(struct spec_work *w, const struct bp_transform *transform)
{
    for (int h = 0; h < bp_transform_targets(transform); h++) {
        const struct bp_transform_target *target = bp_transform_target(transform, h);
        const struct bp_table_column *c = target->is_class ? column_of(w, target->name) : NULL;
        int n = c && c->counts ? (c->nlevels ? c->nlevels : c->nvalues) : 0, alone = 0, first = -1;
        for (int i = 0; i < n; i++) {
            alone += c->counts[i] == 1;
            first = first < 0 && c->counts[i] == 1 ? i : first;
        }
        if (!alone)
            continue;
        char label[80];
        if (c->nlevels)
            snprintf(label, sizeof label, "\"%.60s\"", c->levels[first]);
        else
            snprintf(label, sizeof label, "%g", c->values[first]);
        spec_warn(w, "/dataset/target", "single_member",
                  "class %s of \"%.60s\" has one row only%s: it can be trained on or judged by, never both; get more "
                  "rows, or leave it out",
                  label, target->name, alone > 1 ? ", and so have others" : "");
    }
}

static void advise_on_constants(struct spec_work *w)
{
    const char *dataset = json_string_value(json_object_get(json_object_get(w->doc, "dataset"), "name"));
    bool typed = dataset && strcmp(dataset, BP_INLINE_DATASET) == 0; /* a row or two by hand: that is the idea */
    for (int i = 0; i < w->ntargets && !typed; i++) {
        const struct bp_table_column *c = w->targets[i];
        if (c->kind == BP_COLUMN_NUMBER && c->count == 1 && c->min == c->max)
            spec_warn(
                w, "/dataset/target", "constant_target",
                "\"%.60s\" has one value, %g: there is nothing to learn, and r2, which is relative to the variance "
                "of the target, is not a number",
                c->name, c->min);
    }
}

/* "id", "row_id", "userId", "index", "uuid" …: whole words only. */
static bool named_like_identifier(const char *name)
{
    static const char *const words[] = {"id",    "ids", "uid", "uuid",   "guid",
                                        "index", "idx", "key", "rownum", "unnamed"};
    char word[16];
    size_t n = 0;
    for (const char *c = name;; c++) {
        bool upper = isupper((unsigned char)*c) && c > name && islower((unsigned char)c[-1]);
        if (!isalnum((unsigned char)*c) || upper) {
            word[n < sizeof word ? n : 0] = 0;
            for (size_t i = 0; n > 0 && i < sizeof words / sizeof words[0]; i++)
                if (strcmp(word, words[i]) == 0)
                    return true;
            n = 0;
        }
        if (!*c)
            return false;
        if (isalnum((unsigned char)*c)) {
            if (n < sizeof word - 1)
                word[n] = (char)tolower((unsigned char)*c);
            n++;
        }
    }
}

static double load(const struct bp_table_column *c, const uint8_t *row)
{
    const uint8_t *p = row + c->offset;
    int32_t i;
    float f;
    double d;
    switch (c->type) {
    case BP_U8:
        return *p;
    case BP_I32:
        memcpy(&i, p, sizeof i);
        return i;
    case BP_F32:
        memcpy(&f, p, sizeof f);
        return f;
    case BP_F64:
        memcpy(&d, p, sizeof d);
        return d;
    }
    return 0;
}

/* Whether the values rise by exactly 1 from row to row. Most columns end the search at the second row. */
static bool counts_rows(const struct bp_table *table, const struct bp_table_column *c)
{
    for (uint64_t r = 1; r < table->nrows; r++)
        if (load(c, table->rows + r * table->stride) != load(c, table->rows + (r - 1) * table->stride) + 1)
            return false;
    return true;
}

static bool is_identifier(const struct bp_table *table, const struct bp_table_column *c)
{
    bool different = c->distinct == (int64_t)table->nrows || c->distinct == -1;
    if (c->count != 1 || c->missing > 0 || table->nrows < IDENTIFIER_ROWS || !different)
        return false;
    if (c->kind == BP_COLUMN_CATEGORY)
        return c->distinct != -1;
    return c->kind == BP_COLUMN_NUMBER && c->integral && (named_like_identifier(c->name) || counts_rows(table, c));
}

static void advise_on_features(struct spec_work *w, const struct bp_transform *transform)
{
    const char *order = json_string_value(json_object_get(json_object_get(w->doc, "dataset"), "order_by"));
    int n = bp_transform_features(transform);
    for (int i = 0; i < n && n > 1; i++) {
        const char *name = bp_transform_feature_name(transform, i);
        const struct bp_table_column *c = column_of(w, name);
        if (!c || !is_identifier(w->table, c) || (order && strcmp(order, name) == 0))
            continue;
        spec_warn(w, "/dataset/features", "identifier",
                  "\"%.80s\" looks like an identifier: it names rows and measures nothing. A network can learn them "
                  "by heart "
                  "with it, and nothing about new ones; \"ignore\": [\"%.80s\"] leaves it out",
                  name, name);
    }
}

/* --- duplicates ----------------------------------------------------------------------------------------------------- */

struct seen {
    uint64_t *slots; /* hashes, 0 for none */
    uint64_t mask;
};

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 32;
}

/* Of the features of a row, as they are stored; never 0. */
static uint64_t hash_row(const struct bp_source *source, uint32_t index)
{
    const uint8_t *row = source->rows + (size_t)index * source->stride;
    uint64_t hash = 1;
    for (int i = 0; i < source->nfeatures; i++) {
        const struct bp_feature *f = &source->features[i];
        size_t bytes = (size_t)f->count * bp_column_size(f->type);
        for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) {
            uint64_t word = 0;
            memcpy(&word, row + f->offset + at, bytes - at < sizeof word ? bytes - at : sizeof word);
            hash = mix(hash, word);
        }
    }
    return hash ? hash : 1;
}

static bool see(struct seen *seen, uint64_t hash, bool add)
{
    uint64_t at = hash & seen->mask;
    for (; seen->slots[at]; at = (at + 1) & seen->mask)
        if (seen->slots[at] == hash)
            return true;
    if (add)
        seen->slots[at] = hash;
    return false;
}

/* Rows of a few whole numbers are alike by chance; rows of measured numbers are not. */
static bool tells_rows_apart(const struct spec_work *w, const struct bp_transform *transform)
{
    for (int i = 0; i < bp_transform_features(transform); i++) {
        const struct bp_table_column *c = column_of(w, bp_transform_feature_name(transform, i));
        if (c && (c->count > 1 || (c->kind == BP_COLUMN_NUMBER && !c->integral)))
            return true;
    }
    return false;
}

static void count_duplicates(struct spec_work *w, const struct bp_source *source, const struct bp_split *split,
                             struct seen *seen)
{
    static const char *const names[] = {"training", "validation", "test"};
    static const char *const pointers[] = {"", "/dataset/validation_split", "/dataset/test_split"};
    for (uint64_t r = 0; r < split->count[BP_TRAIN]; r++)
        see(seen, hash_row(source, split->rows[BP_TRAIN][r]), true);
    for (int p = BP_VALIDATION; p <= BP_TEST; p++) {
        uint64_t n = 0;
        uint32_t first = 0;
        for (uint64_t r = 0; r < split->count[p]; r++)
            if (see(seen, hash_row(source, split->rows[p][r]), false) && n++ == 0)
                first = split->rows[p][r];
        if (n)
            spec_warn(
                w, pointers[p], "duplicate_rows",
                "%llu of the %llu %s rows have the same features as a training row (the first is row %u): they are "
                "remembered rather than predicted, and the %s loss flatters the network. Remove them, or keep what "
                "belongs together on one side with split_by",
                (unsigned long long)n, (unsigned long long)split->count[p], names[p], first, names[p]);
    }
}

static void advise_on_duplicates(struct spec_work *w, const struct bp_transform *transform,
                                 const struct bp_split *split)
{
    const json_t *window = json_object_get(json_object_get(w->doc, "dataset"), "window");
    struct seen seen = {.mask = 15};
    struct bp_source source;
    if ((window && !json_is_null(window)) || w->table->nrows > SCAN_ROWS ||
        w->table->nrows * w->table->stride > SCAN_BYTES || !tells_rows_apart(w, transform) ||
        split->count[BP_VALIDATION] + split->count[BP_TEST] == 0)
        return;
    if (bp_transform_source(transform, w->table, &source, NULL))
        return; /* what is wrong with it is said elsewhere */
    while (seen.mask < 2 * split->count[BP_TRAIN])
        seen.mask = 2 * seen.mask + 1;
    seen.slots = calloc(seen.mask + 1, sizeof *seen.slots);
    if (seen.slots)
        count_duplicates(w, &source, split, &seen);
    else
        w->nomem = true;
    free(seen.slots);
    bp_transform_source_done(&source);
}

/* A network is judged on classes that it has never seen. */
static void advise_on_groups(struct spec_work *w)
{
    const char *by = json_string_value(json_object_get(json_object_get(w->doc, "dataset"), "split_by"));
    for (int i = 0; by && i < w->ntargets; i++)
        if (strcmp(by, w->targets[i]->name) == 0)
            spec_warn(w, "/dataset/split_by", "split_by_target",
                      "\"%.60s\" is what is predicted: all rows of one value are on one side of the split, so the "
                      "values that validation asks for were never trained on; group by who or what a row comes from",
                      by);
}

void spec_advise(struct spec_work *w, const struct bp_plan *plan, const struct bp_split *split)
{
    const struct bp_transform *transform = plan->transform;
    advise_on_layers(w);
    advise_on_steps(w);
    advise_on_top_k(w, transform);
    advise_on_frozen(w, plan->graph);
    advise_on_warmup(w);
    advise_on_groups(w);
    advise_on_classes(w, transform);
    advise_on_constants(w);
    advise_on_features(w, transform);
    advise_on_duplicates(w, transform, split);
}
