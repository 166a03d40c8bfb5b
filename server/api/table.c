/* table.c: CSV as a table for people: columns side by side, numbers to the right.
 *
 * It reads what the handlers have written, quotes as RFC 4180 has them. A cell is one line, and cut where it is long.
 */
#include "api/common.h"
#include "json_text.h"

#include <stdlib.h>
#include <string.h>

#define CELL_MAX 40    /* characters of a cell */
#define COLUMNS_MAX 64 /* wider tables are not for reading: the rest is left out */

struct cell {
    char text[4 * CELL_MAX + 4]; /* UTF-8, and an ellipsis */
    int width;                   /* characters */
    bool last;                   /* of its line */
};

/* Reads a cell from *at on, and what ends it. */
static void read_cell(const char **at, struct cell *ret)
{
    const char *p = *at;
    bool quoted = *p == '"';
    size_t n = 0;
    ret->width = 0;
    for (p += quoted; *p && (quoted || !strchr(",\r\n", *p)); p++) {
        if (quoted && *p == '"' && *++p != '"')
            break;
        bool first = ((unsigned char)*p & 0xc0) != 0x80; /* of a character */
        if (first)
            ret->width++;
        if (ret->width > CELL_MAX || n + 5 > sizeof ret->text)
            continue;
        if (first && ret->width == CELL_MAX)
            n += (size_t)(stpcpy(ret->text + n, "…") - (ret->text + n));
        else if (ret->width < CELL_MAX)
            ret->text[n++] = (unsigned char)*p < ' ' ? ' ' : *p;
    }
    ret->text[n] = 0;
    ret->width = ret->width < CELL_MAX ? ret->width : CELL_MAX;
    ret->last = *p != ',';
    if (*p == ',')
        p++;
    else
        p += strspn(p, "\r\n");
    *at = p;
}

static bool is_number(const char *text)
{
    char *end;
    strtod(text, &end);
    return *text && !*end;
}

void bp_text_align(struct bp_text *csv)
{
    struct bp_text out = {.failed = csv->failed};
    struct cell cell;
    int width[COLUMNS_MAX] = {0};
    bool number[COLUMNS_MAX], head = true;
    const char *at = csv->data ? csv->data : "";
    int column = 0;
    memset(number, true, sizeof number);
    for (; *at; column = cell.last ? 0 : column + 1) {
        read_cell(&at, &cell);
        if (column >= COLUMNS_MAX)
            continue;
        width[column] = cell.width > width[column] ? cell.width : width[column];
        number[column] &= head || !*cell.text || is_number(cell.text);
        head &= !cell.last;
    }
    column = 0;
    for (at = csv->data ? csv->data : ""; *at && !out.failed; column = cell.last ? 0 : column + 1) {
        read_cell(&at, &cell);
        int pad = column < COLUMNS_MAX ? width[column] - cell.width : 0;
        bool right = column < COLUMNS_MAX && number[column];
        if (column < COLUMNS_MAX)
            bp_text_add(&out, "%s%*s%s%*s", column ? "  " : "", right ? pad : 0, "", cell.text,
                        right || cell.last ? 0 : pad, "");
        if (cell.last)
            bp_text_add(&out, "\n");
    }
    free(csv->data);
    *csv = out;
}

void bp_text_cell(struct bp_text *text, bool first, const char *cell)
{
    bool quote = cell[strcspn(cell, ",\"\r\n")] != 0;
    bp_text_add(text, "%s%s", first ? "" : ",", quote ? "\"" : "");
    if (!quote)
        bp_text_add(text, "%s", cell);
    for (const char *c = cell; quote && *c; c++)
        bp_text_add(text, "%s%c", *c == '"' ? "\"" : "", *c);
    bp_text_add(text, "%s", quote ? "\"" : "");
}

void bp_text_objects(struct bp_text *text, const json_t *list)
{
    size_t i;
    json_t *object, *value;
    const char *name;
    bool first = true;
    json_object_foreach(json_array_get(list, 0), name, value) {
        bp_text_cell(text, first, name);
        first = false;
    }
    json_array_foreach(list, i, object) {
        bp_text_add(text, "\n");
        first = true;
        json_object_foreach(object, name, value) {
            char *other = json_is_string(value) || json_is_null(value) ? NULL : bp_json_text(value);
            bp_text_cell(text, first, json_is_string(value) ? json_string_value(value) : other ? other : "");
            free(other);
            first = false;
        }
    }
    if (text->size)
        bp_text_add(text, "\n");
}
