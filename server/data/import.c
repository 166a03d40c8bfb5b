/* import.c: what an upload is, and how it becomes a dataset: recognise, scan, write the table aside, place all files.
 *
 * Nothing of an import is seen before its last step, and a failure in any step leaves the data directory and the
 * uploaded files as they were.
 */
#include "data/import.h"

#include "data/seal.h"
#include "data/storage.h"

#include <nettle/sha2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const roles[BP_PARTS_MAX] = {"data", "inputs", "targets", "test_inputs", "test_targets"};

static void hash_text(const char *text, size_t size, char ret[65])
{
    struct sha256_ctx ctx;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&ctx);
    sha256_update(&ctx, size, (const uint8_t *)text);
    sha256_digest(&ctx, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}

bp_status bp_ingest_open(const struct bp_ingest *ingest, int part, struct bp_stream **ret, struct bp_error *err)
{
    struct bp_stream_config config = {.max_unfolded = ingest->options->max_unfolded,
                                      .cancelled = ingest->options->cancelled,
                                      .ctx = ingest->options->ctx,
                                      .passed = ingest->hashed ? &ingest->hashed[part] : NULL};
    return bp_stream_open(ingest->parts[part].path, &config, ret, err);
}

/* --- what it is ----------------------------------------------------------------------------------------------------- */

/* Files that are known not to be ours, by their first bytes. */
static const struct stranger {
    const char *magic;
    size_t size;
    bp_status status;
    const char *code, *advice;
} strangers[] = {
    {"PK\x03\x04", 4, BP_INVALID, "looks_like_xlsx", "this is a zip file, such as xlsx: save the sheet as CSV"},
    {"\xd0\xcf\x11\xe0", 4, BP_INVALID, "looks_like_xlsx", "this is an old Office file: save the sheet as CSV"},
    {"\xff\xfe", 2, BP_INVALID, "not_utf8", "this is UTF-16: save the file as UTF-8"},
    {"\xfe\xff", 2, BP_INVALID, "not_utf8", "this is UTF-16: save the file as UTF-8"},
    {"\x1f\x8b", 2, BP_INVALID, "gzip_in_gzip", "this is a gzip file inside a gzip file: unfold it once"},
    {"\x93NUMPY", 6, BP_UNSUPPORTED, "unsupported_format", "NPY files are not read: write CSV or IDX"},
    {"PAR1", 4, BP_UNSUPPORTED, "unsupported_format", "Parquet files are not read: write CSV"},
    {"BZh", 3, BP_UNSUPPORTED, "unsupported_format", "bzip2 is not read: use gzip, or none"},
    {"\xfd"
     "7zXZ",
     5, BP_UNSUPPORTED, "unsupported_format", "xz is not read: use gzip, or none"},
    {"\x28\xb5\x2f\xfd", 4, BP_UNSUPPORTED, "unsupported_format", "zstd is not read: use gzip, or none"},
    {"SQLite format 3", 15, BP_UNSUPPORTED, "unsupported_format", "SQLite files are not read: write CSV"},
    {"{\"", 2, BP_UNSUPPORTED, "unsupported_format", "JSON rows are not read: write CSV"},
    {"[[", 2, BP_UNSUPPORTED, "unsupported_format", "JSON rows are not read: write CSV"},
    {"[{", 2, BP_UNSUPPORTED, "unsupported_format", "JSON rows are not read: write CSV"},
    {BP_MANIFEST_MAGIC, sizeof BP_MANIFEST_MAGIC - 1, BP_INVALID, "is_manifest",
     "this is the manifest of a dataset and not its data"},
};

/* The format of one part by its first unfolded bytes. */
static bp_status recognise(const struct bp_ingest *ingest, int part, enum bp_format *ret, struct bp_error *err)
{
    uint8_t head[64];
    size_t n = 0;
    struct bp_stream *in = NULL;
    bp_status status = bp_ingest_open(ingest, part, &in, err);
    if (status == BP_OK)
        status = bp_stream_read(in, head, sizeof head, &n, err);
    bp_stream_close(in);
    if (status != BP_OK)
        return status;
    if (n == 0)
        return bp_fail_at(err, BP_INVALID, "empty_dataset", "the file is empty");
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++)
        if (n >= strangers[i].size && memcmp(head, strangers[i].magic, strangers[i].size) == 0)
            return bp_fail_at(err, strangers[i].status, strangers[i].code, "%s", strangers[i].advice);
    *ret = n >= 2 && head[0] == 0 && head[1] == 0 ? BP_FORMAT_IDX : BP_FORMAT_CSV;
    return BP_OK;
}

