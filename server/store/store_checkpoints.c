/* store_checkpoints.c: statements of the checkpoint family, and the writing of a checkpoint in several transactions.
 *
 * The bytes go into chunk rows of a blob, some chunks a transaction, so that other writers get their turn; the manifest
 * comes with the last of them, together with what the caller wants committed at the same instant. A small checkpoint is
 * thus one transaction. A blob without a manifest is swept away; while it is being written the store remembers it, so
 * that the sweep leaves it alone. Hashes are computed on the calling thread, not on the store's: those of one piece while
 * the piece before it is written.
 */
#include "store/store_internal.h"

#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_LATEST 2 /* of a job: the one before, should the last one turn out to be damaged */

#define COLUMNS                                                                                                      \
    "c.id, j.id, c.seq, c.created_at, c.epoch, c.step, c.bytes, c.sha256, c.best, c.numerics_version, c.metrics"
#define SELECT "SELECT " COLUMNS " FROM checkpoint c JOIN job j ON j.seq = c.job"

static const char sql_by_id[] = SELECT " WHERE c.id = ?1";
static const char sql_latest[] = SELECT " WHERE c.job = ?1 ORDER BY c.seq DESC LIMIT 1";
static const char sql_best[] = SELECT " WHERE c.job = ?1 AND c.best = 1 ORDER BY c.seq DESC LIMIT 1";
static const char sql_list[] = SELECT " WHERE c.job = ?1 ORDER BY c.seq DESC";
static const char sql_ids[] = "SELECT id, step, best FROM checkpoint WHERE job = ?1 ORDER BY seq DESC";
static const char sql_blob_add[] = "INSERT INTO blob (live) VALUES (0)";
static const char sql_blob_live[] = "UPDATE blob SET live = 1 WHERE id = ?1";
static const char sql_chunk_add[] = "INSERT INTO chunk (blob, n, sha256, bytes) VALUES (?1, ?2, ?3, ?4)";
static const char sql_add[] = "INSERT INTO checkpoint (id, job, blob, created_at, epoch, step, bytes, sha256, best,"
                              " numerics_version, metrics) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
/* What retention may take: all but the last ones and the newest that is best. */
static const char sql_old[] = "SELECT id FROM checkpoint WHERE job = ?1 AND seq NOT IN"
                              " (SELECT seq FROM checkpoint WHERE job = ?1 ORDER BY seq DESC LIMIT ?2)"
                              " AND seq IS NOT (SELECT max(seq) FROM checkpoint WHERE job = ?1 AND best = 1)";
static const char sql_delete[] = "DELETE FROM checkpoint WHERE id = ?1";
static const char sql_chunk[] = "SELECT k.sha256, k.bytes FROM checkpoint c JOIN chunk k ON k.blob = c.blob"
                                " WHERE c.id = ?1 AND k.n = ?2";

void bp_checkpoint_row_done(struct bp_checkpoint_row *row)
{
    free(row->metrics);
    row->metrics = NULL;
}

/* --- writing ---------------------------------------------------------------------------------------------------- */
struct digest {
    uint8_t bytes[SHA256_DIGEST_SIZE];
};

struct writing { /* of one checkpoint: what the pieces share */
    struct bp_store *store;
    struct bp_checkpoint_row *row;
    const uint8_t *bytes;
    struct digest *digests;      /* one a chunk */
    struct sha256_ctx whole;     /* of the chunks hashed so far */
    int64_t nchunks, first, end; /* chunks in all; those of this piece */
    int64_t seq;                 /* of the manifest, once stored */
    struct bp_upload upload;
    bp_store_fn *also;
    void *also_arg;
};

static void sha256(const uint8_t *bytes, size_t n, struct digest *ret)
{
    struct sha256_ctx ctx;
    sha256_init(&ctx);
    sha256_update(&ctx, n, bytes);
    sha256_digest(&ctx, sizeof ret->bytes, ret->bytes);
}

static void hex(const struct digest *digest, char ret[BP_SHA256_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof digest->bytes; i++) {
        ret[2 * i] = digits[digest->bytes[i] >> 4];
        ret[2 * i + 1] = digits[digest->bytes[i] & 15];
    }
    ret[BP_SHA256_HEX - 1] = 0;
}

