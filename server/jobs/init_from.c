/* init_from.c: first weights from a checkpoint of another job (see init_from.h).
 *
 * The list of copies is a JSON array of [byte in the checkpoint, statistic (0 or 1), element, elements]: tensors that
 * follow one another on both sides are one copy.
 */
#include "jobs/init_from.h"

#include "json_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LISTED 6        /* names of a warning, at most */
#define PIECE (1 << 18) /* elements read at a time: a megabyte, and so a chunk or two */

/* --- what fits ------------------------------------------------------------------------------------------------------ */
struct copy {
    uint64_t from; /* byte of the checkpoint */
    bool statistic;
    size_t to, n; /* elements */
};

/* Names of a list, and how many there are besides. */
struct names {
    char text[320];
    int n;
};

static void name_one(struct names *names, const char *name, const char *why)
{
    size_t used = strlen(names->text);
    if (names->n < LISTED)
        snprintf(names->text + used, sizeof names->text - used, "%s%s%s%s%s", used ? ", " : "", name, why ? " (" : "",
                 why ? why : "", why ? ")" : "");
    else if (names->n == LISTED)
        snprintf(names->text + used, sizeof names->text - used, ", …");
    names->n++;
}

static bool same_shape(const struct bp_shape *a, const struct bp_shape *b)
{
    bool same = a->rank == b->rank;
    for (int i = 0; same && i < a->rank; i++)
        same = a->dim[i] == b->dim[i];
    return same;
}

static void shape_text(const struct bp_shape *shape, char *ret, size_t size)
{
    size_t used = 0;
    ret[0] = 0;
    for (int i = 0; i < shape->rank && used < size; i++)
        used += (size_t)snprintf(ret + used, size - used, "%s%lld", i ? "x" : "", (long long)shape->dim[i]);
}

static const struct bp_tensor *find_tensor(const struct bp_graph *graph, const struct bp_tensor *like)
{
    for (int t = 0; t < graph->ntensors; t++)
        if (graph->tensors[t].statistic == like->statistic && strcmp(graph->tensors[t].name, like->name) == 0)
            return &graph->tensors[t];
    return NULL;
}

static bool add_copy(json_t *list, const struct copy *c)
{
    return json_array_append_new(list, json_pack("[I,I,I,I]", (json_int_t)c->from, (json_int_t)c->statistic,
                                                 (json_int_t)c->to, (json_int_t)c->n)) == 0;
}

static void explain(const struct bp_tensor *here, const struct bp_tensor *there, struct names *left)
{
    char a[64], b[64], why[160];
    if (!there) {
        name_one(left, here->name, "not there");
        return;
    }
    if (same_shape(&here->shape, &there->shape)) {
        name_one(left, here->name, "of the same layer");
        return;
    }
    shape_text(&here->shape, a, sizeof a);
    shape_text(&there->shape, b, sizeof b);
    snprintf(why, sizeof why, "%s here, %s there", a, b);
    name_one(left, here->name, why);
}

/* A bias under weights that are new belongs to another function: a layer is taken whole or not at all. */
static bool layer_fits(const struct bp_graph *graph, const struct bp_graph *source, int node)
{
    for (int t = 0; t < graph->ntensors; t++) {
        const struct bp_tensor *here = &graph->tensors[t];
        const struct bp_tensor *there = here->node == node ? find_tensor(source, here) : here;
        if (!there || !same_shape(&here->shape, &there->shape))
            return false;
    }
    return true;
}

