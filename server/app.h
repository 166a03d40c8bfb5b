/* app.h: what the handlers share: the daemon's parts, made by main.c in this order and ended in the reverse. */
#ifndef BP_SERVER_APP_H
#define BP_SERVER_APP_H

#include "http/http.h"
#include "store/store.h"

struct bp_jobs;
struct bp_predictors;
struct bp_job_cache;
struct bp_table_cache;

struct bp_app {
    const struct bp_config *config; /* config.h */
    struct bp_store *store;
    struct bp_jobs *jobs;             /* queue and workers: jobs/jobs.h */
    struct bp_predictors *predictors; /* models loaded for predictions: jobs/predictor.h */
    struct bp_job_cache *job_cache; /* what polls were told last: api/job_cache.h; NULL: every poll reads the store */
    struct bp_table_cache *tables;  /* datasets that specs were resolved on: api/table_cache.h; NULL: none is kept */
    struct bp_http *http;
    int64_t started_at;    /* ms since 1970 */
    _Atomic bool draining; /* set once, at SIGTERM; read by any thread */
};

/* The route table: api/routes.c. */
extern const struct bp_route bp_routes[];

#endif
