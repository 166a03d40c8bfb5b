/* spec_layers.c: the list of layers made whole.
 *
 * The output layer is the last dense layer with "auto" units, or with as many as the target needs; where there is
 * none it is added. cross_entropy and bce work on logits: a softmax or sigmoid in front of them is folded into the
 * loss (applying it twice would flatten the gradient), predictions still show it. Several dimensions in front of a
 * dense layer are flattened. Every layer gets a name.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_type(const json_t *layer, const char *type)
{
    return strcmp(spec_kind(layer, "type"), type) == 0;
}

static void layer_pointer(size_t index, const char *member, char *ret, size_t size)
{
    snprintf(ret, size, "/model/layers/%zu%s%s", index, member ? "/" : "", member ? member : "");
}

/* Renumbers the origins for a layer put in front of number `at`: what comes after it keeps pointing at what the user
 * wrote, and the new one points at the whole list. */
static void move_origins(struct spec_work *w, size_t at, size_t n)
{
    static const char list[] = "/model/layers";
    json_t *moved = json_object(), *value;
    char to[600], user[512];
    const char *key;
    json_object_foreach(w->origins, key, value) {
        size_t index = 0;
        int length = 0;
        bool layer = sscanf(key, "/model/layers/%zu%n", &index, &length) == 1 && index >= at;
        snprintf(to, sizeof to, "%s", key);
        if (layer)
            snprintf(to, sizeof to, "%s/%zu%s", list, index + 1, key + length);
        spec_set(w, moved, to, json_incref(value));
    }
    for (size_t i = at; i < n; i++) {
        layer_pointer(i, NULL, to, sizeof to);
        spec_origin(w, to, user, sizeof user);
        layer_pointer(i + 1, NULL, to, sizeof to);
        spec_set(w, moved, to, json_string(user));
    }
    spec_origin(w, list, user, sizeof user);
    layer_pointer(at, NULL, to, sizeof to);
    spec_set(w, moved, to, json_string(user));
    if (!moved)
        return; /* noted by spec_set */
    json_decref(w->origins);
    w->origins = moved;
}

static void insert_layer(struct spec_work *w, size_t at, json_t *layer_steal)
{
    json_t *layers = spec_layers(w->doc);
    move_origins(w, at, json_array_size(layers));
    if (!layer_steal || json_array_insert_new(layers, at, layer_steal))
        w->nomem = true;
}

/* A layer of ours with its defaults. */
static json_t *make_layer(struct spec_work *w, const char *type, int units)
{
    json_t *brief = json_object();
    spec_set(w, brief, "type", json_string(type));
    if (units)
        spec_set(w, brief, "units", json_integer(units));
    json_t *layer = spec_check_layer(w, brief);
    json_decref(brief);
    if (!layer)
        w->nomem = true;
    return layer;
}

/* --- the output layer --------------------------------------------------------------------------------------------- */
static bool is_auto(const json_t *layer)
{
    return json_is_string(json_object_get(layer, "units"));
}

/* The activation that the loss already applies, "" for none. */
static bool folds(enum bp_loss loss, const char *activation)
{
    if (loss == BP_LOSS_CROSS_ENTROPY || loss == BP_LOSS_KL_DIV)
        return strcmp(activation, "softmax") == 0 || strcmp(activation, "log_softmax") == 0;
    return loss == BP_LOSS_BCE && strcmp(activation, "sigmoid") == 0;
}

/* The dense layer that a tail of activations stands on, or -1. */
static int last_dense(const json_t *layers)
{
    int i = (int)json_array_size(layers) - 1;
    while (i >= 0 && is_type(json_array_get(layers, (size_t)i), "activation"))
        i = spec_input_of(layers, (size_t)i);
    return i >= 0 && is_type(json_array_get(layers, (size_t)i), "dense") ? i : -1;
}

