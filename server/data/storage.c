/* storage.c: see storage.h.
 *
 * Datasets may share files of raw/. Placing finds a part that is there already and leaves it; only the table, placed
 * last, says that it is needed. So placing and removing take turns: between the two a removal would take the part away.
 */
#include "data/storage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const subs[] = {"raw", "tables", "tmp"};
static pthread_mutex_t files_mutex = PTHREAD_MUTEX_INITIALIZER; /* placing | removing */

bp_status bp_storage_dirs(const char *dir, struct bp_error *err)
{
    char path[BP_FILES_PATH];
    for (size_t i = 0; i < sizeof subs / sizeof subs[0]; i++) {
        bp_status status = bp_files_path(path, dir, subs[i], "", "", err);
        if (status != BP_OK)
            return status;
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return bp_files_fail(err, "making a directory in the data directory");
    }
    return BP_OK;
}

/* --- placing -------------------------------------------------------------------------------------------------------- */

/* What was done so far, to undo it. */
struct placed {
    bool moved[BP_PARTS_MAX]; /* into raw/ */
    bool manifest, table;
    char raw[BP_PARTS_MAX][BP_FILES_PATH], manifest_path[BP_FILES_PATH], table_path[BP_FILES_PATH];
};

static bool exists(const char *path, int64_t size)
{
    struct stat st;
    return stat(path, &st) == 0 && (size < 0 || st.st_size == size);
}

static bp_status place_parts(const struct bp_ingest *ingest, struct placed *p, struct bp_error *err)
{
    for (int i = 0; i < ingest->nparts; i++) {
        const struct bp_import_part *part = &ingest->parts[i];
        bp_status status = bp_files_path(p->raw[i], ingest->options->dir, "raw", ingest->sha256[i], "", err);
        if (status != BP_OK)
            return status;
        if (exists(p->raw[i], part->bytes))
            continue; /* the same bytes, from an earlier upload */
        if (rename(part->path, p->raw[i]) != 0)
            return bp_files_fail(err, "keeping the uploaded file");
        p->moved[i] = true;
    }
    return BP_OK;
}

static bp_status place_manifest(const char *dir, const char *sha256, const char *manifest, struct placed *p,
                                struct bp_error *err)
{
    char aside[BP_FILES_PATH], name[96];
    struct bp_writer writer = {.fd = -1};
    snprintf(name, sizeof name, "%s.%d", sha256, (int)getpid());
    bp_status status;
    if ((status = bp_files_path(p->manifest_path, dir, "raw", sha256, "", err)) != BP_OK ||
        (status = bp_files_path(aside, dir, "tmp", name, ".manifest", err)) != BP_OK)
        return status;
    if (exists(p->manifest_path, (int64_t)strlen(manifest)))
        return BP_OK;
    unlink(aside);
    if ((status = bp_writer_open(&writer, aside, err)) != BP_OK)
        return status;
    if ((status = bp_writer_put(&writer, manifest, strlen(manifest), err)) == BP_OK)
        status = bp_writer_finish(&writer, err);
    if (status == BP_OK && rename(aside, p->manifest_path) != 0)
        status = bp_files_fail(err, "keeping the manifest");
    p->manifest = status == BP_OK;
    bp_writer_done(&writer);
    if (status != BP_OK)
        unlink(aside);
    return status;
}

static bp_status place_table(const char *dir, const char *tmp_table, const char *table, struct placed *p,
                             struct bp_error *err)
{
    bp_status status = bp_files_path(p->table_path, dir, "tables", table, ".table", err);
    if (status != BP_OK)
        return status;
    bool existed = exists(p->table_path, -1); /* the same bytes: their hash is the name */
    if (rename(tmp_table, p->table_path) != 0)
        return bp_files_fail(err, "keeping the table");
    p->table = !existed;
    if ((status = bp_files_sync_dir(dir, "raw", err)) != BP_OK)
        return status;
    return bp_files_sync_dir(dir, "tables", err);
}

static void undo(const struct bp_ingest *ingest, const struct placed *p)
{
    if (p->table)
        unlink(p->table_path);
    if (p->manifest)
        unlink(p->manifest_path);
    for (int i = 0; i < ingest->nparts; i++)
        if (p->moved[i])
            (void)rename(p->raw[i], ingest->parts[i].path);
}

