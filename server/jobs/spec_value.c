/* spec_value.c: the validator's judgement of single values: numbers, strings, and names of kinds.
 *
 * Numbers are never guessed from strings, and a real is not an integer even where it is whole: 10.0 may well be a
 * mistake for 1.0. A name that is not known is told the nearest one and what there is.
 *
 * Threads: pure, apart from the work it is given.
 */
#include "jobs/spec_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A number with as many digits as it needs; a real that is whole keeps its point, being no integer. */
static void number_word(double value, bool real, char *text, size_t size)
{
    int n = 0;
    if (fabs(value) < 1e16 && value == rint(value))
        n = snprintf(text, size, "%.0f", value);
    else
        for (int digits = 1; digits <= 17 && (n == 0 || strtod(text, NULL) != value); digits++)
            n = snprintf(text, size, "%.*g", digits, value);
    if (real && (size_t)n + 2 < size && !strpbrk(text, ".e"))
        memcpy(text + n, ".0", 3);
}

/* What a value is, in words. */
static const char *describe(const json_t *v, char *text, size_t size)
{
    static const char *const words[] = {
        [JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "an integer", [JSON_REAL] = "a real",    [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",        [JSON_NULL] = "null"};
    if (json_is_integer(v))
        snprintf(text, size, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        number_word(json_real_value(v), true, text, size);
    else if (json_is_string(v))
        snprintf(text, size, "the string \"%.60s\"", json_string_value(v));
    else
        snprintf(text, size, "%s", words[json_typeof(v)]);
    return text;
}

json_t *spec_wrong_type(struct spec_work *w, const json_t *v, const char *wanted)
{
    char got[100];
    spec_fault(w, NULL, "wrong_type", NULL, NULL, "must be %s, got %s", wanted, describe(v, got, sizeof got));
    return NULL;
}

/* Whether a number is in the range of its field; says what the range is when it is not. */
static bool in_range(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    double x = json_number_value(v);
    bool low = x < f->min || ((f->flags & BP_OPEN_MIN) && x <= f->min);
    bool high = x > f->max || ((f->flags & BP_OPEN_MAX) && x >= f->max);
    if (!low && !high)
        return true;
    char bound[40], got[100];
    number_word(low ? f->min : f->max, false, bound, sizeof bound);
    const char *words = low                        ? (f->flags & BP_OPEN_MIN ? "above" : "at least")
                        : (f->flags & BP_OPEN_MAX) ? "below"
                                                   : "at most";
    spec_fault(w, NULL, "out_of_range", NULL, NULL, "must be %s %s, got %s", words, bound,
               describe(v, got, sizeof got));
    return false;
}

json_t *spec_check_number(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    if ((f->flags & BP_AUTO) && json_is_string(v) && strcmp(json_string_value(v), "auto") == 0)
        return json_string("auto");
    if (f->value == BP_VALUE_INT) {
        double x = json_is_real(v) ? json_real_value(v) : 0.5;
        if (x == rint(x) && !in_range(w, f, v)) /* 1e9 units: not only the point is wrong */
            return NULL;
        if (!json_is_integer(v))
            return spec_wrong_type(w, v,
                                   x == rint(x)         ? "an integer, written without a point or an exponent"
                                   : f->flags & BP_AUTO ? "an integer or \"auto\""
                                                        : "an integer");
        return in_range(w, f, v) ? json_integer(json_integer_value(v)) : NULL;
    }
    if (!json_is_number(v))
        return spec_wrong_type(w, v, "a number");
    return in_range(w, f, v) ? json_real(json_number_value(v)) : NULL;
}

/* Whether a word is one of some, separated by spaces. */
static bool is_word(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *p = words; p && *p; p += strspn(p, " ")) {
        size_t n = strcspn(p, " ");
        if (n == length && strncmp(p, word, n) == 0)
            return true;
        p += n;
    }
    return false;
}

/* A list of one is that number: there is one way to write each extent in a resolved spec but for equal sides. */
json_t *spec_check_extent(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    char wanted[120];
    if (json_is_string(v) && is_word(f->words, json_string_value(v)))
        return json_string(json_string_value(v));
    if (json_is_integer(v))
        return in_range(w, f, v) ? json_integer(json_integer_value(v)) : NULL;
    if (!json_is_array(v) || json_array_size(v) < 1 || json_array_size(v) > (size_t)f->axes) {
        snprintf(wanted, sizeof wanted, "an integer%s%s%s", f->axes > 1 ? " or a list of two (down, across)" : "",
                 f->words ? ", or one of the words: " : "", f->words ? f->words : "");
        return spec_wrong_type(w, v, wanted);
    }
    json_t *out = json_array();
    bool bad = false;
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *item = json_array_get(v, i);
        size_t mark = spec_enter_index(w, i);
        if (!json_is_integer(item))
            spec_wrong_type(w, item, "an integer");
        bad |= !json_is_integer(item) || !in_range(w, f, item);
        if (json_array_append_new(out, json_integer(json_integer_value(item))))
            w->nomem = true;
        spec_leave(w, mark);
    }
    json_t *one = !bad && json_array_size(out) == 1 ? json_integer(json_integer_value(json_array_get(out, 0))) : NULL;
    if (!bad && !one)
        return out;
    json_decref(out);
    return one;
}

static json_t *check_strings(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    json_t *out = json_array();
    bool bad = false;
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *entry = json_array_get(v, i);
        size_t mark = spec_enter_index(w, i);
        json_t *item = json_is_string(entry) ? spec_check_string(w, f, entry) : spec_wrong_type(w, entry, "a string");
        bad |= !item;
        if (item && json_array_append_new(out, item))
            w->nomem = true;
        spec_leave(w, mark);
    }
    if (!bad)
        return out;
    json_decref(out);
    return NULL;
}

json_t *spec_check_string(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    if ((f->flags & BP_SINGLE) && json_is_array(v)) {
        if (json_array_size(v) > 1 && (f->flags & BP_MANY))
            return check_strings(w, f, v);
        if (json_array_size(v) == 0)
            return spec_wrong_type(w, v, f->flags & BP_MANY ? "a name, or a list of names" : "a string");
        if (json_array_size(v) != 1) {
            spec_fault(w, NULL, "not_supported", NULL, NULL,
                       "several values are not supported by this version, got %zu", json_array_size(v));
            return NULL;
        }
        size_t mark = spec_enter_index(w, 0);
        json_t *out = spec_check_string(w, f, json_array_get(v, 0));
        spec_leave(w, mark);
        return out;
    }
    if (!json_is_string(v))
        return spec_wrong_type(w, v, "a string");
    const char *text = json_string_value(v);
    size_t length = json_string_length(v);
    if (length < f->min || length > f->max) {
        spec_fault(w, NULL, "bad_length", NULL, NULL, "must be %g to %g bytes long, got %zu", f->min, f->max, length);
        return NULL;
    }
    const char *wrong = strlen(text) != length ? "must not have a NUL character" : f->text ? f->text(text) : NULL;
    if (wrong) {
        spec_fault(w, NULL, "bad_value", NULL, NULL, "%s", wrong);
        return NULL;
    }
    return json_stringn(text, length);
}

/* --- names -------------------------------------------------------------------------------------------------------- */
void spec_words_add(struct spec_words *words, const char *name, const char *aliases)
{
    const size_t room = sizeof words->word / sizeof words->word[0];
    if (words->n < room) {
        words->word[words->n] = words->name[words->n] = name;
        words->n++;
    }
    for (const char *p = aliases; p && *p;) {
        size_t length = strcspn(p, " ");
        if (words->n < room && length < sizeof words->text - words->used) {
            char *word = words->text + words->used;
            memcpy(word, p, length);
            word[length] = 0;
            words->used += length + 1;
            words->word[words->n] = word;
            words->name[words->n++] = name;
        }
        p += length;
        p += strspn(p, " ");
    }
}

const char *spec_words_nearest(const struct spec_words *words, const char *written)
{
    const char *near = bp_nearest(written, words->word, words->n);
    for (size_t i = 0; near && i < words->n; i++)
        if (words->word[i] == near)
            return words->name[i];
    return NULL;
}

json_t *spec_kinds(const struct bp_family *family)
{
    json_t *names = json_array();
    for (size_t i = 0; i < family->n; i++)
        if (!(family->kinds[i].flags & BP_LATER) && !family->kinds[i].refused)
            json_array_append_new(names, json_string(family->kinds[i].name));
    return names;
}

static void list_names(const json_t *names, char *text, size_t size)
{
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < json_array_size(names) && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "",
                                 json_string_value(json_array_get(names, i)));
}