/* Takes a folded activation away: from a dense layer, or an activation layer that stands at the end. */
static void fold(struct spec_work *w, enum bp_loss loss)
{
    json_t *layers = spec_layers(w->doc);
    size_t last = json_array_size(layers) - 1;
    json_t *layer = json_array_get(layers, last);
    char pointer[64], name[24];
    snprintf(name, sizeof name, "%s", spec_activation(layer));
    if (!folds(loss, name) || last_dense(layers) < 0)
        return;
    layer_pointer(last, is_type(layer, "dense") ? "activation" : NULL, pointer, sizeof pointer);
    spec_warn(w, pointer, "folded", "the final %s is folded into %s, which takes logits; predictions still show it",
              name, bp_loss_name(loss));
    if (is_type(layer, "dense") || spec_input_of(layers, last) != (int)last - 1)
        spec_set(w, layer, "activation", json_string("linear"));
    else
        json_array_remove(layers, last);
}

/* What the target needs, in words. */
static void needs(const struct spec_work *w, enum bp_loss loss, int outputs, char *text, size_t size)
{
    const char *name = bp_transform_target(w->transform, 0)->name;
    if (spec_loss_is_of_classes(loss) && outputs > 1)
        snprintf(text, size, "%d units for the %d classes of \"%.80s\"", outputs, outputs, name);
    else
        snprintf(text, size, "%d unit%s for \"%.80s\"", outputs, outputs == 1 ? "" : "s", name);
}

static void settle_output(struct spec_work *w, enum bp_loss loss, int outputs)
{
    json_t *layers = spec_layers(w->doc);
    char pointer[64], text[160];
    needs(w, loss, outputs, text, sizeof text);
    int at = last_dense(layers);
    json_t *dense = json_array_get(layers, (size_t)(at < 0 ? 0 : at));
    size_t last = json_array_size(layers) - 1;
    long long units = at < 0 ? 0 : json_integer_value(json_object_get(dense, "units"));
    const char *end = spec_activation(json_array_get(layers, last));
    bool shown = folds(loss, end), logits = strcmp(end, "linear") == 0 && at == (int)last;

    if (at >= 0 && !is_auto(dense) && units != outputs && (shown || logits) &&
        !w->autoencoder) { /* its code may be linear */
        layer_pointer((size_t)at, "units", pointer, sizeof pointer);
        spec_fault(w, pointer, "incompatible", "auto", NULL,
                   "this %s layer ends the network with %lld unit%s, but it takes %s: write \"units\": \"auto\", or "
                   "give it an activation such as relu if it is meant as a hidden layer",
                   shown ? end : "linear", units, units == 1 ? "" : "s", text);
        return;
    }
    /* With mse, mae, huber and quantile any function may end the network; the others need logits. */
    bool output = at >= 0 && (is_auto(dense) || (units == outputs && (shown || logits || spec_loss_is_scaled(loss))));
    if (output && is_auto(dense))
        spec_set(w, dense, "units", json_integer(outputs));
    if (output) {
        fold(w, loss);
        end = spec_activation(json_array_get(layers, json_array_size(layers) - 1));
        if (!spec_loss_is_scaled(loss) && strcmp(end, "linear") != 0) {
            layer_pointer(last, NULL, pointer, sizeof pointer);
            spec_warn(w, pointer, "unusual_output", "%s takes %s, which may be any number; %s limits them",
                      bp_loss_name(loss),
                      loss == BP_LOSS_POISSON ? "logarithms"
                      : loss == BP_LOSS_HINGE ? "margins"
                                              : "logits",
                      end);
        }
        return;
    }
    spec_warn(w, "/model/layers", "inferred", "an output layer was added: dense, %s", text);
    insert_layer(w, json_array_size(layers), make_layer(w, "dense", outputs));
}