/* Fills the list of copies; BP_NOMEM. */
static bp_status match(const struct bp_graph *graph, const struct bp_graph *source, uint64_t params, uint64_t stats,
                       json_t *list, struct names *taken, struct names *left)
{
    struct copy last = {.n = 0};
    bool ok = list != NULL;
    for (int t = 0; t < graph->ntensors && ok; t++) {
        const struct bp_tensor *here = &graph->tensors[t], *there = find_tensor(source, here);
        if (!layer_fits(graph, source, here->node)) {
            explain(here, there, left);
            continue;
        }
        name_one(taken, here->name, NULL);
        struct copy c = {(here->statistic ? stats : params) + there->offset * sizeof(float), here->statistic,
                         here->offset, here->count};
        if (last.n && last.statistic == c.statistic && last.to + last.n == c.to &&
            last.from + last.n * sizeof(float) == c.from) {
            last.n += c.n;
            continue;
        }
        ok = !last.n || add_copy(list, &last);
        last = c;
    }
    return ok && (!last.n || add_copy(list, &last)) ? BP_OK : BP_NOMEM;
}

/* --- at submission -------------------------------------------------------------------------------------------------- */
struct head_read {
    const char *id;
    uint8_t bytes[BP_CHECKPOINT_HEADER_MAX];
    size_t n;
};

static bp_status read_head(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct head_read *h = arg;
    return bp_db_checkpoint_bytes(db, h->id, 0, h->n, h->bytes, err);
}

/* Where the sections of the chosen checkpoint are. */
static bp_status read_layout(struct bp_store *store, const struct bp_choice *choice, struct bp_checkpoint_layout *ret,
                             struct bp_error *err)
{
    uint64_t size = (uint64_t)choice->checkpoint.bytes;
    struct head_read h = {.id = choice->checkpoint.id, .n = size < sizeof h.bytes ? size : sizeof h.bytes};
    bp_status status = bp_store_read(store, read_head, &h, err);
    return status ? status : bp_checkpoint_layout(h.bytes, h.n, size, ret, err);
}

static bp_status warn(json_t *warnings, const struct bp_start_plan *plan, const struct names *taken,
                      const struct names *left)
{
    json_t *detail =
        json_sprintf("the first weights of %s come from %s, checkpoint %s (%s)%s%s", taken->text, plan->choice.row.id,
                     plan->choice.checkpoint.id, plan->choice.best ? "its best ones" : "its own",
                     left->n ? "; initialized are " : "", left->text);
    json_t *entry =
        detail ? json_pack("{ss ss so}", "code", "init_from", "pointer", "/init_from", "detail", detail) : NULL;
    return entry && json_array_append_new(warnings, entry) == 0 ? BP_OK : BP_NOMEM;
}

/* The copies from a network that is at hand. */
static bp_status plan_copies(struct bp_store *store, const struct bp_network *network, const struct bp_graph *graph,
                             json_t *warnings, struct bp_problems *problems, struct bp_start_plan *plan,
                             struct bp_error *err)
{
    struct bp_checkpoint_layout layout;
    struct names taken = {.n = 0}, left = {.n = 0};
    json_t *list = json_array();
    bp_status status = read_layout(store, &plan->choice, &layout, err);
    if (!status)
        status = bp_network_check(network, &layout.header, err);
    if (!status) {
        bool best = plan->choice.best && layout.header.has_best;
        status = match(graph, network->plan.graph, best ? layout.best_params : layout.params,
                       best ? layout.best_stats : layout.stats, list, &taken, &left);
    }
    if (!status && taken.n == 0) {
        bp_problems_add(problems, "/init_from", "incompatible", NULL, NULL,
                        "no layer of %s has the name and the shape of one here: %s", plan->choice.row.id, left.text);
        status = BP_INVALID;
    }
    if (!status)
        status = warn(warnings, plan, &taken, &left);
    if (!status && !(plan->copies = bp_json_text(list)))
        status = BP_NOMEM;
    json_decref(list);
    return status == BP_NOMEM ? bp_fail(err, BP_NOMEM, "no memory to plan the first weights") : status;
}

