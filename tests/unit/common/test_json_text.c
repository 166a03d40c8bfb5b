/* JSON as text: what is written here is what Jansson would read back, and what it would have written itself. */
#include "json_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

/* Without reals Jansson's compact text is ours too. */
static void assert_as_jansson(json_t *json)
{
    char *ours = bp_json_text(json), *theirs = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
    assert_non_null(ours);
    assert_string_equal(ours, theirs);
    json_t *back = json_loads(ours, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    assert_true(json_equal(json, back));
    json_decref(back);
    free(ours);
    free(theirs);
    json_decref(json);
}

static void test_strings(void **state)
{
    static const char *const texts[] = {
        "",     "plain", "a\"b",     "back\\slash",        "/path",        "tab\t.",           "\x01",
        "\x1f", "\x7f",  "\xc2\x80", "Gr\xc3\xb6\xc3\x9f", "\xe2\x80\xa8", "\xf0\x9f\xa6\x8a", "line\nend\r"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_as_jansson(json_string(texts[i]));
        assert_as_jansson(json_pack("{s:s}", texts[i], texts[i]));
    }
    assert_as_jansson(json_stringn("a\0b", 3));
}

static void test_values(void **state)
{
    (void)state;
    assert_as_jansson(json_pack("[b,b,n,i,i,[],{},{s:[{}],s:n}]", 1, 0, 0, -1, "a", "b"));
    assert_as_jansson(json_integer(INT64_MAX));
    assert_as_jansson(json_integer(INT64_MIN));
    assert_null(bp_json_text(NULL));
    json_t *reals = json_pack("[f,f,f,f]", 0.1, 3.0, 1e300, -2.5e-7);
    char *text = bp_json_text(reals);
    assert_string_equal(text, "[0.1,3.0,1e+300,-2.5e-07]");
    free(text);
    json_decref(reals);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_strings), cmocka_unit_test(test_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
