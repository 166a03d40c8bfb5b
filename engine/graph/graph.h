/* graph.h: a network as a directed acyclic graph of operations.
 *
 * A graph is built node by node. A node names its inputs by index, and an input must exist before it is used: so
 * the order of the nodes is a topological order, cycles cannot be written down, and nothing recurses. Adding a
 * node infers the shape of its value and declares the tensors that it needs. Shapes are of one sample: the batch
 * dimension is left out everywhere.
 *
 * The graph knows no numbers: values live in a model (model.h), activations in an execution (exec.h). It is
 * immutable once a model was made of it, and may then be shared between threads.
 */
#ifndef BP_GRAPH_GRAPH_H
#define BP_GRAPH_GRAPH_H

#include "base/status.h"
#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BP_RANK_MAX 4
#define BP_NAME_MAX 64
#define BP_NODE_INPUTS_MAX 16
#define BP_NODE_TENSORS_MAX 8
#define BP_NODES_MAX 4096           /* a bound on what a mistyped spec can ask for */
#define BP_ELEMENTS_MAX (1LL << 31) /* of one tensor or of one sample's value: indices stay in 32 bits */

struct bp_shape {
    int rank;                 /* 0 to 4; 1 is a vector */
    int64_t dim[BP_RANK_MAX]; /* outermost first: (channels, height, width) */
};

int64_t bp_shape_elements(const struct bp_shape *shape); /* product; shapes in a graph never overflow */
bool bp_shape_equal(const struct bp_shape *a, const struct bp_shape *b);
/* "[3, 28, 28]" into text, always terminated. Returns text. */
char *bp_shape_print(const struct bp_shape *shape, char *text, size_t size);

enum bp_op_kind {
    BP_OP_INPUT,
    BP_OP_DENSE,
    BP_OP_ACTIVATION,
    BP_OP_DROPOUT,
    BP_OP_FLATTEN,
    BP_OP_SIMPLE_RNN,
    BP_OP_LSTM,
    BP_OP_GRU,
    BP_OP_BATCH_NORM,
    BP_OP_LAYER_NORM,
    BP_OP_GROUP_NORM,
    BP_OP_ADD,
    BP_OP_MULTIPLY,
    BP_OP_CONCAT,
    BP_OP_MULTI_HEAD_ATTENTION,
    BP_OP_CONV,
    BP_OP_POOL,
    BP_OP_RESHAPE,
    BP_OP_EMBEDDING,
    BP_OP_COUNT
};

enum bp_loss {
    BP_LOSS_CROSS_ENTROPY,
    BP_LOSS_BCE,
    BP_LOSS_MSE,
    BP_LOSS_MAE,
    BP_LOSS_HUBER,
    BP_LOSS_HINGE,        /* one output: its sign says which of two classes; the target is 0 or 1 */
    BP_LOSS_MULTI_MARGIN, /* hinge of several classes, one output each */
    BP_LOSS_POISSON,      /* the output is the logarithm of the expected count */
    BP_LOSS_QUANTILE,
    BP_LOSS_KL_DIV, /* logits against a distribution */
    BP_LOSS_COUNT
};

enum bp_init_kind {
    BP_INIT_ZEROS,
    BP_INIT_ONES,
    BP_INIT_CONSTANT,
    BP_INIT_UNIFORM,
    BP_INIT_NORMAL,
    BP_INIT_TRUNCATED_NORMAL,
    BP_INIT_GLOROT_UNIFORM,
    BP_INIT_GLOROT_NORMAL,
    BP_INIT_HE_UNIFORM,
    BP_INIT_HE_NORMAL,
    BP_INIT_LECUN_UNIFORM,
    BP_INIT_LECUN_NORMAL,
    BP_INIT_ORTHOGONAL,
    BP_INIT_KAIMING_UNIFORM, /* U(+-1/sqrt(fan_in)), torch's default */
    BP_INIT_COUNT
};

