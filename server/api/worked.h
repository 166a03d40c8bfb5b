/* worked.h: a worked case: a network with its parameters and a few rows, from the body of a request.
 *
 * What POST /v1/trace, /v1/gradients and /v1/gradient_check have in common. The network is one of
 *   a spec with "inputs" and "targets" in it       {"layers": […], "inputs": [[0.05, 0.10]], "targets": [[0.01, 0.99]]}
 *   a spec with a dataset, and numbers of its rows {"dataset": "iris", "target": "species", …, "rows": [0, 7]}
 *   a job, and numbers of rows of its dataset      {"job": "job_…", "checkpoint": "best", "rows": [0, 7]}
 * A spec's parameters are those that its seed gives, or the literal ones of its layers; "parameters" sets any of them
 * by the name of the tensor: {"parameters": {"dense_1.weight": [[0.15, 0.20], [0.25, 0.30]]}}.
 *
 * Threads: blocking; a case belongs to one request.
 */
#ifndef BP_API_WORKED_H
#define BP_API_WORKED_H

#include "app.h"
#include "jobs/predictor.h"
#include "train/trace.h"

#define BP_WORKED_BODY_MAX ((int64_t)8 << 20)
#define BP_WORKED_SECONDS 20.0 /* what one call may compute: longer work is a job */

struct bp_worked {
    const struct bp_graph *graph;
    const struct bp_train_config *config;
    json_t *spec;     /* resolved */
    json_t *warnings; /* of the spec; empty for a job */
    int rows;
    double *params, *stats;
    double *input;                  /* (rows, elements of the input), as the network sees it */
    struct bp_trace_target *target; /* one a head, as the network sees it */
    /* owners of the above */
    struct bp_app *app;
    struct bp_plan plan; /* of a spec */
    struct bp_choice choice;
    struct bp_predictor *predictor; /* of a job, else NULL */
};

/* Makes the case that body describes; all its members must be of the case: the caller has taken its own away. With
 * `shapes` no rows and no numbers are made, and "input_shape" with "outputs" or "classes" may stand for the rows.
 * False after a reply. *ret is to be ended with bp_worked_done in any case. */
bool bp_worked_make(struct bp_reply *reply, struct bp_app *app, json_t *body, bool shapes, struct bp_worked *ret);
void bp_worked_done(struct bp_worked *worked);

/* The body as an object of which the caller may take members away; NULL after a reply. */
json_t *bp_worked_body(struct bp_request *request, struct bp_reply *reply);

/* Takes a member of the body that is a whole number in [min, max], or a truth: the fallback where it is not there;
 * false after a reply. */
bool bp_worked_int(struct bp_reply *reply, json_t *body, const char *name, int64_t fallback, int64_t min, int64_t max,
                   int64_t *ret);
bool bp_worked_bool(struct bp_reply *reply, json_t *body, const char *name, bool fallback, bool *ret);

/* A limit on the time of one call: out of time also when the server stops. */
struct bp_patience {
    const struct bp_request *request;
    double deadline;
};
void bp_patience_start(struct bp_patience *patience, const struct bp_request *request);
bool bp_patience_over(void *patience); /* for bp_trace_options and bp_gradcheck_options */
/* The reply to BP_STOPPED: 503 where the server is stopping, else 422 limit_exceeded with what to do about it. */
void bp_patience_problem(struct bp_reply *reply, const struct bp_patience *patience, const char *advice);

#endif