static size_t chunk_size(int64_t bytes, int64_t n)
{
    int64_t left = bytes - n * BP_CHUNK_BYTES;
    return (size_t)(left < BP_CHUNK_BYTES ? left : BP_CHUNK_BYTES);
}

static bp_status add_blob(struct bp_db *db, struct writing *w, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_blob_add, &stmt, err);
    if (status == BP_OK)
        status = bp_db_finish(db, stmt, "storing a checkpoint", err);
    if (status != BP_OK)
        return status;
    pthread_mutex_lock(&w->store->mutex);
    w->upload.blob = sqlite3_last_insert_rowid(db->handle);
    pthread_mutex_unlock(&w->store->mutex);
    return BP_OK;
}

static bp_status add_chunks(struct bp_db *db, struct writing *w, struct bp_error *err)
{
    bp_status status = w->first == 0 ? add_blob(db, w, err) : BP_OK;
    for (int64_t n = w->first; status == BP_OK && n < w->end; n++) {
        sqlite3_stmt *stmt;
        status = bp_db_statement(db, sql_chunk_add, &stmt, err);
        if (status != BP_OK)
            break;
        sqlite3_bind_int64(stmt, 1, w->upload.blob);
        sqlite3_bind_int64(stmt, 2, n);
        sqlite3_bind_blob(stmt, 3, w->digests[n].bytes, sizeof w->digests[n].bytes, SQLITE_STATIC);
        sqlite3_bind_blob(stmt, 4, w->bytes + n * BP_CHUNK_BYTES, (int)chunk_size(w->row->bytes, n), SQLITE_STATIC);
        status = bp_db_finish(db, stmt, "storing a checkpoint", err);
    }
    return status;
}

static bp_status add_manifest(struct bp_db *db, struct writing *w, int64_t job, struct bp_error *err)
{
    const struct bp_checkpoint_row *row = w->row;
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_blob_live, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, w->upload.blob);
    status = bp_db_finish(db, stmt, "storing a checkpoint", err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_add, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, row->id);
    sqlite3_bind_int64(stmt, 2, job);
    sqlite3_bind_int64(stmt, 3, w->upload.blob);
    sqlite3_bind_int64(stmt, 4, row->created_at);
    sqlite3_bind_int64(stmt, 5, row->epoch);
    sqlite3_bind_int64(stmt, 6, row->step);
    sqlite3_bind_int64(stmt, 7, row->bytes);
    bp_bind_text(stmt, 8, row->sha256);
    sqlite3_bind_int(stmt, 9, row->best);
    sqlite3_bind_int64(stmt, 10, row->numerics);
    bp_bind_text(stmt, 11, row->metrics);
    status = bp_db_finish(db, stmt, "storing a checkpoint", err);
    if (status == BP_OK)
        w->seq = sqlite3_last_insert_rowid(db->handle);
    return status;
}

