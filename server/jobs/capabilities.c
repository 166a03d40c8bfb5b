/* capabilities.c: the field table as a reply: what there is, with parameters, defaults, ranges and help.
 *
 * Nothing is said here that the validator does not read from the same rows.
 *
 * Threads: pure.
 */
#include "jobs/spec_internal.h"

#include <math.h>
#include <string.h>

static json_t *fields_json(const struct bp_object *object);

static void put(json_t *object, const char *key, json_t *value)
{
    if (value)
        json_object_set_new(object, key, value);
}

static json_t *words_json(const char *words)
{
    json_t *out = json_array();
    for (const char *p = words; p && *p;) {
        size_t n = strcspn(p, " ");
        json_array_append_new(out, json_stringn(p, n));
        p += n;
        p += strspn(p, " ");
    }
    return out;
}

static json_t *number_json(double value)
{
    return value == floor(value) && fabs(value) < 9e15 ? json_integer((json_int_t)value) : json_real(value);
}

static const char *type_word(const struct bp_field *f)
{
    static const char *const words[] = {[BP_VALUE_BOOL] = "boolean",  [BP_VALUE_INT] = "integer",
                                        [BP_VALUE_REAL] = "number",   [BP_VALUE_STRING] = "string",
                                        [BP_VALUE_CHOICE] = "name",   [BP_VALUE_TYPED] = "name or object",
                                        [BP_VALUE_OBJECT] = "object", [BP_VALUE_LIST] = "array",
                                        [BP_VALUE_MAP] = "object",    [BP_VALUE_EXTENT] = "integer or array",
                                        [BP_VALUE_ANY] = "any"};
    return words[f->value];
}

static void put_limits(json_t *out, const struct bp_field *f)
{
    bool number = f->value == BP_VALUE_INT || f->value == BP_VALUE_REAL || f->value == BP_VALUE_EXTENT;
    if (!number && f->max > 0) {
        put(out, "min_length", number_json(f->min));
        put(out, "max_length", number_json(f->max));
    } else if (number) {
        put(out, f->flags & BP_OPEN_MIN ? "above" : "min", number_json(f->min));
        put(out, f->flags & BP_OPEN_MAX ? "below" : "max", number_json(f->max));
    }
}

static json_t *field_json(const struct bp_field *f)
{
    json_t *out = json_object();
    put(out, "name", json_string(f->name));
    put(out, "type", json_string(type_word(f)));
    put(out, "available", json_boolean(!(f->flags & BP_LATER)));
    if (f->flags & BP_REQUIRED)
        put(out, "required", json_true());
    if (f->flags & BP_NULLABLE)
        put(out, "nullable", json_true());
    if (f->initial)
        put(out, "default", json_loads(f->initial, JSON_DECODE_ANY, NULL));
    put_limits(out, f);
    if (f->flags & BP_AUTO)
        put(out, "words", words_json("auto"));
    if (f->words)
        put(out, "words", words_json(f->words));
    if (f->value == BP_VALUE_OBJECT)
        put(out, "members", fields_json(f->object));
    const struct bp_field *item = f->item ? f->item : f;
    if (item->family && item->family->plural)
        put(out, "kinds", json_string(item->family->plural));
    else if (item->family) {
        json_t *names = json_array();
        for (size_t i = 0; i < item->family->n; i++)
            json_array_append_new(names, json_string(item->family->kinds[i].name));
        put(out, "choices", names);
    } else if (item->value == BP_VALUE_OBJECT && item != f)
        put(out, "of", fields_json(item->object));
    put(out, "aliases", words_json(f->aliases));
    put(out, "help", json_string(f->help ? f->help : ""));
    return out;
}

static json_t *fields_json(const struct bp_object *object)
{
    json_t *out = json_array();
    for (size_t i = 0; i < object->n; i++)
        json_array_append_new(out, field_json(&object->fields[i]));
    return out;
}

static json_t *kind_json(const struct bp_family *family, const struct bp_kind *kind)
{
    json_t *out = json_object(), *parameters = fields_json(&kind->own), *common = fields_json(&family->common);
    json_array_extend(parameters, common);
    json_decref(common);
    put(out, "name", json_string(kind->name));
    put(out, "available", json_boolean(!(kind->flags & BP_LATER) && !kind->refused));
    put(out, "help", json_string(kind->help ? kind->help : ""));
    if (kind->refused)
        put(out, "refused", json_string(kind->refused));
    put(out, "parameters", parameters);
    put(out, "aliases", words_json(kind->aliases));
    return out;
}

static json_t *limits_json(void)
{
    json_t *out = json_object();
    put(out, "layers", number_json(BP_LAYERS_MAX));
    put(out, "units", number_json(BP_UNITS_MAX));
    put(out, "elements_of_a_tensor", json_integer(BP_ELEMENTS_MAX));
    put(out, "epochs", number_json(BP_EPOCHS_MAX));
    put(out, "batch_size", number_json(BP_BATCH_MAX));
    put(out, "seed", number_json(BP_SEED_MAX));
    put(out, "threads", json_integer(BP_TEAM_MAX));
    put(out, "columns", json_integer(BP_COLUMNS_MAX));
    put(out, "distinct_values", json_integer(BP_DISTINCT_MAX));
    put(out, "faults_reported", json_integer(BP_PROBLEMS_MAX));
    return out;
}

json_t *bp_spec_capabilities(void)
{
    static const struct bp_family *const families[] = {&bp_layers,       &bp_activations, &bp_losses, &bp_optimizers,
                                                       &bp_initializers, &bp_schedules,   &bp_metrics};
    json_t *out = json_object();
    put(out, "object", json_string("capabilities"));
    put(out, "numerics_version", json_integer(BP_NUMERICS_VERSION));
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
        json_t *kinds = json_array();
        for (size_t i = 0; i < families[f]->n; i++)
            json_array_append_new(kinds, kind_json(families[f], &families[f]->kinds[i]));
        put(out, families[f]->plural, kinds);
    }
    put(out, "spec", fields_json(&bp_spec_fields));
    put(out, "limits", limits_json());
    return out;
}
