/* fields_model.c: the families of the field table: layers, activations, initializers, losses, optimizers, schedules,
 * metrics, with the parameters of each kind.
 *
 * Rows only, no logic. Kinds without BP_LATER are what the engine builds; plan.c maps their names to the engine's.
 */
#include "jobs/fields.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))
#define FIELDS(array)                                                                                                \
    {                                                                                                                \
        array, N(array)                                                                                              \
    }
#define NONE                                                                                                         \
    {                                                                                                                \
        NULL, 0                                                                                                      \
    }
#define REAL(n, lo, hi, f, init, alias, text)                                                                        \
    {                                                                                                                \
        .name = n, .value = BP_VALUE_REAL, .min = lo, .max = hi, .flags = f, .initial = init, .aliases = alias,      \
        .help = text                                                                                                 \
    }
#define INT(n, lo, hi, f, init, alias, text)                                                                         \
    {                                                                                                                \
        .name = n, .value = BP_VALUE_INT, .min = lo, .max = hi, .flags = f, .initial = init, .aliases = alias,       \
        .help = text                                                                                                 \
    }
#define BOOL(n, f, init, alias, text)                                                                                \
    {                                                                                                                \
        .name = n, .value = BP_VALUE_BOOL, .flags = f, .initial = init, .aliases = alias, .help = text               \
    }

/* --- activations ------------------------------------------------------------------------------------------------- */
static const struct bp_field leaky_relu[] = {
    REAL("negative_slope", 0, 1, BP_OPEN_MAX, "0.01", "alpha slope", "slope below zero"),
};
static const struct bp_field elu[] = {
    REAL("alpha", 0, 1e6, BP_OPEN_MIN, "1.0", NULL, "the value far below zero is -alpha"),
};
static const struct bp_field softmax[] = {
    INT("axis", -4, 4, BP_LATER, "-1", "dim", "the axis that sums to 1: the last one"),
};

#define FLAT                                                                                                         \
    "a step has slope 0 everywhere but at the jump, so no error signal can pass back through it: use sigmoid or "    \
    "tanh (smooth steps), hard_sigmoid, or relu (/learn/no-derivative)"
static const struct bp_kind activations[] = {
    {"linear", "identity none", 0, NONE, NULL, "f(x) = x"},
    {"relu", "rectifier rectified_linear", 0, NONE, NULL, "max(0, x)"},
    {"leaky_relu", "lrelu", 0, FIELDS(leaky_relu), NULL, "x above zero, negative_slope x below"},
    {"elu", NULL, 0, FIELDS(elu), NULL, "x above zero, alpha (e^x - 1) below"},
    {"selu", NULL, 0, NONE, NULL, "scaled elu that keeps mean 0 and variance 1"},
    {"gelu", NULL, 0, NONE, NULL, "x Phi(x), with the exact normal distribution"},
    {"silu", "swish", 0, NONE, NULL, "x sigmoid(x)"},
    {"mish", NULL, 0, NONE, NULL, "x tanh(softplus(x))"},
    {"sigmoid", "logistic", 0, NONE, NULL, "1 / (1 + e^-x)"},
    {"tanh", "hyperbolic_tangent", 0, NONE, NULL, "hyperbolic tangent"},
    {"softplus", NULL, 0, NONE, NULL, "log(1 + e^x)"},
    {"softsign", NULL, 0, NONE, NULL, "x / (1 + |x|)"},
    {"hard_sigmoid", NULL, 0, NONE, NULL, "clamp(x / 6 + 1/2, 0, 1)"},
    {"relu6", NULL, 0, NONE, NULL, "min(max(0, x), 6)"},
    {"softmax", NULL, 0, FIELDS(softmax), NULL, "e^x / sum e^x: shares that sum to 1"},
    {"log_softmax", NULL, 0, FIELDS(softmax), NULL, "the logarithm of softmax"},
    {"step", "heaviside threshold binary_step", 0, NONE, FLAT, "0 or 1"},
    {"sign", "signum hardlims", 0, NONE, FLAT, "-1 or 1"},
};
const struct bp_family bp_activations = {
    .what = "activation", .plural = "activations", .tag = "type", .kinds = activations, .n = N(activations)};