bp_status bp_storage_place(const struct bp_ingest *ingest, const char *sha256, const char *manifest,
                           const char *tmp_table, const char *table, struct bp_error *err)
{
    const char *dir = ingest->options->dir;
    struct placed *p = calloc(1, sizeof *p);
    if (!p)
        return bp_fail(err, BP_NOMEM, "no memory to keep the dataset");
    pthread_mutex_lock(&files_mutex);
    bp_status status = place_parts(ingest, p, err);
    if (status == BP_OK && manifest)
        status = place_manifest(dir, sha256, manifest, p, err);
    if (status == BP_OK)
        status = place_table(dir, tmp_table, table, p, err);
    if (status != BP_OK)
        undo(ingest, p);
    pthread_mutex_unlock(&files_mutex);
    for (int i = 0; i < ingest->nparts && status == BP_OK; i++)
        if (!p->moved[i])
            unlink(ingest->parts[i].path);
    free(p);
    return status;
}

/* --- who uses what -------------------------------------------------------------------------------------------------- */

/* A growing list of hashes. */
struct hashes {
    char (*list)[65];
    size_t n, capacity;
};

static bool add_hash(struct hashes *h, const char *hash)
{
    if (h->n == h->capacity) {
        size_t capacity = h->capacity ? h->capacity * 2 : 64;
        char(*grown)[65] = realloc(h->list, capacity * sizeof *grown);
        if (!grown)
            return false;
        h->list = grown;
        h->capacity = capacity;
    }
    snprintf(h->list[h->n++], 65, "%s", hash);
    return true;
}

static bool has_hash(const struct hashes *h, const char *hash)
{
    for (size_t i = 0; i < h->n; i++)
        if (strcmp(h->list[i], hash) == 0)
            return true;
    return false;
}

/* The first bytes of a file; how many. */
static size_t read_head(const char *dir, const char *sub, const char *name, void *dst, size_t size)
{
    char path[BP_FILES_PATH];
    if (bp_files_path(path, dir, sub, name, "", NULL) != BP_OK)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, dst, size);
    close(fd);
    return n < 0 ? 0 : (size_t)n;
}

/* Adds the hashes of the parts when raw/<name> is a manifest. */
static bool add_parts(struct hashes *h, const char *dir, const char *name)
{
    char text[BP_MANIFEST_MAX + 1], role[32], hash[65];
    size_t magic = strlen(BP_MANIFEST_MAGIC), n = read_head(dir, "raw", name, text, BP_MANIFEST_MAX);
    text[n] = 0;
    if (n < magic || memcmp(text, BP_MANIFEST_MAGIC, magic) != 0)
        return true;
    for (const char *line = text + magic; *line; line = strchr(line, '\n') + 1) {
        if (!strchr(line, '\n'))
            break;
        if (sscanf(line, "%31s %64s", role, hash) == 2 && bp_files_is_hash(hash) && !add_hash(h, hash))
            return false;
    }
    return true;
}

/* The hash that a file of tables/ is named after; false: it is no table. */
static bool table_hash(const char *name, char ret[65])
{
    if (strlen(name) != 64 + strlen(".table") || strcmp(name + 64, ".table") != 0)
        return false;
    memcpy(ret, name, 64);
    ret[64] = 0;
    return bp_files_is_hash(ret);
}

/* Adds the sources of all tables but `except` (NULL: of all). */
static bool add_sources(struct hashes *h, const char *dir, const char *except)
{
    char path[BP_FILES_PATH], hash[65];
    bool ok = true;
    DIR *d = bp_files_path(path, dir, "tables", "", "", NULL) == BP_OK ? opendir(path) : NULL;
    for (struct dirent *entry; d && ok && (entry = readdir(d));) {
        struct bp_table_header header;
        if (!table_hash(entry->d_name, hash) || (except && strcmp(hash, except) == 0) ||
            read_head(dir, "tables", entry->d_name, &header, sizeof header) != sizeof header)
            continue;
        for (int i = 0; i < 32; i++)
            snprintf(hash + 2 * i, 3, "%02x", header.source[i]);
        ok = add_hash(h, hash);
    }
    if (d)
        closedir(d);
    return ok;
}