bp_status bp_start_plan_make(struct bp_store *store, const json_t *resolved, const struct bp_graph *graph,
                             json_t *warnings, struct bp_problems *problems, struct bp_start_plan *ret,
                             struct bp_error *err)
{
    const json_t *from = json_object_get(resolved, "init_from");
    const char *job = json_string_value(json_object_get(from, "job"));
    const char *which = json_string_value(json_object_get(from, "checkpoint"));
    struct bp_network network;
    struct bp_error local = {0};
    memset(ret, 0, sizeof *ret);
    if (!job)
        return BP_OK;
    bp_status status = bp_choice_make(store, job, which, &ret->choice, &local);
    ret->any = status == BP_OK || status == BP_CONFLICT; /* a job without a checkpoint has left its row */
    if (status == BP_NOT_FOUND || status == BP_CONFLICT || status == BP_INVALID) {
        bool other = strcmp(local.where, "job") == 0;
        bp_problems_add(problems, other ? "/init_from/job" : "/init_from/checkpoint", "not_found", NULL, NULL, "%s",
                        local.message);
        return BP_INVALID;
    }
    if (!status)
        status = bp_network_make(&ret->choice, &network, &local);
    if (!status) {
        status = plan_copies(store, &network, graph, warnings, problems, ret, &local);
        bp_network_done(&network);
    }
    if (status && err)
        *err = local;
    return status;
}

void bp_start_plan_done(struct bp_start_plan *plan)
{
    if (plan->any)
        bp_choice_done(&plan->choice);
    free(plan->copies);
    memset(plan, 0, sizeof *plan);
}

/* --- at the start --------------------------------------------------------------------------------------------------- */
struct start_read {
    const char *job;
    char *copies;
    int64_t offset;
    size_t size;
    uint8_t *bytes;
};

static bp_status read_copies(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct start_read *r = arg;
    return bp_db_start_get(db, r->job, &r->copies, err);
}

static bp_status read_piece(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct start_read *r = arg;
    return bp_db_start_bytes(db, r->job, r->offset, r->size, r->bytes, err);
}

static bp_status apply_copy(struct bp_store *store, struct start_read *r, const json_t *copy,
                            struct bp_trainer *trainer, struct bp_error *err)
{
    json_int_t at[4];
    for (size_t i = 0; i < 4; i++)
        at[i] = json_integer_value(json_array_get(copy, i));
    if (at[0] < 0 || at[2] < 0 || at[3] < 1)
        return bp_fail(err, BP_CORRUPT, "the stored plan of the first weights is damaged");
    for (json_int_t done = 0; done < at[3];) {
        json_int_t n = at[3] - done < PIECE ? at[3] - done : PIECE;
        r->offset = at[0] + done * (json_int_t)sizeof(float);
        r->size = (size_t)n * sizeof(float);
        bp_status status = bp_store_read(store, read_piece, r, err);
        if (!status)
            status = bp_trainer_put(trainer, at[1] != 0, (size_t)(at[2] + done), (const float *)(void *)r->bytes,
                                    (size_t)n, err);
        if (status)
            return status;
        done += n;
    }
    return BP_OK;
}

bp_status bp_start_apply(struct bp_store *store, const char *job, struct bp_trainer *trainer, struct bp_error *err)
{
    struct start_read r = {.job = job};
    struct bp_error local = {0};
    bp_status status = bp_store_read(store, read_copies, &r, &local);
    if (status == BP_NOT_FOUND)
        return BP_OK;
    if (status) {
        if (err)
            *err = local;
        return status;
    }
    json_t *list = json_loads(r.copies, 0, NULL);
    r.bytes = malloc(PIECE * sizeof(float));
    if (!json_is_array(list) || !r.bytes)
        status = bp_fail(err, r.bytes ? BP_CORRUPT : BP_NOMEM, "the plan of the first weights cannot be read");
    for (size_t i = 0; !status && i < json_array_size(list); i++)
        status = apply_copy(store, &r, json_array_get(list, i), trainer, err);
    json_decref(list);
    free(r.bytes);
    free(r.copies);
    return status;
}
