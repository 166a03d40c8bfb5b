/* json.c: JSON from outside: scanned for its limits first, parsed second.
 *
 * The parser builds a tree by recursion and has no limits of its own that would suit us, so one pass over the bytes
 * comes before: UTF-8, no byte order mark, nesting of at most 32, a bound on values and on members of one object. It
 * does not judge the grammar; that is the parser's task. Every message says line and column, and a hint where the
 * mistake is a common one.
 *
 * Threads: any; no state.
 */
#include "http/internal.h"

#include <string.h>

struct scan {
    const char *text;
    size_t size, at;
    int depth;
    long tokens;
    long members[HTTP_JSON_DEPTH + 1];
};

struct fault {
    const char *code;
    const char *why;
};

static struct fault scan_text(struct scan *s)
{
    bool in_string = false;
    for (; s->at < s->size; s->at++) {
        char c = s->text[s->at];
        if (in_string) {
            if (c == '\\')
                s->at++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        switch (c) {
        case '"':
            in_string = true;
            break;
        case '[':
        case '{':
            if (++s->depth > HTTP_JSON_DEPTH)
                return (struct fault){"too_deep", "it is nested more than 32 levels deep"};
            s->members[s->depth] = 0;
            s->tokens++;
            break;
        case ']':
        case '}':
            s->depth -= s->depth > 0;
            break;
        case ',':
            s->tokens++;
            break;
        case ':':
            if (++s->members[s->depth] > HTTP_JSON_MEMBERS)
                return (struct fault){"too_many_members", "one object has more than 10000 members"};
            break;
        default:
            break;
        }
        if (s->tokens > HTTP_JSON_TOKENS)
            return (struct fault){"too_many_values", "it has more than 2000000 values"};
    }
    return (struct fault){NULL, NULL};
}

static void position(const char *text, size_t at, int *ret_line, int *ret_column)
{
    int line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        if (text[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)text[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    *ret_line = line;
    *ret_column = column;
}

static size_t first_bad_byte(const char *text, size_t size)
{
    size_t low = 0;
    while (low < size) {
        size_t n = 1;
        unsigned char c = (unsigned char)text[low];
        n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
        if (n > size - low || !bp_utf8_valid(text + low, n))
            return low;
        low += n;
    }
    return size;
}

static void refuse(struct bp_reply *reply, const char *what, const char *code, const char *why, int line, int column)
{
    bp_problem(reply, 400, code, "%s is not usable JSON: line %d, column %d: %s", what, line, column, why);
    bp_problem_member(reply, "line", json_integer(line));
    bp_problem_member(reply, "column", json_integer(column));
}

/* The parser names the token it stumbled over: "… near 'x'". Common mistakes get a hint in our words. */
static const struct {
    char first;
    const char *hint;
} hints[] = {
    {'\'', "strings and names take double quotes"},
    {'N', "JSON has no NaN; write the string \"NaN\" where it is allowed"},
    {'I', "JSON has no Infinity; write the string \"Infinity\" where it is allowed"},
    {'/', "JSON has no comments"},
    {'#', "JSON has no comments"},
    {'T', "write true and false in lower case"},
    {'F', "write true and false in lower case"},
    {'.', "a number begins with a digit: 0.1"},
    {'+', "a number has no plus sign"},
    {']', "a value is missing, or a comma is too many, before the bracket"},
    {'}', "a member is missing, or a comma is too many, before the brace"},
};

static const char *hint_for(const json_error_t *error)
{
    const char *near = strstr(error->text, "near '");
    for (size_t i = 0; near && i < sizeof hints / sizeof *hints; i++)
        if (near[6] == hints[i].first)
            return hints[i].hint;
    return NULL;
}

static void refuse_parse(struct bp_reply *reply, const char *what, const json_error_t *error)
{
    const char *hint = hint_for(error);
    const char *code = "invalid_json", *why = error->text;
    switch (json_error_code(error)) {
    case json_error_duplicate_key:
        code = "duplicate_key";
        hint = NULL;
        break;
    case json_error_invalid_utf8:
        code = "invalid_utf8";
        hint = NULL;
        break;
    case json_error_null_character:
    case json_error_null_byte_in_key:
        hint = "text cannot have the character NUL (\\u0000)";
        break;
    case json_error_numeric_overflow:
        hint = "a number is larger than any that can be used";
        break;
    case json_error_premature_end_of_input:
        why = "it ends too early; a bracket, brace or quote is not closed";
        hint = NULL;
        break;
    case json_error_out_of_memory:
        bp_problem(reply, 503, "out_of_memory", "out of memory; try again in a moment");
        return;
    default:
        break;
    }
    refuse(reply, what, code, hint ? hint : why, error->line, error->column > 0 ? error->column : 1);
}

static bool is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!strchr(" \t\r\n", text[i]) || !text[i])
            return false;
    return true;
}

json_t *bp_json_parse(const char *text, size_t size, const char *what, enum bp_json_want want, struct bp_reply *reply)
{
    struct scan scan = {.text = text, .size = size};
    int line, column;
    json_error_t error;
    if (is_blank(text, size)) {
        bp_problem(reply, 400, "invalid_json", "%s is empty; JSON is expected", what);
        return NULL;
    }
    size_t bad = first_bad_byte(text, size);
    if (bad < size) {
        position(text, bad, &line, &column);
        refuse(reply, what, "invalid_utf8", "a byte is not UTF-8", line, column);
        return NULL;
    }
    if (size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) {
        refuse(reply, what, "invalid_utf8", "it begins with a byte order mark; leave that out", 1, 1);
        return NULL;
    }
    struct fault fault = scan_text(&scan);
    if (fault.code) {
        position(text, scan.at, &line, &column);
        refuse(reply, what, fault.code, fault.why, line, column);
        return NULL;
    }
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!json) {
        refuse_parse(reply, what, &error);
        return NULL;
    }
    if (json_is_object(json) || (want == BP_JSON_ANY && json_is_array(json)))
        return json;
    json_decref(json);
    bp_problem(reply, 422, "invalid_type", "%s must be a JSON object%s", what,
               want == BP_JSON_ANY ? " or an array" : "");
    bp_problem_at(reply, "", "invalid_type", NULL, NULL, "must be an object%s",
                  want == BP_JSON_ANY ? " or an array" : "");
    return NULL;
}

json_t *bp_request_json(const struct bp_request *r, struct bp_reply *reply, enum bp_json_want want)
{
    size_t size;
    const char *body = bp_request_body(r, &size);
    return bp_json_parse(body, size, "the body", want, reply);
}