/* Everything in raw/ that the listed sources need: themselves, and the parts of those that are manifests. */
static bool close_over_parts(struct hashes *h, const char *dir)
{
    size_t n = h->n;
    for (size_t i = 0; i < n; i++)
        if (!add_parts(h, dir, h->list[i]))
            return false;
    return true;
}

static void unlink_in(const char *dir, const char *sub, const char *name, const char *suffix)
{
    char path[BP_FILES_PATH];
    if (bp_files_path(path, dir, sub, name, suffix, NULL) == BP_OK)
        unlink(path);
}

void bp_import_remove(const char *dir, const char *sha256, const char *table)
{
    struct hashes used = {0}, mine = {0};
    if (!bp_files_is_hash(table))
        return;
    pthread_mutex_lock(&files_mutex);
    bool ok = bp_files_is_hash(sha256) && add_sources(&used, dir, table) && close_over_parts(&used, dir) &&
              add_hash(&mine, sha256) && close_over_parts(&mine, dir);
    unlink_in(dir, "tables", table, ".table");
    for (size_t i = mine.n; ok && i-- > 0;) /* without memory to tell, the raw files wait for the next start */
        if (!has_hash(&used, mine.list[i]))
            unlink_in(dir, "raw", mine.list[i], "");
    pthread_mutex_unlock(&files_mutex);
    free(used.list);
    free(mine.list);
}

/* --- at start ------------------------------------------------------------------------------------------------------- */

struct sweep {
    const char *dir;
    bool (*known)(void *ctx, const char *hash);
    void *ctx;
    struct hashes keep; /* in raw/ */
};

/* Whether a file of a sub-directory is to stay. */
typedef bool keeps(struct sweep *sweep, const char *name);

static bool keep_none(struct sweep *sweep, const char *name)
{
    (void)sweep;
    (void)name;
    return false;
}

static bool keep_table(struct sweep *sweep, const char *name)
{
    char hash[65];
    return table_hash(name, hash) && sweep->known(sweep->ctx, hash);
}

static bool keep_raw(struct sweep *sweep, const char *name)
{
    return has_hash(&sweep->keep, name) || (bp_files_is_hash(name) && sweep->known(sweep->ctx, name));
}

static bp_status sweep_dir(struct sweep *sweep, const char *sub, keeps *keep, struct bp_error *err)
{
    char path[BP_FILES_PATH];
    bp_status status = bp_files_path(path, sweep->dir, sub, "", "", err);
    if (status != BP_OK)
        return status;
    DIR *d = opendir(path);
    if (!d)
        return bp_files_fail(err, "reading a directory of the data directory");
    for (struct dirent *entry; (entry = readdir(d));)
        if (entry->d_name[0] != '.' && !keep(sweep, entry->d_name))
            unlinkat(dirfd(d), entry->d_name, 0);
    closedir(d);
    return BP_OK;
}

/* The parts of manifests that are known. */
static bp_status list_parts(struct sweep *sweep, struct bp_error *err)
{
    char path[BP_FILES_PATH];
    bool ok = true;
    bp_status status = bp_files_path(path, sweep->dir, "raw", "", "", err);
    if (status != BP_OK)
        return status;
    DIR *d = opendir(path);
    if (!d)
        return bp_files_fail(err, "reading a directory of the data directory");
    for (struct dirent *entry; ok && (entry = readdir(d));)
        if (bp_files_is_hash(entry->d_name) && sweep->known(sweep->ctx, entry->d_name))
            ok = add_parts(&sweep->keep, sweep->dir, entry->d_name);
    closedir(d);
    return ok ? BP_OK : bp_fail(err, BP_NOMEM, "no memory to look through the data directory");
}

bp_status bp_import_tidy(const char *dir, bool (*known)(void *ctx, const char *file_hash), void *ctx,
                         struct bp_error *err)
{
    struct sweep sweep = {.dir = dir, .known = known, .ctx = ctx};
    bp_status status = bp_storage_dirs(dir, err);
    if (status == BP_OK)
        status = list_parts(&sweep, err);
    if (status == BP_OK)
        status = sweep_dir(&sweep, "tmp", keep_none, err);
    if (status == BP_OK)
        status = sweep_dir(&sweep, "tables", keep_table, err);
    if (status == BP_OK)
        status = sweep_dir(&sweep, "raw", keep_raw, err);
    free(sweep.keep.list);
    return status;
}
