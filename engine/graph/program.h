/* program.h: what backpropagation makes of a network, for people: the forward program, and the backward program that is
 * derived from it. Nothing is allocated for running it, so a large network is shown as quickly as a small one.
 *
 * Threads: pure functions.
 */
#ifndef BP_GRAPH_PROGRAM_H
#define BP_GRAPH_PROGRAM_H

#include "graph/graph.h"

/* The program of a training step on `rows` rows, in words: layers, instructions, stages, memory. *ret is malloc'd text.
 * BP_INVALID, BP_LIMIT, BP_NOMEM. */
bp_status bp_program_text(const struct bp_graph *graph, int rows, char **ret, struct bp_error *err);

/* The same as a graph in the language of Graphviz (dot): a box a layer with its shape, solid edges for values, dashed
 * ones for error signals, notes for parameter gradients. */
bp_status bp_program_dot(const struct bp_graph *graph, int rows, char **ret, struct bp_error *err);

#endif
