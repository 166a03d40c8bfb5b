/* layout.c: an export as pieces of prepared bytes and of weights (see weights.h and layout.h).
 *
 * Pieces are kept in the order of the file; reading finds the first one by bisection, so that a range request deep in
 * a file of thousands of tensors costs no more than its own bytes.
 */
#include "export/layout.h"

#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

struct piece {
    uint64_t start;  /* in the file */
    uint64_t size;   /* bytes */
    uint64_t offset; /* in the prepared bytes, or in the weights */
    bool prepared;
};

struct bp_layout {
    bp_weights_read *read;
    void *ctx;
    struct piece *pieces;
    size_t npieces, pieces_capacity;
    uint8_t *bytes;
    size_t nbytes, bytes_capacity;
    uint64_t size;
    bool out_of_memory;
};

struct bp_layout *bp_layout_new(const struct bp_weights *weights)
{
    struct bp_layout *layout = calloc(1, sizeof *layout);
    if (layout) {
        layout->read = weights->read;
        layout->ctx = weights->ctx;
    }
    return layout;
}

void bp_layout_free(struct bp_layout *layout)
{
    if (!layout)
        return;
    free(layout->pieces);
    free(layout->bytes);
    free(layout);
}

int64_t bp_layout_size(const struct bp_layout *layout)
{
    return (int64_t)layout->size;
}

/* A growing array with room for `more` further elements of `each` bytes: array itself, or a longer one in its place;
 * NULL, with array untouched, when there is no memory. */
static void *reserve(void *array, size_t *capacity, size_t used, size_t more, size_t each)
{
    if (array && more <= *capacity - used)
        return array;
    if (more > SIZE_MAX / 2 / each - used)
        return NULL;
    size_t wanted = *capacity ? *capacity : 64;
    while (wanted - used < more)
        wanted *= 2;
    void *grown = realloc(array, wanted * each);
    if (grown)
        *capacity = wanted;
    return grown;
}

static void add_piece(struct bp_layout *layout, bool prepared, uint64_t offset, uint64_t size)
{
    struct piece *last = layout->npieces ? &layout->pieces[layout->npieces - 1] : NULL;
    if (last && prepared && last->prepared) { /* prepared bytes lie one after the other: one piece */
        last->size += size;
    } else {
        struct piece *grown =
            reserve(layout->pieces, &layout->pieces_capacity, layout->npieces, 1, sizeof *layout->pieces);
        if (!grown) {
            layout->out_of_memory = true;
            return;
        }
        layout->pieces = grown;
        layout->pieces[layout->npieces++] = (struct piece){layout->size, size, offset, prepared};
    }
    layout->size += size;
}

void bp_layout_bytes(struct bp_layout *layout, const void *bytes, size_t n)
{
    if (n == 0 || layout->out_of_memory)
        return;
    uint8_t *grown = reserve(layout->bytes, &layout->bytes_capacity, layout->nbytes, n, 1);
    if (!grown) {
        layout->out_of_memory = true;
        return;
    }
    layout->bytes = grown;
    memcpy(layout->bytes + layout->nbytes, bytes, n);
    add_piece(layout, true, layout->nbytes, n);
    layout->nbytes += n;
}

static void add_number(struct bp_layout *layout, uint64_t value, size_t n)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    bp_layout_bytes(layout, bytes, n);
}

void bp_layout_u16(struct bp_layout *layout, unsigned value)
{
    add_number(layout, value, 2);
}

void bp_layout_u32(struct bp_layout *layout, uint32_t value)
{
    add_number(layout, value, 4);
}

void bp_layout_u64(struct bp_layout *layout, uint64_t value)
{
    add_number(layout, value, 8);
}

void bp_layout_weights(struct bp_layout *layout, uint64_t offset, uint64_t n)
{
    if (n > 0 && !layout->out_of_memory)
        add_piece(layout, false, offset, n);
}

bp_status bp_layout_finish(struct bp_layout *layout, struct bp_layout **ret, struct bp_error *err)
{
    if (layout->out_of_memory) {
        bp_layout_free(layout);
        return bp_fail(err, BP_NOMEM, "no memory to lay out the weights");
    }
    *ret = layout;
    return BP_OK;
}

/* The piece that holds offset, which is below the layout's size. */
static const struct piece *find_piece(const struct bp_layout *layout, uint64_t offset)
{
    size_t low = 0, high = layout->npieces - 1;
    while (low < high) {
        size_t middle = low + (high - low + 1) / 2;
        if (layout->pieces[middle].start <= offset)
            low = middle;
        else
            high = middle - 1;
    }
    return &layout->pieces[low];
}

bp_status bp_layout_read(const struct bp_layout *layout, int64_t offset, uint8_t *buffer, size_t max, size_t *ret,
                         struct bp_error *err)
{
    if (offset < 0 || (uint64_t)offset > layout->size)
        return bp_fail(err, BP_INVALID, "there is no byte %lld in an export of %llu bytes", (long long)offset,
                       (unsigned long long)layout->size);
    uint64_t position = (uint64_t)offset;
    size_t done = 0;
    while (done < max && position < layout->size) {
        const struct piece *piece = find_piece(layout, position);
        uint64_t within = position - piece->start;
        size_t n = max - done;
        if (n > piece->size - within)
            n = (size_t)(piece->size - within);
        if (piece->prepared) {
            memcpy(buffer + done, layout->bytes + piece->offset + within, n);
        } else {
            bp_status status = layout->read(layout->ctx, piece->offset + within, buffer + done, n, err);
            if (status)
                return status;
        }
        done += n;
        position += n;
    }
    *ret = done;
    return BP_OK;
}

void bp_layout_identity(const struct bp_layout *layout, const char *weights_hash, char ret[65])
{
    struct sha256_ctx sha;
    uint8_t digest[SHA256_DIGEST_SIZE];
    sha256_init(&sha);
    sha256_update(&sha, strlen(weights_hash), (const uint8_t *)weights_hash);
    for (size_t i = 0; i < layout->npieces; i++) {
        const struct piece *piece = &layout->pieces[i];
        uint64_t place[3] = {piece->prepared, piece->offset, piece->size};
        uint8_t text[sizeof place];
        for (size_t b = 0; b < sizeof text; b++)
            text[b] = (uint8_t)(place[b / 8] >> (8 * (b % 8)));
        sha256_update(&sha, sizeof text, text);
    }
    if (layout->nbytes)
        sha256_update(&sha, layout->nbytes, layout->bytes);
    sha256_digest(&sha, sizeof digest, digest);
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < sizeof digest; i++) {
        ret[2 * i] = hex[digest[i] >> 4];
        ret[2 * i + 1] = hex[digest[i] & 15];
    }
    ret[64] = '\0';
}

uint64_t bp_tensor_place(const struct bp_graph *graph, const struct bp_tensor *tensor)
{
    uint64_t element = tensor->statistic ? (uint64_t)graph->nparams + tensor->offset : tensor->offset;
    return element * sizeof(float);
}

static int compare_names(const void *a, const void *b)
{
    const struct bp_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

const struct bp_tensor **bp_tensors_by_name(const struct bp_graph *graph)
{
    const struct bp_tensor **sorted = malloc((size_t)graph->ntensors * sizeof(void *) + 1);
    if (!sorted)
        return NULL;
    for (int i = 0; i < graph->ntensors; i++)
        sorted[i] = &graph->tensors[i];
    qsort(sorted, (size_t)graph->ntensors, sizeof(void *), compare_names);
    return sorted;
}
