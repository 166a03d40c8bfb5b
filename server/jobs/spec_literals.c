/* spec_literals.c: the weights and biases of a dense layer written out in the spec.
 *
 * A matrix is a list of rows, one a unit, as the exports have it. Its height is checked here, its width against what
 * arrives at the layer when the graph is built.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define LITERALS_MAX 100000 /* numbers of one layer: for nets that a person writes down; larger ones are init_from */

/* A list of n numbers that a float can hold; faults below `base`. */
static bool check_numbers(struct spec_work *w, const json_t *list, size_t n, const char *base, const char *what)
{
    if (!json_is_array(list) || json_array_size(list) != n) {
        spec_fault(w, base, "shape_mismatch", NULL, NULL, "must be a list of %zu numbers, %s, got %zu", n, what,
                   json_array_size(list));
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        char pointer[128];
        snprintf(pointer, sizeof pointer, "%s/%zu", base, i);
        if (!json_is_number(v) || !isfinite((float)json_number_value(v))) {
            spec_fault(w, pointer, "wrong_type", NULL, NULL, "must be a number that fits a float32");
            return false;
        }
    }
    return true;
}

static void check_weights(struct spec_work *w, const json_t *weights, size_t units, const char *base)
{
    size_t columns = json_array_size(json_array_get(weights, 0));
    if (!json_is_array(weights) || json_array_size(weights) != units || columns == 0) {
        spec_fault(w, base, "shape_mismatch", NULL, NULL,
                   "must be a list of %zu rows, one for each unit, each with a number for each input; got %zu", units,
                   json_array_size(weights));
        return;
    }
    if (units > LITERALS_MAX / columns) {
        spec_fault(w, base, "too_large", NULL, NULL, "at most %d numbers can be written out", LITERALS_MAX);
        return;
    }
    for (size_t i = 0; i < units; i++) {
        char pointer[96];
        snprintf(pointer, sizeof pointer, "%s/%zu", base, i);
        if (!check_numbers(w, json_array_get(weights, i), columns, pointer, "as many as the first row"))
            return;
    }
}

void spec_check_literals(struct spec_work *w)
{
    size_t i;
    json_t *layer;
    json_array_foreach(spec_layers(w->doc), i, layer) {
        const json_t *weights = json_object_get(layer, "weights"), *biases = json_object_get(layer, "biases");
        json_int_t units = json_integer_value(json_object_get(layer, "units"));
        char pointer[64];
        if (units < 1)
            continue;
        snprintf(pointer, sizeof pointer, "/model/layers/%zu/weights", i);
        if (weights && !json_is_null(weights))
            check_weights(w, weights, (size_t)units, pointer);
        snprintf(pointer, sizeof pointer, "/model/layers/%zu/biases", i);
        if (!biases || json_is_null(biases))
            continue;
        if (json_is_false(json_object_get(layer, "use_bias")))
            spec_fault(w, pointer, "incompatible", NULL, NULL, "this layer has use_bias: false");
        else if (units > LITERALS_MAX)
            spec_fault(w, pointer, "too_large", NULL, NULL, "at most %d numbers can be written out", LITERALS_MAX);
        else
            check_numbers(w, biases, (size_t)units, pointer, "one for each unit");
    }
}

/* n rows of numbers in one block; *ret_columns of the first. NULL where there is nothing or no memory. */
static float *copy(const json_t *rows, size_t *ret_columns)
{
    size_t n = json_array_size(rows), columns = json_array_size(json_array_get(rows, 0));
    bool matrix = json_is_array(json_array_get(rows, 0));
    float *out = n && n <= LITERALS_MAX && (!matrix || (columns && columns <= LITERALS_MAX / n))
                     ? malloc(n * (matrix ? columns : 1) * sizeof *out)
                     : NULL;
    for (size_t i = 0; out && i < n; i++)
        for (size_t k = 0; k < (matrix ? columns : 1); k++) {
            const json_t *row = json_array_get(rows, i);
            out[i * (matrix ? columns : 1) + k] =
                (float)json_number_value(matrix ? json_array_get(row, k) : row); /* checked: as long as the first */
        }
    *ret_columns = matrix ? columns : 1;
    return out;
}

bp_status spec_read_literals(const json_t *layer, int64_t inputs, struct bp_dense_config *config, float **ret_weights,
                             float **ret_biases, struct bp_error *err)
{
    const json_t *weights = json_object_get(layer, "weights"), *biases = json_object_get(layer, "biases");
    size_t columns = 0, one;
    *ret_weights = *ret_biases = NULL;
    if (json_is_array(weights)) {
        *ret_weights = copy(weights, &columns);
        if (!*ret_weights)
            return bp_fail(err, BP_NOMEM, "no memory for the weights of a layer");
        if ((int64_t)columns != inputs || (int64_t)json_array_size(weights) != config->units)
            return bp_fail(err, BP_INVALID,
                           "its weights are %zu rows of %zu, but %lld units with %lld inputs need %lld "
                           "rows of %lld",
                           json_array_size(weights), columns, (long long)config->units, (long long)inputs,
                           (long long)config->units, (long long)inputs);
    }
    if (json_is_array(biases)) {
        *ret_biases = copy(biases, &one);
        if (!*ret_biases)
            return bp_fail(err, BP_NOMEM, "no memory for the biases of a layer");
        if ((int64_t)json_array_size(biases) != config->units)
            return bp_fail(err, BP_INVALID, "it has %lld units and %zu biases", (long long)config->units,
                           json_array_size(biases));
    }
    config->weights = *ret_weights;
    config->biases = *ret_biases;
    return BP_OK;
}
