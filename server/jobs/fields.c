/* fields.c: the field table of the objects of a spec, and how names are matched.
 *
 * A name is matched exactly, or through an alias: a listed one, or another spelling of it. Spellings differ in case,
 * '_', '-' and blanks, and in the prefix of a framework ("nn.Linear"). Whoever uses one is told which name was read.
 */
#include "jobs/fields.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define N(array) (sizeof(array) / sizeof((array)[0]))

/* --- the table --------------------------------------------------------------------------------------------------- */
static const struct bp_kind scales[] = {
    {.name = "standard", .aliases = "standardize zscore z_score", .help = "mean 0, deviation 1"},
    {.name = "minmax", .aliases = "min_max", .help = "smallest value 0, largest 1"},
    {.name = "unit", .aliases = "normalize", .help = "0 to 1 by the range of the type: pixels / 255"},
    {.name = "none", .aliases = "raw off", .help = "as they are"},
};
static const struct bp_family scale_family = {.what = "scale", .tag = "type", .kinds = scales, .n = N(scales)};
static const struct bp_kind target_scales[] = {
    {.name = "standard", .help = "mean 0, deviation 1 while training"},
    {.name = "none", .help = "as they are"},
};
static const struct bp_family target_scale_family = {
    .what = "target scale", .tag = "type", .kinds = target_scales, .n = N(target_scales)};
static const struct bp_kind tasks[] = {
    {.name = "classification", .aliases = "classify classifier", .help = "the target names a class"},
    {.name = "regression", .aliases = "regress regressor", .help = "the target is a number"},
};
static const struct bp_family task_family = {.what = "task", .tag = "type", .kinds = tasks, .n = N(tasks)};
static const struct bp_kind column_types[] = {
    {.name = "number", .aliases = "numeric float int integer real", .help = "a quantity"},
    {.name = "category", .aliases = "categorical string text enum", .help = "one of some levels"},
};
static const struct bp_family column_type_family = {
    .what = "column type", .tag = "type", .kinds = column_types, .n = N(column_types)};
static const struct bp_kind encodings[] = {
    {.name = "one_hot", .aliases = "dummy", .help = "one input per level"},
    {.name = "number", .aliases = "numeric", .help = "one input"},
};
static const struct bp_family encoding_family = {
    .what = "encoding", .tag = "type", .kinds = encodings, .n = N(encodings)};
static const struct bp_kind missing[] = {
    {.name = "mean", .aliases = "fill_with_mean", .help = "the mean of the training rows"},
    {.name = "median", .help = "the median of the training rows"},
    {.name = "constant", .aliases = "fill_with_const", .help = "the value of `fill`"},
    {.name = "drop", .aliases = "drop_row", .help = "the row is left out"},
    {.name = "error", .help = "a missing value is refused"},
};
static const struct bp_family missing_family = {
    .what = "treatment of missing values", .tag = "type", .kinds = missing, .n = N(missing)};

static const struct bp_field column_fields[] = {
    {.name = "type", .value = BP_VALUE_CHOICE, .family = &column_type_family, .help = "what the column is"},
    {.name = "encode",
     .value = BP_VALUE_CHOICE,
     .family = &encoding_family,
     .aliases = "encoding",
     .help = "how it reaches the network"},
    {.name = "missing",
     .value = BP_VALUE_CHOICE,
     .family = &missing_family,
     .aliases = "missing_value_strategy",
     .help = "what happens to missing values"},
    {.name = "fill",
     .value = BP_VALUE_ANY,
     .aliases = "fill_value",
     .help = "the number, or the level of a category, for missing: constant"},
    {.name = "scale", .value = BP_VALUE_CHOICE, .family = &scale_family, .help = "overrides the dataset's"},
};
static const struct bp_object column_object = {column_fields, N(column_fields)};
static const struct bp_field column_item = {
    .name = "column", .value = BP_VALUE_OBJECT, .object = &column_object, .help = "one column"};
static const struct bp_field column_name = {
    .name = "column", .value = BP_VALUE_STRING, .min = 1, .max = 1024, .help = "a column's name"};
static const struct bp_field extent = {
    .name = "extent", .value = BP_VALUE_INT, .min = 1, .max = 2147483647.0, .help = "an extent"};