/* --- initializers ------------------------------------------------------------------------------------------------ */
static const struct bp_field constant[] = {REAL("value", -1e6, 1e6, 0, "0.0", NULL, "the value of every element")};
static const struct bp_field uniform[] = {
    REAL("low", -1e6, 1e6, 0, "-0.05", "minval a", "lower limit"),
    REAL("high", -1e6, 1e6, 0, "0.05", "maxval b", "upper limit"),
};
static const struct bp_field normal[] = {
    REAL("mean", -1e6, 1e6, 0, "0.0", NULL, "mean"),
    REAL("std", 0, 1e6, 0, "0.05", "stddev sigma", "standard deviation"),
};
static const struct bp_field orthogonal[] = {REAL("gain", 0, 1e6, BP_OPEN_MIN, "1.0", NULL, "factor")};
static const struct bp_kind initializers[] = {
    {"zeros", "zero zeros_", 0, NONE, NULL, "all 0"},
    {"ones", "one ones_", 0, NONE, NULL, "all 1"},
    {"constant", "constant_", 0, FIELDS(constant), NULL, "all the same value"},
    {"uniform", "random_uniform uniform_", 0, FIELDS(uniform), NULL, "uniform between low and high"},
    {"normal", "random_normal normal_", 0, FIELDS(normal), NULL, "normal"},
    {"truncated_normal", "trunc_normal trunc_normal_", 0, FIELDS(normal), NULL, "normal, cut at two deviations"},
    {"glorot_uniform", "xavier_uniform xavier_uniform_ xavier", 0, NONE, NULL, "U(+-sqrt(6 / (in + out)))"},
    {"glorot_normal", "xavier_normal xavier_normal_", 0, NONE, NULL, "deviation sqrt(2 / (in + out))"},
    {"he_uniform", "he", 0, NONE, NULL, "U(+-sqrt(6 / in))"},
    {"he_normal", "kaiming_normal kaiming_normal_", 0, NONE, NULL, "deviation sqrt(2 / in)"},
    {"lecun_uniform", NULL, 0, NONE, NULL, "U(+-sqrt(3 / in))"},
    {"lecun_normal", "lecun", 0, NONE, NULL, "deviation sqrt(1 / in)"},
    {"orthogonal", "orthogonal_", 0, FIELDS(orthogonal), NULL, "orthonormal rows or columns, times gain"},
    {"kaiming_uniform", "kaiming_uniform_ torch default", 0, NONE, NULL,
     "U(+-1 / sqrt(in)): what PyTorch gives a linear layer, weights and biases"},
};
const struct bp_family bp_initializers = {
    .what = "initializer", .plural = "initializers", .tag = "type", .kinds = initializers, .n = N(initializers)};

/* --- layers ------------------------------------------------------------------------------------------------------ */
static const struct bp_field name_item = {
    .name = "name", .value = BP_VALUE_STRING, .min = 1, .max = BP_LAYER_NAME_MAX};
static const struct bp_field layer_common[] = {
    {.name = "name",
     .value = BP_VALUE_STRING,
     .min = 1,
     .max = BP_LAYER_NAME_MAX,
     .text = bp_text_layer,
     .help = "unique; names its tensors (name.weight); by default dense_1, dropout_1, …"},
    {.name = "inputs",
     .value = BP_VALUE_LIST,
     .flags = BP_NULLABLE | BP_SINGLE,
     .min = 1,
     .max = 16,
     .item = &name_item,
     .help = "names of the earlier layers that it reads, \"input\" being the data; the default is the layer above"},
    BOOL("trainable", 0, "true", NULL,
         "false freezes its parameters: no gradient, no update, no decay; a frozen batch_norm takes its running "
         "statistics, and leaves them, as in Keras"),
};

#define ACTIVATION                                                                                                   \
    {                                                                                                                \
        .name = "activation", .value = BP_VALUE_TYPED, .initial = "\"linear\"", .family = &bp_activations,           \
        .help = "applied to its result"                                                                              \
    }
