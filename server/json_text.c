/* json_text.c: arrays, objects and reals are written here; strings and the rest by Jansson. Recursion is as deep as
 * the value, and every value in the daemon is either made by it or was checked for depth when it came in. */
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
    if (n >= o->capacity - o->size) {
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
        json_t *name = json_string(key);
        int failed =
            !name || (!first && put(",", 1, o)) || put_value(name, o) || put(":", 1, o) || put_value(value, o);
        json_decref(name);
        if (failed)
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
    case JSON_REAL:
        return put_real(json_real_value(json), o);
    default:
        return json_dump_callback(json, put, o, JSON_ENCODE_ANY | JSON_COMPACT);
    }
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