struct bp_initializer {
    enum bp_init_kind kind;
    double a, b; /* constant: a value; uniform: a low, b high; (truncated_)normal: a mean, b deviation;
                  * orthogonal: a gain; unused else */
};

/* A named block of numbers: a parameter, or a running statistic. Laid out row-major, dense [out, in]. */
struct bp_tensor {
    char name[BP_NAME_MAX + 32]; /* "<node>.weight", "<node>.bias": the name in exports */
    int node;                    /* the node that uses it */
    struct bp_shape shape;
    size_t count;   /* elements */
    size_t offset;  /* of its first element in the model's parameter (or statistics) range */
    bool statistic; /* running statistic: not trained, not in the parameter range */
    bool trainable;
    bool decay;              /* weight decay applies: weights yes, biases too (as PyTorch does) */
    double l1, l2;           /* penalty of the layer, 0 for none */
    int64_t fan_in, fan_out; /* for initializers */
    struct bp_initializer init;
    const float *literal; /* count given values instead of init, or NULL; owned by the graph */
};

struct bp_dense_config {
    int64_t units;
    bool use_bias;
    struct bp_initializer kernel_init, bias_init;
    double l1, l2;
    const float *weights, *biases; /* literal values, [units, in] and [units], or NULL; copied */
};

struct bp_activation_config {
    enum bp_activation kind;
    double alpha;
};

/* simple_rnn, lstm, gru. kaiming_uniform is PyTorch's default there: U(+-1/sqrt(units)) for all tensors. */
struct bp_recurrent_config {
    int64_t units;
    bool return_sequences; /* the state of every step, not only the last one */
    bool reverse;          /* reads from the last step to the first */
    bool use_bias;
    enum bp_activation activation; /* simple_rnn: tanh or relu */
    struct bp_initializer kernel_init, recurrent_init, bias_init;
};

struct bp_norm_config {
    double eps;
    double momentum; /* batch_norm: weight of the new batch in the running statistics */
    int64_t groups;  /* group_norm: of channels; they divide the channels evenly */
    bool affine;     /* learns a factor and an offset */
};

struct bp_attention_config {
    int64_t heads;
    int64_t key_dim; /* of a head; 0: features / heads */
    bool causal;     /* a step sees itself and those before it */
    double dropout;  /* rate, on the probabilities */
};

#define BP_AXIS_CHANNELS INT32_MAX /* concat along the first axis; for a sequence [steps, features] along the last */

/* A convolution over the last one or two axes of (channels, height, width) or (channels, length). Weights are
 * [filters, channels / groups, kernel…]. */
struct bp_conv_config {
    int axes;           /* 1 or 2: elements in use of the arrays below */
    int64_t filters;    /* filled in by multiplier */
    int64_t multiplier; /* depthwise: filters per channel, each channel a group of its own; 0: not */
    int64_t groups;
    int64_t kernel[2], stride[2], dilation[2];
    bool same;          /* as many zeros around the image as ceil(in / stride) positions need */
    int64_t padding[2]; /* zeros on both sides, without `same` */
    bool use_bias;
    struct bp_initializer kernel_init, bias_init;
    double l1, l2;
    const float *weights, *biases; /* literal values, or NULL; copied */
};

enum bp_pool { BP_POOL_MAX, BP_POOL_AVG, BP_POOL_GLOBAL_AVG };

struct bp_pool_config {
    enum bp_pool kind;
    int64_t size[2], stride[2]; /* of the window, down and across; unused by the global one */
    bool same;
    int64_t padding[2]; /* at most half of size */
};

struct bp_embedding_config {
    int64_t input_dim, output_dim; /* codes, numbers per code */
    struct bp_initializer init;
    const float *weights; /* literal values, [input_dim, output_dim], or NULL; copied */
};