#define INITIALIZERS                                                                                                 \
    {.name = "kernel_initializer",                                                                                   \
     .value = BP_VALUE_TYPED,                                                                                        \
     .initial = "\"kaiming_uniform\"",                                                                               \
     .family = &bp_initializers,                                                                                     \
     .aliases = "weight_initializer initializer init kernel_init",                                                   \
     .help = "the first weights"},                                                                                   \
    {                                                                                                                \
        .name = "bias_initializer", .value = BP_VALUE_TYPED, .initial = "\"kaiming_uniform\"",                       \
        .family = &bp_initializers, .aliases = "bias_init", .help = "the first biases"                               \
    }
#define USE_BIAS BOOL("use_bias", 0, "true", "bias", "adds a bias to each unit")
#define PENALTIES                                                                                                    \
    REAL("l1", 0, 1e6, 0, "0.0", NULL, "penalty l1 |w| on its weights"),                                             \
        REAL("l2", 0, 1e6, 0, "0.0", NULL, "penalty l2 w^2 on its weights")

static const struct bp_field dense[] = {
    INT("units", 1, BP_UNITS_MAX, BP_REQUIRED | BP_AUTO, NULL, "out_features size neurons width",
        "how many units; \"auto\" in the last layer: as many as the target needs"),
    ACTIVATION,
    USE_BIAS,
    INITIALIZERS,
    PENALTIES,
    {.name = "weights",
     .value = BP_VALUE_ANY,
     .flags = BP_NULLABLE,
     .aliases = "kernel",
     .help = "literal first weights [units][in], instead of kernel_initializer"},
    {.name = "biases",
     .value = BP_VALUE_ANY,
     .flags = BP_NULLABLE,
     .help = "literal first biases [units], instead of bias_initializer"},
};
/* An extent of a window along its axes: one number for all, or a list. */
#define EXTENT(n, count, lo, f, init, alias, text)                                                                   \
    {                                                                                                                \
        .name = n, .value = BP_VALUE_EXTENT, .axes = count, .min = lo, .max = 65535, .flags = f, .initial = init,    \
        .aliases = alias, .help = text                                                                               \
    }
#define PADDING(count)                                                                                               \
    {                                                                                                                \
        .name = "padding", .value = BP_VALUE_EXTENT, .axes = count, .max = 65535, .initial = "\"valid\"",            \
        .words = "valid same",                                                                                       \
        .help = "zeros around the input: none (valid), as many as ceil(input / strides) "                            \
                "positions need (same; an odd one goes behind), or a number for each side"                           \
    }
#define WINDOW(count)                                                                                                \
    EXTENT("kernel_size", count, 1, BP_REQUIRED, NULL, "kernel", "extent of the window"),                            \
        EXTENT("strides", count, 1, 0, "1", "stride", "step of the window"), PADDING(count),                         \
        EXTENT("dilation", count, 1, 0, "1", "dilation_rate", "distance of the window's taps")
#define FILTERS INT("filters", 1, BP_UNITS_MAX, BP_REQUIRED, NULL, "out_channels", "how many filters")
#define GROUPS INT("groups", 1, BP_UNITS_MAX, 0, "1", NULL, "channel groups that do not mix")
static const struct bp_field conv1d[] = {FILTERS, WINDOW(1), GROUPS, ACTIVATION, USE_BIAS, INITIALIZERS, PENALTIES};
static const struct bp_field conv2d[] = {FILTERS, WINDOW(2), GROUPS, ACTIVATION, USE_BIAS, INITIALIZERS, PENALTIES};
static const struct bp_field depthwise[] = {
    INT("depth_multiplier", 1, 1024, 0, "1", NULL, "filters per channel"),
    WINDOW(2),
    ACTIVATION,
    USE_BIAS,
    INITIALIZERS,
    PENALTIES,
};
static const struct bp_field pool[] = {
    EXTENT("pool_size", 2, 1, 0, "2", "kernel_size", "extent of the window"),
    EXTENT("strides", 2, 1, BP_NULLABLE, "null", "stride", "step of the window: pool_size"),
    {.name = "padding",
     .value = BP_VALUE_EXTENT,
     .axes = 2,
     .max = 65535,
     .initial = "\"valid\"",
     .words = "valid same",
     .help =
         "as of convolutions, at most half of pool_size; what is outside is never the largest, and counts as 0 in "
         "a mean"},
};
static const struct bp_field shape_item = INT("shape", -1, 2147483647.0, 0, NULL, NULL, "an extent");
static const struct bp_field reshape[] = {
    {.name = "shape",
     .value = BP_VALUE_LIST,
     .flags = BP_REQUIRED,
     .min = 1,
     .max = 4,
     .item = &shape_item,
     .aliases = "target_shape",
     .help = "the new shape of one sample; one extent may be -1: what is left"},
};
#define AFFINE BOOL("affine", 0, "true", NULL, "learns a factor and an offset")
static const struct bp_field batch_norm[] = {
    REAL("eps", 0, 1, BP_OPEN_MIN, "1e-5", "epsilon", "added to the variance"),
    REAL("momentum", 0, 1, 0, "0.1", NULL, "weight of the new batch in the running statistics"),
    AFFINE,
};
static const struct bp_field layer_norm[] = {
    REAL("eps", 0, 1, BP_OPEN_MIN, "1e-5", "epsilon", "added to the variance"), AFFINE};
