/* spec.c: resolving a job spec: the order of the steps, and how faults and warnings are kept.
 *
 * A later step looks only at what earlier ones left sound, and runs as far as it can: a missing dataset does not hide
 * a wrong learning rate. Only what needs numbers (shapes, memory, the split) waits until nothing else is wrong.
 *
 * Threads: pure functions of their arguments.
 */
#include "jobs/spec_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void spec_set(struct spec_work *w, json_t *object, const char *key, json_t *value_steal)
{
    if (json_object_set_new(object, key, value_steal))
        w->nomem = true;
}

size_t spec_enter(struct spec_work *w, const char *token)
{
    size_t mark = strlen(w->pointer);
    bp_pointer_append(w->pointer, sizeof w->pointer, token);
    return mark;
}

size_t spec_enter_index(struct spec_work *w, size_t index)
{
    char token[24];
    snprintf(token, sizeof token, "%zu", index);
    return spec_enter(w, token);
}

void spec_set_origin(struct spec_work *w, const char *pointer, const char *user)
{
    spec_set(w, w->origins, pointer, json_string(user));
}

void spec_origin(const struct spec_work *w, const char *pointer, char *ret, size_t size)
{
    char prefix[512];
    snprintf(prefix, sizeof prefix, "%s", pointer);
    for (;;) {
        const char *user = json_string_value(json_object_get(w->origins, prefix));
        if (user) {
            snprintf(ret, size, "%s%s", user, pointer + strlen(prefix));
            return;
        }
        char *slash = strrchr(prefix, '/');
        if (!slash) {
            snprintf(ret, size, "%s", pointer);
            return;
        }
        *slash = 0;
    }
}

void spec_fault(struct spec_work *w, const char *pointer, const char *code, const char *suggestion,
                json_t *allowed_steal, const char *format, ...)
{
    char user[512], detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    spec_origin(w, pointer ? pointer : w->pointer, user, sizeof user);
    w->faults++;
    bp_problems_add(w->problems, user, code, suggestion, allowed_steal, "%s", detail);
}

void spec_warn(struct spec_work *w, const char *pointer, const char *code, const char *format, ...)
{
    char user[512], detail[512];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof detail, format, args);
    va_end(args);
    spec_origin(w, pointer ? pointer : w->pointer, user, sizeof user);
    /* A word cut in mid-character is not UTF-8; the warning then does without the sentence's end. */
    json_t *text = json_string(detail);
    for (size_t n = strlen(detail); !text && n > 0; n--) {
        detail[n - 1] = 0;
        text = json_string(detail);
    }
    json_t *entry = json_object();
    spec_set(w, entry, "code", json_string(code));
    spec_set(w, entry, "pointer", json_string(user));
    spec_set(w, entry, "detail", text);
    if (json_array_append_new(w->warnings, entry))
        w->nomem = true;
}

void spec_merge(struct spec_work *w, struct bp_problems *from)
{
    size_t i;
    json_t *entry;
    json_array_foreach(from->errors, i, entry) {
        const char *code = json_string_value(json_object_get(entry, "code"));
        const char *pointer = json_string_value(json_object_get(entry, "pointer"));
        const char *detail = json_string_value(json_object_get(entry, "detail"));
        spec_fault(w, pointer ? pointer : "", code ? code : "invalid",
                   json_string_value(json_object_get(entry, "suggestion")),
                   json_incref(json_object_get(entry, "allowed")), "%s", detail ? detail : "");
    }
    if (from->out_of_memory)
        w->nomem = true;
    bp_problems_done(from);
}

const char *spec_kind(const json_t *value, const char *tag)
{
    const char *word =
        json_is_object(value) ? json_string_value(json_object_get(value, tag)) : json_string_value(value);
    return word ? word : "";
}

json_t *spec_layers(const json_t *doc)
{
    return json_object_get(json_object_get(doc, "model"), "layers");
}

const char *spec_activation(const json_t *layer)
{
    const char *word = spec_kind(json_object_get(layer, "activation"), "type");
    return word[0] ? word : "linear";
}

enum bp_metric spec_metric(const char *name)
{
    int i = 0;
    while (i < BP_METRIC_COUNT && strcmp(bp_metric_name((enum bp_metric)i), name) != 0)
        i++;
    return (enum bp_metric)i;
}

