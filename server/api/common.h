/* common.h: what several handlers need: the job object, looking things up, times as text, a little JSON. */
#ifndef BP_API_COMMON_H
#define BP_API_COMMON_H

#include "api/api.h"
#include "data/table.h"
#include "jobs/jobs.h"

/* "2026-03-01T12:00:00.123Z" as a JSON string; null for 0. New reference or NULL. */
json_t *bp_api_time(int64_t ms);

/* JSON text of the store as a value; null for NULL. New reference or NULL. */
json_t *bp_api_parsed(const char *text);

/* Its ETag: the version is what changed durably; while a worker has the job, the step tells one reading from the next. */
#define BP_JOB_TAG 64
void bp_api_job_tag(struct bp_app *app, const struct bp_job_row *row, char ret[BP_JOB_TAG]);

/* Reads the job that the route's first argument names; false with a 404 reply. */
bool bp_api_job_row(struct bp_app *app, const struct bp_request *request, struct bp_reply *reply,
                    struct bp_job_row *ret);

/* Reads a dataset's row by name; false with a 404 reply that says what there is. */
bool bp_api_dataset_row(struct bp_app *app, const char *name, struct bp_reply *reply, struct bp_dataset_row *ret);

/* Opens the table of a dataset by name, for bp_spec_context; ret_row (NULL: not wanted) is its row, without the
 * description. */
bp_status bp_api_open_dataset(struct bp_app *app, const char *name, struct bp_table **ret,
                              struct bp_dataset_row *ret_row, struct bp_error *err);
json_t *bp_api_dataset_names(void *app);

/* From uploaded parts to a dataset, in three steps, so that a transaction may name it together with what needs it:
 * the files are placed, and known to no row yet; a transaction that stores *row runs while nobody removes them; and
 * whatever came of it, the end: files that no row knows go again. The first two: false with a problem reply. */
struct bp_import_part;
bool bp_api_import(struct bp_app *app, struct bp_request *request, struct bp_reply *reply, const char *name,
                   const struct bp_import_part *parts, int nparts, struct bp_dataset_row *ret);
bool bp_api_import_commit(struct bp_app *app, struct bp_reply *reply, const struct bp_dataset_row *row,
                          bp_store_fn *work, void *arg);
void bp_api_import_done(struct bp_app *app, struct bp_dataset_row *row); /* a zeroed row is fine */

/* Whether a client may choose this name: [a-z0-9][a-z0-9._-]{0,63}; false with a 422 reply. */
bool bp_api_name_ok(const char *name, const char *pointer, struct bp_reply *reply);

/* Removes what no name and no job needs any more, rows and files. */
void bp_api_sweep(struct bp_app *app);

/* Waits for a job: 1 reply now, 0 the reply is the waiting itself (return), -1 too many wait already. `until_final`: only
 * the end counts; else any version above since. Call each time the handler runs, with the row as read now. */
int bp_api_wait(struct bp_request *request, struct bp_reply *reply, const struct bp_job_row *row, double seconds,
                bool until_final, int64_t since);

/* A list envelope; takes data. next may be NULL. */
void bp_api_list(struct bp_reply *reply, json_t *data_steal, bool has_more, const char *next);

/* Text that grows: for tables, CSV and NDJSON. */
struct bp_text {
    char *data;
    size_t size, capacity;
    bool failed; /* no memory, or over 1 GiB: later additions do nothing */
};
void bp_text_add(struct bp_text *text, const char *format, ...) BP_PRINTF(2, 3);
/* Sends and resets: 200 with the type, or 503 where it failed. */
void bp_text_reply(struct bp_text *text, struct bp_reply *reply, const char *content_type);

/* Ends the line, sends JSON and resets: with the status, or a 500 where it failed. */
void bp_text_json_reply(struct bp_text *text, struct bp_reply *reply, int status);

/* The job as the API shows it, added to ret as JSON; checkpoints and position are read in db, which may be NULL: in a read
 * of its own then. When that fails, nothing is added: a job without its checkpoints would be a false answer. */
bp_status bp_api_job_text(struct bp_app *app, struct bp_db *db, const struct bp_job_row *row, struct bp_text *ret,
                          struct bp_error *err);
/* The same of a job that was stored a moment ago, its spec and how many jobs of the queue come before it being known:
 * nothing is read or parsed. */
void bp_api_new_job_text(struct bp_app *app, const struct bp_job_row *row, const json_t *spec, int64_t ahead,
                         struct bp_text *ret);
/* Its progress, and the last value of each of its metrics, as they are in it. New reference or NULL. */
json_t *bp_api_job_progress(struct bp_app *app, const struct bp_job_row *row);
json_t *bp_api_job_last(struct bp_app *app, const struct bp_job_row *row);

/* Tables for people (table.c): CSV becomes columns side by side. */
void bp_text_align(struct bp_text *csv);
/* A cell of CSV, quoted where needed; and a list of objects with the same members: their names, then a line for each. */
void bp_text_cell(struct bp_text *text, bool first, const char *cell);
void bp_text_objects(struct bp_text *text, const json_t *list);

#endif
