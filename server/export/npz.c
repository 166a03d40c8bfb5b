/* npz.c: weights as NumPy's archive: a ZIP with one NPY file a tensor, nothing compressed.
 *
 * Every date is the first that a ZIP can express (1980-01-01), so that the same weights give the same bytes. The
 * checksums come before the data they cover, so the weights are read once when the layout is made. Sizes are 32 bits
 * wide in a plain ZIP: from 4 GiB on the export is refused, not extended.
 */
#include "export/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define NPY_MAX 256 /* of an NPY header: 4 dimensions of at most 10 digits */
#define READ_BYTES ((size_t)1 << 18)
#define ZIP_MAX UINT32_MAX
#define ZIP_ENTRIES_MAX 65535
#define ZIP_DATE 0x21  /* 1980-01-01 */
#define ZIP_VERSION 20 /* 2.0: what every reader knows */
#define ZIP_UTF8 0x800 /* names are UTF-8 */

struct entry {
    const struct bp_tensor *tensor;
    char name[sizeof((struct bp_tensor *)0)->name + 4]; /* "<tensor>.npy" */
    char npy[NPY_MAX];
    size_t npy_size;
    uint32_t crc, size; /* of header and data together */
    uint32_t place;     /* of the local header in the archive */
};

/* Magic, version 1.0, header length, then a Python literal padded with spaces to a multiple of 64 in all. */
static void npy_header(struct entry *e)
{
    const struct bp_shape *shape = &e->tensor->shape;
    char text[NPY_MAX - 64];
    int n = snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (int i = 0; i < shape->rank; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%lld%s", i ? " " : "", (long long)shape->dim[i],
                      i + 1 < shape->rank || shape->rank == 1 ? "," : "");
    n += snprintf(text + n, sizeof text - (size_t)n, "), }");
    e->npy_size = ((size_t)n + 10 + 1 + 63) / 64 * 64;
    size_t length = e->npy_size - 10;
    memset(e->npy, ' ', e->npy_size);
    memcpy(e->npy, "\x93NUMPY\x01\x00", 8);
    e->npy[8] = (char)(length & 255);
    e->npy[9] = (char)(length >> 8);
    memcpy(e->npy + 10, text, (size_t)n);
    e->npy[e->npy_size - 1] = '\n';
}

static bp_status checksum(const struct bp_weights *weights, struct entry *e, uint8_t *buffer, struct bp_error *err)
{
    uint64_t place = bp_tensor_place(weights->graph, e->tensor), left = bp_tensor_bytes(e->tensor);
    uLong crc = crc32(0, (const Bytef *)e->npy, (uInt)e->npy_size);
    while (left > 0) {
        size_t n = left < READ_BYTES ? (size_t)left : READ_BYTES;
        bp_status status = weights->read(weights->ctx, place, buffer, n, err);
        if (status)
            return status;
        crc = crc32(crc, buffer, (uInt)n);
        place += n;
        left -= n;
    }
    e->crc = (uint32_t)crc;
    return BP_OK;
}

/* The fields that a local header and a directory entry have in common. */
static void zip_fields(struct bp_layout *layout, const struct entry *e)
{
    bp_layout_u16(layout, ZIP_VERSION);
    bp_layout_u16(layout, ZIP_UTF8);
    bp_layout_u16(layout, 0); /* stored */
    bp_layout_u16(layout, 0); /* midnight */
    bp_layout_u16(layout, ZIP_DATE);
    bp_layout_u32(layout, e->crc);
    bp_layout_u32(layout, e->size); /* compressed */
    bp_layout_u32(layout, e->size);
    bp_layout_u16(layout, (unsigned)strlen(e->name));
    bp_layout_u16(layout, 0); /* no extra field */
}