struct bp_node {
    enum bp_op_kind kind;
    char name[BP_NAME_MAX + 1]; /* unique in the graph */
    int ninputs;
    int input[BP_NODE_INPUTS_MAX]; /* indices of earlier nodes */
    bool trainable;                /* false freezes its tensors */
    union {
        struct bp_dense_config dense;
        struct bp_activation_config activation;
        struct bp_conv_config conv;
        struct bp_pool_config pool;
        struct bp_embedding_config embedding;
        struct bp_shape reshape;
        struct bp_norm_config norm; /* batch_norm, layer_norm, group_norm */
        struct bp_attention_config attention;
        struct {
            int axis; /* of one sample's shape, negative from the end; BP_AXIS_CHANNELS */
        } concat;
        struct bp_recurrent_config recurrent;
        struct {
            double rate;
        } dropout;
    } u;
    /* filled by bp_graph_add */
    struct bp_shape shape; /* of its value */
    int ntensors;
    int tensor[BP_NODE_TENSORS_MAX]; /* indices into the graph's tensors */
};

/* An output of the network with its loss. Several heads are several targets. */
struct bp_head {
    int node; /* whose value is the prediction (logits for cross_entropy and bce) */
    enum bp_loss loss;
    int outputs;   /* elements of the node's value */
    double weight; /* of this head's loss in the sum */
    /* cross_entropy, bce: label smoothing, in [0, 1); huber: delta, above 0, in the target's own unit; quantile: the
     * level, in (0, 1); 0 with all others */
    double parameter;
    char label[BP_NAME_MAX + 1]; /* what its metrics are called by where there are several heads; "" is its number */
};

struct bp_graph {
    int nnodes, nodes_capacity;
    struct bp_node *nodes; /* [0] is the input */
    int ntensors, tensors_capacity;
    struct bp_tensor *tensors;
    int nheads, heads_capacity;
    struct bp_head *heads;
    size_t nparams, nstats; /* elements of the parameter and the statistics range */
};

/* A graph whose node 0, "input", has the given shape. BP_NOMEM, BP_INVALID (a dimension below 1), BP_LIMIT. */
bp_status bp_graph_new(const struct bp_shape *input, struct bp_graph **ret, struct bp_error *err);
void bp_graph_free(struct bp_graph *graph); /* NULL is fine */

/* Adds a copy of *node, infers its shape, declares its tensors; *ret is its index. Errors name the node and the
 * shapes in question: BP_INVALID, BP_LIMIT, BP_NOMEM; the graph is then unchanged. */
bp_status bp_graph_add(struct bp_graph *graph, const struct bp_node *node, int *ret, struct bp_error *err);

/* Makes node an output with a loss; its shape must be rank 1. */
bp_status bp_graph_add_head(struct bp_graph *graph, int node, enum bp_loss loss, double weight, struct bp_error *err);

/* The same with a parameter and a label; `outputs` is filled in. BP_INVALID also for a parameter out of range. */
bp_status bp_graph_add_output(struct bp_graph *graph, const struct bp_head *head, struct bp_error *err);

/* Whether the target of a loss is a class number; else it is as many values as there are outputs. */
bool bp_loss_takes_labels(enum bp_loss loss);

/* For op implementations: declares a tensor of the node being added. */
bp_status bp_graph_add_tensor(struct bp_graph *graph, struct bp_node *node, const struct bp_tensor *tensor,
                              struct bp_error *err);

/* Floating-point operations (2 per multiply-add) of one sample: forward alone, and a whole training step. */
int64_t bp_graph_flops(const struct bp_graph *graph, bool training);

const char *bp_op_name(enum bp_op_kind kind);
/* The name of a node's layer type: that of its op, and "conv2d", "max_pool2d", … where an op makes several. */
const char *bp_node_type(const struct bp_node *node);
const char *bp_activation_name(enum bp_activation kind);
const char *bp_loss_name(enum bp_loss loss);
const char *bp_init_name(enum bp_init_kind kind);

#endif