static const struct bp_field dataset_fields[] = {
    {.name = "name",
     .value = BP_VALUE_STRING,
     .flags = BP_REQUIRED,
     .min = 1,
     .max = 64,
     .text = bp_text_dataset,
     .aliases = "ref dataset",
     .help = "an uploaded dataset"},
    {.name = "target",
     .value = BP_VALUE_STRING,
     .flags = BP_SINGLE,
     .min = 1,
     .max = 1024,
     .aliases = "label y output",
     .help = "the column to predict"},
    {.name = "task",
     .value = BP_VALUE_CHOICE,
     .family = &task_family,
     .help = "by default classification when the target is text or has few distinct integers"},
    {.name = "features",
     .value = BP_VALUE_LIST,
     .flags = BP_SINGLE | BP_UNIQUE,
     .min = 1,
     .max = 16384,
     .item = &column_name,
     .initial = "[\"*\"]",
     .aliases = "inputs x",
     .help = "the columns that are read; * is all"},
    {.name = "ignore",
     .value = BP_VALUE_LIST,
     .flags = BP_SINGLE | BP_UNIQUE,
     .max = 16384,
     .item = &column_name,
     .initial = "[]",
     .aliases = "exclude drop",
     .help = "columns left out"},
    {.name = "columns",
     .value = BP_VALUE_MAP,
     .max = 16384,
     .item = &column_item,
     .initial = "{}",
     .help = "how single columns are read"},
    {.name = "scale",
     .value = BP_VALUE_CHOICE,
     .family = &scale_family,
     .aliases = "scaling normalization",
     .help = "of number columns; standard, or unit for images of bytes"},
    {.name = "target_scale",
     .value = BP_VALUE_CHOICE,
     .family = &target_scale_family,
     .help = "of a regression target while training; standard with mse and an unbounded output; all losses, metrics "
             "and predictions are in the target's own units either way"},
    {.name = "input_shape",
     .value = BP_VALUE_LIST,
     .flags = BP_NULLABLE,
     .min = 1,
     .max = 4,
     .item = &extent,
     .help = "shape of one sample, (channels, height, width)"},
    {.name = "validation_split",
     .value = BP_VALUE_REAL,
     .flags = BP_OPEN_MAX,
     .min = 0,
     .max = 1,
     .initial = "0.2",
     .aliases = "val_split validation_fraction val_fraction",
     .help = "share of the rows for validation"},
    {.name = "test_split",
     .value = BP_VALUE_REAL,
     .flags = BP_OPEN_MAX,
     .min = 0,
     .max = 1,
     .initial = "0.0",
     .aliases = "test_fraction test_size",
     .help = "share of the rows for a final test"},
    {.name = "stratify",
     .value = BP_VALUE_BOOL,
     .aliases = "stratified",
     .help = "each part has the classes in the same proportions; true for classification"},
    {.name = "split_by",
     .value = BP_VALUE_STRING,
     .flags = BP_NULLABLE | BP_LATER,
     .min = 1,
     .max = 1024,
     .help = "a column whose groups stay together"},
    {.name = "order_by",
     .value = BP_VALUE_STRING,
     .flags = BP_NULLABLE | BP_LATER,
     .min = 1,
     .max = 1024,
     .help = "a column that orders the rows in time"},
    {.name = "window", .value = BP_VALUE_ANY, .flags = BP_NULLABLE | BP_LATER, .help = "rows into sequences"},
    {.name = "class_weights",
     .value = BP_VALUE_ANY,
     .flags = BP_NULLABLE | BP_LATER,
     .aliases = "class_weight",
     .help = "weights of classes"},
    {.name = "sample_weight",
     .value = BP_VALUE_STRING,
     .flags = BP_NULLABLE | BP_LATER,
     .min = 1,
     .max = 1024,
     .help = "a column of weights"},
};
static const struct bp_object dataset_object = {dataset_fields, N(dataset_fields)};

static const struct bp_field layers_item = {
    .name = "layer", .value = BP_VALUE_TYPED, .family = &bp_layers, .help = "a layer"};
static const struct bp_field model_fields[] = {
    {.name = "layers",
     .value = BP_VALUE_LIST,
     .flags = BP_REQUIRED,
     .min = 1,
     .max = BP_LAYERS_MAX,
     .item = &layers_item,
     .help = "from the input to the output; the output layer is added when it is not there"},
};
static const struct bp_object model_object = {model_fields, N(model_fields)};

