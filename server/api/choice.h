/* choice.h: "which weights of which job", asked by a request: the job in its path, ?checkpoint= in its query. */
#ifndef BP_API_CHOICE_H
#define BP_API_CHOICE_H

#include "app.h"
#include "jobs/trained.h"

/* Makes the choice of the request, or replies with the problem (404, 409 no_checkpoint, 400) and returns false. */
bool bp_api_choose(struct bp_request *request, struct bp_reply *reply, struct bp_app *app, struct bp_choice *ret);
/* The same for a job and a checkpoint (NULL: the job's own choice) that are named elsewhere. */
bool bp_api_choose_job(struct bp_reply *reply, struct bp_app *app, const char *job, const char *which,
                       struct bp_choice *ret);

/* Replies with what went wrong with the job's own stored bytes: damage is a fault of ours, not of the request. */
void bp_api_stored_error(struct bp_reply *reply, const struct bp_choice *choice, struct bp_error *err);

/* Replies 422 with all the faults found, under a code and a title sentence. */
void bp_api_faults(struct bp_reply *reply, const char *code, const char *detail, const struct bp_problems *problems);

#endif
