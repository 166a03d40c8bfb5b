/* spec_wiring.c: which layer reads which.
 *
 * A layer reads the one above it, or those that its "inputs" name: earlier layers, or "input", the data. So a network
 * is written from top to bottom, and a cycle cannot be written down. Every layer but the last is read by some later
 * one: else it would be computed for nothing, which is a slip and refused.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include <stdio.h>
#include <string.h>

#define NETWORK_INPUT "input"

/* Layers that read several values, or may; all others read one. */
static const struct {
    const char *type;
    size_t min, max;
} joins[] = {{"add", 2, 16}, {"multiply", 2, 16}, {"concat", 2, 16}, {"multi_head_attention", 1, 2}};

static const char *name_of(const json_t *layers, size_t i)
{
    const char *name = json_string_value(json_object_get(json_array_get(layers, i), "name"));
    return name ? name : "";
}

/* The number of the layer called `name`; -1 for the data and for none. */
static int find(const json_t *layers, const char *name)
{
    for (size_t i = 0; name && i < json_array_size(layers); i++)
        if (strcmp(name_of(layers, i), name) == 0)
            return (int)i;
    return -1;
}

int spec_input_of(const json_t *layers, size_t i)
{
    const json_t *inputs = json_object_get(json_array_get(layers, i), "inputs");
    if (json_array_size(inputs) == 0)
        return (int)i - 1;
    int from = find(layers, json_string_value(json_array_get(inputs, 0)));
    return from < (int)i ? from : -1; /* a later one is a fault, found elsewhere */
}

/* The number of a layer in a map of names; -1 for the data and for none. */
static int number_of(const json_t *numbers, const char *name)
{
    const json_t *number = json_object_get(numbers, name ? name : "");
    return number ? (int)json_integer_value(number) : -1;
}

/* --- faults ------------------------------------------------------------------------------------------------------- */
static void check_name(struct spec_work *w, const json_t *layers, const json_t *numbers, size_t i, size_t k,
                       const char *name)
{
    char pointer[80];
    int at = number_of(numbers, name);
    snprintf(pointer, sizeof pointer, "/model/layers/%zu/inputs/%zu", i, k);
    if ((at >= 0 && at < (int)i) || strcmp(name, NETWORK_INPUT) == 0)
        return;
    if (at == (int)i) {
        spec_fault(w, pointer, "incompatible", NULL, NULL, "a layer cannot read itself");
        return;
    }
    if (at > (int)i) {
        spec_fault(w, pointer, "incompatible", NULL, NULL,
                   "\"%s\" comes after this layer, and a layer reads earlier ones only: move it up", name);
        return;
    }
    struct spec_words words = {0};
    json_t *allowed = json_array();
    spec_words_add(&words, NETWORK_INPUT, NULL);
    json_array_append_new(allowed, json_string(NETWORK_INPUT));
    for (size_t earlier = 0; earlier < i; earlier++) {
        spec_words_add(&words, name_of(layers, earlier), NULL);
        json_array_append_new(allowed, json_string(name_of(layers, earlier)));
    }
    const char *near = spec_words_nearest(&words, name);
    spec_fault(w, pointer, "unknown_name", near, allowed,
               "there is no layer \"%.60s\"%s%s%s; a layer reads earlier ones, or \"input\"", name,
               near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

static void check_count(struct spec_work *w, const json_t *layer, size_t i, size_t n)
{
    const char *type = spec_kind(layer, "type");
    size_t min = 1, max = 1;
    char pointer[80];
    for (size_t k = 0; k < sizeof joins / sizeof joins[0]; k++)
        if (strcmp(joins[k].type, type) == 0) {
            min = joins[k].min;
            max = joins[k].max;
        }
    size_t reads = n ? n : 1;
    snprintf(pointer, sizeof pointer, "/model/layers/%zu%s", i, n ? "/inputs" : "");
    if (reads < min)
        spec_fault(w, pointer, "incompatible", NULL, NULL,
                   "%s joins %zu to %zu layers: name them, as in \"inputs\": [\"a\", \"b\"]", type, min, max);
    else if (reads > max)
        spec_fault(w, pointer, "incompatible", NULL, NULL,
                   "%s reads %s, got %zu inputs: join them first with add, multiply or concat", type,
                   max == 1 ? "one layer" : "at most two: a sequence and the mask of its steps", reads);
}

/* Marks what is read. used has an entry for each layer. */
static void mark(const json_t *layers, const json_t *numbers, size_t i, bool *used)
{
    const json_t *inputs = json_object_get(json_array_get(layers, i), "inputs");
    size_t n = json_array_size(inputs);
    if (n == 0 && i > 0)
        used[i - 1] = true;
    for (size_t k = 0; k < n; k++) {
        int at = number_of(numbers, json_string_value(json_array_get(inputs, k)));
        if (at >= 0)
            used[at] = true;
    }
}

static void check_used(struct spec_work *w, const json_t *layers, const json_t *numbers)
{
    bool used[BP_LAYERS_ALL] = {false};
    size_t n = json_array_size(layers) < BP_LAYERS_ALL ? json_array_size(layers) : BP_LAYERS_ALL;
    for (size_t i = 0; i < n; i++)
        mark(layers, numbers, i, used);
    for (size_t i = 0; i + 1 < n; i++) {
        char pointer[64];
        if (used[i])
            continue;
        snprintf(pointer, sizeof pointer, "/model/layers/%zu", i);
        spec_fault(
            w, pointer, "unused", NULL, NULL,
            "no layer reads \"%s\": the layers below it name other inputs. Name it in the \"inputs\" of a later "
            "layer, or remove it",
            name_of(layers, i));
    }
}

void spec_check_inputs(struct spec_work *w)
{
    json_t *layers = spec_layers(w->doc), *layer, *numbers = json_object();
    size_t faults = w->faults, i;
    for (i = json_array_size(layers); i-- > 0;) /* of two with one name, a fault of its own, the first */
        spec_set(w, numbers, name_of(layers, i), json_integer((json_int_t)i));
    json_array_foreach(layers, i, layer) {
        const json_t *inputs = json_object_get(layer, "inputs");
        for (size_t k = 0; k < json_array_size(inputs); k++) {
            const char *name = json_string_value(json_array_get(inputs, k));
            check_name(w, layers, numbers, i, k, name ? name : "");
        }
        check_count(w, layer, i, json_array_size(inputs));
    }
    if (w->faults == faults)
        check_used(w, layers, numbers);
    json_decref(numbers);
}