static bp_status prune(struct bp_db *db, int64_t job, int keep, struct bp_error *err)
{
    sqlite3_stmt *old, *gone;
    bool any = false;
    bp_status status = bp_db_statement(db, sql_old, &old, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(old, 1, job);
    sqlite3_bind_int(old, 2, keep > 0 ? keep : KEEP_LATEST);
    while ((status = bp_db_step(db, old, "looking for old checkpoints", err)) == BP_OK) {
        char id[BP_ID_SIZE];
        if (!bp_column_copy(old, 0, id, sizeof id) || bp_store_pinned(db->store, id))
            continue;
        status = bp_db_statement(db, sql_delete, &gone, err);
        if (status != BP_OK)
            break;
        bp_bind_text(gone, 1, id);
        status = bp_db_finish(db, gone, "deleting an old checkpoint", err);
        if (status != BP_OK)
            break;
        any = true;
    }
    sqlite3_reset(old);
    if (any)
        bp_store_want_sweep(db->store);
    return status == BP_NOT_FOUND ? BP_OK : status;
}

static bp_status write_piece(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct writing *w = arg;
    int64_t job;
    bp_status status = bp_db_job_seq(db, w->row->job, &job, err);
    if (status == BP_OK)
        status = add_chunks(db, w, err);
    if (status != BP_OK || w->end < w->nchunks)
        return status;
    status = add_manifest(db, w, job, err);
    if (status == BP_OK && w->also)
        status = w->also(db, w->also_arg, err);
    return status == BP_OK ? prune(db, job, w->row->keep, err) : status;
}

static int64_t piece_end(const struct writing *w, int64_t first)
{
    return w->nchunks - first < BP_CHUNKS_A_PIECE ? w->nchunks : first + BP_CHUNKS_A_PIECE;
}

/* The hashes of a piece's chunks; with the last one that of everything, into row->sha256. */
static void hash_piece(struct writing *w, int64_t first)
{
    int64_t end = piece_end(w, first);
    for (int64_t n = first; n < end; n++) {
        size_t size = chunk_size(w->row->bytes, n);
        sha256(w->bytes + n * BP_CHUNK_BYTES, size, &w->digests[n]);
        sha256_update(&w->whole, size, w->bytes + n * BP_CHUNK_BYTES);
    }
    if (first < end && end == w->nchunks) {
        struct digest whole;
        sha256_digest(&w->whole, sizeof whole.bytes, whole.bytes);
        hex(&whole, w->row->sha256);
    }
}

bp_status bp_store_checkpoint(struct bp_store *store, struct bp_checkpoint_row *row, const uint8_t *bytes,
                              bp_store_fn *also, void *also_arg, struct bp_error *err)
{
    if (row->bytes <= 0)
        return bp_fail(err, BP_INVALID, "a checkpoint of %lld bytes", (long long)row->bytes);
    struct writing w = {.store = store, .row = row, .bytes = bytes, .also = also, .also_arg = also_arg};
    w.nchunks = (row->bytes + BP_CHUNK_BYTES - 1) / BP_CHUNK_BYTES;
    if (!(w.digests = calloc((size_t)w.nchunks, sizeof *w.digests)))
        return bp_fail(err, BP_NOMEM, "no memory to store a checkpoint");
    sha256_init(&w.whole);
    bp_store_new_id("ckpt", row->id);
    if (!row->created_at)
        row->created_at = bp_store_now();
    bp_status status = BP_OK;
    bp_upload_begin(store, &w.upload);
    hash_piece(&w, 0);
    for (w.first = 0; status == BP_OK && w.first < w.nchunks; w.first = w.end) {
        w.end = piece_end(&w, w.first);
        struct bp_piece piece = {.fn = write_piece, .arg = &w, .weight = (size_t)(w.end - w.first) * BP_CHUNK_BYTES};
        bp_piece_begin(store, &piece);
        hash_piece(&w, w.end); /* nothing behind the last */
        status = bp_piece_end(&piece, err);
    }
    bp_upload_end(store, &w.upload);
    if (status == BP_OK)
        row->seq = w.seq;
    else
        bp_store_want_sweep(store);
    free(w.digests);
    return status;
}

/* --- reading ---------------------------------------------------------------------------------------------------- */
static bp_status load(sqlite3_stmt *stmt, struct bp_checkpoint_row *ret, struct bp_error *err)
{
    struct bp_checkpoint_row row = {
        .seq = sqlite3_column_int64(stmt, 2),
        .created_at = sqlite3_column_int64(stmt, 3),
        .epoch = sqlite3_column_int64(stmt, 4),
        .step = sqlite3_column_int64(stmt, 5),
        .bytes = sqlite3_column_int64(stmt, 6),
        .best = sqlite3_column_int(stmt, 8),
        .numerics = sqlite3_column_int64(stmt, 9),
    };
    if (!bp_column_copy(stmt, 0, row.id, sizeof row.id) || !bp_column_copy(stmt, 1, row.job, sizeof row.job) ||
        !bp_column_copy(stmt, 7, row.sha256, sizeof row.sha256))
        return bp_fail(err, BP_CORRUPT, "a stored checkpoint has an id or a hash that is too long");
    if (!bp_column_dup(stmt, 10, &row.metrics))
        return bp_fail(err, BP_NOMEM, "no memory to read a checkpoint");
    *ret = row;
    return BP_OK;
}

bp_status bp_db_checkpoint_get(struct bp_db *db, const char *job, const char *which, struct bp_checkpoint_row *ret,
                               struct bp_error *err)
{
    bool latest = !which || strcmp(which, "latest") == 0, best = !latest && strcmp(which, "best") == 0;
    int64_t seq = 0;
    sqlite3_stmt *stmt;
    struct bp_checkpoint_row row;
    bp_status status = job ? bp_db_job_seq(db, job, &seq, err) : BP_OK;
    if (status == BP_OK && !job && (latest || best))
        status = bp_fail(err, BP_INVALID, "the latest or best checkpoint of which job?");
    if (status == BP_OK)
        status = bp_db_statement(db, latest ? sql_latest : best ? sql_best : sql_by_id, &stmt, err);
    if (status != BP_OK)
        return status;
    if (latest || best)
        sqlite3_bind_int64(stmt, 1, seq);
    else
        bp_bind_text(stmt, 1, which);
    status = bp_db_step(db, stmt, "reading a checkpoint", err);
    if (status == BP_OK)
        status = load(stmt, &row, err);
    else if (status == BP_NOT_FOUND)
        bp_fail(err, status, latest || best ? "job %s has no checkpoint yet%s" : "job %s has no checkpoint %s",
                job ? job : "any", latest || best ? "" : which);
    sqlite3_reset(stmt);
    if (status == BP_OK && job && strcmp(row.job, job) != 0) {
        bp_checkpoint_row_done(&row);
        status = bp_fail(err, BP_NOT_FOUND, "job %s has no checkpoint %s", job, which);
    }
    if (status == BP_OK)
        *ret = row;
    return status;
}

bp_status bp_db_checkpoint_ids(struct bp_db *db, int64_t job, struct bp_checkpoint_ids *ret, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    struct bp_checkpoint_ids ids = {0};
    bp_status status = bp_db_statement(db, sql_ids, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, job);
    while (!ids.best[0] && (status = bp_db_step(db, stmt, "looking for checkpoints", err)) == BP_OK) {
        bool fits = ids.latest[0] || bp_column_copy(stmt, 0, ids.latest, sizeof ids.latest);
        if (sqlite3_column_int(stmt, 2)) {
            fits = fits && bp_column_copy(stmt, 0, ids.best, sizeof ids.best);
            ids.best_step = sqlite3_column_int64(stmt, 1);
        }
        if (!fits) {
            status = bp_fail(err, BP_CORRUPT, "a stored checkpoint has an id that is too long");
            break;
        }
    }
    sqlite3_reset(stmt);
    if (status == BP_NOT_FOUND)
        status = BP_OK;
    if (status == BP_OK)
        *ret = ids;
    return status;
}

bp_status bp_db_checkpoint_list(struct bp_db *db, const char *job, bp_checkpoint_visit *visit, void *arg,
                                struct bp_error *err)
{
    int64_t seq;
    sqlite3_stmt *stmt;
    bp_status status = bp_db_job_seq(db, job, &seq, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_list, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, seq);
    while ((status = bp_db_step(db, stmt, "listing checkpoints", err)) == BP_OK) {
        struct bp_checkpoint_row row;
        status = load(stmt, &row, err);
        if (status == BP_OK) {
            status = visit(arg, &row);
            bp_checkpoint_row_done(&row);
        }
        if (status != BP_OK)
            break;
    }
    sqlite3_reset(stmt);
    return status == BP_NOT_FOUND ? BP_OK : status;
}

/* Copies from chunk n, at `from`, at most `size` bytes; *ret_copied. Checks the chunk's hash. */
static bp_status read_chunk(struct bp_db *db, const char *sql, const char *id, int64_t n, size_t from, size_t size,
                            uint8_t *ret, size_t *ret_copied, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    struct digest digest;
    bp_status status = bp_db_statement(db, sql, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, id);
    sqlite3_bind_int64(stmt, 2, n);
    status = bp_db_step(db, stmt, "reading a checkpoint", err);
    if (status == BP_OK) {
        const void *hash = sqlite3_column_blob(stmt, 0);
        const uint8_t *bytes = sqlite3_column_blob(stmt, 1);
        size_t have = (size_t)sqlite3_column_bytes(stmt, 1);
        if (bytes && hash)
            sha256(bytes, have, &digest);
        if (!bytes || !hash || sqlite3_column_bytes(stmt, 0) != sizeof digest.bytes ||
            memcmp(hash, digest.bytes, sizeof digest.bytes) != 0 || from >= have)
            status = bp_fail(err, BP_CORRUPT, "checkpoint %s is damaged (chunk %lld)", id, (long long)n);
        else {
            *ret_copied = size < have - from ? size : have - from;
            memcpy(ret, bytes + from, *ret_copied);
        }
    } else if (status == BP_NOT_FOUND)
        bp_fail(err, status, "there is no checkpoint %s, or it is shorter", id);
    sqlite3_reset(stmt);
    return status;
}

bp_status bp_db_chunks_read(struct bp_db *db, const char *sql, const char *id, int64_t offset, size_t size,
                            uint8_t *ret, struct bp_error *err)
{
    bp_status status = BP_OK;
    if (offset < 0)
        return bp_fail(err, BP_INVALID, "a checkpoint has no byte %lld", (long long)offset);
    while (status == BP_OK && size > 0) {
        size_t copied = 0;
        status = read_chunk(db, sql, id, offset / BP_CHUNK_BYTES, (size_t)(offset % BP_CHUNK_BYTES), size, ret,
                            &copied, err);
        offset += (int64_t)copied;
        size -= copied;
        ret += copied;
    }
    return status;
}

bp_status bp_db_checkpoint_bytes(struct bp_db *db, const char *id, int64_t offset, size_t size, uint8_t *ret,
                                 struct bp_error *err)
{
    return bp_db_chunks_read(db, sql_chunk, id, offset, size, ret, err);
}

struct loading {
    const char *id;
    struct bp_checkpoint_row row;
    uint8_t *bytes;
    int64_t at;
};

static bp_status load_row_piece(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct loading *l = arg;
    return bp_db_checkpoint_get(db, NULL, l->id, &l->row, err);
}

static bp_status load_chunk_piece(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct loading *l = arg;
    size_t size = chunk_size(l->row.bytes, l->at / BP_CHUNK_BYTES);
    return bp_db_checkpoint_bytes(db, l->id, l->at, size, l->bytes + l->at, err);
}

bp_status bp_store_checkpoint_load(struct bp_store *store, const char *id, uint8_t **ret, size_t *ret_size,
                                   struct bp_error *err)
{
    struct loading l = {.id = id};
    struct digest whole;
    struct sha256_ctx ctx;
    char text[BP_SHA256_HEX];
    bp_store_checkpoint_pin(store, id);
    bp_status status = bp_store_read(store, load_row_piece, &l, err);
    if (status == BP_OK && !(l.bytes = malloc((size_t)l.row.bytes)))
        status = bp_fail(err, BP_NOMEM, "no memory to load a checkpoint of %lld bytes", (long long)l.row.bytes);
    sha256_init(&ctx);
    for (; status == BP_OK && l.at < l.row.bytes; l.at += BP_CHUNK_BYTES) {
        status = bp_store_read(store, load_chunk_piece, &l, err);
        if (status == BP_OK)
            sha256_update(&ctx, chunk_size(l.row.bytes, l.at / BP_CHUNK_BYTES), l.bytes + l.at);
    }
    sha256_digest(&ctx, sizeof whole.bytes, whole.bytes);
    hex(&whole, text);
    if (status == BP_OK && strcmp(text, l.row.sha256) != 0)
        status = bp_fail(err, BP_CORRUPT, "checkpoint %s is damaged: its hash is wrong", id);
    bp_store_checkpoint_unpin(store, id);
    if (status == BP_OK) {
        *ret = l.bytes;
        *ret_size = (size_t)l.row.bytes;
    } else
        free(l.bytes);
    bp_checkpoint_row_done(&l.row);
    return status;
}
