/* fields.c: how names are matched, and the rules for strings in the field table.
 *
 * A name is matched exactly, or through an alias: a listed one, or another spelling of it. Spellings differ in case,
 * '_', '-' and blanks, and in the prefix of a framework ("nn.Linear"). Whoever uses one is told which name was read.
 *
 * Threads: pure functions.
 */
#include "jobs/fields.h"

#include <string.h>

#define N(array) (sizeof(array) / sizeof((array)[0]))

bool bp_field_read_only(const char *name)
{
    static const char *const names[] = {
        "id",          "object",   "status",   "state",          "owner",    "created_at",      "started_at",
        "finished_at", "error",    "progress", "queue_position", "restarts", "stop_reason",     "parent",
        "checkpoints", "warnings", "engine",   "version",        "seq",      "numerics_version"};
    for (size_t i = 0; i < N(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* --- matching ---------------------------------------------------------------------------------------------------- */
/* Skips a framework's prefix ("torch.nn.Linear"). */
static const char *without_framework(const char *word)
{
    static const char *const frameworks[] = {"nn.", "torch.", "optim.", "keras.", "tf.", "flax.", "F."};
    const char *dot = strrchr(word, '.');
    for (size_t i = 0; dot && i < N(frameworks); i++)
        if (strncmp(word, frameworks[i], strlen(frameworks[i])) == 0)
            return dot + 1;
    return word;
}

static bool is_blank(char c)
{
    return c == '_' || c == '-' || c == ' ';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Whether a word has the letters and digits of the first `length` bytes of a name. */
static bool same_letters(const char *word, const char *name, size_t length)
{
    const char *end = name + length;
    for (;;) {
        while (is_blank(*word))
            word++;
        while (name < end && is_blank(*name))
            name++;
        if (name == end || !*word)
            return name == end && !*word;
        if (lower(*word++) != lower(*name++))
            return false;
    }
}

/* Whether a word without its prefix is another spelling of a name, or of an alias. */
static bool spells(const char *word, const char *name, const char *aliases)
{
    if (word[strspn(word, "_- ")] == 0)
        return false;
    if (same_letters(word, name, strlen(name)))
        return true;
    for (const char *p = aliases; p && *p;) {
        size_t length = strcspn(p, " ");
        if (same_letters(word, p, length))
            return true;
        p += length;
        p += strspn(p, " ");
    }
    return false;
}

enum bp_match bp_field_match(const char *word, const char *name, const char *aliases)
{
    if (strcmp(word, name) == 0)
        return BP_MATCH_EXACT;
    return spells(without_framework(word), name, aliases) ? BP_MATCH_ALIAS : BP_MATCH_NONE;
}

const struct bp_kind *bp_family_find(const struct bp_family *family, const char *word, enum bp_match *ret_match)
{
    for (size_t i = 0; i < family->n; i++)
        if (strcmp(word, family->kinds[i].name) == 0) {
            *ret_match = BP_MATCH_EXACT;
            return &family->kinds[i];
        }
    word = without_framework(word);
    for (size_t i = 0; i < family->n; i++)
        if (spells(word, family->kinds[i].name, family->kinds[i].aliases)) {
            *ret_match = BP_MATCH_ALIAS;
            return &family->kinds[i];
        }
    return NULL;
}

const struct bp_field *bp_object_find(const struct bp_object *object, const char *word, enum bp_match *ret_match)
{
    for (size_t i = 0; i < object->n; i++) /* nearly every word is a name as it stands */
        if (strcmp(word, object->fields[i].name) == 0) {
            *ret_match = BP_MATCH_EXACT;
            return &object->fields[i];
        }
    word = without_framework(word);
    for (size_t i = 0; i < object->n; i++)
        if (spells(word, object->fields[i].name, object->fields[i].aliases)) {
            *ret_match = BP_MATCH_ALIAS;
            return &object->fields[i];
        }
    return NULL;
}

/* --- rules for strings ------------------------------------------------------------------------------------------- */
/* UTF-8 of U+200E/F, U+202A to U+202E and U+2066 to U+2069 reorders the text around it on a screen, which lets a
 * name pretend to be another; U+0080 to U+009F are control characters too. */
static bool hidden(const unsigned char *p)
{
    if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
        return true;
    if (p[0] == 0xe2 && p[1] == 0x80)
        return p[2] == 0x8e || p[2] == 0x8f || (p[2] >= 0xaa && p[2] <= 0xae);
    return p[0] == 0xe2 && p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9;
}

const char *bp_text_printable(const char *value)
{
    for (const unsigned char *p = (const unsigned char *)value; *p; p++)
        if (*p < 0x20 || *p == 0x7f || hidden(p))
            return "must not have control characters";
    return NULL;
}

const char *bp_text_label(const char *value)
{
    if (value[strcspn(value, "/\\<>\"&")])
        return "must not have any of / \\ < > \" &";
    return bp_text_printable(value);
}

static bool only(const char *value, const char *extra, bool upper)
{
    for (; *value; value++)
        if (!(*value >= 'a' && *value <= 'z') && !(*value >= '0' && *value <= '9') &&
            !(upper && *value >= 'A' && *value <= 'Z') && !strchr(extra, *value))
            return false;
    return true;
}

const char *bp_text_dataset(const char *value)
{
    if (!only(value, "._-", false) || strchr("._-", value[0]))
        return "must be lower-case letters, digits, '.', '_' and '-', and begin with a letter or digit";
    return NULL;
}

const char *bp_text_layer(const char *value)
{
    if (!only(value, "_-", true) || value[0] == '-' || (value[0] >= '0' && value[0] <= '9'))
        return "must be letters, digits, '_' and '-', and begin with a letter";
    return strcmp(value, "input") == 0 ? "must not be \"input\": that is the input itself" : NULL;
}

const char *bp_text_tag(const char *value)
{
    if (!value[0])
        return "must not be empty";
    return only(value, "._-", true) ? NULL : "must be letters, digits, '.', '_' and '-'";
}