/* Several heads have output layers of their own. */
static void tell_outputs(struct spec_work *w)
{
    const json_t *layers = spec_layers(w->doc), *last = json_array_get(layers, json_array_size(layers) - 1);
    size_t n = json_array_size(json_object_get(json_object_get(w->doc, "model"), "heads"));
    spec_warn(w, "/model/layers", "inferred",
              "%zu output layers were added, output_1 to output_%zu, one for each target: each reads the last layer, "
              "\"%.60s\"",
              n, n, json_string_value(json_object_get(last, "name")));
}

static void check_auto(struct spec_work *w)
{
    size_t i;
    json_t *layer;
    json_array_foreach(spec_layers(w->doc), i, layer) {
        char pointer[64];
        if (!is_auto(layer))
            continue;
        layer_pointer(i, "units", pointer, sizeof pointer);
        spec_fault(w, pointer, "incompatible", NULL, NULL,
                   "\"auto\" is for the last layer, whose units the target decides; give a number here");
    }
}

/* Layers that make a vector of a sequence or an image. */
static bool gives_vector(const json_t *layer)
{
    bool recurrent = is_type(layer, "simple_rnn") || is_type(layer, "lstm") || is_type(layer, "gru");
    return is_type(layer, "flatten") || is_type(layer, "global_avg_pool2d") ||
           (recurrent && !json_is_true(json_object_get(layer, "return_sequences")));
}

/* --- the rest ----------------------------------------------------------------------------------------------------- */
/* Dimensions of what a layer gives, from those of what it gets. */
static int rank_after(const json_t *layer, int rank)
{
    if (gives_vector(layer))
        return 1;
    if (is_type(layer, "reshape"))
        return (int)json_array_size(json_object_get(layer, "shape"));
    return is_type(layer, "embedding") ? 2 : rank;
}

static void settle_flatten(struct spec_work *w, int rank)
{
    int ranks[BP_LAYERS_ALL]; /* of what each layer gives */
    for (size_t i = 0; i < json_array_size(spec_layers(w->doc)) && i < BP_LAYERS_ALL - 1 && !w->nomem; i++) {
        json_t *layers = spec_layers(w->doc), *layer = json_array_get(layers, i), *inputs;
        int from = spec_input_of(layers, i), arrives = from < 0 ? rank : ranks[from];
        ranks[i] = rank_after(layer, arrives);
        if (!is_type(layer, "dense") || arrives < 2)
            continue;
        char pointer[64];
        layer_pointer(i, NULL, pointer, sizeof pointer);
        spec_warn(w, pointer, "inferred",
                  "a flatten layer was put before this dense layer: what arrives has %d dimensions", arrives);
        json_t *flatten = make_layer(w, "flatten", 0);
        if (flatten &&
            (inputs = json_object_get(layer, "inputs")) != NULL) { /* it reads what the dense layer named */
            spec_set(w, flatten, "inputs", json_incref(inputs));
            json_object_del(layer, "inputs");
        }
        insert_layer(w, i, flatten);
        ranks[++i] = 1;
    }
}

/* The layer with its name in second place, where a person looks for it. */
static json_t *with_name(struct spec_work *w, json_t *layer, const char *name)
{
    json_t *out = json_object();
    spec_set(w, out, "type", json_incref(json_object_get(layer, "type")));
    spec_set(w, out, "name", json_string(name));
    if (json_object_update_missing(out, layer))
        w->nomem = true;
    return out;
}

static void settle_names(struct spec_work *w, bool first)
{
    json_t *layers = spec_layers(w->doc), *layer;
    json_t *used = json_object(), *counts = json_object();
    char pointer[64], user[512], name[BP_LAYER_NAME_MAX + 32];
    size_t i;
    json_array_foreach(layers, i, layer) {
        const char *given = json_string_value(json_object_get(layer, "name"));
        if (!given)
            continue;
        const char *other = json_string_value(json_object_get(used, given));
        layer_pointer(i, "name", pointer, sizeof pointer);
        spec_origin(w, pointer, user, sizeof user);
        if (other && first)
            spec_fault(w, pointer, "duplicate", NULL, NULL, "\"%s\" is the name of two layers (see %s)", given,
                       other);
        else if (!other)
            spec_set(w, used, given, json_string(user));
    }
    for (i = 0; i < json_array_size(layers) && !w->nomem; i++) {
        layer = json_array_get(layers, i);
        const char *type = spec_kind(layer, "type");
        long long number = json_integer_value(json_object_get(counts, type));
        if (json_object_get(layer, "name"))
            continue;
        do
            snprintf(name, sizeof name, "%s_%lld", type, ++number);
        while (json_object_get(used, name));
        spec_set(w, counts, type, json_integer(number));
        if (json_array_set_new(layers, i, with_name(w, layer, name)))
            w->nomem = true;
    }
    json_decref(used);
    json_decref(counts);
}

