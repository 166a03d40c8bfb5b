/* capabilities.c: what a spec may say, from the field table that checks it. */
#include "api/api.h"
#include "jobs/spec.h"

void bp_api_capabilities(struct bp_request *request, struct bp_reply *reply, void *app)
{
    (void)request;
    (void)app;
    bp_reply_json(reply, 200, bp_spec_capabilities());
}

void bp_api_job_schema(struct bp_request *request, struct bp_reply *reply, void *app)
{
    (void)request;
    (void)app;
    bp_reply_json(reply, 200, bp_spec_schema());
}
