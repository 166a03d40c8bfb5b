/* json_text.c: all is written here but strings that need an escape, which are left to Jansson: it sets up tables anew for
 * each value that it is given. Recursion is as deep as the value, and every value in the daemon is either made by it or
 * was checked for depth when it came in. */
#include "json_text.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct out {
    char *data;
    size_t size, capacity;
};

static int put(const char *bytes, size_t n, void *arg)
{
    struct out *o = arg;
    if (!o->data || n >= o->capacity - o->size) {
        size_t capacity = 2 * (o->size + n) + 256;
        char *data = realloc(o->data, capacity);
        if (!data)
            return -1;
        o->data = data;
        o->capacity = capacity;
    }
    memcpy(o->data + o->size, bytes, n);
    o->size += n;
    return 0;
}

char *bp_number_text(double value, char ret[BP_NUMBER_TEXT])
{
    if (!isfinite(value))
        return strcpy(ret, isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(ret, BP_NUMBER_TEXT, "%.*g", digits, value);
        if (strtod(ret, NULL) == value)
            break;
    }
    return ret;
}

static int put_real(double value, struct out *o)
{
    char text[BP_NUMBER_TEXT];
    bp_number_text(value, text);
    if (!strpbrk(text, ".e")) /* a real stays a real when it is read back */
        strcat(text, ".0");
    return put(text, strlen(text), o);
}

static int put_integer(json_int_t value, struct out *o)
{
    char text[BP_NUMBER_TEXT];
    int n = snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, value);
    return put(text, (size_t)n, o);
}

/* Jansson's strings are UTF-8, which JSON takes as it is: only these have an escape. */
static bool is_plain(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == '"' || text[i] == '\\')
            return false;
    return true;
}

static int put_plain(const char *text, size_t n, struct out *o)
{
    return put("\"", 1, o) || put(text, n, o) || put("\"", 1, o) ? -1 : 0;
}

static int put_string(const json_t *json, struct out *o)
{
    const char *text = json_string_value(json);
    size_t n = json_string_length(json);
    return is_plain(text, n) ? put_plain(text, n, o)
                             : json_dump_callback(json, put, o, JSON_ENCODE_ANY | JSON_COMPACT);
}

static int put_key(const char *key, struct out *o)
{
    size_t n = strlen(key);
    if (is_plain(key, n))
        return put_plain(key, n, o);
    json_t *name = json_string(key);
    int failed = name ? put_string(name, o) : -1;
    json_decref(name);
    return failed;
}

static int put_value(const json_t *json, struct out *o);

static int put_array(const json_t *json, struct out *o)
{
    if (put("[", 1, o))
        return -1;
    for (size_t i = 0; i < json_array_size(json); i++)
        if ((i && put(",", 1, o)) || put_value(json_array_get(json, i), o))
            return -1;
    return put("]", 1, o);
}

static int put_object(const json_t *json, struct out *o)
{
    json_t *object = (json_t *)json; /* Jansson's iterators take no const */
    const char *key;
    json_t *value;
    bool first = true;
    if (put("{", 1, o))
        return -1;
    json_object_foreach(object, key, value) {
        if ((!first && put(",", 1, o)) || put_key(key, o) || put(":", 1, o) || put_value(value, o))
            return -1;
        first = false;
    }
    return put("}", 1, o);
}

static int put_value(const json_t *json, struct out *o)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return put_object(json, o);
    case JSON_ARRAY:
        return put_array(json, o);
    case JSON_STRING:
        return put_string(json, o);
    case JSON_INTEGER:
        return put_integer(json_integer_value(json), o);
    case JSON_REAL:
        return put_real(json_real_value(json), o);
    case JSON_TRUE:
        return put("true", 4, o);
    case JSON_FALSE:
        return put("false", 5, o);
    case JSON_NULL:
        return put("null", 4, o);
    }
    return -1;
}

char *bp_json_text(const json_t *json)
{
    struct out o = {0};
    if (!json || put_value(json, &o) || put("", 1, &o)) {
        free(o.data);
        return NULL;
    }
    return o.data;
}

json_t *bp_json_number(double value)
{
    char text[BP_NUMBER_TEXT];
    return isfinite(value) ? json_real(value) : json_string(bp_number_text(value, text));
}

char *bp_float_text(float value, char ret[BP_NUMBER_TEXT])
{
    if (!isfinite(value))
        return bp_number_text((double)value, ret);
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(ret, BP_NUMBER_TEXT, "%.*g", digits, (double)value);
        if (strtof(ret, NULL) == value)
            break;
    }
    return ret;
}

json_t *bp_json_float(float value)
{
    char text[BP_NUMBER_TEXT];
    bp_float_text(value, text);
    return isfinite(value) ? json_real(strtod(text, NULL)) : json_string(text);
}
