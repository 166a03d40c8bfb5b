/* api.h: the handlers of the REST interface, one resource a file. Which route leads to which handler, on what kind of
 * thread and with what body: routes.c. A handler gets the struct bp_app (app.h) as its last argument.
 */
#ifndef BP_API_API_H
#define BP_API_API_H

#include "app.h"
#include "http/http.h"

/* service.c: the daemon itself */
bp_handler bp_api_guide;        /* GET / */
bp_handler bp_api_healthz;      /* GET /healthz */
bp_handler bp_api_readyz;       /* GET /readyz */
bp_handler bp_api_version;      /* GET /version */
bp_handler bp_api_problem_page; /* GET /problems/{code} */

/* capabilities.c: what a spec may say */
bp_handler bp_api_capabilities; /* GET /v1/capabilities */
bp_handler bp_api_job_schema;   /* GET /v1/job.schema.json */

/* datasets.c */
bp_handler bp_api_dataset_put;    /* PUT /v1/datasets/{name} */
bp_handler bp_api_dataset_post;   /* POST /v1/datasets (multipart) */
bp_handler bp_api_dataset_list;   /* GET /v1/datasets */
bp_handler bp_api_dataset_get;    /* GET /v1/datasets/{name} */
bp_handler bp_api_dataset_rows;   /* GET /v1/datasets/{name}/rows */
bp_handler bp_api_dataset_delete; /* DELETE /v1/datasets/{name} */

/* submit.c */
bp_handler bp_api_job_submit; /* POST /v1/jobs */

/* jobs.c */
bp_handler bp_api_job_list;   /* GET /v1/jobs */
bp_handler bp_api_job_get;    /* GET /v1/jobs/{id} */
bp_handler bp_api_job_spec;   /* GET /v1/jobs/{id}/spec */
bp_handler bp_api_job_delete; /* DELETE /v1/jobs/{id} */
bp_handler bp_api_job_cancel; /* POST /v1/jobs/{id}/cancel, … */
bp_handler bp_api_job_stop;
bp_handler bp_api_job_pause;
bp_handler bp_api_job_resume;

/* progress.c */
bp_handler bp_api_metrics;     /* GET /v1/jobs/{id}/metrics */
bp_handler bp_api_checkpoints; /* GET /v1/jobs/{id}/checkpoints */
/* events.c */
bp_handler bp_api_events; /* GET /v1/jobs/{id}/events */

/* layers.c: pool */
bp_handler bp_api_layers; /* GET /v1/jobs/{id}/layers */

/* diagnosis.c: pool */
bp_handler bp_api_diagnosis; /* GET /v1/jobs/{id}/diagnosis */

/* explain.c: pool */
bp_handler bp_api_explain; /* POST /v1/jobs/{id}/explain?checkpoint= */

/* examples.c: a data thread, since it reads a whole split */
bp_handler bp_api_examples; /* GET /v1/jobs/{id}/examples?sort=&limit=&split=&checkpoint= */

/* weights.c: pool; npz reads all weights once, for its checksums */
bp_handler bp_api_weights;             /* GET /v1/jobs/{id}/weights?format=&checkpoint= */
bp_handler bp_api_weights_safetensors; /* GET /v1/jobs/{id}/weights.safetensors?checkpoint= */
bp_handler bp_api_weights_npz;         /* GET /v1/jobs/{id}/weights.npz?checkpoint= */

/* predictions.c: pool; rows in the body */
#define BP_PREDICT_BODY_MAX ((int64_t)16 << 20)
bp_handler bp_api_predict; /* POST /v1/jobs/{id}/predict?checkpoint=&render= */

/* evaluate.c: a data thread, since it reads a whole table; the body is optional */
bp_handler bp_api_evaluate; /* POST /v1/jobs/{id}/evaluate?checkpoint= */

/* trace.c, gradients.c: data threads; a spec or a job with some rows in the body (worked.h) */
bp_handler bp_api_trace;          /* POST /v1/trace?render= */
bp_handler bp_api_gradients;      /* POST /v1/gradients?format= */
bp_handler bp_api_gradient_check; /* POST /v1/gradient_check */

/* graph.c: pool */
bp_handler bp_api_graph; /* GET /v1/jobs/{id}/graph?format= */

/* learn.c */
bp_handler bp_api_lessons; /* GET /learn */
bp_handler bp_api_lesson;  /* GET /learn/{topic} */

#endif