static const struct bp_field group_norm[] = {
    INT("groups", 1, BP_UNITS_MAX, BP_REQUIRED, NULL, "num_groups", "groups of channels"),
    REAL("eps", 0, 1, BP_OPEN_MIN, "1e-5", "epsilon", "added to the variance"), AFFINE};
static const struct bp_field dropout[] = {
    REAL("rate", 0, 1, BP_REQUIRED | BP_OPEN_MAX, NULL, "p prob", "share of elements set to 0 in training"),
};
static const struct bp_field embedding[] = {
    INT("input_dim", 1, BP_UNITS_MAX, 0, NULL, "num_embeddings",
        "different codes; of the first layer those of the dataset's columns, where it is left out"),
    INT("output_dim", 1, BP_UNITS_MAX, BP_REQUIRED, NULL, "embedding_dim", "numbers per level"),
    {.name = "kernel_initializer",
     .value = BP_VALUE_TYPED,
     .initial = "{\"type\": \"normal\", \"mean\": 0.0, \"std\": 1.0}",
     .family = &bp_initializers,
     .aliases = "embeddings_initializer weight_initializer initializer init",
     .help = "the first vectors"},
};
static const struct bp_field activation[] = {
    {.name = "activation",
     .value = BP_VALUE_TYPED,
     .flags = BP_REQUIRED,
     .family = &bp_activations,
     .aliases = "function",
     .help = "the function"},
};
static const struct bp_field concat[] = {
    INT("axis", -4, 3, BP_NULLABLE, "null", NULL,
        "of one sample's shape, negative from the end; null is the channels: the first axis, of a sequence [steps, "
        "features] the last")};
/* kaiming_uniform is PyTorch's default in these layers too: U(+-1 / sqrt(units)) for all of their tensors. */
#define RECURRENT                                                                                                    \
    INT("units", 1, BP_UNITS_MAX, BP_REQUIRED, NULL, "hidden_size", "size of the state"),                            \
        BOOL("return_sequences", 0, "false", NULL, "every step's state, not the last one only"),                     \
        BOOL("reverse", 0, "false", "go_backwards", "reads from the end; each state stays at its step"), USE_BIAS,   \
        INITIALIZERS,                                                                                                \
    {                                                                                                                \
        .name = "recurrent_initializer", .value = BP_VALUE_TYPED, .initial = "\"kaiming_uniform\"",                  \
        .family = &bp_initializers, .aliases = "recurrent_init", .help = "the first weights of the state"            \
    }
static const struct bp_field simple_rnn[] = {{.name = "activation",
                                              .value = BP_VALUE_TYPED,
                                              .initial = "\"tanh\"",
                                              .family = &bp_activations,
                                              .aliases = "nonlinearity",
                                              .help = "of the state: tanh or relu"},
                                             RECURRENT};
static const struct bp_field recurrent[] = {RECURRENT};
static const struct bp_field attention[] = {
    INT("heads", 1, 1024, BP_REQUIRED, NULL, "num_heads", "heads"),
    INT("key_dim", 1, BP_UNITS_MAX, BP_NULLABLE, "null", NULL, "size of a head: features / heads"),
    BOOL("causal", 0, "false", NULL, "looks back only"),
    REAL("dropout", 0, 1, BP_OPEN_MAX, "0.0", NULL, "dropout on the attention weights"),
};

