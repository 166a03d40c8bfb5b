/* seal.c: see seal.h. */
#include "data/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/base16.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEAL_BLOCK (1 << 20)

static bool stopped(const struct bp_seal *seal)
{
    const struct bp_import_options *o = seal->ingest->options;
    return atomic_load(&seal->stop) || (o->cancelled && o->cancelled(o->ctx));
}

static bp_status hash_file(struct bp_seal *seal, int part, int fd, uint8_t *block, struct bp_error *err)
{
    struct bp_write_back back = {.fd = fd};
    struct sha256_ctx sha;
    uint8_t digest[SHA256_DIGEST_SIZE];
    char *ret = seal->ingest->sha256[part];
    sha256_init(&sha);
    for (;;) {
        if (stopped(seal))
            return bp_fail(err, BP_STOPPED, "stopped while reading the data");
        ssize_t got = read(fd, block, SEAL_BLOCK);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return bp_files_fail(err, "reading the data");
        if (got == 0)
            break;
        bp_write_back(&back, (size_t)got);
        sha256_update(&sha, (size_t)got, block);
        atomic_fetch_add(&seal->hashed[part], got);
    }
    sha256_digest(&sha, sizeof digest, digest);
    base16_encode_update(ret, sizeof digest, digest);
    ret[64] = 0;
    if (stopped(seal))
        return bp_fail(err, BP_STOPPED, "stopped before syncing the data");
    return fsync(fd) == 0 ? BP_OK : bp_files_fail(err, "syncing the uploaded file");
}

static void *run(void *arg)
{
    struct bp_seal *seal = arg;
    struct bp_ingest *ingest = seal->ingest;
    uint8_t *block = malloc(SEAL_BLOCK);
    seal->status = block ? BP_OK : bp_fail(&seal->err, BP_NOMEM, "no memory to read the data");
    for (int i = 0; i < ingest->nparts && seal->status == BP_OK; i++) {
        int fd = open(ingest->parts[i].path, O_RDONLY | O_CLOEXEC);
        seal->status =
            fd < 0 ? bp_files_fail(&seal->err, "opening the data") : hash_file(seal, i, fd, block, &seal->err);
        if (fd >= 0)
            close(fd);
    }
    free(block);
    return NULL;
}

void bp_seal_begin(struct bp_seal *seal, struct bp_ingest *ingest)
{
    seal->ingest = ingest;
    ingest->hashed = seal->hashed;
    seal->begun = true;
    seal->threaded = pthread_create(&seal->thread, NULL, run, seal) == 0;
    if (seal->threaded)
        pthread_setname_np(seal->thread, "bp-seal");
}

bp_status bp_seal_end(struct bp_seal *seal, struct bp_error *err)
{
    if (seal->threaded)
        pthread_join(seal->thread, NULL);
    else
        run(seal); /* no thread was to be had */
    seal->begun = seal->threaded = false;
    if (seal->status != BP_OK && err)
        *err = seal->err;
    return seal->status;
}

void bp_seal_done(struct bp_seal *seal)
{
    atomic_store(&seal->stop, true);
    if (seal->begun)
        bp_seal_end(seal, NULL);
}
