/* The CSV reader, and how delimiter and header are found out. */
#include "data/help.h"

#include "data/csv.h"

/* Reads text and writes it down as rows of <field> ... / */
static bp_status render(const char *text, size_t size, char delimiter, char *dst, size_t room, struct bp_error *err)
{
    struct bp_stream *in = NULL;
    struct bp_csv csv = {0};
    bool row;
    size_t used = 0;
    bp_status status;
    dst[0] = 0;
    assert_int_equal(bp_stream_memory(text, size, &in, err), BP_OK);
    assert_int_equal(bp_csv_init(&csv, in, delimiter, err), BP_OK);
    while ((status = bp_csv_next(&csv, &row, err)) == BP_OK && row) {
        for (int i = 0; i < csv.nfields; i++)
            used += (size_t)snprintf(dst + used, room - used, "<%.*s>", (int)csv.fields[i].size, csv.fields[i].text);
        used += (size_t)snprintf(dst + used, room - used, "@%d/", (int)csv.line);
    }
    bp_csv_done(&csv);
    bp_stream_close(in);
    return status;
}

static void reads_rows(void **state)
{
    static const char *const cases[][2] = {
        {"a,b\n1,2\n", "<a><b>@1/<1><2>@2/"},
        {"a,b\r\n1,2\r\n", "<a><b>@1/<1><2>@2/"},
        {"a,b\r1,2\r", "<a><b>@1/<1><2>@2/"},
        {"a,b\n1,2", "<a><b>@1/<1><2>@2/"},
        {"\xef\xbb\xbf"
         "a\n1\n",
         "<a>@1/<1>@2/"},
        {"a\n\n\n1\n\n", "<a>@1/<1>@4/"},
        {"\"a\",\"b,c\"\n", "<a><b,c>@1/"},
        {"\"a\"\"b\"\n", "<a\"b>@1/"},
        {"\"\"\"\"\n", "<\">@1/"},
        {"\"x\ny\r\nz\",2\n3,4\n", "<x\ny\r\nz><2>@1/<3><4>@4/"},
        {"\"a\"  ,b\n", "<a><b>@1/"},
        {"5\",6\"\n", "<5\"><6\">@1/"},
        {",\n", "<><>@1/"},
        {"\"\"\n", "<>@1/"},
        {"a,", "<a><>@1/"},
        {"\xc3\xa9,\xe2\x82\xac,\xf0\x9f\x98\x80\n", "<\xc3\xa9><\xe2\x82\xac><\xf0\x9f\x98\x80>@1/"},
        {"", ""},
        {"\n\r\n", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        struct bp_error err;
        assert_int_equal(render(cases[i][0], strlen(cases[i][0]), ',', text, sizeof text, &err), BP_OK);
        assert_string_equal(text, cases[i][1]);
    }
}

static void names_faults(void **state)
{
    static const struct {
        const char *text, *code, *says;
    } cases[] = {{"a\n1\n\"2\n3\n", "unclosed_quote", "line 3"}, {"a,\"b\n\nc", "unclosed_quote", "line 1, column 2"},
                 {"a\n\"1\"2\n", "text_after_quote", "line 2"},  {"a\n\xe9t\xe9\n", "not_utf8", "line 2: byte 0xe9"},
                 {"\xc0\x80\n", "not_utf8", "line 1"},           {"\xed\xa0\x80\n", "not_utf8", "line 1"},
                 {"\xf5\x80\x80\x80\n", "not_utf8", "line 1"},   {"a\xc3", "not_utf8", "line 1"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        struct bp_error err;
        assert_int_equal(render(cases[i].text, strlen(cases[i].text), ',', text, sizeof text, &err), BP_INVALID);
        assert_string_equal(err.where, cases[i].code);
        if (!strstr(err.message, cases[i].says))
            fail_msg("'%s' does not say '%s'", err.message, cases[i].says);
    }
    char text[64];
    struct bp_error err;
    assert_int_equal(render("a\n1\0002\n", 6, ',', text, sizeof text, &err), BP_INVALID);
    assert_non_null(strstr(err.message, "zero byte"));
}

/* Fields that lie across blocks, rows larger than a block, and the limits. */
static void handles_blocks(void **state)
{
    size_t size = 3u << 20;
    char *text = malloc(size + 64), out[64];
    struct bp_stream *in;
    struct bp_csv csv;
    struct bp_error err;
    bool row;
    (void)state;
    for (size_t i = 0; i < size; i++)
        text[i] = i % 700000 == 699999 ? ',' : 'a' + (char)(i % 26);
    strcpy(text + size, "\nx,\"q\"\"\"\n");
    assert_int_equal(bp_stream_memory(text, size + 10, &in, &err), BP_OK);
    assert_int_equal(bp_csv_init(&csv, in, ',', &err), BP_OK);
    assert_int_equal(bp_csv_next(&csv, &row, &err), BP_OK);
    assert_true(row);
    assert_int_equal(csv.nfields, 5);
    assert_int_equal(csv.fields[1].size, 699999);
    assert_memory_equal(csv.fields[1].text, text + 700000, 699999);
    assert_int_equal(bp_csv_next(&csv, &row, &err), BP_OK);
    assert_int_equal(csv.fields[1].size, 2);
    bp_csv_done(&csv);
    bp_stream_close(in);

    memset(text, 'a', size);
    assert_int_equal(render(text, size, ',', out, sizeof out, &err), BP_LIMIT);
    assert_string_equal(err.where, "field_too_long");
    text[0] = '"';
    assert_int_equal(render(text, size, ',', out, sizeof out, &err), BP_INVALID);
    assert_string_equal(err.where, "unclosed_quote");
    memset(text, ',', size);
    assert_int_equal(render(text, size, ',', out, sizeof out, &err), BP_LIMIT);
    assert_string_equal(err.where, "too_many_columns");
    free(text);
}

/* Appends a field to *text as it stands in a file, and to *plain as it is meant, ended by a zero byte. */
static void write_field(char **text, char **plain, bool first, bool may_quote)
{
    static const char inside[] = ",,\n\r\n\"\"abc09 ";
    static const char outside[] = "abcdefghij0123456789.\xc3\xa9";
    bool quoted = may_quote && any(4) == 0;
    uint32_t n = any(200) ? any(12) : 3000 + any(6000);
    if (quoted)
        *(*text)++ = '"';
    if (first && n == 0 && !quoted)
        n = 1; /* a row of nothing is none */
    for (uint32_t i = 0; i < n; i++) {
        char c = quoted ? inside[any(sizeof inside - 1)] : outside[any(sizeof outside - 3)];
        if (!quoted && i > 0 && any(50) == 0)
            c = '"'; /* an ordinary character there */
        if (quoted && c == '"')
            *(*text)++ = '"';
        *(*text)++ = *(*plain)++ = c;
    }
    if (quoted)
        *(*text)++ = '"';
    *(*plain)++ = 0;
}

/* Long stretches without quotes, rows with them, rows of thousands of fields, all kinds of line ends, at all places of the
 * blocks and of the lists of stops. */
static void reads_what_was_written(void **state)
{
    enum { SIZE = 6 << 20, ROOM = SIZE + (1 << 20) };
    char *text = malloc(ROOM), *plain = malloc(ROOM), *at = text, *meant = plain;
    int *nfields = malloc(SIZE * sizeof *nfields), nrows = 0;
    (void)state;
    while (at - text < SIZE) {
        bool calm = any(300) != 0; /* for a stretch of rows */
        for (uint32_t rows = 1 + any(calm ? 500 : 20); rows > 0 && at - text < SIZE; rows--) {
            int n = any(100) ? 1 + (int)any(30) : 1 + (int)any(3000);
            for (int i = 0; i < n; i++) {
                write_field(&at, &meant, n == 1, !calm);
                *at++ = ',';
            }
            nfields[nrows++] = n;
            at--;
            at = stpcpy(at, ((const char *[]){"\n", "\r\n", "\r", "\n\n"})[any(4)]);
        }
    }
    struct bp_stream *in;
    struct bp_csv csv;
    struct bp_error err;
    bool row;
    assert_int_equal(bp_stream_memory(text, (size_t)(at - text), &in, &err), BP_OK);
    assert_int_equal(bp_csv_init(&csv, in, ',', &err), BP_OK);
    meant = plain;
    for (int r = 0; r < nrows; r++) {
        assert_int_equal(bp_csv_next(&csv, &row, &err), BP_OK);
        assert_true(row && csv.nfields == nfields[r]);
        for (int i = 0; i < csv.nfields; i++) {
            assert_int_equal(csv.fields[i].size, strlen(meant));
            assert_memory_equal(csv.fields[i].text, meant, csv.fields[i].size);
            meant += csv.fields[i].size + 1;
        }
    }
    assert_int_equal(bp_csv_next(&csv, &row, &err), BP_OK);
    assert_false(row);
    bp_csv_done(&csv);
    bp_stream_close(in);
    free(nfields);
    free(plain);
    free(text);
}

static void finds_the_dialect(void **state)
{
    static const struct {
        const char *text;
        char delimiter;
        int header;
        const char *code;
    } cases[] = {
        {"a,b\n1,2\n", ',', 1, NULL},
        {"a;b\n1;2\n", ';', 1, NULL},
        {"a\tb\n1\t2\n", '\t', 1, NULL},
        {"a|b\n1|2\n", '|', 1, NULL},
        {"1,2\n3,4\n", ',', 0, NULL},
        {"1\n2\n", ',', 0, NULL},
        {"x\n1\n2\n", ',', 1, NULL},
        {"a;b\n1,5;2\n2,5;3\n", ';', 1, NULL},
        {"a;b\n1,5;2,5\n2,5;3,5\n", 0, 0, "ambiguous_header"}, /* a decimal comma makes text */
        {"1,5;2,5\n3,5;4,5\n", 0, 0, "ambiguous_delimiter"},
        {"text\nhello, world\nyes\n", 0, 0, "ambiguous_delimiter"},
        {"a,b,c\n1,2,3\n1,2\n", ',', 1, NULL}, /* ragged: the import says where */
        {"\"a;b\",c\n\"1;2\",3\n", ',', 1, NULL},
        {"name,2019\nx,1\ny,2\n", ',', 0, NULL},
        {"x,1990\n1,2\n", 0, 0, "ambiguous_header"},
        {"p,e\np,x\ne,e\n", ',', 0, NULL},
        {"class,cap\np,x\ne,x\np,y\n", ',', 1, NULL},
        {"a,b\nc,d\n", 0, 0, "ambiguous_header"},
        {"a,b\n", ',', 1, NULL},
        {"", 0, 0, "empty_dataset"},
        {"a,b1,23,4", 0, 0, "newlines_gone"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bp_stream *in;
        struct bp_csv_dialect d;
        struct bp_error err = {0};
        assert_int_equal(bp_stream_memory(cases[i].text, strlen(cases[i].text), &in, &err), BP_OK);
        bp_status status = bp_csv_sniff(in, 0, -1, &d, &err);
        bp_stream_close(in);
        if (cases[i].code ? status != BP_INVALID || strcmp(err.where, cases[i].code) != 0
                          : status != BP_OK || d.delimiter != cases[i].delimiter || d.header != cases[i].header)
            fail_msg("'%s': status %d [%s] %s", cases[i].text, (int)status, err.where, err.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(reads_rows), cmocka_unit_test(names_faults),
                                       cmocka_unit_test(handles_blocks), cmocka_unit_test(reads_what_was_written),
                                       cmocka_unit_test(finds_the_dialect)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
