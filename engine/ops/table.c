/* table.c: all operations, by kind. A new op is a file beside this one, an entry of enum bp_op_kind and a row here.
 *
 * Threads: constant.
 */
#include "ops/op.h"

const struct bp_op *const bp_op_table[BP_OP_COUNT] = {
    [BP_OP_INPUT] = &bp_op_input,     [BP_OP_DENSE] = &bp_op_dense,     [BP_OP_ACTIVATION] = &bp_op_activation,
    [BP_OP_DROPOUT] = &bp_op_dropout, [BP_OP_FLATTEN] = &bp_op_flatten,
};
