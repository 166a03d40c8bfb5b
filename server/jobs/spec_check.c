/* spec_check.c: the validator: a JSON value against the field table.
 *
 * Knows no field by name. Gives a new value with canonical names, in the table's order, with every default filled
 * in; a faulty part is left out of it and reported. Never stops at the first fault. Single values are judged in
 * spec_value.c.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *check(struct spec_work *w, const struct bp_field *f, const json_t *v);
static void check_members(struct spec_work *w, const struct bp_object *object, const struct bp_object *common,
                          const char *tag, const json_t *in, json_t *out);

/* The kind that a name alone or an object's tag names; the tag may be missing where there is a default. NULL with the
 * fault reported. */
static const struct bp_kind *typed_kind(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    const struct bp_family *family = f->family;
    const json_t *tag = json_is_object(v) ? json_object_get(v, family->tag) : v;
    const struct bp_kind *kind = NULL;
    char initial[40] = "", wanted[120];
    if (!json_is_object(v) && !json_is_string(v)) {
        snprintf(wanted, sizeof wanted, "the name of a%s %s, or an object with \"%s\"",
                 strchr("aeio", family->what[0]) ? "n" : "", family->what, family->tag);
        spec_wrong_type(w, v, wanted);
        return NULL;
    }
    if (!tag && f->initial && sscanf(f->initial, "\"%39[^\"]\"", initial) == 1)
        return spec_check_kind(w, family, initial);
    size_t mark = strlen(w->pointer);
    if (tag && tag != v)
        spec_enter(w, family->tag);
    if (json_is_string(tag))
        kind = spec_check_kind(w, family, json_string_value(tag));
    else
        spec_fault(w, NULL, tag ? "wrong_type" : "required", NULL, spec_kinds(family), "\"%s\" must name the %s",
                   family->tag, family->what);
    spec_leave(w, mark);
    return kind;
}

static json_t *check_typed(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    const struct bp_family *family = f->family;
    const struct bp_kind *kind = typed_kind(w, f, v);
    if (!kind)
        return NULL;
    size_t faults = w->faults;
    json_t *out = json_object(), *none = json_object();
    spec_set(w, out, family->tag, json_string(kind->name));
    check_members(w, &kind->own, &family->common, family->tag, json_is_object(v) ? v : none, out);
    json_decref(none);
    if (w->faults > faults) { /* half a layer is of no use to the steps that follow */
        json_decref(out);
        return NULL;
    }
    if (!family->object && json_object_size(out) == 1) {
        json_decref(out);
        return json_string(kind->name);
    }
    return out;
}

/* --- collections -------------------------------------------------------------------------------------------------- */
static json_t *check_list(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    if ((f->flags & BP_SINGLE) && !json_is_array(v)) {
        char user[512];
        json_t *one = check(w, f->item, v);
        spec_origin(w, w->pointer, user, sizeof user);
        size_t mark = spec_enter_index(w, 0);
        spec_set_origin(w, w->pointer, user);
        spec_leave(w, mark);
        json_t *out = one ? json_array() : NULL;
        if (one && json_array_append_new(out, one))
            w->nomem = true;
        return out;
    }
    if (!json_is_array(v))
        return spec_wrong_type(w, v, "an array");
    size_t n = json_array_size(v);
    if (n < f->min || n > f->max) {
        if (f->min == f->max)
            spec_fault(w, NULL, "bad_length", NULL, NULL, "must have %g elements, got %zu", f->min, n);
        else
            spec_fault(w, NULL, "bad_length", NULL, NULL, "must have %g to %g elements, got %zu", f->min, f->max, n);
        return NULL;
    }
    json_t *out = json_array();
    bool bad = false;
    for (size_t i = 0; i < n; i++) {
        size_t mark = spec_enter_index(w, i);
        json_t *item = check(w, f->item, json_array_get(v, i));
        bad |= !item;
        const json_t *before = item && (f->flags & BP_RISING) ? json_array_get(out, json_array_size(out) - 1) : NULL;
        if (before && json_number_value(item) <= json_number_value(before)) {
            spec_fault(w, NULL, "out_of_order", NULL, NULL, "must be larger than the one before it, %g, got %g",
                       json_number_value(before), json_number_value(item));
            bad = true;
        }
        for (size_t k = 0; item && (f->flags & BP_UNIQUE) && k < json_array_size(out); k++)
            if (json_equal(item, json_array_get(out, k))) {
                spec_fault(w, NULL, "duplicate", NULL, NULL, "is in the list already");
                bad = true;
                break;
            }
        if (item && json_array_append_new(out, item))
            w->nomem = true;
        spec_leave(w, mark);
    }
    if (!bad)
        return out;
    json_decref(out);
    return NULL;
}

