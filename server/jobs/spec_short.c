/* spec_short.c: from the short forms to the long form.
 *
 * Moves members that may stand at the top into the object they belong to, writes names alone as objects, and numbers
 * and names in the list of layers as layers. Nothing is judged here: what makes no sense is left as it is for the
 * validator. Where each part came from is noted, so that a fault points at what the user wrote.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What may stand at the top, and the object it belongs to. */
static const struct {
    const char *name, *object;
} moves[] = {
    {"target", "dataset"},           {"task", "dataset"},
    {"features", "dataset"},         {"ignore", "dataset"},
    {"columns", "dataset"},          {"scale", "dataset"},
    {"validation_split", "dataset"}, {"test_split", "dataset"},
    {"stratify", "dataset"},         {"layers", "model"},
    {"class_weights", "dataset"},    {"sample_weight", "dataset"},
    {"target_scale", "dataset"},     {"heads", "model"},
    {"epochs", "training"},          {"batch_size", "training"},
    {"shuffle", "training"},         {"early_stopping", "training"},
    {"clip_grad_norm", "training"},  {"lr", "optimizer"},
    {"clip_grad_value", "training"},
};

static const struct bp_field *top_field(const char *name)
{
    enum bp_match match;
    return bp_object_find(&bp_spec_fields, name, &match);
}

/* The key under which the user wrote a member of the top, or its own name. */
static const char *written_key(const json_t *doc, const char *name)
{
    const char *key;
    json_t *value;
    if (json_object_get(doc, name))
        return name;
    const struct bp_field *f = top_field(name);
    json_object_foreach((json_t *)doc, key, value) {
        if (bp_field_match(key, name, f->aliases) != BP_MATCH_NONE && top_field(key) == f)
            return key;
    }
    return name;
}

static void join(char *dst, size_t size, const char *base, const char *token)
{
    snprintf(dst, size, "%s", base);
    bp_pointer_append(dst, size, token);
}

/* The field of the object that a member is moved to. Optimizers bring their fields by kind, and all have lr. */
const struct bp_field *spec_moved_field(const char *object, const char *name)
{
    enum bp_match match;
    if (strcmp(object, "optimizer") == 0)
        return bp_object_find(&bp_optimizers.kinds[0].own, name, &match);
    const struct bp_field *parent = top_field(object);
    return bp_object_find(parent->object, name, &match);
}

const char *spec_short_form(size_t i, const char **ret_object)
{
    if (i >= sizeof moves / sizeof moves[0])
        return NULL;
    *ret_object = moves[i].object;
    return moves[i].name;
}

/* A value alone as an object with one member: "iris" -> {"name": "iris"}. */
static void wrap(struct spec_work *w, json_t *doc, const char *key, const char *member)
{
    char base[512] = "", below[512];
    json_t *value = json_incref(json_object_get(doc, key));
    json_t *object = json_object();
    spec_set(w, object, member, value);
    spec_set(w, doc, key, object);
    bp_pointer_append(base, sizeof base, key);
    join(below, sizeof below, base, member);
    spec_set_origin(w, below, base);
}

static bool has_member(const json_t *object, const struct bp_field *f)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        if (bp_field_match(key, f->name, f->aliases) != BP_MATCH_NONE)
            return true;
    }
    return false;
}

/* Moves one member of the top to where it belongs. */
static void move_member(struct spec_work *w, json_t *doc, const char *key, const char *object)
{
    char user[512] = "", base[512] = "", target[512];
    char *name = strdup(key);
    json_t *value = json_incref(json_object_get(doc, key));
    const struct bp_field *f = spec_moved_field(object, key);
    json_object_del(doc, key);
    if (!name) {
        w->nomem = true;
        goto out;
    }
    bp_pointer_append(user, sizeof user, name);
    const char *parent_key = written_key(doc, object);
    if (!json_object_get(doc, parent_key))
        spec_set(w, doc, parent_key, json_object());
    json_t *parent = json_object_get(doc, parent_key);
    if (!json_is_object(parent))
        goto out; /* the validator says so */
    bp_pointer_append(base, sizeof base, parent_key);
    if (has_member(parent, f)) {
        spec_fault(w, user, "conflict", NULL, NULL, "\"%s\" is given here and in \"%s\"", name, parent_key);
        goto out;
    }
    join(target, sizeof target, base, name);
    spec_set_origin(w, target, user);
    spec_set(w, parent, name, json_incref(value));
out:
    json_decref(value);
    free(name);
}

/* The member of the top that is this field, under any of its names, and no field of the top itself. */
static const char *find_movable(const json_t *doc, const struct bp_field *f)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)doc, key, value) {
        if (bp_field_match(key, f->name, f->aliases) != BP_MATCH_NONE && !top_field(key))
            return key;
    }
    return NULL;
}

static void move_members(struct spec_work *w, json_t *doc)
{
    for (size_t i = 0; i < sizeof moves / sizeof moves[0]; i++) {
        const struct bp_field *f = spec_moved_field(moves[i].object, moves[i].name);
        const char *found;
        while (!w->nomem && (found = find_movable(doc, f)))
            move_member(w, doc, found, moves[i].object);
    }
}

/* --- layers ------------------------------------------------------------------------------------------------------- */
/* An activation layer with all about the function in an object of its own, whose members the user wrote beside each
 * other. named: the member that had the function's name, NULL where the layer was that name alone. */
