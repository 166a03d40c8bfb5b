/* store_id.c: ids that sort by the time they were made, and the time of day.
 *
 * A ULID is 48 bits of milliseconds and 80 random bits, 26 characters of Crockford's base 32 (no i, l, o, u). Within
 * one millisecond, and when the clock goes back, the random part of the last id is counted up by one: ids of one
 * process always ascend.
 */
#include "store/store_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define RANDOM_BYTES 10

static pthread_mutex_t id_mutex = PTHREAD_MUTEX_INITIALIZER;
static int64_t id_ms = -1;              /* of the last id */
static uint8_t id_random[RANDOM_BYTES]; /* of the last id, big-endian */

int64_t bp_store_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Ids need to differ, they are not secrets: without getrandom, clocks and the process id make them differ. */
static void random_bytes(uint8_t *ret, size_t n)
{
    if (getrandom(ret, n, 0) == (ssize_t)n)
        return;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t x = (uint64_t)t.tv_nsec ^ ((uint64_t)t.tv_sec << 30) ^ ((uint64_t)getpid() << 44);
    for (size_t i = 0; i < n; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        ret[i] = (uint8_t)(x >> 56);
    }
}

static void next(int64_t *ret_ms, uint8_t ret_random[RANDOM_BYTES])
{
    pthread_mutex_lock(&id_mutex);
    int64_t now = bp_store_now();
    bool counted = false;
    if (now <= id_ms) {
        for (int i = RANDOM_BYTES - 1; i >= 0 && !counted; i--)
            counted = ++id_random[i] != 0;
        now = id_ms;
    }
    if (!counted) { /* a new millisecond, or all 80 bits ran over */
        id_ms = now > id_ms ? now : id_ms + 1;
        random_bytes(id_random, RANDOM_BYTES);
    }
    *ret_ms = id_ms;
    memcpy(ret_random, id_random, RANDOM_BYTES);
    pthread_mutex_unlock(&id_mutex);
}

void bp_store_new_id(const char *prefix, char ret[BP_ID_SIZE])
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    int64_t ms;
    uint8_t random[RANDOM_BYTES];
    int at = snprintf(ret, BP_ID_SIZE, "%s_", prefix);
    assert(at > 0 && at + 26 < BP_ID_SIZE);
    next(&ms, random);
    for (int i = 0; i < 10; i++) /* 50 bits for the 48 of the time */
        ret[at + i] = digits[(ms >> (45 - 5 * i)) & 31];
    uint64_t bits = 0;
    int have = 0;
    at += 10;
    for (int i = 0; i < RANDOM_BYTES; i++) {
        bits = bits << 8 | random[i];
        for (have += 8; have >= 5; have -= 5)
            ret[at++] = digits[(bits >> (have - 5)) & 31];
    }
    ret[at] = 0;
}
