/* weights.c: GET /v1/jobs/{id}/weights: trained weights as a file.
 *
 * The file is never put together anywhere: its headers are made in memory, its tensors are read from the checkpoint's
 * chunk rows when their bytes are sent. So a download takes one chunk of memory, can begin anywhere (Range), and has a
 * strong ETag that depends on the checkpoint and the format alone. The checkpoint stays pinned until the last byte has
 * been sent.
 *
 * Threads: the handler runs on the pool; reading runs on the connection's thread, one chunk row at a time.
 */
#include "export/weights.h"
#include "api/api.h"
#include "api/choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A download: where the weights are in the checkpoint, and its chunk that was read last. */
struct download {
    struct bp_store *store;
    struct bp_choice choice; /* holds the pin */
    struct bp_layout *layout;
    uint64_t params, params_bytes; /* in the checkpoint */
    uint64_t stats;
    bool apart;    /* the best parameters, from their own section */
    int64_t chunk; /* number of the chunk in `bytes`; -1: none */
    uint8_t bytes[BP_CHUNK_BYTES];
};

static void free_download(void *ctx)
{
    struct download *d = ctx;
    bp_layout_free(d->layout);
    bp_choice_done(&d->choice);
    free(d);
}

static bp_status read_chunk(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct download *d = arg;
    int64_t start = d->chunk * BP_CHUNK_BYTES, left = d->choice.checkpoint.bytes - start;
    return bp_db_checkpoint_bytes(db, d->choice.checkpoint.id, start,
                                  left < BP_CHUNK_BYTES ? (size_t)left : BP_CHUNK_BYTES, d->bytes, err);
}

/* Bytes of the checkpoint, chunk by chunk: a chunk's hash covers all of it, so a whole one is read and kept. */
static bp_status read_checkpoint(struct download *d, uint64_t offset, uint8_t *buffer, size_t n, struct bp_error *err)
{
    while (n > 0) {
        int64_t chunk = (int64_t)(offset / BP_CHUNK_BYTES);
        if (chunk != d->chunk) {
            d->chunk = chunk;
            bp_status status = bp_store_read(d->store, read_chunk, d, err);
            if (status) {
                d->chunk = -1;
                return status;
            }
        }
        size_t within = (size_t)(offset % BP_CHUNK_BYTES);
        size_t part = BP_CHUNK_BYTES - within < n ? BP_CHUNK_BYTES - within : n;
        memcpy(buffer, d->bytes + within, part);
        buffer += part;
        offset += part;
        n -= part;
    }
    return BP_OK;
}

static bp_status read_weights(void *ctx, uint64_t offset, uint8_t *buffer, size_t n, struct bp_error *err)
{
    struct download *d = ctx;
    uint64_t place = offset < d->params_bytes ? d->params + offset : d->stats + (offset - d->params_bytes);
    return read_checkpoint(d, place, buffer, n, err);
}

static int64_t read_file(void *ctx, int64_t offset, char *buffer, size_t max)
{
    struct download *d = ctx;
    size_t n;
    return bp_layout_read(d->layout, offset, (uint8_t *)buffer, max, &n, NULL) ? -1 : (int64_t)n;
}

/* --- what is written beside the tensors --- */

/* Class labels as JSON text: an array, or an object of arrays where there are several targets. malloc'd or NULL. */
static char *classes_text(const struct bp_transform *transform)
{
    int n = bp_transform_targets(transform);
    json_t *all = json_object();
    for (int i = 0; all && i < n; i++) {
        const struct bp_transform_target *target = bp_transform_target(transform, i);
        if (target->is_class && target->labels)
            json_object_set(all, target->name, target->labels);
    }
    json_t *only = n == 1 ? json_object_get(all, bp_transform_target(transform, 0)->name) : NULL;
    char *text = json_dumps(only ? only : all, JSON_COMPACT);
    json_decref(all);
    return text;
}

static json_t *make_metadata(const struct bp_choice *choice, const struct bp_network *network,
                             const struct bp_checkpoint_header *header)
{
    bool of_best = choice->best && header->best.any;
    int64_t epoch = of_best ? header->best.epoch : header->epoch, step = of_best ? header->best.step : header->step;
    struct {
        const char *key;
        int64_t value;
    } numbers[] = {{"seed", choice->row.seed},
                   {"numerics_version", (int64_t)header->numerics},
                   {"epoch", epoch},
                   {"step", step}};
    char *classes = classes_text(network->transform);
    json_t *metadata =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "format", "pt", "backpropd", BACKPROPD_VERSION, "job",
                  choice->row.id, "checkpoint", choice->checkpoint.id, "spec", choice->row.spec, "transform",
                  choice->row.transform, "classes", classes ? classes : "");
    bool ok = metadata && classes;
    for (size_t i = 0; ok && i < sizeof numbers / sizeof *numbers; i++)
        ok = !json_object_set_new(metadata, numbers[i].key, json_sprintf("%lld", (long long)numbers[i].value));
    free(classes);
    if (!ok) {
        json_decref(metadata);
        return NULL;
    }
    return metadata;
}