static void zip_local(struct bp_layout *layout, struct entry *e)
{
    e->place = (uint32_t)bp_layout_size(layout);
    bp_layout_bytes(layout, "PK\x03\x04", 4);
    zip_fields(layout, e);
    bp_layout_bytes(layout, e->name, strlen(e->name));
    bp_layout_bytes(layout, e->npy, e->npy_size);
}

static void zip_directory(struct bp_layout *layout, const struct entry *entries, int n)
{
    uint32_t start = (uint32_t)bp_layout_size(layout);
    for (int i = 0; i < n; i++) {
        bp_layout_bytes(layout, "PK\x01\x02", 4);
        bp_layout_u16(layout, ZIP_VERSION); /* made by */
        zip_fields(layout, &entries[i]);
        bp_layout_u16(layout, 0); /* no comment */
        bp_layout_u16(layout, 0); /* disk */
        bp_layout_u16(layout, 0); /* internal attributes */
        bp_layout_u32(layout, 0); /* external attributes */
        bp_layout_u32(layout, entries[i].place);
        bp_layout_bytes(layout, entries[i].name, strlen(entries[i].name));
    }
    uint32_t size = (uint32_t)bp_layout_size(layout) - start;
    bp_layout_bytes(layout, "PK\x05\x06", 4);
    bp_layout_u32(layout, 0); /* this disk, and the one of the directory */
    bp_layout_u16(layout, (unsigned)n);
    bp_layout_u16(layout, (unsigned)n);
    bp_layout_u32(layout, size);
    bp_layout_u32(layout, start);
    bp_layout_u16(layout, 0); /* no comment */
}

/* Headers of all entries, and the check that the archive stays within 32 bits. */
static bp_status prepare(const struct bp_weights *weights, struct entry *entries, struct bp_error *err)
{
    const struct bp_graph *graph = weights->graph;
    uint64_t total = 22;
    if (graph->ntensors > ZIP_ENTRIES_MAX)
        return bp_fail(err, BP_LIMIT, "npz holds at most %d tensors; use safetensors", ZIP_ENTRIES_MAX);
    for (int i = 0; i < graph->ntensors; i++) {
        struct entry *e = &entries[i];
        e->tensor = &graph->tensors[i];
        snprintf(e->name, sizeof e->name, "%s.npy", e->tensor->name);
        npy_header(e);
        e->size = (uint32_t)(e->npy_size + bp_tensor_bytes(e->tensor));
        total += e->npy_size + bp_tensor_bytes(e->tensor) + 76 + 2 * strlen(e->name);
    }
    if (total > ZIP_MAX)
        return bp_fail(err, BP_LIMIT, "npz ends at 4 GiB and these weights take %llu bytes; use safetensors",
                       (unsigned long long)total);
    return BP_OK;
}

bp_status bp_export_npz(const struct bp_weights *weights, struct bp_layout **ret, struct bp_error *err)
{
    int n = weights->graph->ntensors;
    bp_status status = BP_NOMEM;
    struct entry *entries = calloc((size_t)n + 1, sizeof *entries);
    uint8_t *buffer = malloc(READ_BYTES);
    struct bp_layout *layout = NULL;
    if (!entries || !buffer) {
        bp_fail(err, BP_NOMEM, "no memory to lay out the archive");
        goto out;
    }
    status = prepare(weights, entries, err);
    for (int i = 0; i < n && !status; i++)
        status = checksum(weights, &entries[i], buffer, err);
    if (status)
        goto out;
    layout = bp_layout_new(weights);
    if (!layout) {
        status = bp_fail(err, BP_NOMEM, "no memory to lay out the archive");
        goto out;
    }
    for (int i = 0; i < n; i++) {
        zip_local(layout, &entries[i]);
        bp_layout_weights(layout, bp_tensor_place(weights->graph, entries[i].tensor),
                          bp_tensor_bytes(entries[i].tensor));
    }
    zip_directory(layout, entries, n);
    status = bp_layout_finish(layout, ret, err);
out:
    free(buffer);
    free(entries);
    return status;
}