/* A target that is scaled to deviation 1 needs an output that can reach every number. */
static void settle_target_scale(struct spec_work *w)
{
    json_t *dataset = json_object_get(w->doc, "dataset"), *layers = spec_layers(w->doc);
    const char *given = json_string_value(json_object_get(dataset, "target_scale"));
    const char *end = spec_activation(json_array_get(layers, json_array_size(layers) - 1));
    struct spec_heads heads;
    bool scaled = false;
    if (spec_heads_read(w->doc, w->table, &heads, NULL))
        return;
    bool open = heads.several || strcmp(end, "linear") == 0 || strcmp(end, "leaky_relu") == 0;
    for (int h = 0; h < heads.n; h++)
        scaled |= spec_loss_is_scaled(heads.head[h].loss) && !heads.head[h].want.inputs;
    if (given && strcmp(given, "standard") == 0 && !scaled)
        spec_fault(w, "/dataset/target_scale", "incompatible", "none", NULL, "%s",
                   w->autoencoder ? "the target of an autoencoder is its input, which is scaled already"
                                  : "a target can be scaled with mse, mae, huber and quantile only");
    if (!given && scaled && !open)
        spec_warn(w, "/model/layers", "inferred",
                  "the target is not scaled, because the output's %s does not reach every number", end);
    if (!given)
        spec_set(w, dataset, "target_scale", json_string(scaled && open ? "standard" : "none"));
    spec_heads_done(&heads);
}

/* Only the codes of the dataset's columns are known here. */
static void require_codes(struct spec_work *w)
{
    json_t *layers = spec_layers(w->doc), *layer;
    char pointer[64];
    size_t i;
    json_array_foreach(layers, i, layer) {
        if (!is_type(layer, "embedding") || json_object_get(layer, "input_dim"))
            continue;
        layer_pointer(i, "input_dim", pointer, sizeof pointer);
        spec_fault(w, pointer, "required", NULL, NULL,
                   "\"input_dim\" is required of an embedding that is not the first layer: how many different codes "
                   "reach it");
    }
}

/* An embedding reads codes: all columns must be some, and it must have a vector for each. */
static void check_embedding(struct spec_work *w)
{
    json_t *first = json_array_get(spec_layers(w->doc), 0), *given = json_object_get(first, "input_dim");
    const char *column;
    char pointer[64];
    int64_t codes, rows = (int64_t)json_integer_value(given);
    if (!is_type(first, "embedding"))
        return;
    bool coded = bp_transform_codes(w->transform, &codes, &column);
    layer_pointer(0, coded && given ? "input_dim" : NULL, pointer, sizeof pointer);
    if (!coded) {
        spec_fault(
            w, pointer, "incompatible", NULL, NULL,
            "an embedding reads codes, but column \"%.80s\" is none: leave its \"encode\" out, or say \"code\"",
            column);
        codes = 1; /* no second fault about the number of them */
    } else if (!given) {
        spec_warn(w, pointer, "inferred", "input_dim is %lld: column \"%.80s\" has the codes 0 to %lld",
                  (long long)codes, column, (long long)codes - 1);
    } else if (codes > rows) {
        spec_fault(w, pointer, "out_of_range", NULL, NULL,
                   "must be at least %lld, for the codes 0 to %lld of column \"%.80s\", got %lld", (long long)codes,
                   (long long)codes - 1, column, (long long)rows);
    }
    if (!given)
        spec_set(w, first, "input_dim", json_integer(codes));
}