static const struct bp_kind layers[] = {
    {"dense", "linear fully_connected fc", 0, FIELDS(dense), NULL, "activation(W x + b)"},
    {"conv1d", NULL, 0, FIELDS(conv1d), NULL, "convolution over one axis"},
    {"conv2d", "conv", 0, FIELDS(conv2d), NULL, "convolution over height and width"},
    {"depthwise_conv2d", NULL, 0, FIELDS(depthwise), NULL, "one convolution per channel"},
    {"max_pool2d", "max_pooling2d max_pool", 0, FIELDS(pool), NULL, "largest value of a window"},
    {"avg_pool2d", "average_pooling2d avg_pool", 0, FIELDS(pool), NULL, "mean of a window"},
    {"global_avg_pool2d", "global_average_pooling2d global_avg_pool", 0, NONE, NULL, "mean of each channel"},
    {"flatten", NULL, 0, NONE, NULL, "any shape as one vector"},
    {"reshape", NULL, 0, FIELDS(reshape), NULL, "the same elements in another shape"},
    {"batch_norm", "batch_norm1d batch_norm2d batch_normalization", 0, FIELDS(batch_norm), NULL,
     "normalizes over the batch"},
    {"layer_norm", "layer_normalization", 0, FIELDS(layer_norm), NULL, "normalizes over a sample"},
    {"group_norm", "group_normalization", 0, FIELDS(group_norm), NULL, "normalizes over groups of channels"},
    {"dropout", NULL, 0, FIELDS(dropout), NULL, "sets elements to 0 at random in training"},
    {"embedding", NULL, 0, FIELDS(embedding), NULL, "a vector per category"},
    {"activation", NULL, 0, FIELDS(activation), NULL, "an activation on its own"},
    {"add", NULL, 0, NONE, NULL, "sum of its inputs"},
    {"multiply", "mul", 0, NONE, NULL, "product of its inputs"},
    {"concat", "concatenate cat", 0, FIELDS(concat), NULL, "its inputs side by side"},
    {"simple_rnn", "rnn", 0, FIELDS(simple_rnn), NULL, "reads a sequence [steps, features]: h = tanh(W x + V h + b)"},
    {"lstm", NULL, 0, FIELDS(recurrent), NULL, "reads a sequence [steps, features] with a long short-term memory"},
    {"gru", NULL, 0, FIELDS(recurrent), NULL, "reads a sequence [steps, features] with gated units"},
    {"multi_head_attention", "attention", 0, FIELDS(attention), NULL,
     "self-attention over a sequence [steps, features]; a second input is a mask, one number a step: nobody looks at "
     "a step where it is 0 (an example: /learn/sequences)"},
};
const struct bp_family bp_layers = {.what = "layer",
                                    .plural = "layers",
                                    .tag = "type",
                                    .object = true,
                                    .kinds = layers,
                                    .n = N(layers),
                                    .common = FIELDS(layer_common)};

/* --- losses ------------------------------------------------------------------------------------------------------ */
#define SMOOTHING                                                                                                    \
    REAL("label_smoothing", 0, 1, BP_OPEN_MAX, "0.0", "smoothing",                                                   \
         "share s of the target that is spread over all C classes: (1 - s) loss[label] + s / C sum of loss[c]; a "   \
         "class weight, that of the label, weighs the whole")
static const struct bp_field smoothed[] = {SMOOTHING};
static const struct bp_field huber[] = {
    REAL("delta", 0, 1e6, BP_OPEN_MIN, "1.0", "beta", "where squares turn linear, in the target's units")};
static const struct bp_field quantile[] = {REAL("q", 0, 1, BP_OPEN_MIN | BP_OPEN_MAX, "0.5",
                                                "tau quantile level alpha",
                                                "the share of targets below what is predicted")};
