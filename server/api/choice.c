/* choice.c: what requests about a job's weights have in common (see choice.h). */
#include "api/choice.h"

#include "log.h"

bool bp_api_choose(struct bp_request *request, struct bp_reply *reply, struct bp_app *app, struct bp_choice *ret)
{
    return bp_api_choose_job(reply, app, bp_request_arg(request, 0), bp_request_query(request, "checkpoint"), ret);
}

bool bp_api_choose_job(struct bp_reply *reply, struct bp_app *app, const char *job, const char *which,
                       struct bp_choice *ret)
{
    struct bp_error err;
    switch (bp_choice_make(app->store, job, which, ret, &err)) {
    case BP_OK:
        return true;
    case BP_INVALID:
        bp_problem(reply, 400, "invalid_query", "%s", err.message);
        bp_problem_member(reply, "allowed", json_pack("[s, s, s]", "best", "latest", "ckpt_…"));
        return false;
    case BP_NOT_FOUND:
        bp_problem(reply, 404, "not_found", "%s; see GET %s", err.message,
                   err.where[0] == 'j' ? "/v1/jobs" : "/v1/jobs/{id}/checkpoints");
        return false;
    case BP_CONFLICT:
        bp_problem(reply, 409, "no_checkpoint", "%s", err.message);
        bp_problem_member(reply, "job_status", json_string(bp_job_status_name(ret->row.status)));
        if (!bp_job_status_final(ret->row.status))
            bp_reply_header(reply, "Retry-After", "1");
        bp_choice_done(ret);
        return false;
    default:
        bp_problem_error(reply, &err);
        return false;
    }
}

void bp_api_stored_error(struct bp_reply *reply, const struct bp_choice *choice, struct bp_error *err)
{
    if (err->code == BP_CORRUPT || err->code == BP_MISMATCH) {
        bp_log(BP_LOG_ERROR, "checkpoint cannot be used", "checkpoint", choice->checkpoint.id, "message",
               err->message, NULL);
        bp_problem(reply, 500, "corrupt_checkpoint",
                   "the checkpoint %s cannot be used: %s; GET /v1/jobs/%s/checkpoints "
                   "lists the others",
                   choice->checkpoint.id, err->message, choice->row.id);
    } else {
        bp_problem_error(reply, err);
    }
}

void bp_api_faults(struct bp_reply *reply, const char *code, const char *detail, const struct bp_problems *problems)
{
    bp_problem(reply, 422, code, "%s", detail);
    if (problems->errors)
        bp_problem_member(reply, "errors", json_incref(problems->errors));
}