static const struct bp_field early_fields[] = {
    {.name = "monitor",
     .value = BP_VALUE_STRING,
     .min = 1,
     .max = 64,
     .help = "the metric that chooses the best weights: val_loss, or loss without validation rows"},
    {.name = "patience",
     .value = BP_VALUE_INT,
     .flags = BP_NULLABLE,
     .min = 1,
     .max = BP_EPOCHS_MAX,
     .initial = "10",
     .help = "epochs without improvement before training stops; null never stops early"},
    {.name = "min_delta",
     .value = BP_VALUE_REAL,
     .min = 0,
     .max = 1e300,
     .initial = "0.0",
     .help = "what counts as an improvement"},
    {.name = "restore_best",
     .value = BP_VALUE_BOOL,
     .initial = "true",
     .aliases = "restore_best_weights",
     .help = "the final weights are the best ones by the monitor"},
};
static const struct bp_object early_object = {early_fields, N(early_fields)};
static const struct bp_field checkpoint_fields[] = {
    {.name = "every_epochs",
     .value = BP_VALUE_INT,
     .flags = BP_NULLABLE,
     .min = 1,
     .max = BP_EPOCHS_MAX,
     .initial = "1",
     .help = "at the end of every so many epochs, paced by the cost of writing; null: never"},
    {.name = "every_seconds",
     .value = BP_VALUE_REAL,
     .flags = BP_NULLABLE,
     .min = 1,
     .max = 1e9,
     .initial = "30.0",
     .help = "and when so many seconds have passed; null: never"},
    {.name = "keep",
     .value = BP_VALUE_INT,
     .flags = BP_LATER,
     .min = 1,
     .max = 1000,
     .initial = "2",
     .help = "how many are kept, besides the best"},
};
static const struct bp_object checkpoint_object = {checkpoint_fields, N(checkpoint_fields)};
static const struct bp_field rollback_fields[] = {
    {.name = "max", .value = BP_VALUE_INT, .min = 1, .max = 1000, .initial = "3", .help = "rollbacks at most"},
    {.name = "lr_factor",
     .value = BP_VALUE_REAL,
     .flags = BP_OPEN_MIN,
     .min = 0,
     .max = 1,
     .initial = "0.5",
     .help = "factor of the rate at each"},
};
static const struct bp_kind actions[] = {
    {.name = "stop", .help = "the job fails with nonfinite_loss, its last good state is kept"},
    {.name = "rollback",
     .flags = BP_LATER,
     .own = {rollback_fields, N(rollback_fields)},
     .help = "back to the start of an epoch, with a lower rate"},
};
static const struct bp_family action_family = {
    .what = "action", .tag = "action", .object = true, .kinds = actions, .n = N(actions)};
static const struct bp_field training_fields[] = {
    {.name = "epochs",
     .value = BP_VALUE_INT,
     .min = 1,
     .max = BP_EPOCHS_MAX,
     .initial = "10",
     .aliases = "num_epochs n_epochs max_epochs",
     .help = "passes over the training rows"},
    {.name = "batch_size",
     .value = BP_VALUE_INT,
     .min = 1,
     .max = BP_BATCH_MAX,
     .initial = "32",
     .aliases = "batch minibatch_size",
     .help = "rows of one step; at most the training rows"},
    {.name = "shuffle", .value = BP_VALUE_BOOL, .initial = "true", .help = "a new order of the rows each epoch"},
    {.name = "clip_grad_norm",
     .value = BP_VALUE_REAL,
     .flags = BP_NULLABLE | BP_OPEN_MIN,
     .min = 0,
     .max = 1e30,
     .initial = "null",
     .aliases = "clip_norm global_clipnorm max_grad_norm gradient_clip_val",
     .help = "the largest norm of all gradients together; null: no clipping"},
    {.name = "accumulate",
     .value = BP_VALUE_INT,
     .flags = BP_LATER,
     .min = 1,
     .max = 1e6,
     .initial = "1",
     .aliases = "accumulate_grad_batches gradient_accumulation_steps",
     .help = "micro-batches of one step"},
    {.name = "max_seconds",
     .value = BP_VALUE_REAL,
     .flags = BP_NULLABLE | BP_LATER | BP_OPEN_MIN,
     .min = 0,
     .max = 1e9,
     .help = "time budget"},
    {.name = "tolerance",
     .value = BP_VALUE_REAL,
     .flags = BP_LATER,
     .min = 0,
     .max = 1e300,
     .initial = "0.0",
     .help = "stops when the loss changes by less"},
    {.name = "target", .value = BP_VALUE_ANY, .flags = BP_NULLABLE | BP_LATER, .help = "stops at a metric's value"},
    {.name = "early_stopping",
     .value = BP_VALUE_OBJECT,
     .flags = BP_NULLABLE | BP_SWITCH,
     .object = &early_object,
     .also = "true or false",
     .aliases = "early_stop",
     .initial = "{\"patience\": null}",
     .help = "the best weights, and whether training stops when they no longer improve"},
    {.name = "checkpoint",
     .value = BP_VALUE_OBJECT,
     .object = &checkpoint_object,
     .initial = "{}",
     .aliases = "checkpoints",
     .help = "when the state is stored"},
    {.name = "on_divergence",
     .value = BP_VALUE_TYPED,
     .family = &action_family,
     .initial = "\"stop\"",
     .aliases = "on_nan",
     .help = "when the loss is no longer a finite number"},
    {.name = "log_every_steps",
     .value = BP_VALUE_INT,
     .min = 1,
     .max = 1e9,
     .aliases = "log_every",
     .help = "batch_loss is recorded every so many steps; max(10, steps / 10000)"},
    {.name = "layer_stats",
     .value = BP_VALUE_BOOL,
     .flags = BP_LATER,
     .initial = "false",
     .help = "statistics of each layer while training"},
};
static const struct bp_object training_object = {training_fields, N(training_fields)};