enum bp_loss spec_loss(const char *name)
{
    int i = 0;
    while (i < BP_LOSS_COUNT && strcmp(bp_loss_name((enum bp_loss)i), name) != 0)
        i++;
    return (enum bp_loss)i;
}

/* The steps in order. */
static void resolve(struct spec_work *w, const json_t *input)
{
    if (!json_is_object(input)) {
        spec_fault(w, "", "wrong_type", NULL, NULL,
                   "a job spec is an object, such as {\"dataset\": \"iris\", "
                   "\"target\": \"species\", \"layers\": [64, 32]}");
        return;
    }
    json_t *expanded = spec_expand(w, input);
    if (expanded)
        w->doc = spec_check(w, expanded);
    json_decref(expanded);
    if (!w->doc || w->nomem)
        return;
    json_t *threads = json_object_get(w->doc, "threads");
    if (json_is_integer(threads) && json_integer_value(threads) == 0)
        spec_set(w, w->doc, "threads", json_null());
    else if (json_integer_value(threads) > w->context->thread_budget)
        spec_fault(w, "/threads", "out_of_range", NULL, NULL,
                   "must be at most %d, the thread budget of this server, got %lld", w->context->thread_budget,
                   (long long)json_integer_value(threads));
    bool layers_ok = spec_layers(w->doc) != NULL;
    spec_infer_dataset(w);
    spec_infer_task(w);
    if (layers_ok && w->transform)
        spec_complete_layers(w);
    if (layers_ok)
        spec_check_symmetry(w);
    spec_infer_monitors(w);
    spec_check_optimizer(w);
    if (!bp_problems_any(w->problems) && !w->nomem && w->error.code == BP_OK)
        spec_fit(w);
}

/* The members in the order of the table, whatever order they were inferred in. */
static json_t *ordered(struct spec_work *w, const struct bp_object *object, const json_t *in)
{
    json_t *out = json_object();
    for (size_t i = 0; i < object->n; i++) {
        const struct bp_field *f = &object->fields[i];
        json_t *value = json_object_get(in, f->name);
        if (value && f->value == BP_VALUE_OBJECT && json_is_object(value))
            spec_set(w, out, f->name, ordered(w, f->object, value));
        else if (value)
            spec_set(w, out, f->name, json_incref(value));
    }
    return out;
}

bp_status bp_spec_resolve(const json_t *input, const struct bp_spec_context *context, struct bp_spec *ret,
                          struct bp_error *err)
{
    bp_status status = BP_OK;
    memset(ret, 0, sizeof *ret);
    bp_problems_init(&ret->problems);
    struct spec_work w = {.context = context, .problems = &ret->problems};
    w.warnings = json_array();
    w.origins = json_object();
    w.nomem = !w.warnings || !w.origins;
    if (!w.nomem)
        resolve(&w, input);
    ret->warnings = w.warnings;
    if (w.error.code != BP_OK) {
        if (err)
            *err = w.error;
        status = w.error.code;
    } else if (w.nomem || ret->problems.out_of_memory) {
        status = bp_fail(err, BP_NOMEM, "not enough memory to check the spec");
    } else if (bp_problems_any(&ret->problems)) {
        status = bp_fail(err, BP_INVALID, "the spec has %zu fault%s", json_array_size(ret->problems.errors),
                         json_array_size(ret->problems.errors) == 1 ? "" : "s");
    } else {
        ret->resolved = ordered(&w, &bp_spec_fields, w.doc);
        snprintf(ret->table, sizeof ret->table, "%s", w.table->hash);
        ret->data = w.table;
        ret->plan = w.plan;
        w.table = NULL;
        w.plan = (struct bp_plan){.graph = NULL};
        if (w.nomem) {
            json_decref(ret->resolved);
            ret->resolved = NULL;
            status = bp_fail(err, BP_NOMEM, "not enough memory to check the spec");
        }
    }
    bp_plan_done(&w.plan);
    bp_transform_free(w.transform);
    bp_table_close(w.table);
    json_decref(w.doc);
    json_decref(w.origins);
    return status;
}

void bp_spec_done(struct bp_spec *spec)
{
    json_decref(spec->resolved);
    json_decref(spec->warnings);
    bp_plan_done(&spec->plan);
    bp_table_close(spec->data);
    spec->data = NULL;
    bp_problems_done(&spec->problems);
    spec->resolved = spec->warnings = NULL;
}