static const struct bp_kind losses[] = {
    {"cross_entropy",
     "categorical_crossentropy sparse_categorical_crossentropy cross_entropy_loss crossentropy softmax_cross_entropy "
     "log_loss",
     0, FIELDS(smoothed), NULL, "-log softmax(z)[label], on logits z"},
    {"bce", "binary_crossentropy binary_cross_entropy bce_with_logits_loss bce_with_logits bce_loss", 0,
     FIELDS(smoothed), NULL, "-(t log s + (1 - t) log(1 - s)), s = sigmoid(z), on logits z"},
    {"mse", "mean_squared_error mse_loss squared_error", 0, NONE, NULL, "mean of (y - t)^2"},
    {"mae", "mean_absolute_error l1_loss", 0, NONE, NULL, "mean of |y - t|"},
    {"huber", "huber_loss smooth_l1_loss", 0, FIELDS(huber), NULL,
     "(y - t)^2 / 2 up to |y - t| = delta, delta (|y - t| - delta / 2) beyond"},
    {"hinge", "hinge_loss multi_margin_loss squared_margin", 0, NONE, NULL,
     "two classes: max(0, 1 - s y) with one output y and the side s = -1 or 1; more: PyTorch's MultiMarginLoss, the "
     "sum "
     "over the other classes of max(0, 1 - y[label] + y[j]), over the classes"},
    {"poisson", "poisson_nll_loss", 0, NONE, NULL,
     "e^y - t y for counts t, the output y being the logarithm of the rate; predictions are the rate"},
    {"quantile", "pinball pinball_loss quantile_loss", 0, FIELDS(quantile), NULL,
     "max(q (t - y), (q - 1) (t - y)): y is the value below which a share q of the targets lies"},
    {"kl_div", "kl_divergence kl_div_loss kullback_leibler_divergence", 0, NONE, NULL,
     "sum of t (log t - log softmax(y)), on logits y, for several target columns that sum to 1"},
};
const struct bp_family bp_losses = {
    .what = "loss", .plural = "losses", .tag = "type", .kinds = losses, .n = N(losses)};

/* --- optimizers -------------------------------------------------------------------------------------------------- */
#define LR(init) REAL("lr", 0, 1e4, BP_OPEN_MIN, init, "learning_rate eta step_size", "learning rate")
#define DECAY(init, text) REAL("weight_decay", 0, 1e4, 0, init, "wd decay", text)
#define EPS(init) REAL("eps", 0, 1, BP_OPEN_MIN, init, "epsilon", "keeps the division finite")
#define MOMENTUM REAL("momentum", 0, 1, BP_OPEN_MAX, "0.0", "mu", "share of the last velocity that is kept")
#define ADDED "weight decay, added to the gradient"
#define DECOUPLED "weight decay, apart from the gradient"
static const struct bp_field beta_item = REAL("beta", 0, 1, BP_OPEN_MAX, NULL, NULL, "decay of a moment");
#define BETAS(init)                                                                                                  \
    {                                                                                                                \
        .name = "betas", .value = BP_VALUE_LIST, .min = 2, .max = 2, .initial = init, .item = &beta_item,            \
        .help = "decay of the first and the second moment"                                                           \
    }
static const struct bp_field sgd[] = {
    LR("0.001"), MOMENTUM, REAL("dampening", 0, 1, 0, "0.0", NULL, "share of the gradient kept out of the velocity"),
    BOOL("nesterov", 0, "false", NULL, "looks ahead along the velocity; needs momentum above 0, dampening 0"),
    DECAY("0.0", ADDED)};
static const struct bp_field adam[] = {LR("0.001"), BETAS("[0.9, 0.999]"), EPS("1e-8"), DECAY("0.0", ADDED),
                                       BOOL("amsgrad", 0, "false", NULL, "keeps the largest second moment")};
static const struct bp_field adamw[] = {LR("0.001"), BETAS("[0.9, 0.999]"), EPS("1e-8"), DECAY("0.01", DECOUPLED),
                                        BOOL("amsgrad", 0, "false", NULL, "keeps the largest second moment")};
static const struct bp_field rmsprop[] = {
    LR("0.01"),          REAL("alpha", 0, 1, BP_OPEN_MAX, "0.99", "rho", "decay"),
    EPS("1e-8"),         MOMENTUM,
    DECAY("0.0", ADDED), BOOL("centered", 0, "false", NULL, "divides by the deviation instead")};
static const struct bp_field adagrad[] = {
    LR("0.01"), REAL("initial_accumulator", 0, 1e6, 0, "0.0", NULL, "first value of the sums"), EPS("1e-10"),
    DECAY("0.0", ADDED)};
