/* routes.c: the whole interface on one page. Which handler answers, on what kind of thread, with what body. */
#include "api/api.h"
#include "api/worked.h"

#define UPLOAD_MAX INT64_MAX     /* bounded by --max-upload */

const struct bp_route bp_routes[] = {
    /* method, path, handler, thread, body, bytes, query, help */
    {"GET", "/", bp_api_guide, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "this guide"},
    {"GET", "/healthz", bp_api_healthz, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "the process answers"},
    {"GET", "/readyz", bp_api_readyz, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "requests will be served"},
    {"GET", "/version", bp_api_version, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "versions of the daemon and its libraries"},
    {"GET", "/problems/{}", bp_api_problem_page, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "what an error code means"},
    {"GET", "/learn", bp_api_lessons, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "short lessons on backpropagation"},
    {"GET", "/learn/{}", bp_api_lesson, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "one of them, with commands to try"},
    {"GET", "/v1/capabilities", bp_api_capabilities, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "all that a spec may say"},
    {"GET", "/v1/job.schema.json", bp_api_job_schema, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "the JSON Schema of a spec"},

    {"PUT", "/v1/datasets/{}", bp_api_dataset_put, BP_RUN_DATA, BP_BODY_FILE, UPLOAD_MAX, "format delimiter header",
     "upload a dataset: curl -T FILE"},
    {"POST", "/v1/datasets", bp_api_dataset_post, BP_RUN_DATA, BP_BODY_FORM, UPLOAD_MAX, "format delimiter header",
     "upload in parts: -F name= -F inputs=@ -F targets=@"},
    {"GET", "/v1/datasets", bp_api_dataset_list, BP_RUN_INLINE, BP_BODY_NONE, 0, "limit after render", "all datasets"},
    {"GET", "/v1/datasets/{}", bp_api_dataset_get, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "a dataset's profile"},
    {"GET", "/v1/datasets/{}/rows", bp_api_dataset_rows, BP_RUN_POOL, BP_BODY_NONE, 0, "limit", "its first rows"},
    {"DELETE", "/v1/datasets/{}", bp_api_dataset_delete, BP_RUN_POOL, BP_BODY_NONE, 0, "", "delete a dataset"},

    {"POST", "/v1/jobs", bp_api_job_submit, BP_RUN_POOL, BP_BODY_FORM, UPLOAD_MAX,
     "dry_run wait format delimiter header", "submit a job: curl --json SPEC"},
    {"GET", "/v1/jobs", bp_api_job_list, BP_RUN_INLINE, BP_BODY_NONE, 0, "status name tag. order limit after render",
     "all jobs, newest first"},
    {"GET", "/v1/jobs/{}", bp_api_job_get, BP_RUN_INLINE, BP_BODY_NONE, 0, "wait since", "a job and its progress"},
    {"DELETE", "/v1/jobs/{}", bp_api_job_delete, BP_RUN_POOL, BP_BODY_NONE, 0, "", "delete an ended job"},
    {"GET", "/v1/jobs/{}/spec", bp_api_job_spec, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "what to send to get it again"},
    {"POST", "/v1/jobs/{}/cancel", bp_api_job_cancel, BP_RUN_POOL, BP_BODY_OPTIONAL, 0, "", "end it as cancelled"},
    {"POST", "/v1/jobs/{}/stop", bp_api_job_stop, BP_RUN_POOL, BP_BODY_OPTIONAL, 0, "", "finish now, best weights"},
    {"POST", "/v1/jobs/{}/pause", bp_api_job_pause, BP_RUN_POOL, BP_BODY_OPTIONAL, 0, "", "checkpoint, free the cores"},
    {"POST", "/v1/jobs/{}/resume", bp_api_job_resume, BP_RUN_POOL, BP_BODY_OPTIONAL, 0, "", "go on, same bits"},

    {"GET", "/v1/jobs/{}/metrics", bp_api_metrics, BP_RUN_POOL, BP_BODY_NONE, 0,
     "names from_step max_points reduce render", "series of loss, accuracy …"},
    {"GET", "/v1/jobs/{}/events", bp_api_events, BP_RUN_INLINE, BP_BODY_NONE, 0, "after limit render",
     "the log of what happened"},
    {"GET", "/v1/jobs/{}/layers", bp_api_layers, BP_RUN_POOL, BP_BODY_NONE, 0, "layer max_points",
     "gradients, weights, activations of each layer"},
    {"GET", "/v1/jobs/{}/diagnosis", bp_api_diagnosis, BP_RUN_POOL, BP_BODY_NONE, 0, "",
     "what is wrong with the training, and the cure"},
    {"GET", "/v1/jobs/{}/checkpoints", bp_api_checkpoints, BP_RUN_INLINE, BP_BODY_NONE, 0, "", "stored checkpoints"},

    {"GET", "/v1/jobs/{}/weights", bp_api_weights, BP_RUN_POOL, BP_BODY_NONE, 0, "format checkpoint",
     "the trained weights: safetensors, npz or json"},
    {"GET", "/v1/jobs/{}/weights.safetensors", bp_api_weights_safetensors, BP_RUN_POOL, BP_BODY_NONE, 0, "checkpoint",
     "the same for curl -OJ"},
    {"GET", "/v1/jobs/{}/weights.npz", bp_api_weights_npz, BP_RUN_POOL, BP_BODY_NONE, 0, "checkpoint",
     "the same for NumPy"},
    {"POST", "/v1/jobs/{}/predict", bp_api_predict, BP_RUN_POOL, BP_BODY_BUFFER, BP_PREDICT_BODY_MAX,
     "checkpoint render", "predict rows: JSON or CSV"},
    {"POST", "/v1/jobs/{}/explain", bp_api_explain, BP_RUN_POOL, BP_BODY_BUFFER, BP_PREDICT_BODY_MAX, "checkpoint",
     "error signals and input gradients of one row"},
    {"GET", "/v1/jobs/{}/examples", bp_api_examples, BP_RUN_DATA, BP_BODY_NONE, 0, "sort limit split checkpoint",
     "the rows with the largest loss"},
    {"POST", "/v1/jobs/{}/evaluate", bp_api_evaluate, BP_RUN_DATA, BP_BODY_OPTIONAL, 0, "checkpoint",
     "loss, metrics and confusion matrix on a split"},
    {"GET", "/v1/jobs/{}/graph", bp_api_graph, BP_RUN_POOL, BP_BODY_NONE, 0, "format",
     "the forward program, and the backward one derived from it: text or dot"},

    {"POST", "/v1/trace", bp_api_trace, BP_RUN_DATA, BP_BODY_BUFFER, BP_WORKED_BODY_MAX, "render",
     "one training step laid open, number by number"},
    {"POST", "/v1/gradients", bp_api_gradients, BP_RUN_DATA, BP_BODY_BUFFER, BP_WORKED_BODY_MAX, "format",
     "the gradients on some rows, without an update"},
    {"POST", "/v1/gradient_check", bp_api_gradient_check, BP_RUN_DATA, BP_BODY_BUFFER, BP_WORKED_BODY_MAX, "",
     "backpropagation against numerical differentiation"},
    {NULL, NULL, NULL, BP_RUN_INLINE, BP_BODY_NONE, 0, NULL, NULL},
};
