/* Text to number: the grammar, correct rounding against strtod, and back. */
#include "data/help.h"

#include "data/number.h"
#include "json_text.h"

static bool parse(const char *text, double *ret)
{
    return bp_number_parse(text, strlen(text), ret);
}

static void accepts_numbers(void **state)
{
    static const struct {
        const char *text;
        double value;
    } cases[] = {{"0", 0},
                 {"-0", -0.0},
                 {"1", 1},
                 {"+1.5", 1.5},
                 {".5", 0.5},
                 {"5.", 5},
                 {"1e3", 1000},
                 {"1E-3", 0.001},
                 {"0.1", 0.1},
                 {"123456789012345678", 123456789012345678.0},
                 {"9007199254740993", 9007199254740992.0},
                 {"1.7976931348623157e308", 1.7976931348623157e308},
                 {"4.9e-324", 4.9e-324},
                 {"1e-400", 0},
                 {"0.00000000000000000000000000000000000000000000001", 1e-47},
                 {"2.2250738585072011e-308", 2.2250738585072011e-308}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double v = 42;
        if (!parse(cases[i].text, &v) || memcmp(&v, &cases[i].value, sizeof v) != 0)
            fail_msg("%s gave %.17g", cases[i].text, v);
    }
}

static void refuses_the_rest(void **state)
{
    static const char *const cases[] = {"",         "-",     "+",   ".",    "e5",    "1e",     "1e+",  "inf", "nan",
                                        "Infinity", "0x10",  "1_0", "1,5",  "1.2.3", "--1",    "1e5.", "1 2", " 1",
                                        "1 ",       "1e999", "1f",  "1.5d", "٣",     "-1e999", "1e1e1"};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double v = 42;
        if (parse(cases[i], &v))
            fail_msg("'%s' gave %.17g", cases[i], v);
        assert_true(v == 42);
    }
}

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* strtod of glibc rounds correctly: all three ways must agree with it to the last bit. */
static void rounds_correctly(void **state)
{
    uint64_t seed = 88172645463325252u;
    char text[64];
    (void)state;
    for (int i = 0; i < 300000; i++) {
        int digits = 1 + (int)(next(&seed) % 19), exponent = (int)(next(&seed) % 61) - 30;
        uint64_t w = next(&seed);
        for (int d = 19; d > digits; d--)
            w /= 10;
        if (i % 3 == 0)
            snprintf(text, sizeof text, "%llue%d", (unsigned long long)w, exponent);
        else if (i % 3 == 1)
            snprintf(text, sizeof text, "%.*g", 1 + (int)(next(&seed) % 17), ldexp((double)(w | 1), -(int)(w % 90)));
        else /* halfway between two doubles, and close to it */
            snprintf(text, sizeof text, "%llu",
                     (unsigned long long)((w >> 1 | UINT64_C(1) << 62) & ~UINT64_C(0x1ff)) | 256);
        double v, expected = strtod(text, NULL);
        if (!parse(text, &v) || memcmp(&v, &expected, sizeof v) != 0)
            fail_msg("%s gave %.17g, expected %.17g", text, v, expected);
    }
}

static void prints_the_shortest(void **state)
{
    char text[BP_NUMBER_TEXT];
    (void)state;
    assert_string_equal(bp_number_text(3, text), "3");
    assert_string_equal(bp_number_text(0.1, text), "0.1");
    assert_string_equal(bp_number_text(-1.5e300, text), "-1.5e+300");
    uint64_t seed = 1;
    for (int i = 0; i < 10000; i++) {
        double v = ldexp((double)next(&seed), (int)(next(&seed) % 200) - 100), back;
        assert_true(parse(bp_number_text(v, text), &back) && back == v);
    }
}

/* The way without a loop gives what the one with loops gives, or leaves it to that. */
static void short_numbers(void **state)
{
    static const char alphabet[] = "0123456789012345678900001234567890..-+e x";
    (void)state;
    uint64_t seed = 5, taken = 0;
    for (int i = 0; i < 400000; i++) {
        char text[40] = "";
        double fast = 0, slow = 0;
        size_t n = next(&seed) % 20, digits = i % 2 ? 22 : sizeof alphabet - 1;
        for (size_t k = 0; k < n; k++)
            text[k] = alphabet[next(&seed) % digits];
        if (!bp_number_short(text, n, &fast))
            continue;
        taken++;
        assert_true(bp_number_parse(text, n, &slow));
        assert_memory_equal(&fast, &slow, sizeof fast); /* the sign of zero too */
    }
    assert_true(taken > 100000);
    double v;
    char room[40] = "0.1234567890123456";
    assert_false(bp_number_short(room, 0, &v));
    assert_true(bp_number_short(room, 16, &v) && v == 0.12345678901234);
    assert_false(bp_number_short(room, 18, &v));
    memcpy(room, "9007199254740993", 17); /* above 2^53 */
    assert_false(bp_number_short(room, 16, &v));
}

/* All texts of up to four characters, whatever comes behind them: digits are taken by value, nothing else is. */
static void tiny_numbers(void **state)
{
    static const char alphabet[] = "0123456789.-+e ,/:x";
    enum { LETTERS = sizeof alphabet - 1 };
    (void)state;
    for (int i = 0; i < LETTERS * LETTERS * LETTERS * LETTERS; i++) {
        const char text[8] = {alphabet[i % LETTERS], alphabet[i / LETTERS % LETTERS],
                              alphabet[i / LETTERS / LETTERS % LETTERS], alphabet[i / LETTERS / LETTERS / LETTERS]};
        for (size_t size = 0; size <= 4; size++) {
            bool digits = size > 0 && size < 4 && strspn(text, "0123456789") >= size;
            double slow = -1;
            if (digits)
                assert_true(bp_number_parse(text, size, &slow));
            assert_int_equal(bp_number_tiny(text, size), (int)slow);
        }
    }
}

static void knows_missing_words(void **state)
{
    (void)state;
    static const char *const yes[] = {"", "NA", "NaN", "nan", "null", "NULL", "?"};
    static const char *const no[] = {"N", "na", "None", "0", "??", "Null", "NAN"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++)
        assert_true(bp_text_missing(yes[i], strlen(yes[i])));
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++)
        assert_false(bp_text_missing(no[i], strlen(no[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(accepts_numbers),     cmocka_unit_test(refuses_the_rest),
                                       cmocka_unit_test(rounds_correctly),    cmocka_unit_test(prints_the_shortest),
                                       cmocka_unit_test(knows_missing_words), cmocka_unit_test(short_numbers),
                                       cmocka_unit_test(tiny_numbers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
