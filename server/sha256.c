/* sha256.c: see sha256.h. */
#include "sha256.h"

#include <stdbool.h>

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>

static const uint32_t round_constants[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/* The instructions keep the state as (a, b, e, f) and (c, d, g, h), and do two rounds each. Four words of the message's
 * schedule are in a register; four such registers are enough, each word being made of those 2, 7, 15 and 16 before it. */
__attribute__((target("sha,sse4.1"))) static void compress(uint32_t state[8], const uint8_t *p, size_t blocks)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i dcba = _mm_loadu_si128((const __m128i *)(const void *)state);
    __m128i hgfe = _mm_loadu_si128((const __m128i *)(const void *)(state + 4));
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xb1), efgh = _mm_shuffle_epi32(hgfe, 0x1b);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
    for (; blocks > 0; blocks--, p += SHA256_BLOCK_SIZE) {
        __m128i abef_before = abef, cdgh_before = cdgh, w[4];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i < 4) {
                w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i)), big_endian);
            } else {
                __m128i sum = _mm_sha256msg1_epu32(w[i & 3], w[(i + 1) & 3]);
                sum = _mm_add_epi32(sum, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
                w[i & 3] = _mm_sha256msg2_epu32(sum, w[(i + 3) & 3]);
            }
            __m128i k = _mm_load_si128((const __m128i *)(const void *)(round_constants + 4 * i));
            k = _mm_add_epi32(k, w[i & 3]);
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, k);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(k, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static bool has_instructions(void)
{
    unsigned a, b, c, d, c1;
    return __get_cpuid(1, &a, &b, &c1, &d) && (c1 & bit_SSE4_1) && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           (b & (1u << 29));
}

static size_t compress_blocks(struct sha256_ctx *ctx, size_t size, const uint8_t *bytes)
{
    static _Atomic int known; /* 0: not asked yet, 1: no, 2: yes */
    if (!known)
        known = has_instructions() ? 2 : 1;
    size_t blocks = known == 2 ? size / SHA256_BLOCK_SIZE : 0;
    if (blocks)
        compress(ctx->state, bytes, blocks);
    ctx->count += blocks;
    return blocks * SHA256_BLOCK_SIZE;
}
#else
static size_t compress_blocks(struct sha256_ctx *ctx, size_t size, const uint8_t *bytes)
{
    (void)ctx, (void)size, (void)bytes;
    return 0;
}
#endif

void bp_sha256_update(struct sha256_ctx *ctx, size_t size, const uint8_t *bytes)
{
    size_t head = ctx->index ? SHA256_BLOCK_SIZE - ctx->index : 0;
    head = head < size ? head : size;
    if (head)
        sha256_update(ctx, head, bytes);
    size_t done = head + compress_blocks(ctx, size - head, bytes + head);
    if (done < size)
        sha256_update(ctx, size - done, bytes + done);
}
