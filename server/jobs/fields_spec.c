/* fields_spec.c: the field table of the objects of a spec: the top, dataset, model, training.
 *
 * Rows only, no logic. What comes in kinds (layers, optimizers, …) is in fields_model.c.
 *
 * Threads: constant.
 */
#include "jobs/fields.h"

#include "data/transform.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

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
    {.name = "code", .aliases = "ordinal index label", .help = "one input: the level's number, for an embedding"},
};
static const struct bp_kind categories[] = {
    {.name = "one_hot", .aliases = "dummy", .help = "one input per level"},
    {.name = "code", .aliases = "ordinal index label", .help = "one input: the level's number, for an embedding"},
};
static const struct bp_family category_family = {
    .what = "encoding", .tag = "type", .kinds = categories, .n = N(categories)};
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

static const struct bp_field window_fields[] = {
    {.name = "rows",
     .value = BP_VALUE_INT,
     .flags = BP_REQUIRED,
     .min = 1,
     .max = BP_WINDOW_MAX,
     .aliases = "size length steps",
     .help = "rows of a window"},
    {.name = "stride",
     .value = BP_VALUE_INT,
     .min = 1,
     .max = 2147483647.0,
     .initial = "1",
     .aliases = "step shift",
     .help = "rows from the beginning of a window to that of the next"},
    {.name = "by",
     .value = BP_VALUE_STRING,
     .flags = BP_NULLABLE,
     .min = 1,
     .max = 1024,
     .aliases = "group",
     .help = "a column: no window has rows of two of its groups"},
};
static const struct bp_object window_object = {window_fields, N(window_fields)};

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
     .flags = BP_SINGLE | BP_MANY,
     .min = 1,
     .max = 1024,
     .aliases = "label y output targets",
     .help = "the column to predict; a list of several; \"features\": the input itself (an autoencoder)"},
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
    {.name = "encode",
     .value = BP_VALUE_CHOICE,
     .family = &category_family,
     .aliases = "encoding",
     .help =
         "of category columns: one_hot, or code where the first layer is an embedding; then whole numbers are codes "
         "too"},
    {.name = "target_scale",
     .value = BP_VALUE_CHOICE,
     .family = &target_scale_family,
     .help =
         "of a regression target while training; standard with mse, mae, huber, quantile and an unbounded output; "
         "all losses, metrics and predictions are in the target's own units either way"},
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
     .flags = BP_NULLABLE,
     .min = 1,
     .max = 1024,
     .aliases = "group_by groups",
     .help = "a column whose groups stay together: all rows with one value are on one side of the split"},
    {.name = "order_by",
     .value = BP_VALUE_STRING,
     .flags = BP_NULLABLE,
     .min = 1,
     .max = 1024,
     .help =
         "a column of times: the first rows are for training, the last ones for validation and test; also the order "
         "of the rows of a window"},
    {.name = "window",
     .value = BP_VALUE_OBJECT,
     .flags = BP_NULLABLE,
     .object = &window_object,
     .also = "null",
     .help = "rows into sequences of shape [rows, inputs of a row], each with the target of its last row; shorter "
             "groups are left out, unless padded in front (/learn/sequences)"},
    {.name = "class_weights",
     .value = BP_VALUE_ANY,
     .flags = BP_NULLABLE,
     .aliases = "class_weight",
     .help =
         "\"balanced\" (all classes together weigh the same), or {class: weight}, 1 for those not named; weighs the "
         "loss, not the other metrics: sum of w[label] loss / sum of w[label], label smoothing inside the loss "
         "(PyTorch weighs the smoothed part of each class by that class's own weight)"},
    {.name = "sample_weight",
     .value = BP_VALUE_STRING,
     .flags = BP_NULLABLE,
     .min = 1,
     .max = 1024,
     .aliases = "sample_weights weight_column",
     .help = "a column of weights of at least 0; it is no feature; weighs the loss, not the other metrics"},
};
static const struct bp_object dataset_object = {dataset_fields, N(dataset_fields)};

static const struct bp_field layers_item = {
    .name = "layer", .value = BP_VALUE_TYPED, .family = &bp_layers, .help = "a layer"};