static const struct bp_kind precisions[] = {
    {.name = "float32", .aliases = "fp32 f32 float single", .help = "32-bit floating point"},
    {.name = "float64", .aliases = "fp64 double", .flags = BP_LATER, .help = "64-bit floating point"},
    {.name = "float16", .aliases = "fp16 half", .flags = BP_LATER, .help = "16-bit floating point"},
    {.name = "bfloat16", .aliases = "bf16", .flags = BP_LATER, .help = "16-bit with 8 bits of exponent"},
};
static const struct bp_family precision_family = {
    .what = "precision", .tag = "type", .kinds = precisions, .n = N(precisions)};
static const struct bp_kind profiles[] = {
    {.name = "torch", .aliases = "pytorch", .help = "PyTorch's defaults"},
    {.name = "keras", .aliases = "tensorflow", .flags = BP_LATER, .help = "Keras' defaults"},
};
static const struct bp_family profile_family = {
    .what = "set of defaults", .tag = "type", .kinds = profiles, .n = N(profiles)};
static const struct bp_field metric_item = {
    .name = "metric", .value = BP_VALUE_CHOICE, .family = &bp_metrics, .help = "a metric"};
static const struct bp_field tag_item = {
    .name = "tag", .value = BP_VALUE_STRING, .max = 256, .text = bp_text_printable, .help = "a value"};