/* Puts the parts into canonical order. */
static bp_status take_parts(struct bp_ingest *ingest, const struct bp_import_part *parts, int nparts,
                            struct bp_error *err)
{
    for (int r = 0; r < BP_PARTS_MAX; r++) {
        int found = 0;
        for (int i = 0; i < nparts; i++) {
            if (strcmp(parts[i].role, roles[r]) != 0)
                continue;
            if (found++)
                return bp_fail_at(err, BP_INVALID, "duplicate_part", "there are two parts '%s'", roles[r]);
            ingest->parts[ingest->nparts++] = parts[i];
        }
    }
    if (ingest->nparts < nparts || nparts == 0)
        return bp_fail_at(err, BP_INVALID, "unknown_part",
                          "the parts are data, or inputs, targets, test_inputs and test_targets");
    return BP_OK;
}

static bp_status find_format(struct bp_ingest *ingest, struct bp_error *err)
{
    bool has_data = strcmp(ingest->parts[0].role, "data") == 0;
    if (has_data && ingest->nparts > 1)
        return bp_fail_at(err, BP_INVALID, "unknown_part", "'data' stands alone: it is the whole dataset");
    for (int i = 0; i < ingest->nparts; i++) {
        enum bp_format format = BP_FORMAT_CSV;
        bp_status status = recognise(ingest, i, &format, err);
        if (status != BP_OK)
            return status;
        if (ingest->options->format != BP_FORMAT_AUTO)
            format = ingest->options->format;
        if (format == BP_FORMAT_CSV && !has_data)
            return bp_fail_at(err, BP_INVALID, "idx_magic",
                              "part '%s' is not an IDX file: a CSV is sent whole, as the part 'data'",
                              ingest->parts[i].role);
        ingest->format = format;
    }
    return BP_OK;
}

/* --- what it is called ---------------------------------------------------------------------------------------------- */

/* The canonical text that stands for several parts. */
static void write_manifest(const struct bp_ingest *ingest, char ret[BP_MANIFEST_MAX])
{
    size_t used = (size_t)snprintf(ret, BP_MANIFEST_MAX, "%s", BP_MANIFEST_MAGIC);
    for (int i = 0; i < ingest->nparts; i++)
        used += (size_t)snprintf(ret + used, BP_MANIFEST_MAX - used, "%s %s %lld\n", ingest->parts[i].role,
                                 ingest->sha256[i], (long long)ingest->parts[i].bytes);
}

/* The table depends on the source and on how it was read, whether that was asked for or found out. */
static void name_table(const struct bp_ingest *ingest, const char *sha256, char ret[65])
{
    char text[256];
    bool csv = ingest->format == BP_FORMAT_CSV;
    int n = snprintf(text, sizeof text, "backpropd table %d\nsource %s\nformat %s\ndelimiter %d\nheader %d\n",
                     BP_TABLE_VERSION, sha256, csv ? "csv" : "idx", csv ? ingest->delimiter : 0,
                     csv ? ingest->header : 0);
    hash_text(text, (size_t)n, ret);
}

/* --- the steps ------------------------------------------------------------------------------------------------------ */

static void make_header(const struct bp_ingest *ingest, const char *sha256, struct bp_table_header *ret)
{
    *ret = (struct bp_table_header){.version = BP_TABLE_VERSION,
                                    .byte_order = BP_TABLE_BYTE_ORDER,
                                    .rows = (uint64_t)ingest->rows,
                                    .stride = ingest->stride};
    memcpy(ret->magic, BP_TABLE_MAGIC, sizeof ret->magic);
    for (int i = 0; i < 32; i++) {
        unsigned byte = 0;
        sscanf(sha256 + 2 * i, "%2x", &byte);
        ret->source[i] = (uint8_t)byte;
    }
}

