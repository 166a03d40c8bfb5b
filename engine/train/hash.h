/* hash.h: a 64-bit hash over words, to notice damage and mix-ups.
 *
 * Each word is mixed in by steps that can be undone (xor, multiplication by an odd number, xor of a shift), so two
 * inputs that differ in one word only never have the same hash. It is no defence against anyone who means harm.
 *
 * Threads: pure functions.
 */
#ifndef BP_TRAIN_HASH_H
#define BP_TRAIN_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BP_HASH_START UINT64_C(0x9e3779b97f4a7c15)

static inline uint64_t bp_hash_word(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
    return hash ^ (hash >> 32);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are read as they lie in memory: little-endian");

/* Bytes as little-endian words, the last one filled up with zeros, and their number. */
static inline uint64_t bp_hash_bytes(uint64_t hash, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t word;
    size_t i = 0;

    for (; n - i >= sizeof word; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        hash = bp_hash_word(hash, word);
    }
    word = 0;
    memcpy(&word, p + i, n - i);
    return bp_hash_word(bp_hash_word(hash, word), n);
}

#endif