static const struct bp_field top_fields[] = {
    {.name = "name",
     .value = BP_VALUE_STRING,
     .flags = BP_NULLABLE,
     .min = 1,
     .max = 128,
     .text = bp_text_label,
     .help = "for people"},
    {.name = "tags",
     .value = BP_VALUE_MAP,
     .max = 32,
     .item = &tag_item,
     .text = bp_text_tag,
     .initial = "{}",
     .help = "words to find it by"},
    {.name = "seed",
     .value = BP_VALUE_INT,
     .min = 0,
     .max = BP_SEED_MAX,
     .initial = "0",
     .aliases = "random_state random_seed",
     .help = "of split, first weights, order and dropout"},
    {.name = "threads",
     .value = BP_VALUE_INT,
     .flags = BP_NULLABLE,
     .min = 0,
     .max = 256,
     .initial = "null",
     .aliases = "num_threads n_jobs",
     .help = "threads at most; null or 0: its share of the budget. Never changes a bit"},
    {.name = "priority",
     .value = BP_VALUE_INT,
     .min = -1000,
     .max = 1000,
     .initial = "0",
     .help = "higher runs first"},
    {.name = "precision",
     .value = BP_VALUE_CHOICE,
     .family = &precision_family,
     .initial = "\"float32\"",
     .aliases = "dtype",
     .help = "of parameters and arithmetic"},
    {.name = "defaults",
     .value = BP_VALUE_CHOICE,
     .family = &profile_family,
     .initial = "\"torch\"",
     .help = "whose defaults hold"},
    {.name = "allow_symmetric",
     .value = BP_VALUE_BOOL,
     .initial = "false",
     .help = "allows hidden weights that start all the same, and so stay all the same"},
    {.name = "dataset",
     .value = BP_VALUE_OBJECT,
     .flags = BP_REQUIRED,
     .object = &dataset_object,
     .aliases = "data",
     .also = "a dataset's name",
     .help = "rows, columns, split; its name alone will do"},
    {.name = "model",
     .value = BP_VALUE_OBJECT,
     .flags = BP_REQUIRED,
     .object = &model_object,
     .also = "a list of layers",
     .help = "the network"},
    {.name = "loss",
     .value = BP_VALUE_TYPED,
     .family = &bp_losses,
     .aliases = "criterion objective loss_function",
     .help = "what is minimized; cross_entropy for classification, mse for regression"},
    {.name = "metrics",
     .value = BP_VALUE_LIST,
     .flags = BP_SINGLE | BP_UNIQUE,
     .max = 16,
     .item = &metric_item,
     .help = "computed each epoch; accuracy, or rmse, mae and r2"},
    {.name = "optimizer",
     .value = BP_VALUE_TYPED,
     .family = &bp_optimizers,
     .initial = "\"adam\"",
     .aliases = "optim solver",
     .help = "the update rule"},
    {.name = "lr_schedule",
     .value = BP_VALUE_TYPED,
     .family = &bp_schedules,
     .initial = "\"constant\"",
     .aliases = "lr_scheduler scheduler schedule",
     .help = "how the rate changes"},
    {.name = "training",
     .value = BP_VALUE_OBJECT,
     .object = &training_object,
     .initial = "{}",
     .aliases = "train fit",
     .help = "the loop"},
    {.name = "init_from", .value = BP_VALUE_ANY, .flags = BP_NULLABLE | BP_LATER, .help = "first weights of a job"},
};
const struct bp_object bp_spec_fields = {top_fields, N(top_fields)};

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
/* The letters and digits of a name in lower case, without a framework's prefix ("torch.nn.Linear"). */
static void squeeze(const char *word, size_t length, char *ret, size_t size)
{
    static const char *const frameworks[] = {"nn.", "torch.", "optim.", "keras.", "tf.", "flax.", "F."};
    for (size_t i = 0; i < N(frameworks); i++)
        if (length > strlen(frameworks[i]) && strncmp(word, frameworks[i], strlen(frameworks[i])) == 0)
            for (size_t k = length; k > 0; k--)
                if (word[k - 1] == '.') {
                    word += k;
                    length -= k;
                    break;
                }
    size_t n = 0;
    for (size_t i = 0; i < length && n + 1 < size; i++)
        if (word[i] != '_' && word[i] != '-' && word[i] != ' ')
            ret[n++] = (char)tolower((unsigned char)word[i]);
    ret[n] = 0;
}

enum bp_match bp_field_match(const char *word, const char *name, const char *aliases)
{
    char a[80], b[80];
    if (strcmp(word, name) == 0)
        return BP_MATCH_EXACT;
    if (strlen(word) >= sizeof a)
        return BP_MATCH_NONE;
    squeeze(word, strlen(word), a, sizeof a);
    squeeze(name, strlen(name), b, sizeof b);
    if (a[0] && strcmp(a, b) == 0)
        return BP_MATCH_ALIAS;
    for (const char *p = aliases; p && *p;) {
        size_t length = strcspn(p, " ");
        squeeze(p, length, b, sizeof b);
        if (a[0] && strcmp(a, b) == 0)
            return BP_MATCH_ALIAS;
        p += length;
        p += strspn(p, " ");
    }
    return BP_MATCH_NONE;
}

const struct bp_kind *bp_family_find(const struct bp_family *family, const char *word, enum bp_match *ret_match)
{
    const struct bp_kind *found = NULL;
    for (size_t i = 0; i < family->n; i++) {
        enum bp_match match = bp_field_match(word, family->kinds[i].name, family->kinds[i].aliases);
        if (match == BP_MATCH_EXACT || (match == BP_MATCH_ALIAS && !found)) {
            found = &family->kinds[i];
            *ret_match = match;
            if (match == BP_MATCH_EXACT)
                break;
        }
    }
    return found;
}

const struct bp_field *bp_object_find(const struct bp_object *object, const char *word, enum bp_match *ret_match)
{
    const struct bp_field *found = NULL;
    for (size_t i = 0; i < object->n; i++) {
        enum bp_match match = bp_field_match(word, object->fields[i].name, object->fields[i].aliases);
        if (match == BP_MATCH_EXACT || (match == BP_MATCH_ALIAS && !found)) {
            found = &object->fields[i];
            *ret_match = match;
            if (match == BP_MATCH_EXACT)
                break;
        }
    }
    return found;
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
    return only(value, "._-", true) && value[0] ? NULL : "must be letters, digits, '.', '_' and '-'";
}
