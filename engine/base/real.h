/* real.h: the number type of the ops, and the names of their two builds.
 *
 * The sources of graph/exec, ops/ and the generic kernels are compiled twice: with float, for training, and with
 * double (BP_DOUBLE defined, libm functions, generic kernels only), for the gradient check and the step trace,
 * where rounding must not hide an error. Both builds live in one binary, so each function with a bp_real in its
 * signature (or reaching one) is renamed in the double build: its name gets the suffix _f64. The list below is the
 * whole of it: a source that includes this header writes the plain name and gets the one of its own build; a
 * caller of the double build compiles with BP_DOUBLE itself.
 */
#ifndef BP_BASE_REAL_H
#define BP_BASE_REAL_H

#ifdef BP_DOUBLE
typedef double bp_real;
#define bp_exec bp_exec_f64
#define bp_exec_new bp_exec_new_f64
#define bp_exec_free bp_exec_free_f64
#define bp_exec_estimate bp_exec_estimate_f64
#define bp_exec_forward bp_exec_forward_f64
#define bp_exec_pass bp_exec_pass_f64
#define bp_exec_input bp_exec_input_f64
#define bp_exec_input_gradient bp_exec_input_gradient_f64
#define bp_exec_output bp_exec_output_f64
#define bp_exec_value bp_exec_value_f64
#define bp_exec_gradient bp_exec_gradient_f64
#define bp_exec_workspace bp_exec_workspace_f64
#define bp_exec_targets bp_exec_targets_f64
#define bp_exec_target_scale bp_exec_target_scale_f64
#define bp_exec_row_losses bp_exec_row_losses_f64
#define bp_exec_mean_loss bp_exec_mean_loss_f64
#define bp_exec_feed bp_exec_feed_f64
#define bp_exec_profile bp_exec_profile_f64
#define bp_exec_hand_over bp_exec_hand_over_f64
#define bp_exec_is_admitted bp_exec_is_admitted_f64
#define bp_exec_update bp_exec_update_f64
#define bp_model bp_model_f64
#define bp_model_new bp_model_new_f64
#define bp_model_free bp_model_free_f64
#define bp_model_pack bp_model_pack_f64
#define bp_model_pack_share bp_model_pack_share_f64
#define bp_model_pack_piece bp_model_pack_piece_f64
#define bp_model_pack_end bp_model_pack_end_f64
#define bp_model_part bp_model_part_f64
#define bp_model_parts bp_model_parts_f64
#define bp_model_estimate bp_model_estimate_f64
#define bp_kernels bp_kernels_f64
#define bp_kernels_current bp_kernels_current_f64
#define bp_kernels_generic bp_kernels_generic_f64
#define bp_op_table bp_op_table_f64
#define bp_op bp_op_f64
#define bp_op_input bp_op_input_f64
#define bp_op_flatten bp_op_flatten_f64
#define bp_op_dense bp_op_dense_f64
#define bp_op_activation bp_op_activation_f64
#define bp_op_dropout bp_op_dropout_f64
#define bp_op_conv bp_op_conv_f64
#define bp_op_pool bp_op_pool_f64
#define bp_op_reshape bp_op_reshape_f64
#define bp_op_embedding bp_op_embedding_f64
#define bp_span_before bp_span_before_f64
#define bp_span_out bp_span_out_f64
#define bp_conv_geometry bp_conv_geometry_f64
#define bp_conv_fill_planes bp_conv_fill_planes_f64
#define bp_conv_is_gathered bp_conv_is_gathered_f64
#define bp_conv_product bp_conv_product_f64
#define bp_conv_product_scratch bp_conv_product_scratch_f64
#define bp_conv_product_begin bp_conv_product_begin_f64
#define bp_conv_product_run bp_conv_product_run_f64
#define bp_conv_positions bp_conv_positions_f64
#define bp_conv_taps bp_conv_taps_f64
#define bp_conv_backward bp_conv_backward_f64
#define bp_conv_backward_scratch bp_conv_backward_scratch_f64
#define bp_op_batch_norm bp_op_batch_norm_f64
#define bp_op_layer_norm bp_op_layer_norm_f64
#define bp_op_group_norm bp_op_group_norm_f64
#define bp_op_add bp_op_add_f64
#define bp_op_multiply bp_op_multiply_f64
#define bp_op_concat bp_op_concat_f64
#define bp_op_multi_head_attention bp_op_multi_head_attention_f64
#define bp_op_simple_rnn bp_op_simple_rnn_f64
#define bp_op_lstm bp_op_lstm_f64
#define bp_op_gru bp_op_gru_f64
#define bp_loss_table bp_loss_table_f64
#define bp_optimizer_name bp_optimizer_name_f64
#define bp_optimizer_slots bp_optimizer_slots_f64
#define bp_optimizer_prepare bp_optimizer_prepare_f64
#define bp_optimizer_step bp_optimizer_step_f64
#define bp_optimizer_begin bp_optimizer_begin_f64
#define bp_optimizer_take bp_optimizer_take_f64
#define bp_optimizer_update bp_optimizer_update_f64
#define bp_optimizer_by_pieces bp_optimizer_by_pieces_f64
#define bp_optimizer_penalty bp_optimizer_penalty_f64
#else
typedef float bp_real;
#endif

#endif
