/* transform_json.c: a transform as JSON and back. It holds all that encodes a row and reads an output, so that a model
 * needs no dataset. Dump it with 17 digits (JSON_REAL_PRECISION(17)): then it reads back to the same bits. */
#include "data/transform_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void put(bool *ok, json_t *object, const char *key, json_t *value)
{
    if (!value || json_object_set_new(object, key, value) != 0)
        *ok = false;
}

static json_t *integers(const int64_t *values, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        if (json_array_append_new(list, json_integer(values[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *feature_json(const struct bp_transform_feature *f, bool *ok)
{
    json_t *o = json_object();
    put(ok, o, "name", json_string(f->name));
    put(ok, o, "encode", json_string(!f->category ? "number" : f->coded ? "code" : "one_hot"));
    put(ok, o, "missing", json_string(bp_missing_words[f->missing]));
    if (f->category) {
        put(ok, o, "levels", json_incref(f->levels.labels));
        put(ok, o, "missing_level", json_integer(f->missing_level));
        return o;
    }
    put(ok, o, "shape", integers(f->dim, f->rank));
    put(ok, o, "scaling", json_string(bp_scaling_words[f->scaling]));
    put(ok, o, "fill", json_real(f->fill));
    put(ok, o, "shift", json_real(f->shift));
    put(ok, o, "scale", json_real(f->scale));
    return o;
}

static json_t *head_json(const struct bp_transform_head *h, bool *ok)
{
    json_t *o = json_object();
    put(ok, o, "name", json_string(h->target.name));
    put(ok, o, "outputs", json_integer(h->target.outputs));
    if (h->target.is_class)
        put(ok, o, "classes", json_incref(h->levels.labels));
    put(ok, o, "shift", json_real(h->target.shift));
    put(ok, o, "scale", json_real(h->target.scale));
    if (h->target.inputs)
        put(ok, o, "inputs", json_true());
    if (h->sides)
        put(ok, o, "sides", json_true());
    json_t *columns = h->target.ncolumns ? json_array() : NULL;
    json_t *weights = h->nclass_weights ? json_array() : NULL;
    for (int i = 0; i < h->target.ncolumns; i++)
        json_array_append_new(columns, json_string(h->target.columns[i]));
    for (int i = 0; i < h->nclass_weights; i++)
        json_array_append_new(weights, json_real(h->class_weights[i]));
    if (h->target.ncolumns)
        put(ok, o, "columns", columns);
    if (h->nclass_weights)
        put(ok, o, "class_weights", weights);
    return o;
}

static json_t *others_json(const struct bp_transform *t, bool *ok)
{
    json_t *list = json_array(), *value;
    const char *name;
    json_object_foreach(t->others, name, value) {
        if (json_array_append_new(list, json_string(name)) != 0)
            *ok = false;
    }
    return list;
}

static json_t *sequence_json(const struct bp_transform_sequence *q, bool *ok)
{
    json_t *o = json_object();
    if (q->steps > 0) {
        put(ok, o, "rows", json_integer(q->steps));
        put(ok, o, "stride", json_integer(q->stride));
    }
    if (q->by)
        put(ok, o, "by", json_string(q->by));
    if (q->split_by)
        put(ok, o, "split_by", json_string(q->split_by));
    if (q->order_by)
        put(ok, o, "order_by", json_string(q->order_by));
    return o;
}

json_t *bp_transform_json(const struct bp_transform *t)
{
    bool ok = true;
    json_t *o = json_object(), *features = json_array(), *targets = json_array();
    put(&ok, o, "version", json_integer(BP_TRANSFORM_VERSION));
    put(&ok, o, "fitted", json_boolean(t->fitted));
    for (int i = 0; i < t->nfeatures; i++)
        if (json_array_append_new(features, feature_json(&t->features[i], &ok)) != 0)
            ok = false;
    put(&ok, o, "features", features);
    for (int i = 0; i < t->nheads; i++)
        if (json_array_append_new(targets, head_json(&t->heads[i], &ok)) != 0)
            ok = false;
    put(&ok, o, "targets", targets);
    put(&ok, o, "inputs", json_integer(t->inputs));
    put(&ok, o, "shape", integers(t->shape.dim, t->shape.rank));
    put(&ok, o, "other_columns", others_json(t, &ok));
    if (t->weight)
        put(&ok, o, "weight", json_string(t->weight));
    if (bp_transform_divides(t))
        put(&ok, o, "sequence", sequence_json(&t->sequence, &ok));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* --- back ----------------------------------------------------------------------------------------------------------- */

static bp_status damaged(struct bp_error *err, const char *what)
{
    return bp_fail(err, BP_CORRUPT, "the stored transform is damaged: %s", what);
}

static int find_word(const json_t *o, const char *key, const char *const *words, int n)
{
    const char *word = json_string_value(json_object_get(o, key));
    for (int i = 0; word && i < n; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

static bool read_real(const json_t *o, const char *key, double *ret)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v))
        return false;
    *ret = json_number_value(v);
    return isfinite(*ret);
}

/* A shape of at most 4 extents, and its product. */
static bool read_extents(const json_t *list, int64_t dim[4], int *ret_rank, int64_t *ret_product)
{
    if (!json_is_array(list) || json_array_size(list) > 4)
        return false;
    *ret_rank = (int)json_array_size(list);
    *ret_product = 1;
    for (int i = 0; i < *ret_rank; i++) {
        dim[i] = json_integer_value(json_array_get(list, (size_t)i));
        if (dim[i] < 1 || __builtin_mul_overflow(*ret_product, dim[i], ret_product) || *ret_product > INT32_MAX)
            return false;
    }
    return true;
}

static bp_status read_category(const json_t *o, struct bp_transform_feature *f, struct bp_error *err)
{
    json_t *levels = json_object_get(o, "levels");
    const json_t *missing = json_object_get(o, "missing_level");
    if (json_array_size(levels) < 1 || !json_is_integer(missing))
        return damaged(err, "the levels of a column");
    bp_status status = bp_levels_init(&f->levels, json_incref(levels), err);
    if (status != BP_OK)
        return status;
    json_int_t level = json_integer_value(missing);
    if (level < -1 || level > f->levels.n)
        return damaged(err, "the levels of a column");
    f->missing_level = (int)level;
    f->count = 1;
    f->scale = 1;
    f->scaling = BP_SCALE_NONE;
    return BP_OK;
}

static bp_status read_feature(const json_t *o, struct bp_transform_feature *f, struct bp_error *err)
{
    static const char *const encodings[] = {"number", "one_hot", "code"};
    const char *name = json_string_value(json_object_get(o, "name"));
    int encode = find_word(o, "encode", encodings, 3), missing = find_word(o, "missing", bp_missing_words, 6);
    if (!name || encode < 0 || missing < 0)
        return damaged(err, "a column");
    if (!(f->name = strdup(name)))
        return bp_fail(err, BP_NOMEM, "no memory for a column");
    f->missing = (enum bp_missing)missing;
    f->category = encode > 0;
    f->coded = encode == 2;
    if (f->category)
        return read_category(o, f, err);
    int scaling = find_word(o, "scaling", bp_scaling_words, 4);
    int64_t count;
    f->missing_level = -1;
    if (scaling < 0 || !read_extents(json_object_get(o, "shape"), f->dim, &f->rank, &count) ||
        !read_real(o, "fill", &f->fill) || !read_real(o, "shift", &f->shift) || !read_real(o, "scale", &f->scale))
        return damaged(err, "a column");
    f->count = (int)count;
    f->scaling = (enum bp_scaling)scaling;
    return BP_OK;
}

/* What a head may have besides: several columns, and weights of its classes. */
static bp_status read_lists(const json_t *o, struct bp_transform_head *h, struct bp_error *err)
{
    const json_t *columns = json_object_get(o, "columns"), *weights = json_object_get(o, "class_weights");
    size_t n = json_array_size(columns), classes = json_array_size(weights);
    if ((n && n != (size_t)h->target.outputs) || (classes && classes != (h->sides ? 2 : (size_t)h->target.outputs)))
        return damaged(err, "a target");
    h->columns = calloc(n + 1, sizeof *h->columns);
    h->class_weights = classes ? calloc(classes, sizeof *h->class_weights) : NULL;
    if (!h->columns || (classes && !h->class_weights))
        return bp_fail(err, BP_NOMEM, "no memory for the target");
    h->target.columns = (const char *const *)h->columns;
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(columns, i));
        if (!name)
            return damaged(err, "a target");
        if (!(h->columns[i] = strdup(name)))
            return bp_fail(err, BP_NOMEM, "no memory for the target");
        h->target.ncolumns++;
    }
    for (size_t i = 0; i < classes; i++) {
        h->class_weights[i] = json_number_value(json_array_get(weights, i));
        h->nclass_weights++;
        if (!isfinite(h->class_weights[i]) || h->class_weights[i] < 0)
            return damaged(err, "a target");
    }
    return BP_OK;
}

static bp_status read_head(const json_t *o, struct bp_transform_head *h, struct bp_error *err)
{
    struct bp_transform_target *t = &h->target;
    const char *name = json_string_value(json_object_get(o, "name"));
    json_t *classes = json_object_get(o, "classes");
    json_int_t outputs = json_integer_value(json_object_get(o, "outputs"));
    if (!name || outputs < 1 || outputs > INT32_MAX || !read_real(o, "shift", &t->shift) ||
        !read_real(o, "scale", &t->scale) || t->scale == 0 ||
        (classes && json_array_size(classes) != (size_t)outputs))
        return damaged(err, "a target");
    if (!(t->name = strdup(name)))
        return bp_fail(err, BP_NOMEM, "no memory for the target");
    t->outputs = (int)outputs;
    t->is_class = classes != NULL;
    t->inputs = json_is_true(json_object_get(o, "inputs"));
    h->sides = json_is_true(json_object_get(o, "sides"));
    bp_status status = read_lists(o, h, err);
    if (!classes || status != BP_OK)
        return status;
    status = bp_levels_init(&h->levels, json_incref(classes), err);
    t->labels = h->levels.labels;
    t->labels_are_numbers = h->levels.numbers;
    return status;
}

static bp_status read_sequence(const json_t *o, struct bp_transform_sequence *q, struct bp_error *err)
{
    static const char *const keys[] = {"by", "split_by", "order_by"};
    char **names[] = {&q->by, &q->split_by, &q->order_by};
    json_int_t steps = json_integer_value(json_object_get(o, "rows"));
    json_int_t stride = json_integer_value(json_object_get(o, "stride"));
    if (o &&
        (!json_is_object(o) || steps < 0 || steps > BP_WINDOW_MAX || stride > INT32_MAX || (steps > 0 && stride < 1)))
        return damaged(err, "its windows");
    q->steps = (int)steps;
    q->stride = (int)stride;
    for (int i = 0; i < 3; i++) {
        const char *name = json_string_value(json_object_get(o, keys[i]));
        if (name && !(*names[i] = strdup(name)))
            return bp_fail(err, BP_NOMEM, "no memory for the transform");
    }
    return BP_OK;
}

static bp_status read_parts(const json_t *json, struct bp_transform *t, struct bp_error *err)
{
    const json_t *features = json_object_get(json, "features"), *targets = json_object_get(json, "targets");
    size_t nfeatures = json_array_size(features), nheads = json_array_size(targets), i;
    json_t *name;
    bp_status status;
    if (nfeatures < 1 || nfeatures > BP_COLUMNS_MAX || nheads > BP_COLUMNS_MAX)
        return damaged(err, "its columns");
    t->features = calloc(nfeatures, sizeof *t->features);
    t->heads = calloc(nheads + 1, sizeof *t->heads);
    t->index = json_object();
    t->others = json_object();
    t->warnings = json_array();
    if (!t->features || !t->heads || !t->index || !t->others || !t->warnings)
        return bp_fail(err, BP_NOMEM, "no memory for the transform");
    while (t->nfeatures < (int)nfeatures) {
        const json_t *o = json_array_get(features, (size_t)t->nfeatures);
        if ((status = read_feature(o, &t->features[t->nfeatures++], err)) != BP_OK)
            return status;
    }
    while (t->nheads < (int)nheads) {
        const json_t *o = json_array_get(targets, (size_t)t->nheads);
        if ((status = read_head(o, &t->heads[t->nheads++], err)) != BP_OK)
            return status;
    }
    json_array_foreach(json_object_get(json, "other_columns"), i, name) {
        if (!json_is_string(name) || json_object_set_new(t->others, json_string_value(name), json_true()) != 0)
            return damaged(err, "its columns");
    }
    return BP_OK;
}

bp_status bp_transform_parse(const json_t *json, struct bp_transform **ret, struct bp_error *err)
{
    json_int_t version = json_integer_value(json_object_get(json, "version"));
    if (version != BP_TRANSFORM_VERSION)
        return bp_fail(err, json_is_object(json) && version > 0 ? BP_MISMATCH : BP_CORRUPT,
                       "the transform is of version %lld, this is version %d", (long long)version,
                       BP_TRANSFORM_VERSION);
    struct bp_transform *t = calloc(1, sizeof *t);
    if (!t)
        return bp_fail(err, BP_NOMEM, "no memory for the transform");
    int64_t product = 0;
    bp_status status = read_parts(json, t, err);
    if (status == BP_OK)
        status = read_sequence(json_object_get(json, "sequence"), &t->sequence, err);
    if (status == BP_OK)
        status = bp_transform_place(t, err);
    if (status == BP_OK && (!read_extents(json_object_get(json, "shape"), t->shape.dim, &t->shape.rank, &product) ||
                            product != t->inputs || json_integer_value(json_object_get(json, "inputs")) != t->inputs))
        status = damaged(err, "its shape");
    t->fitted = json_is_true(json_object_get(json, "fitted"));
    const char *weight = json_string_value(json_object_get(json, "weight"));
    if (status == BP_OK && weight && !(t->weight = strdup(weight)))
        status = bp_fail(err, BP_NOMEM, "no memory for the transform");
    for (int i = 0; i < t->nheads && status == BP_OK; i++)
        if (t->heads[i].target.inputs && t->heads[i].target.outputs != t->inputs)
            status = damaged(err, "a target");
    if (status != BP_OK) {
        bp_transform_free(t);
        return status;
    }
    *ret = t;
    return BP_OK;
}
