/* table_cache.h: the tables that specs were resolved on last, opened: jobs are submitted in rows on one dataset, and most
 * of what a submission costs would be parsing the dataset's description again.
 *
 * A table never changes: its hash is its name. It is kept until its version is swept away (bp_table_cache_drop, after its
 * file is gone), or a newer one takes its place. The dataset whose name led to it is kept with it, which holds as long as
 * bp_store_dataset_generation stays what it was before the name was read.
 *
 * Threads: any, under one lock, which is not held while a table is opened.
 */
#ifndef BP_API_TABLE_CACHE_H
#define BP_API_TABLE_CACHE_H

#include "data/table.h"
#include "store/store.h"

struct bp_table_cache;
bp_status bp_table_cache_new(struct bp_table_cache **ret, struct bp_error *err);
void bp_table_cache_free(struct bp_table_cache *cache); /* NULL is fine */

/* One more share of a table that is kept, closed with bp_table_close, or NULL; *ret_drops is for keeping it then. cache may
 * be NULL in all of these. */
struct bp_table *bp_table_cache_find(struct bp_table_cache *cache, const char *hash, unsigned *ret_drops);
/* Keeps a table that was opened after it was not found, unless one has been dropped since: it may have been this one. size:
 * bytes of its description; a large one is not kept. */
void bp_table_cache_keep(struct bp_table_cache *cache, unsigned drops, struct bp_table *table, size_t size);
/* The same as bp_table_cache_find by the name of a dataset, and its row without the description. */
struct bp_table *bp_table_cache_named(struct bp_table_cache *cache, const char *name, uint64_t generation,
                                      struct bp_dataset_row *ret);
void bp_table_cache_name(struct bp_table_cache *cache, const struct bp_dataset_row *row, uint64_t generation);
void bp_table_cache_drop(struct bp_table_cache *cache, const char *hash);

#endif