void spec_complete_layers(struct spec_work *w)
{
    enum bp_loss loss = spec_loss(spec_kind(json_object_get(w->doc, "loss"), "type"));
    const struct bp_transform_target *target = bp_transform_target(w->transform, 0);
    bool several = json_object_get(json_object_get(w->doc, "model"), "heads") != NULL;
    if (loss == BP_LOSS_COUNT && !several)
        return;
    settle_names(w, true);
    if (several)
        tell_outputs(w);
    else
        settle_output(w, loss, spec_head_outputs(loss, target));
    check_auto(w);
    check_embedding(w);
    require_codes(w);
    settle_flatten(w, bp_transform_shape(w->transform).rank);
    settle_names(w, false); /* of the layers that were added */
    spec_check_inputs(w);
    settle_target_scale(w);
    spec_check_literals(w);
}

/* --- symmetry ----------------------------------------------------------------------------------------------------- */
/* Whether all elements start with one value. */
static bool is_constant(const json_t *initializer)
{
    const char *kind = spec_kind(initializer, "type");
    double low = json_number_value(json_object_get(initializer, "low"));
    double high = json_number_value(json_object_get(initializer, "high"));
    if (strcmp(kind, "zeros") == 0 || strcmp(kind, "ones") == 0 || strcmp(kind, "constant") == 0)
        return true;
    if (strcmp(kind, "uniform") == 0)
        return low == high;
    return (strcmp(kind, "normal") == 0 || strcmp(kind, "truncated_normal") == 0) &&
           json_number_value(json_object_get(initializer, "std")) == 0;
}

/* The units of a hidden layer that start alike get the same error signal, and stay alike for ever. */
void spec_check_symmetry(struct spec_work *w)
{
    json_t *layers = spec_layers(w->doc), *layer;
    bool allowed = json_is_true(json_object_get(w->doc, "allow_symmetric"));
    size_t i, last = 0;
    json_array_foreach(layers, i, layer) {
        last = is_type(layer, "dense") ? i : last;
    }
    if (json_object_get(json_object_get(w->doc, "model"), "heads"))
        last = SIZE_MAX; /* all layers of the list are hidden ones */
    json_array_foreach(layers, i, layer) {
        const json_t *initializer = json_object_get(layer, "kernel_initializer");
        const char *kind = spec_kind(initializer, "type");
        char pointer[64];
        layer_pointer(i, "kernel_initializer", pointer, sizeof pointer);
        if (strcmp(kind, "uniform") == 0 && json_number_value(json_object_get(initializer, "low")) >
                                                json_number_value(json_object_get(initializer, "high")))
            spec_fault(w, pointer, "out_of_range", NULL, NULL, "low must be at most high");
        /* A state that starts alike in all units tells them apart only if the weights between them do. */
        const json_t *recurrent = json_object_get(layer, "recurrent_initializer");
        bool conv = is_type(layer, "conv1d") || is_type(layer, "conv2d");
        bool alike = recurrent ? is_constant(recurrent) : conv || (i != last && is_type(layer, "dense"));
        long long units = (long long)json_integer_value(json_object_get(layer, conv ? "filters" : "units"));
        if (allowed || !alike || !is_constant(initializer) || units < 2 ||
            json_is_array(json_object_get(layer, "weights")))
            continue;
        spec_fault(
            w, pointer, "symmetric", "kaiming_uniform", NULL,
            "all units of this hidden layer would start with the same weights, get the same error signal and "
            "learn the same thing: %lld units as good as one (the symmetry problem). Use a random initializer "
            "such as kaiming_uniform, or set \"allow_symmetric\": true to watch it happen (/learn/symmetric-start)",
            units);
    }
}