/* The kind that a word names, or NULL with the fault reported: unknown, not built yet, or never usable. */
const struct bp_kind *spec_check_kind(struct spec_work *w, const struct bp_family *family, const char *word)
{
    enum bp_match match = BP_MATCH_NONE;
    const struct bp_kind *kind = bp_family_find(family, word, &match);
    if (kind && !kind->refused && !(kind->flags & BP_LATER)) {
        if (match == BP_MATCH_ALIAS)
            spec_warn(w, NULL, "alias", "\"%.60s\" is read as \"%s\"", word, kind->name);
        return kind;
    }
    json_t *allowed = spec_kinds(family);
    char list[300];
    list_names(allowed, list, sizeof list);
    if (!kind) {
        struct spec_words words = {0};
        for (size_t i = 0; i < family->n; i++)
            spec_words_add(&words, family->kinds[i].name, family->kinds[i].aliases);
        const char *near = spec_words_nearest(&words, word);
        spec_fault(w, NULL, "unknown_name", near, allowed, "unknown %s \"%.60s\"%s%s%s; it can be %s", family->what,
                   word, near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "", list);
    } else if (kind->refused) {
        spec_fault(w, NULL, "not_differentiable", NULL, allowed, "%s \"%s\" cannot be trained: %s", family->what,
                   kind->name, kind->refused);
    } else {
        spec_fault(w, NULL, "not_supported", NULL, allowed,
                   "%s \"%s\" is part of the spec, but this version does not build it yet; it has %s", family->what,
                   kind->name, list);
    }
    return NULL;
}

json_t *spec_check_choice(struct spec_work *w, const struct bp_field *f, const json_t *v)
{
    if (!json_is_string(v))
        return spec_wrong_type(w, v, "a name (a string)");
    const struct bp_kind *kind = spec_check_kind(w, f->family, json_string_value(v));
    return kind ? json_string(kind->name) : NULL;
}
