/* schema.c: the field table as a JSON Schema (draft 2020-12) of a job.
 *
 * Describes the canonical names in the long and the short forms. Aliases are left out on purpose: the server takes
 * them, with a warning, but nobody should be taught them. Whatever this version does not build yet is left out too.
 *
 * Threads: pure.
 */
#include "jobs/spec_internal.h"

#include <string.h>

static json_t *field_schema(const struct bp_field *f);

static void put(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

static json_t *of_type(const char *type)
{
    json_t *out = json_object();
    put(out, "type", json_string(type));
    return out;
}

static json_t *any_of(json_t *a_steal, json_t *b_steal)
{
    json_t *out = json_object(), *list = json_array();
    json_array_append_new(list, a_steal);
    json_array_append_new(list, b_steal);
    put(out, "anyOf", list);
    return out;
}

static bool usable(const struct bp_kind *kind)
{
    return !(kind->flags & BP_LATER) && !kind->refused;
}

static json_t *names_schema(const struct bp_family *family)
{
    json_t *out = json_object(), *names = json_array();
    for (size_t i = 0; i < family->n; i++)
        if (usable(&family->kinds[i]))
            json_array_append_new(names, json_string(family->kinds[i].name));
    put(out, "enum", names);
    return out;
}

static void put_fields(const struct bp_object *object, json_t *properties, json_t *required)
{
    for (size_t i = 0; i < object->n; i++) {
        const struct bp_field *f = &object->fields[i];
        if ((f->flags & BP_LATER) && !f->initial)
            continue;
        put(properties, f->name, field_schema(f));
        if (f->flags & BP_REQUIRED)
            json_array_append_new(required, json_string(f->name));
    }
}

static json_t *object_schema(json_t *properties_steal, json_t *required_steal)
{
    json_t *out = of_type("object");
    put(out, "properties", properties_steal);
    if (json_array_size(required_steal))
        put(out, "required", json_incref(required_steal));
    json_decref(required_steal);
    put(out, "additionalProperties", json_false());
    return out;
}

static json_t *fields_schema(const struct bp_object *object)
{
    json_t *properties = json_object(), *required = json_array();
    put_fields(object, properties, required);
    return object_schema(properties, required);
}

/* One kind as an object: its tag and its own fields. */
static json_t *kind_schema(const struct bp_family *family, const struct bp_kind *kind, bool tag_needed)
{
    json_t *properties = json_object(), *required = json_array(), *tag = json_object();
    put(tag, "const", json_string(kind->name));
    put(properties, family->tag, tag);
    if (tag_needed)
        json_array_append_new(required, json_string(family->tag));
    put_fields(&family->common, properties, required);
    put_fields(&kind->own, properties, required);
    json_t *out = object_schema(properties, required);
    put(out, "description", json_string(kind->help ? kind->help : ""));
    return out;
}

static json_t *typed_schema(const struct bp_field *f)
{
    json_t *kinds = json_array(), *out = json_object();
    json_array_append_new(kinds, names_schema(f->family));
    for (size_t i = 0; i < f->family->n; i++) {
        const struct bp_kind *kind = &f->family->kinds[i];
        bool initial = f->initial && strncmp(f->initial + 1, kind->name, strlen(kind->name)) == 0 &&
                       f->initial[1 + strlen(kind->name)] == '"';
        if (usable(kind))
            json_array_append_new(kinds, kind_schema(f->family, kind, !initial));
    }
    /* A number or an activation's name in the list of layers. */
    if (f->family == &bp_layers) {
        json_t *units = of_type("integer");
        put(units, "minimum", json_integer(1));
        put(units, "maximum", json_integer((json_int_t)BP_UNITS_MAX));
        json_array_append_new(kinds, units);
        json_array_append_new(kinds, names_schema(&bp_activations));
    }
    put(out, "anyOf", kinds);
    return out;
}

static json_t *number_schema(const struct bp_field *f)
{
    bool integer = f->value == BP_VALUE_INT;
    json_t *out = of_type(integer ? "integer" : "number");
    put(out, f->flags & BP_OPEN_MIN ? "exclusiveMinimum" : "minimum",
        integer ? json_integer((json_int_t)f->min) : json_real(f->min));
    put(out, f->flags & BP_OPEN_MAX ? "exclusiveMaximum" : "maximum",
        integer ? json_integer((json_int_t)f->max) : json_real(f->max));
    if (!(f->flags & BP_AUTO))
        return out;
    json_t *word = json_object();
    put(word, "const", json_string("auto"));
    return any_of(out, word);
}

static json_t *extent_schema(const struct bp_field *f)
{
    json_t *one = of_type("integer"), *list = of_type("array");
    put(one, "minimum", json_integer((json_int_t)f->min));
    put(one, "maximum", json_integer((json_int_t)f->max));
    put(list, "items", json_incref(one));
    put(list, "minItems", json_integer(1));
    put(list, "maxItems", json_integer(f->axes));
    json_t *out = any_of(one, list);
    for (const char *p = f->words; p && *p; p += strspn(p, " ")) {
        json_t *word = json_object();
        size_t n = strcspn(p, " ");
        put(word, "const", json_stringn(p, n));
        json_array_append_new(json_object_get(out, "anyOf"), word);
        p += n;
    }
    return out;
}

static json_t *list_schema(const struct bp_field *f)
{
    json_t *out = of_type("array");
    put(out, "items", field_schema(f->item));
    put(out, "minItems", json_integer((json_int_t)f->min));
    put(out, "maxItems", json_integer((json_int_t)f->max));
    if (f->flags & BP_UNIQUE)
        put(out, "uniqueItems", json_true());
    return f->flags & BP_SINGLE ? any_of(out, field_schema(f->item)) : out;
}

static json_t *string_schema(const struct bp_field *f)
{
    json_t *out = of_type("string");
    put(out, "minLength", json_integer((json_int_t)f->min));
    put(out, "maxLength", json_integer((json_int_t)f->max));
    if (!(f->flags & BP_SINGLE))
        return out;
    json_t *list = of_type("array");
    put(list, "items", json_incref(out));
    put(list, "minItems", json_integer(1));
    if (!(f->flags & BP_MANY))
        put(list, "maxItems", json_integer(1));
    return any_of(out, list);
}

static json_t *map_schema(const struct bp_field *f)
{
    json_t *out = of_type("object");
    put(out, "additionalProperties", field_schema(f->item));
    put(out, "maxProperties", json_integer((json_int_t)f->max));
    return out;
}

static json_t *field_schema(const struct bp_field *f)
{
    json_t *out = NULL;
    switch (f->value) {
    case BP_VALUE_BOOL:
        out = of_type("boolean");
        break;
    case BP_VALUE_INT:
    case BP_VALUE_REAL:
        out = number_schema(f);
        break;
    case BP_VALUE_STRING:
        out = string_schema(f);
        break;
    case BP_VALUE_CHOICE:
        out = names_schema(f->family);
        break;
    case BP_VALUE_TYPED:
        out = typed_schema(f);
        break;
    case BP_VALUE_OBJECT:
        out = fields_schema(f->object);
        break;
    case BP_VALUE_LIST:
        out = list_schema(f);
        break;
    case BP_VALUE_MAP:
        out = map_schema(f);
        break;
    case BP_VALUE_EXTENT:
        out = extent_schema(f);
        break;
    case BP_VALUE_ANY:
        out = json_object();
        break;
    }
    if (f->flags & BP_SWITCH)
        out = any_of(out, of_type("boolean"));
    if (f->flags & BP_NULLABLE)
        out = any_of(out, of_type("null"));
    if ((f->flags & BP_LATER) && f->initial) {
        json_decref(out);
        out = json_object();
        put(out, "const", json_loads(f->initial, JSON_DECODE_ANY, NULL));
    }
    if (f->initial)
        put(out, "default", json_loads(f->initial, JSON_DECODE_ANY, NULL));
    put(out, "description", json_string(f->help ? f->help : ""));
    return out;
}

json_t *bp_spec_schema(void)
{
    json_t *out = fields_schema(&bp_spec_fields), *properties = json_object_get(out, "properties");
    put(out, "$schema", json_string("https://json-schema.org/draft/2020-12/schema"));
    put(out, "$id", json_string("/v1/job.schema.json"));
    put(out, "title", json_string("A backpropd job"));
    const char *object, *name;
    for (size_t i = 0; (name = spec_short_form(i, &object)); i++) {
        const struct bp_field *f = spec_moved_field(object, name);
        put(properties, name, field_schema(f));
    }
    json_t *dataset = of_type("string"), *model_list = json_object_get(properties, "layers");
    put(properties, "dataset", any_of(json_incref(json_object_get(properties, "dataset")), dataset));
    put(properties, "model", any_of(json_incref(json_object_get(properties, "model")), json_incref(model_list)));
    /* The short forms need neither object: dataset is a name, layers stand at the top. */
    json_t *model = json_pack("{s:[s]}", "required", "model"), *layers = json_pack("{s:[s]}", "required", "layers");
    json_t *forms = json_array();
    json_array_append_new(forms, model);
    json_array_append_new(forms, layers);
    put(out, "oneOf", forms);
    put(out, "required", json_pack("[s]", "dataset"));
    return out;
}
