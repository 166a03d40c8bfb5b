/* number.c: correctly rounded decimal to binary conversion, fast where files of numbers need it.
 *
 * A decimal is w * 10^e with w an integer, at most 16 digits of which are read as two words of eight, the point taken out
 * by shifting. Three ways from there, the first that applies:
 *   1. w <= 2^53 and |e| <= 22: both are exact doubles, so one division or product rounds once (Clinger).
 *   2. w < 2^64 and |e| <= 27: 5^27 fits in 64 bits, so the product or the quotient with remainder is computed exactly
 *      in 128 bits and rounded once to 53.
 *   3. the rest (20 digits and more, far exponents): strtod in the C locale.
 */
#include "data/number.h"

#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS_MAX 19 /* decimal digits that always fit in 64 bits */
#define POWER_MAX 27  /* 5^27 < 2^63 */

static const double powers_of_10[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                      1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

static const uint64_t powers_of_5[POWER_MAX + 1] = {1u,
                                                    5u,
                                                    25u,
                                                    125u,
                                                    625u,
                                                    3125u,
                                                    15625u,
                                                    78125u,
                                                    390625u,
                                                    1953125u,
                                                    9765625u,
                                                    48828125u,
                                                    244140625u,
                                                    1220703125u,
                                                    6103515625u,
                                                    30517578125u,
                                                    152587890625u,
                                                    762939453125u,
                                                    3814697265625u,
                                                    19073486328125u,
                                                    95367431640625u,
                                                    476837158203125u,
                                                    2384185791015625u,
                                                    11920928955078125u,
                                                    59604644775390625u,
                                                    298023223876953125u,
                                                    1490116119384765625u,
                                                    7450580596923828125u};

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

static void make_c_locale(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

/* q * 2^exponent, q with its top bit at 62 or 63 and `sticky` saying that the true value is a little more; rounded to
 * nearest, ties to even. The exponents of this file stay far from the ends of the double's range. */
static double round_64(uint64_t q, bool sticky, int exponent)
{
    int drop = 11 - __builtin_clzll(q); /* bits below the 53 that stay: 10 or 11 */
    uint64_t kept = q >> drop, rest = q & ((UINT64_C(1) << drop) - 1), half = UINT64_C(1) << (drop - 1);
    if (rest > half || (rest == half && (sticky || (kept & 1))))
        kept++;
    return ldexp((double)kept, exponent + drop);
}

/* w * 10^e exactly, rounded once; w > 0, |e| <= POWER_MAX. 10^e = 5^e * 2^e. */
static double scale_exact(uint64_t w, int e)
{
    uint64_t five = powers_of_5[e < 0 ? -e : e];
    int lead = __builtin_clzll(w), lead5 = __builtin_clzll(five);
    if (e < 0) {
        /* both with the top bit set: the quotient of W * 2^63 by F lies in (2^62, 2^64) */
        unsigned __int128 n = (unsigned __int128)(w << lead) << 63;
        uint64_t f = five << lead5, q = (uint64_t)(n / f);
        return round_64(q, (unsigned __int128)q * f != n, e - 63 - lead + lead5);
    }
    unsigned __int128 product = (unsigned __int128)(w << lead) * (five << lead5); /* >= 2^126 */
    return round_64((uint64_t)(product >> 64), (uint64_t)product != 0, e + 64 - lead - lead5);
}

static bool parse_slow(const char *text, size_t size, double *ret)
{
    pthread_once(&c_locale_once, make_c_locale);
    char *end;
    double v = strtod_l(text, &end, c_locale);
    if (end != text + size || !isfinite(v))
        return false;
    *ret = v;
    return true;
}

/* Eight digits in a word, the first in its lowest byte: whether they are all digits, and their value. */
static inline bool eight_digits_of(uint64_t v, uint64_t *ret)
{
    if (((v & UINT64_C(0xf0f0f0f0f0f0f0f0)) |
         (((v + UINT64_C(0x0606060606060606)) & UINT64_C(0xf0f0f0f0f0f0f0f0)) >> 4)) != UINT64_C(0x3333333333333333))
        return false;
    v = (v & UINT64_C(0x0f0f0f0f0f0f0f0f)) * 2561 >> 8;
    v = (v & UINT64_C(0x00ff00ff00ff00ff)) * 6553601 >> 16;
    *ret = (v & UINT64_C(0x0000ffff0000ffff)) * UINT64_C(42949672960001) >> 32;
    return true;
}

static inline uint64_t load_8(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

/* The lowest byte of a word that is '.', as its number; 8 when there is none. */
static inline unsigned find_point(uint64_t v)
{
    uint64_t x = v ^ UINT64_C(0x2e2e2e2e2e2e2e2e);
    uint64_t zero = (x - UINT64_C(0x0101010101010101)) & ~x & UINT64_C(0x8080808080808080);
    return zero ? (unsigned)__builtin_ctzll(zero) >> 3 : 8;
}

/* 1 to 8 characters: moved to the upper end of a word, the point taken out, '0' put before them. */
static inline bool short_8(const char *text, unsigned n, uint64_t *ret_w, unsigned *ret_decimals)
{
    uint64_t v = load_8(text) << (64 - 8 * n);
    unsigned point = find_point(v);
    *ret_decimals = 0;
    if (point < 8) {
        uint64_t low = v & ((UINT64_C(1) << (8 * point)) - 1), high = v & (~UINT64_C(255) << (8 * point));
        v = high | low << 8;
        *ret_decimals = 7 - point;
        if (--n == 0)
            return false;
    }
    v |= UINT64_C(0x3030303030303030) >> (8 * (n - 1)) >> 8;
    return eight_digits_of(v, ret_w);
}

/* 9 to 16 characters: the same in two words. */
static inline bool short_16(const char *text, unsigned n, uint64_t *ret_w, unsigned *ret_decimals)
{
    unsigned __int128 v = ((unsigned __int128)load_8(text + 8) << 64 | load_8(text)) << (128 - 8 * n);
    unsigned point = find_point((uint64_t)v);
    if (point == 8)
        point += find_point((uint64_t)(v >> 64));
    *ret_decimals = 0;
    if (point < 16) {
        unsigned __int128 low = v & (((unsigned __int128)1 << (8 * point)) - 1);
        unsigned __int128 high = v & (~(unsigned __int128)255 << (8 * point));
        v = high | low << 8;
        *ret_decimals = 15 - point;
        n--;
    }
    uint64_t first, last; /* n is 8 to 16 here, so the '0's before them all stand in the lower word */
    uint64_t lower = (uint64_t)v | (n < 16 ? UINT64_C(0x3030303030303030) >> (8 * (n - 8)) : 0);
    if (!eight_digits_of(lower, &first) || !eight_digits_of((uint64_t)(v >> 64), &last))
        return false;
    *ret_w = first * 100000000 + last;
    return true;
}

bool bp_number_short(const char *text, size_t size, double *ret)
{
    bool negative = *text == '-', sign = negative || *text == '+';
    size_t n = size - sign;
    uint64_t w;
    unsigned decimals;
    text += sign;
    if (n - 1 >= 16 || size == 0) /* 0 too */
        return false;
    if (n <= 8 ? !short_8(text, (unsigned)n, &w, &decimals) : !short_16(text, (unsigned)n, &w, &decimals))
        return false;
    if (w > UINT64_C(1) << 53)
        return false;
    double v = (double)(int64_t)w;
    if (decimals)
        v /= powers_of_10[decimals];
    *ret = negative ? -v : v;
    return true;
}

static const char *scan_digits(const char *p, const char *end, uint64_t *w)
{
    uint64_t v = *w, eight;
    while (end - p >= 8 && eight_digits_of(load_8(p), &eight)) {
        v = v * 100000000 + eight;
        p += 8;
    }
    for (unsigned d; p < end && (d = (unsigned)(unsigned char)*p - '0') < 10; p++)
        v = v * 10 + d;
    *w = v;
    return p;
}

/* "e-05" at p: adds to *exponent. NULL when there is no digit. Huge exponents are cut: they are out of range anyway. */
static const char *scan_exponent(const char *p, const char *end, int64_t *exponent)
{
    bool negative = false;
    p++;
    if (p < end && (*p == '-' || *p == '+'))
        negative = *p++ == '-';
    const char *first = p;
    int64_t e = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        if (e < 100000)
            e = e * 10 + (*p - '0');
    *exponent += negative ? -e : e;
    return p == first ? NULL : p;
}

bool bp_number_parse(const char *text, size_t size, double *ret)
{
    const char *p = text, *end = text + size;
    bool negative = false;
    if (p < end && (*p == '-' || *p == '+'))
        negative = *p++ == '-';

    uint64_t w = 0;
    int64_t exponent = 0;
    const char *first = p;
    p = scan_digits(p, end, &w);
    ptrdiff_t digits = p - first;
    if (p < end && *p == '.') {
        const char *point = ++p;
        p = scan_digits(p, end, &w);
        exponent = point - p;
        digits += p - point;
    }
    if (digits == 0)
        return false;
    if (p < end && (*p == 'e' || *p == 'E') && !(p = scan_exponent(p, end, &exponent)))
        return false;
    if (p != end)
        return false;

    double v;
    if (digits > DIGITS_MAX)
        return parse_slow(text, size, ret);
    if (w == 0)
        v = 0;
    else if (w <= UINT64_C(1) << 53 && exponent >= -22 && exponent <= 22)
        v = exponent < 0 ? (double)w / powers_of_10[-exponent] : (double)w * powers_of_10[exponent];
    else if (exponent >= -POWER_MAX && exponent <= POWER_MAX)
        v = scale_exact(w, (int)exponent);
    else
        return parse_slow(text, size, ret);
    *ret = negative ? -v : v;
    return true;
}

bool bp_text_missing(const char *text, size_t size)
{
    static const struct {
        const char *text;
        size_t size;
    } words[] = {{"NA", 2}, {"NaN", 3}, {"nan", 3}, {"null", 4}, {"NULL", 4}, {"?", 1}};
    if (size == 0)
        return true;
    if (size > 4 || (*text != 'N' && *text != 'n' && *text != '?'))
        return false;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (words[i].size == size && memcmp(words[i].text, text, size) == 0)
            return true;
    return false;
}

void bp_text_trim(const char **text, size_t *size)
{
    const char *p = *text, *end = p + *size;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *text = p;
    *size = (size_t)(end - p);
}