static json_t *activation_layer(struct spec_work *w, const json_t *layer, const char *function, const char *pointer,
                                const char *named)
{
    char below[512], user[512];
    json_t *out = json_object(), *inner = json_object();
    const char *key;
    json_t *value;
    spec_set(w, out, "type", json_string("activation"));
    spec_set(w, inner, "type", json_string(function));
    json_object_foreach((json_t *)layer, key, value) {
        enum bp_match match;
        if (strcmp(key, "type") == 0 || bp_field_match(key, "activation", "function") != BP_MATCH_NONE)
            continue;
        bool common = bp_object_find(&bp_layers.common, key, &match) != NULL;
        spec_set(w, common ? out : inner, key, json_incref(value));
    }
    spec_set(w, out, "activation", inner);
    join(below, sizeof below, pointer, "activation");
    spec_origin(w, pointer, user, sizeof user);
    spec_set_origin(w, below, user);
    bp_pointer_append(below, sizeof below, "type");
    if (named)
        bp_pointer_append(user, sizeof user, named);
    spec_set_origin(w, below, user);
    return out;
}

static json_t *expand_name(struct spec_work *w, const char *name, const char *pointer)
{
    enum bp_match match = BP_MATCH_NONE;
    const struct bp_kind *activation = bp_family_find(&bp_activations, name, &match);
    if (activation && (match == BP_MATCH_EXACT || !bp_family_find(&bp_layers, name, &match)))
        return activation_layer(w, NULL, name, pointer, NULL);
    char below[512], user[512];
    json_t *out = json_object();
    spec_set(w, out, "type", json_string(name));
    join(below, sizeof below, pointer, "type");
    spec_origin(w, pointer, user, sizeof user);
    spec_set_origin(w, below, user);
    return out;
}

static json_t *expand_number(struct spec_work *w, const json_t *units, const char *pointer)
{
    char below[512], user[512];
    json_t *out = json_object();
    spec_set(w, out, "type", json_string("dense"));
    spec_set(w, out, "units", json_incref((json_t *)units));
    spec_set(w, out, "activation", json_string("relu"));
    join(below, sizeof below, pointer, "units");
    spec_origin(w, pointer, user, sizeof user);
    spec_set_origin(w, below, user);
    return out;
}

/* {"type": "relu", …} and {"type": "activation", "activation": "elu", "alpha": 2}. Others stay: NULL. */
static json_t *expand_object(struct spec_work *w, const json_t *layer, const char *pointer)
{
    enum bp_match match;
    const char *type = json_string_value(json_object_get(layer, "type"));
    if (!type)
        return NULL;
    const struct bp_kind *kind = bp_family_find(&bp_layers, type, &match);
    if (!kind)
        return bp_family_find(&bp_activations, type, &match) ? activation_layer(w, layer, type, pointer, "type")
                                                             : NULL;
    if (strcmp(kind->name, "activation") != 0)
        return NULL;
    const char *function = json_string_value(json_object_get(layer, "activation"));
    const char *key;
    json_t *value;
    if (!function)
        return NULL;
    json_object_foreach((json_t *)layer, key, value) {
        bool beside = strcmp(key, "type") != 0 && strcmp(key, "activation") != 0;
        if (beside && !bp_object_find(&bp_layers.common, key, &match))
            return activation_layer(w, layer, function, pointer, "activation");
    }
    return NULL;
}

static void expand_layers(struct spec_work *w, json_t *layers, const char *base)
{
    for (size_t i = 0; i < json_array_size(layers) && i <= BP_LAYERS_MAX; i++) {
        const json_t *layer = json_array_get(layers, i);
        char pointer[512], index[24];
        snprintf(index, sizeof index, "%zu", i);
        join(pointer, sizeof pointer, base, index);
        json_t *out = json_is_number(layer)   ? expand_number(w, layer, pointer)
                      : json_is_string(layer) ? expand_name(w, json_string_value(layer), pointer)
                      : json_is_object(layer) ? expand_object(w, layer, pointer)
                                              : NULL;
        if (out && json_array_set_new(layers, i, out))
            w->nomem = true;
    }
}

json_t *spec_expand(struct spec_work *w, const json_t *input)
{
    json_t *doc = json_deep_copy(input);
    if (!doc) {
        w->nomem = true;
        return NULL;
    }
    const char *dataset = written_key(doc, "dataset"), *optimizer = written_key(doc, "optimizer");
    if (json_is_string(json_object_get(doc, dataset))) {
        wrap(w, doc, dataset, "name");
        spec_set_origin(w, "/dataset/target", "/target"); /* where a missing one would stand */
    }
    if (json_is_string(json_object_get(doc, optimizer)))
        wrap(w, doc, optimizer, "type");
    const char *start = written_key(doc, "init_from");
    if (json_is_string(json_object_get(doc, start)))
        wrap(w, doc, start, "job");
    const char *model = written_key(doc, "model");
    if (json_is_array(json_object_get(doc, model)))
        wrap(w, doc, model, "layers");
    move_members(w, doc);

    model = written_key(doc, "model");
    if (!json_object_get(doc, model)) {
        spec_set(w, doc, "model", json_object());
        spec_set_origin(w, "/model/layers", "/layers");
    }
    /* What may stand below the top and belongs there. */
    json_t *training = json_object_get(doc, written_key(doc, "training"));
    json_t *symmetric = json_object_get(training, "allow_symmetric");
    if (symmetric && !json_object_get(doc, "allow_symmetric")) {
        char user[512] = "";
        bp_pointer_append(user, sizeof user, written_key(doc, "training"));
        bp_pointer_append(user, sizeof user, "allow_symmetric");
        spec_set(w, doc, "allow_symmetric", json_incref(symmetric));
        spec_set_origin(w, "/allow_symmetric", user);
        json_object_del(training, "allow_symmetric");
    }
    char base[512] = "";
    bp_pointer_append(base, sizeof base, model);
    bp_pointer_append(base, sizeof base, "layers");
    expand_layers(w, json_object_get(json_object_get(doc, model), "layers"), base);
    return doc;
}
