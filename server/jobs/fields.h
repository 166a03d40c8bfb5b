/* fields.h: the field table of the job spec: one truth for what may be written and what it means.
 *
 * Every object of a spec is a list of fields; a field says its name, aliases, type, range, default and help in one
 * row. Things that come in kinds (layers, activations, optimizers, …) are families: a kind is chosen by its name and
 * brings fields of its own. The validator (spec_check.c), the capabilities reply (capabilities.c) and the JSON Schema
 * (schema.c) are loops over these tables and know no field by name.
 *
 * The table holds the whole language. What this version does not build yet carries BP_LATER: it is known, checked
 * and then refused, never ignored.
 *
 * Threads: constant.
 */
#ifndef BP_JOBS_FIELDS_H
#define BP_JOBS_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

enum bp_value {
    BP_VALUE_BOOL,
    BP_VALUE_INT,    /* min, max: range */
    BP_VALUE_REAL,   /* min, max: range; integers are taken too, and written back as reals */
    BP_VALUE_STRING, /* min, max: length in bytes; text: further rules */
    BP_VALUE_CHOICE, /* the name of a kind of `family` */
    BP_VALUE_TYPED,  /* an object with a tag naming a kind of `family`, or the name alone */
    BP_VALUE_OBJECT, /* of `object` */
    BP_VALUE_LIST,   /* of `item`; min, max: length */
    BP_VALUE_MAP,    /* free keys, values of `item`; max: entries; text: rules for the keys */
    BP_VALUE_EXTENT, /* an integer for all axes, or a list of one for each of `axes`; or one of `words` */
    BP_VALUE_ANY
};

enum {
    BP_NULLABLE = 1,  /* null is a value of its own (or the same as leaving it out, without a default) */
    BP_REQUIRED = 2,  /* must be there */
    BP_LATER = 4,     /* known, not built in this version: only the default is accepted */
    BP_OPEN_MIN = 8,  /* the minimum itself is out of range */
    BP_OPEN_MAX = 16, /* the maximum itself is out of range */
    BP_AUTO = 32,     /* the word "auto" is accepted instead of a number */
    BP_SINGLE = 64,   /* LIST: one value alone is a list of one; STRING: a list of one is that value */
    BP_SWITCH = 128,  /* OBJECT: true is {}, false is null */
    BP_UNIQUE = 256,  /* LIST: no value twice */
    BP_MANY = 512,    /* STRING: or a list of several */
    BP_RISING = 1024  /* LIST: each number larger than the one before */
};

struct bp_family;
struct bp_object;

struct bp_field {
    const char *name;
    enum bp_value value;
    unsigned flags;
    double min, max;
    const char *initial; /* the default as JSON text; NULL: left out unless it is inferred */
    const char *aliases; /* separated by spaces; spelling variants (case, '_', '-') need none */
    const struct bp_family *family;
    const struct bp_object *object;
    const struct bp_field *item;
    const char *(*text)(const char *value); /* what is wrong with a string, or NULL */
    const char *also;                       /* OBJECT: its short form, in words */
    const char *words;                      /* EXTENT: words accepted instead, separated by spaces */
    int axes;                               /* EXTENT: how long a list is */
    const char *help;
};

struct bp_object {
    const struct bp_field *fields;
    size_t n;
};

struct bp_kind {
    const char *name;
    const char *aliases;
    unsigned flags; /* BP_LATER */
    struct bp_object own;
    const char *refused; /* why it can never be used, and what to use instead; NULL for a usable one */
    const char *help;
};

struct bp_family {
    const char *what;   /* "layer", "activation", … for messages */
    const char *plural; /* "layers": its name in the capabilities reply */
    const char *tag;    /* the member that names the kind: "type" */
    bool object;        /* always written as an object; else a kind without parameters is its name alone */
    const struct bp_kind *kinds;
    size_t n;
    struct bp_object common; /* fields that every kind has */
};

extern const struct bp_object bp_spec_fields; /* a whole spec */
extern const struct bp_family bp_layers, bp_activations, bp_initializers, bp_losses, bp_optimizers, bp_schedules,
    bp_metrics;

/* Members that the server writes and a client cannot: id, status, … */
bool bp_field_read_only(const char *name);

/* How `word` names something called `name` with these aliases: exactly, by an alias or another spelling, or not. */
enum bp_match { BP_MATCH_NONE, BP_MATCH_ALIAS, BP_MATCH_EXACT };
enum bp_match bp_field_match(const char *word, const char *name, const char *aliases);

/* The kind or field called `word`, the exact name winning over aliases; NULL when there is none. */
const struct bp_kind *bp_family_find(const struct bp_family *family, const char *word, enum bp_match *ret_match);
const struct bp_field *bp_object_find(const struct bp_object *object, const char *word, enum bp_match *ret_match);

/* Rules for strings, used by the table. */
const char *bp_text_printable(const char *value); /* no control or direction characters */
const char *bp_text_label(const char *value);     /* printable, and none of / \ < > " & */
const char *bp_text_dataset(const char *value);   /* [a-z0-9][a-z0-9._-]* */
const char *bp_text_layer(const char *value);     /* [A-Za-z_][A-Za-z0-9_-]*, not "input" */
const char *bp_text_tag(const char *value);       /* [A-Za-z0-9._-]+ */

#define BP_LAYER_NAME_MAX 48           /* leaves room for what tensors and hidden nodes append */
#define BP_LAYERS_MAX 1000             /* a layer takes up to three nodes of the graph's 4096 */
#define BP_LAYERS_ALL 2002             /* with those that are added: a flatten layer for each, and the output */
#define BP_HEADS_MAX 64                /* targets with an output layer each */
#define BP_UNITS_MAX 1e6               /* more is a slip of the keyboard: memory is checked besides */
#define BP_EPOCHS_MAX 1e8              /* tiny networks run thousands of epochs a second */
#define BP_BATCH_MAX 1048576           /* rows of a batch */
#define BP_SEED_MAX 9007199254740991.0 /* 2^53 - 1: every JSON reader keeps it exact */

#endif