static json_t *check_map(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    if (!json_is_object(v))
        return spec_wrong_type(w, v, "an object");
    if (json_object_size(v) > f->max) {
        spec_fault(w, NULL, "bad_length", NULL, NULL, "must have at most %g members, got %zu", f->max,
                   json_object_size(v));
        return NULL;
    }
    json_t *out = json_object();
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)v, key, value) {
        size_t mark = spec_enter(w, key);
        const char *wrong = strlen(key) > 1024 ? "must be at most 1024 bytes long" : f->text ? f->text(key) : NULL;
        if (wrong)
            spec_fault(w, NULL, "bad_value", NULL, NULL, "the name %s", wrong);
        json_t *item = check(w, f->item, value);
        if (item)
            spec_set(w, out, key, item);
        spec_leave(w, mark);
    }
    return out;
}

static json_t *check_object(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    if ((f->flags & BP_SWITCH) && json_is_true(v)) {
        json_t *empty = json_object();
        json_t *out = check(w, f, empty);
        json_decref(empty);
        return out;
    }
    if (!json_is_object(v)) {
        char wanted[80];
        snprintf(wanted, sizeof wanted, "an object%s%s", f->also ? " or " : "", f->also ? f->also : "");
        return spec_wrong_type(w, v, wanted);
    }
    json_t *out = json_object();
    check_members(w, f->object, NULL, NULL, v, out);
    return out;
}

/* --- members ------------------------------------------------------------------------------------------------------ */
static json_t *initial_of(struct spec_work *w, const struct bp_field *f)
{
    if (!f->initial)
        return NULL;
    json_t *v = json_loads(f->initial, JSON_DECODE_ANY, NULL);
    if (!v)
        w->nomem = true;
    return v;
}

static json_t *check(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    typedef json_t *check_fn(struct spec_work *, const struct bp_field *, const json_t *);
    static check_fn *const checks[] = {[BP_VALUE_INT] = spec_check_number,    [BP_VALUE_REAL] = spec_check_number,
                                       [BP_VALUE_STRING] = spec_check_string, [BP_VALUE_CHOICE] = spec_check_choice,
                                       [BP_VALUE_TYPED] = check_typed,        [BP_VALUE_OBJECT] = check_object,
                                       [BP_VALUE_LIST] = check_list,          [BP_VALUE_MAP] = check_map,
                                       [BP_VALUE_EXTENT] = spec_check_extent};
    if (!v) { /* a default that found no memory */
        w->nomem = true;
        return NULL;
    }
    if (json_is_null(v) && (f->flags & BP_NULLABLE))
        return json_null();
    if (f->value == BP_VALUE_ANY)
        return json_deep_copy(v);
    if (f->value == BP_VALUE_BOOL)
        return json_is_boolean(v) ? json_boolean(json_is_true(v)) : spec_wrong_type(w, v, "true or false");
    return checks[f->value](w, f, v);
}

/* A given field. null without a default is the same as leaving it out. */
static void check_given(struct spec_work *w, const struct bp_field *f, const json_t *v, json_t *out)
{
    bool off = (f->flags & BP_SWITCH) && (json_is_false(v) || json_is_null(v));
    json_t *initial = off || (f->flags & BP_LATER) ? initial_of(w, f) : NULL;
    json_t *value = check(w, f, off ? initial : v);
    if (value && (f->flags & BP_LATER) && !json_is_null(value) && !(initial && json_equal(value, initial))) {
        char *text = json_dumps(initial, JSON_ENCODE_ANY | JSON_COMPACT);
        spec_fault(w, NULL, "not_supported", NULL, NULL,
                   "\"%s\" is part of the spec, but this version does not build it yet%s%s", f->name,
                   initial ? "; it must be " : "; leave it out", initial && text ? text : "");
        free(text);
    } else if (value && !(json_is_null(value) && !f->initial)) {
        spec_set(w, out, f->name, json_incref(value));
    }
    json_decref(value);
    json_decref(initial);
}

static void add_fields(struct spec_words *words, const struct bp_object *object)
{
    for (size_t i = 0; object && i < object->n; i++)
        spec_words_add(words, object->fields[i].name, object->fields[i].aliases);
}

/* The member of the top in whose object `key` has its place, or NULL: "momentum" belongs in "optimizer". */
static const char *home_of(const char *key)
{
    enum bp_match match;
    for (size_t i = 0; i < bp_spec_fields.n; i++) {
        const struct bp_field *f = &bp_spec_fields.fields[i];
        if (f->object && bp_object_find(f->object, key, &match))
            return f->name;
        for (size_t k = 0; f->family && k < f->family->n; k++)
            if (bp_object_find(&f->family->kinds[k].own, key, &match))
                return f->name;
    }
    return NULL;
}