static const struct bp_field adadelta[] = {LR("1.0"), REAL("rho", 0, 1, BP_OPEN_MAX, "0.9", NULL, "decay"),
                                           EPS("1e-6"), DECAY("0.0", ADDED)};
static const struct bp_field nadam[] = {
    LR("0.002"), BETAS("[0.9, 0.999]"), EPS("1e-8"), DECAY("0.0", ADDED),
    REAL("momentum_decay", 0, 1, 0, "0.004", NULL, "how fast the momentum rises to the first beta")};
static const struct bp_field adamax[] = {LR("0.002"), BETAS("[0.9, 0.999]"), EPS("1e-8"), DECAY("0.0", ADDED)};
static const struct bp_field lamb[] = {LR("0.001"), BETAS("[0.9, 0.999]"), EPS("1e-6"),
                                       DECAY("0.0", "weight decay, part of a layer's direction")};
static const struct bp_field lion[] = {LR("0.0001"), BETAS("[0.9, 0.99]"), DECAY("0.0", DECOUPLED)};
static const struct bp_kind optimizers[] = {
    {"sgd", "gradient_descent", 0, FIELDS(sgd), NULL, "v = mu v + g; p -= lr v"},
    {"rmsprop", NULL, 0, FIELDS(rmsprop), NULL, "divides by a running root mean square"},
    {"adagrad", NULL, 0, FIELDS(adagrad), NULL, "divides by the root of all squares so far"},
    {"adadelta", NULL, 0, FIELDS(adadelta), NULL, "rates from running averages of the updates"},
    {"adam", NULL, 0, FIELDS(adam), NULL, "running first and second moments, bias corrected"},
    {"adamw", NULL, 0, FIELDS(adamw), NULL, "adam with decoupled weight decay"},
    {"nadam", NULL, 0, FIELDS(nadam), NULL, "adam with Nesterov momentum"},
    {"adamax", NULL, 0, FIELDS(adamax), NULL, "adam with the largest gradient"},
    {"lamb", NULL, 0, FIELDS(lamb), NULL, "adam scaled layer by layer"},
    {"lion", NULL, 0, FIELDS(lion), NULL, "the sign of an interpolated momentum"},
};
const struct bp_family bp_optimizers = {.what = "optimizer",
                                        .plural = "optimizers",
                                        .tag = "type",
                                        .object = true,
                                        .kinds = optimizers,
                                        .n = N(optimizers)};

/* --- schedules --------------------------------------------------------------------------------------------------- */
static const struct bp_field warmup[] = {
    REAL("warmup_epochs", 0, BP_EPOCHS_MAX, 0, "0.0", "warmup",
         "epochs in which a factor on the rate rises linearly to 1, step by step")};
static const struct bp_field milestone = INT("milestone", 1, BP_EPOCHS_MAX, 0, NULL, NULL, "an epoch");
#define GAMMA REAL("gamma", 0, 1, BP_OPEN_MIN, "0.1", "factor", "factor of each drop")
#define ETA_MIN REAL("eta_min", 0, 1e4, 0, "0.0", "min_lr", "the last rate")
static const struct bp_field step[] = {INT("step_size", 1, BP_EPOCHS_MAX, BP_REQUIRED, NULL, NULL, "epochs a step"),
                                       GAMMA};
static const struct bp_field multistep[] = {{.name = "milestones",
                                             .value = BP_VALUE_LIST,
                                             .flags = BP_REQUIRED | BP_RISING,
                                             .min = 1,
                                             .max = 64, /* what the engine keeps */
                                             .item = &milestone,
                                             .help = "epochs after which the rate drops, in order"},
                                            GAMMA};
static const struct bp_field exponential[] = {
    REAL("gamma", 0, 1, BP_REQUIRED | BP_OPEN_MIN, NULL, NULL, "factor an epoch")};
static const struct bp_field polynomial[] = {REAL("power", 0, 100, BP_OPEN_MIN, "1.0", NULL, "power"), ETA_MIN};
static const struct bp_field cosine[] = {ETA_MIN};
static const struct bp_field restarts[] = {INT("period", 1, BP_EPOCHS_MAX, BP_REQUIRED, NULL, "t_0", "first period"),
                                           INT("factor", 1, 100, 0, "1", "t_mult", "growth of the period"), ETA_MIN};