/* --- the reply --- */

/* Finds the sections in the checkpoint and lays out the file. */
static bp_status lay_out(struct download *d, const struct bp_export_format *format, struct bp_error *err)
{
    uint8_t start[BP_CHECKPOINT_HEADER_MAX];
    uint64_t size = (uint64_t)d->choice.checkpoint.bytes;
    size_t n = size < sizeof start ? (size_t)size : sizeof start;
    struct bp_network network;
    struct bp_checkpoint_layout sections;
    json_t *metadata = NULL;
    bp_status status = bp_network_make(&d->choice, &network, err);
    if (status)
        return status;
    status = read_checkpoint(d, 0, start, n, err);
    if (!status)
        status = bp_checkpoint_layout(start, n, size, &sections, err);
    if (!status)
        status = bp_network_check(&network, &sections.header, err);
    if (status)
        goto out;
    d->apart = d->choice.best && sections.header.has_best;
    d->params = d->apart ? sections.best_params : sections.params;
    d->stats = d->apart ? sections.best_stats : sections.stats;
    d->params_bytes = sections.header.nparams * sizeof(float);
    metadata = make_metadata(&d->choice, &network, &sections.header);
    if (!metadata) {
        status = bp_fail(err, BP_NOMEM, "no memory to describe the weights");
        goto out;
    }
    struct bp_weights weights = {network.plan.graph, read_weights, d, metadata};
    status = format->make(&weights, &d->layout, err);
out:
    json_decref(metadata);
    bp_network_done(&network);
    return status;
}

/* A file name that every system takes: the job's name where it has one, made of harmless characters, else its id. */
static void file_name(const struct bp_choice *choice, char *ret, size_t size)
{
    const char *name = choice->row.name && choice->row.name[0] ? choice->row.name : choice->row.id;
    size_t n = 0;
    for (; name[n] && n + 1 < size; n++) {
        bool harmless = (name[n] >= 'a' && name[n] <= 'z') || (name[n] >= 'A' && name[n] <= 'Z') ||
                        (name[n] >= '0' && name[n] <= '9') || name[n] == '-' || (n && name[n] == '.');
        ret[n] = harmless ? name[n] : '_';
    }
    ret[n] = '\0';
}

static void serve(struct bp_request *request, struct bp_reply *reply, struct bp_app *app,
                  const struct bp_export_format *format)
{
    struct bp_error err;
    struct download *d = malloc(sizeof *d);
    if (!d) {
        bp_fail(&err, BP_NOMEM, "no memory for the download");
        bp_problem_error(reply, &err);
        return;
    }
    d->store = app->store;
    d->layout = NULL;
    d->chunk = -1;
    if (!bp_api_choose(request, reply, app, &d->choice)) {
        free(d);
        return;
    }
    if (lay_out(d, format, &err)) {
        bp_api_stored_error(reply, &d->choice, &err);
        free_download(d);
        return;
    }
    char name[80], source[80], identity[65], etag[80];
    file_name(&d->choice, name, sizeof name);
    snprintf(source, sizeof source, "%s%s", d->choice.checkpoint.sha256, d->apart ? " best" : "");
    bp_layout_identity(d->layout, source, identity);
    snprintf(etag, sizeof etag, "\"sha256-%s\"", identity);
    bp_reply_header(reply, "Content-Disposition", "attachment; filename=\"%s.%s\"", name, format->suffix);
    bp_reply_header(reply, "X-Checkpoint", "%s", d->choice.checkpoint.id);
    bp_reply_stream(reply, format->content_type, bp_layout_size(d->layout), etag, read_file, d, free_download);
}

void bp_api_weights(struct bp_request *request, struct bp_reply *reply, void *app)
{
    const char *name = bp_request_query(request, "format");
    const struct bp_export_format *format = bp_export_find(name ? name : "safetensors");
    if (!format) {
        bp_problem(reply, 400, "invalid_query", "there is no format %.40s", name);
        bp_problem_member(reply, "allowed", bp_export_names());
        return;
    }
    serve(request, reply, app, format);
}

void bp_api_weights_safetensors(struct bp_request *request, struct bp_reply *reply, void *app)
{
    serve(request, reply, app, bp_export_find("safetensors"));
}

void bp_api_weights_npz(struct bp_request *request, struct bp_reply *reply, void *app)
{
    serve(request, reply, app, bp_export_find("npz"));
}
