/* number.h: text to number, the same on every machine and in every locale; back: json_text.h.
 *
 * A number is [+-] digits [. digits] [e [+-] digits], with a digit before or after the point. Nothing else is one:
 * no inf, no hexadecimal, no 1_000, no 1,5, and nothing too large for a double. The result is correctly rounded.
 *
 * Threads: pure functions.
 */
#ifndef BP_DATA_NUMBER_H
#define BP_DATA_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Parses text[0..size). The byte text[size] must be readable and must not go on with the number (a delimiter, a
 * newline, a quote, 0): so fields need not be copied. False, with *ret untouched, when it is not a number. */
bool bp_number_parse(const char *text, size_t size, double *ret);

/* The common numbers, of at most 16 characters behind the sign and without an exponent, without a loop: same result. False:
 * ask bp_number_parse. 17 bytes from text on must be readable, whatever the size; what they hold does not matter. */
bool bp_number_short(const char *text, size_t size, double *ret);

/* One to three digits and nothing else, as pixels, codes and counts are: their value; else -1. 4 bytes from text on must be
 * readable, whatever the size. */
static inline int bp_number_tiny(const char *text, size_t size)
{
    uint32_t v;
    if (size - 1 > 2) /* 0 too */
        return -1;
    memcpy(&v, text, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    v = v << (32 - 8 * size) | UINT32_C(0x30303030) >> (8 * size); /* '0's before them */
    if (((v & UINT32_C(0xf0f0f0f0)) | (((v + UINT32_C(0x06060606)) & UINT32_C(0xf0f0f0f0)) >> 4)) !=
        UINT32_C(0x33333333))
        return -1;
    v = (v & UINT32_C(0x0f0f0f0f)) * 2561 >> 8;
    return (int)((v & UINT32_C(0x00ff00ff)) * 6553601 >> 16);
}

/* Whether a trimmed field stands for a missing value: empty, NA, NaN, nan, null, NULL, ?. */
bool bp_text_missing(const char *text, size_t size);

/* Takes spaces and tabs off both ends. */
void bp_text_trim(const char **text, size_t *size);

#endif
