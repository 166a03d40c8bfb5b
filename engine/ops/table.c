/* table.c: all operations, by kind. A new op is a file beside this one, an entry of enum bp_op_kind and a row here.
 *
 * Threads: constant.
 */
#include "ops/op.h"

const struct bp_op *const bp_op_table[BP_OP_COUNT] = {
    [BP_OP_INPUT] = &bp_op_input,
    [BP_OP_DENSE] = &bp_op_dense,
    [BP_OP_ACTIVATION] = &bp_op_activation,
    [BP_OP_DROPOUT] = &bp_op_dropout,
    [BP_OP_FLATTEN] = &bp_op_flatten,
    [BP_OP_CONV] = &bp_op_conv,
    [BP_OP_POOL] = &bp_op_pool,
    [BP_OP_RESHAPE] = &bp_op_reshape,
    [BP_OP_EMBEDDING] = &bp_op_embedding,
    [BP_OP_SIMPLE_RNN] = &bp_op_simple_rnn,
    [BP_OP_LSTM] = &bp_op_lstm,
    [BP_OP_GRU] = &bp_op_gru,
    [BP_OP_BATCH_NORM] = &bp_op_batch_norm,
    [BP_OP_LAYER_NORM] = &bp_op_layer_norm,
    [BP_OP_GROUP_NORM] = &bp_op_group_norm,
    [BP_OP_ADD] = &bp_op_add,
    [BP_OP_MULTIPLY] = &bp_op_multiply,
    [BP_OP_CONCAT] = &bp_op_concat,
    [BP_OP_MULTI_HEAD_ATTENTION] = &bp_op_multi_head_attention,
};
