/* random.h: random numbers as a pure function of (seed, stream, step, index).
 *
 * Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11). There is no
 * generator state: nothing to lock, to save in a checkpoint or to get out of order between threads. The same four
 * arguments give the same bits on every machine, forever.
 *
 *   key     = seed
 *   counter = index (48 bits) | step (48 bits) | stream (32 bits)
 *
 * Threads: pure functions.
 */
#ifndef BP_BASE_RANDOM_H
#define BP_BASE_RANDOM_H

#include <stdint.h>

/* The multipliers of Philox 4x32 and the steps of its key (the dropout kernels run it over lanes). */
#define BP_PHILOX_M0 0xD2511F53u
#define BP_PHILOX_M1 0xCD9E8D57u
#define BP_PHILOX_W0 0x9E3779B9u
#define BP_PHILOX_W1 0xBB67AE85u

/* What a random number is for: the high byte of the stream, so that no two uses ever share numbers. */
enum bp_stream {
    BP_STREAM_INIT = 1,    /* + tensor number: initial parameters */
    BP_STREAM_SHUFFLE = 2, /* step = epoch: the order of the training rows */
    BP_STREAM_SPLIT = 3,   /* which rows are for training, validation and test */
    BP_STREAM_DROPOUT = 4, /* + node number: dropped elements of a step */
    BP_STREAM_CHECK = 5    /* the gradient check's choice of elements and directions */
};

/* The stream of `purpose` for item number `item` (a tensor or a node, below 2^24). */
static inline uint32_t bp_stream(enum bp_stream purpose, uint32_t item)
{
    return ((uint32_t)purpose << 24) | (item & 0xffffffu);
}

/* Four random words. step and index below 2^48. */
void bp_random(uint64_t seed, uint32_t stream, uint64_t step, uint64_t index, uint32_t ret[4]);

/* The words of bp_random for the calls index, index + 1, ...: word w of call l is words[w][l]. Integers only, in the order
 * in which a compiler makes vector code of whatever instructions the including file is compiled for. */
#define BP_RANDOM_LANES 16
static inline void bp_random_lanes(uint64_t seed, uint32_t stream, uint64_t step, uint64_t index,
                                   uint32_t words[4][BP_RANDOM_LANES])
{
#ifdef __AVX512DQ__ /* products of 64 bits in a vector: call by call, all ten rounds in registers */
    for (int l = 0; l < BP_RANDOM_LANES; l++) {
        uint64_t counter = index + (uint64_t)l;
        uint64_t c0 = counter & 0xffffffff, c1 = (counter >> 32 & 0xffff) | (step >> 32 & 0xffff) << 16;
        uint64_t c2 = step & 0xffffffff, c3 = stream;
        uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
        for (int round = 0; round < 10; round++) {
            uint64_t p0 = BP_PHILOX_M0 * c0, p1 = BP_PHILOX_M1 * c2;
            c0 = (p1 >> 32) ^ c1 ^ k0;
            c1 = p1 & 0xffffffff;
            c2 = (p0 >> 32) ^ c3 ^ k1;
            c3 = p0 & 0xffffffff;
            k0 += BP_PHILOX_W0;
            k1 += BP_PHILOX_W1;
        }
        words[0][l] = (uint32_t)c0;
        words[1][l] = (uint32_t)c1;
        words[2][l] = (uint32_t)c2;
        words[3][l] = (uint32_t)c3;
    }
#else
    uint32_t *c0 = words[0], *c1 = words[1], *c2 = words[2], *c3 = words[3];
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int l = 0; l < BP_RANDOM_LANES; l++) {
        uint64_t counter = index + (uint64_t)l;
        c0[l] = (uint32_t)counter;
        c1[l] = (uint32_t)(counter >> 32 & 0xffff) | (uint32_t)(step >> 32 & 0xffff) << 16;
        c2[l] = (uint32_t)step;
        c3[l] = stream;
    }
    for (int round = 0; round < 10; round++) {
        for (int l = 0; l < BP_RANDOM_LANES; l++) {
            uint64_t p0 = (uint64_t)BP_PHILOX_M0 * c0[l], p1 = (uint64_t)BP_PHILOX_M1 * c2[l];
            c0[l] = (uint32_t)(p1 >> 32) ^ c1[l] ^ k0;
            c1[l] = (uint32_t)p1;
            c2[l] = (uint32_t)(p0 >> 32) ^ c3[l] ^ k1;
            c3[l] = (uint32_t)p0;
        }
        k0 += BP_PHILOX_W0;
        k1 += BP_PHILOX_W1;
    }
#endif
}

/* From 32 random bits: a float in [0, 1), a multiple of 2^-24. */
static inline float bp_random_unit(uint32_t bits)
{
    return (float)(bits >> 8) * 0x1p-24f;
}

/* From 64 random bits: a double in (0, 1), never 0 or 1 (an odd multiple of 2^-53). */
static inline double bp_random_unit_d(uint32_t high, uint32_t low)
{
    uint64_t bits = (((uint64_t)high << 32) | low) >> 12;
    return ((double)bits + 0.5) * 0x1p-52;
}

/* From 64 random bits: an integer in [0, n), n >= 1, by multiplication (bias below n / 2^64). */
static inline uint64_t bp_random_below(uint32_t high, uint32_t low, uint64_t n)
{
    uint64_t bits = ((uint64_t)high << 32) | low;
    return (uint64_t)(((unsigned __int128)bits * n) >> 64);
}

/* A standard normal deviate from a uniform one in (0, 1), by inversion (Wichura 1988, AS 241, PPND16). */
double bp_random_normal(double unit);

/* Fills order[0..n) with a permutation of its present entries: Fisher-Yates with words of (seed, stream, step).
 * n below 2^32. The same arguments and entries give the same order. Inline as bp_random_lanes is: the words take longer
 * than the swaps. */
static inline void bp_random_shuffle_inline(uint64_t seed, uint32_t stream, uint64_t step, uint32_t *order,
                                            uint64_t n)
{
    uint32_t words[4][BP_RANDOM_LANES];
    /* Swap i takes the words of call i / 2: the first pair when i is even, the second when it is odd. */
    for (uint64_t i = n > 0 ? n - 1 : 0; i > 0;) {
        uint64_t first = i / 2 / BP_RANDOM_LANES * BP_RANDOM_LANES;
        bp_random_lanes(seed, stream, step, first, words);
        for (; i > 0 && i >= 2 * first; i--) {
            uint64_t lane = i / 2 - first, pair = 2 * (i % 2);
            uint64_t j = bp_random_below(words[pair][lane], words[pair + 1][lane], i + 1);
            uint32_t kept = order[i];
            order[i] = order[j];
            order[j] = kept;
        }
    }
}
void bp_random_shuffle(uint64_t seed, uint32_t stream, uint64_t step, uint32_t *order, uint64_t n);

#endif
