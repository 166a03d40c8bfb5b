/* Against nettle's own way, for all lengths and divisions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sha256.h"

static void as_nettle(void **state)
{
    static uint8_t bytes[2000];
    uint32_t seed = 1;
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)((seed = seed * 1103515245u + 12345u) >> 16);
    for (size_t size = 0; size < 700; size++)
        for (size_t cut = 0; cut <= size; cut += 1 + cut / 3) {
            struct sha256_ctx a, b;
            uint8_t x[SHA256_DIGEST_SIZE], y[SHA256_DIGEST_SIZE];
            sha256_init(&a);
            sha256_init(&b);
            sha256_update(&a, size, bytes + size);
            bp_sha256_update(&b, cut, bytes + size);
            bp_sha256_update(&b, size - cut, bytes + size + cut);
            sha256_digest(&a, sizeof x, x);
            sha256_digest(&b, sizeof y, y);
            assert_memory_equal(x, y, sizeof x);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_nettle)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