static const struct bp_field one_cycle[] = {
    REAL("max_lr", 0, 1e4, BP_OPEN_MIN | BP_NULLABLE, "null", NULL, "the highest rate; null: the optimizer's lr"),
    REAL("pct_start", 0, 1, 0, "0.3", NULL, "share spent rising")};
static const struct bp_field plateau[] = {
    REAL("factor", 0, 1, BP_OPEN_MIN | BP_OPEN_MAX, "0.1", "gamma", "factor"),
    INT("patience", 0, BP_EPOCHS_MAX, 0, "10", NULL, "epochs to wait"),
    REAL("threshold", 0, 1, 0, "0.0001", NULL, "share of the best that counts"),
    INT("cooldown", 0, BP_EPOCHS_MAX, 0, "0", NULL, "epochs of rest after a drop"),
    REAL("min_lr", 0, 1e4, 0, "0.0", NULL, "the lowest rate")};
static const struct bp_kind schedules[] = {
    {"constant", "none", 0, NONE, NULL, "the same rate throughout"},
    {"step", "step_lr", 0, FIELDS(step), NULL, "a drop every so many epochs"},
    {"multistep", "multi_step_lr", 0, FIELDS(multistep), NULL, "drops at given epochs"},
    {"exponential", "exponential_lr exponential_decay", 0, FIELDS(exponential), NULL, "a factor an epoch"},
    {"polynomial", "polynomial_lr polynomial_decay", 0, FIELDS(polynomial), NULL, "a power of what is left"},
    {"cosine", "cosine_annealing_lr cosine_decay", 0, FIELDS(cosine), NULL, "half a cosine"},
    {"cosine_restarts", "cosine_annealing_warm_restarts", 0, FIELDS(restarts), NULL, "cosines, one by one"},
    {"one_cycle", "one_cycle_lr", 0, FIELDS(one_cycle), NULL, "up, then down"},
    {"plateau", "reduce_lr_on_plateau", 0, FIELDS(plateau), NULL, "a drop when nothing improves"},
};
const struct bp_family bp_schedules = {.what = "learning rate schedule",
                                       .plural = "schedules",
                                       .tag = "type",
                                       .object = true,
                                       .kinds = schedules,
                                       .n = N(schedules),
                                       .common = FIELDS(warmup)};

/* --- metrics ----------------------------------------------------------------------------------------------------- */
static const struct bp_field top_k[] = {INT("k", 1, 1000, 0, "5", NULL, "how many")};
static const struct bp_kind metrics[] = {
    {"loss", NULL, 0, NONE, NULL, "the loss: always computed"},
    {"accuracy", "acc", 0, NONE, NULL, "share of rows that are right"},
    {"top_k", "top_k_accuracy top5", 0, FIELDS(top_k), NULL, "share of rows whose label is among the k first"},
    {"precision_macro", "precision", 0, NONE, NULL,
     "mean over the classes of the share of predictions that are right"},
    {"recall_macro", "recall balanced_accuracy", 0, NONE, NULL, "mean over the classes of the share that is found"},
    {"f1_macro", "f1 f1_score", 0, NONE, NULL, "mean F1 over the classes"},
    {"auc", "roc_auc", 0, NONE, NULL,
     "area under the ROC curve, of several classes each against the rest; validation and test rows only"},
    {"confusion", "confusion_matrix", 0, NONE, NULL, "counts by label and prediction: in the reply of an evaluation"},
    {"mse", "mean_squared_error", 0, NONE, NULL, "mean squared error, in the target's units"},
    {"rmse", "root_mean_squared_error", 0, NONE, NULL, "root of mse"},
    {"mae", "mean_absolute_error", 0, NONE, NULL, "mean absolute error"},
    {"r2", "r2_score r_squared", 0, NONE, NULL, "1 - SS_res / SS_tot: share of the variance explained"},
};
const struct bp_family bp_metrics = {
    .what = "metric", .plural = "metrics", .tag = "type", .kinds = metrics, .n = N(metrics)};