/* A file in tmp/ under a name of its own for the table, with room for its header. */
static bp_status open_table(const struct bp_ingest *ingest, struct bp_writer *writer, char path[BP_FILES_PATH],
                            struct bp_error *err)
{
    static const struct bp_table_header room;
    static atomic_uint serial;
    char name[32];
    snprintf(name, sizeof name, "%d.%u", (int)getpid(), atomic_fetch_add(&serial, 1));
    bp_status status = bp_files_path(path, ingest->options->dir, "tmp", name, ".table", err);
    if (status == BP_OK)
        status = bp_writer_open(writer, path, err);
    if (status == BP_OK && (status = bp_writer_put(writer, &room, sizeof room, err)) != BP_OK)
        unlink(path);
    return status;
}

/* The rows, where the scan has not written them, and the header. */
static bp_status write_table(struct bp_ingest *ingest, const char *sha256, struct bp_writer *writer,
                             struct bp_error *err)
{
    struct bp_table_header header;
    bp_status status = BP_OK;
    make_header(ingest, sha256, &header);
    if (!ingest->written) {
        if ((status = bp_writer_restart(writer, err)) == BP_OK)
            status = bp_writer_put(writer, &header, sizeof header, err);
        if (status == BP_OK)
            status = ingest->format == BP_FORMAT_CSV ? bp_ingest_csv_write(ingest, writer, err)
                                                     : bp_ingest_idx_write(ingest, writer, err);
    } else {
        status = bp_writer_head(writer, &header, sizeof header, err);
    }
    return status == BP_OK ? bp_writer_finish(writer, err) : status;
}

static bp_status describe(const struct bp_ingest *ingest, char **ret, struct bp_error *err)
{
    json_t *json = bp_ingest_describe(ingest);
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(json);
    if (!text)
        return bp_fail(err, BP_NOMEM, "no memory to describe the dataset");
    *ret = text;
    return BP_OK;
}

/* The files were scanned and sealed: the rest. */
static bp_status store(struct bp_ingest *ingest, struct bp_writer *writer, const char *path,
                       struct bp_import_result *ret, struct bp_error *err)
{
    struct bp_import_result result = {.rows = ingest->rows};
    char manifest[BP_MANIFEST_MAX];
    bool several = ingest->nparts > 1;
    for (int i = 0; i < ingest->nparts; i++)
        result.bytes += ingest->parts[i].bytes;
    memcpy(result.sha256, ingest->sha256[0], sizeof result.sha256);
    if (several) {
        write_manifest(ingest, manifest);
        hash_text(manifest, strlen(manifest), result.sha256);
    }
    name_table(ingest, result.sha256, result.table);

    bp_status status = describe(ingest, &result.description, err);
    if (status == BP_OK)
        status = write_table(ingest, result.sha256, writer, err);
    if (status == BP_OK)
        status = bp_storage_place(ingest, result.sha256, several ? manifest : NULL, path, result.table, err);
    if (status == BP_OK)
        *ret = result;
    else
        free(result.description);
    return status;
}

bp_status bp_import(const struct bp_import_options *options, const struct bp_import_part *parts, int nparts,
                    struct bp_import_result *ret, struct bp_error *err)
{
    struct bp_ingest ingest = {.options = options, .budget = BP_MEMBERS_MAX};
    struct bp_writer writer = {.fd = -1};
    struct bp_seal seal = {0};
    char path[BP_FILES_PATH];
    bp_status status;
    if ((status = bp_storage_dirs(options->dir, err)) != BP_OK ||
        (status = take_parts(&ingest, parts, nparts, err)) != BP_OK || (status = find_format(&ingest, err)) != BP_OK)
        goto out;
    if ((status = open_table(&ingest, &writer, path, err)) != BP_OK)
        goto out;
    bp_seal_begin(&seal, &ingest);
    status = ingest.format == BP_FORMAT_CSV ? bp_ingest_csv_scan(&ingest, &writer, err)
                                            : bp_ingest_idx_scan(&ingest, &writer, err);
    if (status == BP_OK)
        status = bp_seal_end(&seal, err);
    if (status == BP_OK)
        status = store(&ingest, &writer, path, ret, err);
    if (status != BP_OK)
        unlink(path);
out:
    bp_seal_done(&seal); /* before the parts are the caller's again */
    bp_writer_done(&writer);
    bp_ingest_done(&ingest);
    return status;
}