static const struct bp_field head_fields[] = {
    {.name = "target",
     .value = BP_VALUE_STRING,
     .flags = BP_REQUIRED | BP_SINGLE | BP_MANY,
     .min = 1,
     .max = 1024,
     .help = "the column; a list of several for bce and kl_div"},
    {.name = "loss", .value = BP_VALUE_TYPED, .family = &bp_losses, .help = "the loss of this head"},
    {.name = "weight",
     .value = BP_VALUE_REAL,
     .min = 0,
     .max = 1e6,
     .initial = "1.0",
     .aliases = "loss_weight",
     .help = "factor of its loss in the sum"},
};
static const struct bp_object head_object = {head_fields, N(head_fields)};
static const struct bp_field head_item = {
    .name = "head", .value = BP_VALUE_OBJECT, .object = &head_object, .help = "one of several targets"};
static const struct bp_field model_fields[] = {
    {.name = "layers",
     .value = BP_VALUE_LIST,
     .flags = BP_REQUIRED,
     .min = 1,
     .max = BP_LAYERS_MAX,
     .item = &layers_item,
     .help = "from the input to the output; the output layer is added when it is not there"},
    {.name = "heads",
     .value = BP_VALUE_LIST,
     .min = 1,
     .max = BP_HEADS_MAX,
     .item = &head_item,
     .aliases = "outputs",
     .help = "several targets: each gets an output layer of its own, output_1 and so on, that reads the last layer"},
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
     .own = {rollback_fields, N(rollback_fields)},
     .help = "back to the start of an epoch, with a lower rate"},
};
static const struct bp_family action_family = {
    .what = "action", .tag = "action", .object = true, .kinds = actions, .n = N(actions)};
static const struct bp_field goal_fields[] = {
    {.name = "metric",
     .value = BP_VALUE_STRING,
     .flags = BP_REQUIRED,
     .min = 1,
     .max = 64,
     .aliases = "monitor",
     .help = "val_accuracy, loss, …"},
    {.name = "value", .value = BP_VALUE_REAL, .flags = BP_REQUIRED, .min = -1e300, .max = 1e300, .help = "its value"},
};
static const struct bp_object goal_object = {goal_fields, N(goal_fields)};
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
    {.name = "clip_grad_value",
     .value = BP_VALUE_REAL,
     .flags = BP_NULLABLE | BP_OPEN_MIN,
     .min = 0,
     .max = 1e30,
     .initial = "null",
     .aliases = "clip_value clipvalue",
     .help = "the largest element of a gradient, after clip_grad_norm; null: no clipping"},
    {.name = "accumulate",
     .value = BP_VALUE_INT,
     .min = 1,
     .max = 1e6,
     .initial = "1",
     .aliases = "accumulate_grad_batches gradient_accumulation_steps",
     .help = "batches whose gradients make one step: their mean over all rows"},
    {.name = "max_seconds",
     .value = BP_VALUE_REAL,
     .flags = BP_NULLABLE | BP_OPEN_MIN,
     .min = 0,
     .max = 1e9,
     .initial = "null",
     .aliases = "time_limit timeout",
     .help = "training ends at the step that passes so many seconds; null: no limit"},
    {.name = "tolerance",
     .value = BP_VALUE_REAL,
     .min = 0,
     .max = 1e300,
     .initial = "0.0",
     .aliases = "tol",
     .help = "training ends when the loss (val_loss where that is monitored) changes by less from one epoch to the "
             "next; 0: never"},
    {.name = "target",
     .value = BP_VALUE_OBJECT,
     .flags = BP_NULLABLE,
     .object = &goal_object,
     .initial = "null",
     .help = "training ends when a metric reaches a value"},
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
     .initial = "true",
     .help = "statistics of each layer while training, for GET …/layers and …/diagnosis: under 3 % of the time"},
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
    .name = "metric", .value = BP_VALUE_TYPED, .family = &bp_metrics, .help = "a metric"};
static const struct bp_field tag_item = {
    .name = "tag", .value = BP_VALUE_STRING, .max = 256, .text = bp_text_printable, .help = "a value"};

static const struct bp_field start_fields[] = {
    {.name = "job", .value = BP_VALUE_STRING, .flags = BP_REQUIRED, .min = 1, .max = 31, .help = "its id"},
    {.name = "checkpoint",
     .value = BP_VALUE_STRING,
     .min = 1,
     .max = 31,
     .initial = "\"best\"",
     .help = "best, latest, or the id of one"},
};
static const struct bp_object start_object = {start_fields, N(start_fields)};

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
    {.name = "init_from",
     .value = BP_VALUE_OBJECT,
     .flags = BP_NULLABLE,
     .object = &start_object,
     .also = "a job's id",
     .initial = "null",
     .help = "first weights from a job's checkpoint: of all tensors with the same name and shape"},
};
const struct bp_object bp_spec_fields = {top_fields, N(top_fields)};
