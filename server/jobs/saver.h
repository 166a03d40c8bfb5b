/* saver.h: stores the checkpoints of one running job beside its training.
 *
 * The trainer encodes its state into the saver's buffer between two steps and trains on; the saver's thread writes
 * the bytes to the store. While it is writing, a checkpoint that may be skipped is skipped; one that must be stored
 * waits. A full disk, or a lack of memory, is waited out: the last good checkpoint stays, and the saver tries again every
 * second.
 *
 * Threads: one owner (the worker) calls everything here; `also` runs on the store's thread.
 */
#ifndef BP_JOBS_SAVER_H
#define BP_JOBS_SAVER_H

#include "store/store.h"

struct bp_saver;

/* What the owner is told, on the saver's thread, about a checkpoint that was stored, or could not be for now. */
typedef void bp_saver_note(void *ctx, bp_status status, const struct bp_checkpoint_row *row,
                           const struct bp_error *err);

/* capacity: bytes of the largest checkpoint. BP_NOMEM. */
bp_status bp_saver_new(struct bp_store *store, size_t capacity, bp_saver_note *note, void *ctx, struct bp_saver **ret,
                       struct bp_error *err);
/* Waits for what is being written, then frees. NULL is fine. */
void bp_saver_free(struct bp_saver *saver);

/* The buffer to encode into (capacity bytes), or NULL when one is being written and `wait` is false. */
uint8_t *bp_saver_begin(struct bp_saver *saver, bool wait);

/* Hands over `size` bytes in the buffer of bp_saver_begin. row is taken over as it is (its metrics are freed by the
 * saver); also and also_arg as in bp_store_checkpoint, also_arg is freed with free_arg afterwards. */
void bp_saver_commit(struct bp_saver *saver, size_t size, const struct bp_checkpoint_row *row_steal,
                     bp_store_fn *also, void *also_arg_steal, void (*free_arg)(void *));

/* Waits until nothing is being written; the status of the last checkpoint. */
bp_status bp_saver_wait(struct bp_saver *saver, struct bp_error *err);

/* From now on nothing is waited out any more: the daemon is stopping. */
void bp_saver_abandon(struct bp_saver *saver);

#endif
