/* job_cache.h: job objects as they were told last, so that polling a job costs neither the database nor JSON.
 *
 * A reply counts as long as no transaction has been committed since it was read (bp_store_generation); that of a job that
 * is not at its end also shows progress, and counts for BP_JOB_CACHE_MS at most. So nobody is told less than what was
 * acknowledged before he asked.
 *
 * Threads: any, under one lock, held for a copy of a few kilobytes.
 */
#ifndef BP_API_JOB_CACHE_H
#define BP_API_JOB_CACHE_H

#include "api/common.h"

#define BP_JOB_CACHE_MS 100 /* how old the progress of a poll may be; people and scripts see no difference */

struct bp_job_cache;
bp_status bp_job_cache_new(struct bp_job_cache **ret, struct bp_error *err);
void bp_job_cache_free(struct bp_job_cache *cache); /* NULL is fine */

/* Replies with what was kept of the job, where it still counts. cache may be NULL: false. */
bool bp_job_cache_reply(struct bp_job_cache *cache, uint64_t generation, const char *id, struct bp_request *request,
                        struct bp_reply *reply);

/* Keeps a copy of a job's text. generation: from before the job was read. passing: it shows progress. */
void bp_job_cache_keep(struct bp_job_cache *cache, uint64_t generation, const char *id, const char *tag,
                       const char *text, size_t size, bool passing);

/* The reply to a reading of the job object. */
void bp_job_cache_say(struct bp_request *request, struct bp_reply *reply, const char *tag, char *text_steal,
                      size_t size);

#endif