static void unknown_member(struct spec_work *w, const struct bp_object *object, const struct bp_object *common,
                           const char *tag, const char *key)
{
    bool top = object == &bp_spec_fields;
    if (top && bp_field_read_only(key)) {
        spec_fault(w, NULL, "read_only", NULL, NULL, "\"%.60s\" is written by the server; leave it out", key);
        return;
    }
    struct spec_words words = {0};
    const char *name, *parent;
    if (tag)
        spec_words_add(&words, tag, NULL);
    add_fields(&words, object);
    add_fields(&words, common);
    for (size_t i = 0; top && (name = spec_short_form(i, &parent)); i++)
        spec_words_add(&words, name, spec_moved_field(parent, name)->aliases);
    json_t *allowed = json_array();
    for (size_t i = 0; i < words.n; i++)
        if (words.word[i] == words.name[i])
            json_array_append_new(allowed, json_string(words.name[i]));
    const char *home = top ? home_of(key) : NULL;
    if (home) {
        spec_fault(w, NULL, "unknown_field", home, allowed,
                   "\"%.60s\" has its place in \"%s\": {\"%s\": {\"%.60s\": …}}", key, home, home, key);
        return;
    }
    const char *near = spec_words_nearest(&words, key);
    spec_fault(w, NULL, "unknown_field", near, allowed, "unknown member \"%.60s\"%s%s%s", key,
               near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

/* The member at w->pointer is `f` under another name: later steps, which know its own name only, still find it. */
static void note_alias(struct spec_work *w, size_t parent, const struct bp_field *f)
{
    char own[512], user[512];
    snprintf(own, sizeof own, "%.*s", (int)parent, w->pointer);
    bp_pointer_append(own, sizeof own, f->name);
    spec_origin(w, w->pointer, user, sizeof user);
    spec_set_origin(w, own, user);
    const char *key = strrchr(user, '/');
    spec_warn(w, NULL, "alias", "\"%.60s\" is read as \"%s\"", key ? key + 1 : user, f->name);
}

/* Which field each member is: {the field's name: the key that was written}. */
static json_t *name_members(struct spec_work *w, const struct bp_object *object, const struct bp_object *common,
                            const char *tag, const json_t *in)
{
    json_t *named = json_object(), *value;
    const char *key;
    json_object_foreach((json_t *)in, key, value) {
        enum bp_match match = BP_MATCH_NONE;
        if (tag && strcmp(key, tag) == 0)
            continue;
        const struct bp_field *f = bp_object_find(object, key, &match);
        if (!f && common)
            f = bp_object_find(common, key, &match);
        const char *other = f ? json_string_value(json_object_get(named, f->name)) : NULL;
        size_t mark = spec_enter(w, key);
        if (!f)
            unknown_member(w, object, common, tag, key);
        else if (other)
            spec_fault(w, NULL, "conflict", NULL, NULL, "is \"%s\", which is given twice (also as \"%.60s\")",
                       f->name, other);
        else
            spec_set(w, named, f->name, json_string(key));
        if (match == BP_MATCH_ALIAS && !other)
            note_alias(w, mark, f);
        spec_leave(w, mark);
    }
    return named;
}

/* A field that was not given: its default, if it has one. What is not built yet is not echoed as null. */
static void check_missing(struct spec_work *w, const struct bp_field *f, json_t *out)
{
    if (f->flags & BP_REQUIRED)
        spec_fault(w, NULL, "required", NULL, NULL, "\"%s\" is required: %s", f->name, f->help);
    if ((f->flags & BP_REQUIRED) || !f->initial || ((f->flags & BP_LATER) && strcmp(f->initial, "null") == 0))
        return;
    json_t *initial = initial_of(w, f), *full = initial ? check(w, f, initial) : NULL;
    if (full)
        spec_set(w, out, f->name, full);
    json_decref(initial);
}

static void check_members(struct spec_work *w, const struct bp_object *object, const struct bp_object *common,
                          const char *tag, const json_t *in, json_t *out)
{
    const struct bp_object *lists[2] = {common, object};
    json_t *named = name_members(w, object, common, tag, in);
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; lists[k] && i < lists[k]->n; i++) {
            const struct bp_field *f = &lists[k]->fields[i];
            const char *given = json_string_value(json_object_get(named, f->name));
            size_t mark = spec_enter(w, given ? given : f->name);
            if (given)
                check_given(w, f, json_object_get(in, given), out);
            else
                check_missing(w, f, out);
            spec_leave(w, mark);
        }
    json_decref(named);
}

json_t *spec_check(struct spec_work *w, const json_t *expanded)
{
    json_t *out = json_object();
    w->pointer[0] = 0;
    if (out)
        check_members(w, &bp_spec_fields, NULL, NULL, expanded, out);
    else
        w->nomem = true;
    return out;
}

json_t *spec_check_layer(struct spec_work *w, const json_t *layer)
{
    static const struct bp_field f = {.name = "layer", .value = BP_VALUE_TYPED, .family = &bp_layers};
    return check(w, &f, layer);
}
