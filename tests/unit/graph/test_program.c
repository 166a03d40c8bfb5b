/* The program for people: its text is that of an execution; its picture has each edge of both directions once. */
#include "graph/program.h"

#include "graph/exec.h"
#include "graph/nets.h"

#include <stdlib.h>

static int count(const char *text, const char *word)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, word)) != NULL; at += strlen(word))
        n++;
    return n;
}

/* A fork: n1 feeds n2 and n3, which have a loss each. */
static struct bp_graph *fork_net(void)
{
    struct bp_graph *graph = net_new(1, 3, 0, 0);
    int n = net_dense(graph, 0, 4);
    net_head(graph, net_act(graph, n, BP_TANH, 0), BP_LOSS_MSE, 1);
    net_head(graph, net_dense(graph, n, 2), BP_LOSS_CROSS_ENTROPY, 1);
    return graph;
}

static void text_is_the_executions(void **state)
{
    (void)state;
    struct bp_graph *graph = fork_net();
    struct bp_model *model = NULL;
    struct bp_exec *exec = NULL;
    struct bp_exec_options options = {.capacity = 8, .training = true, .threads = 1};
    char *text = NULL;
    assert_int_equal(bp_program_text(graph, 8, &text, NULL), BP_OK);
    assert_int_equal(bp_model_new(graph, true, 0, &model, NULL), BP_OK);
    assert_int_equal(bp_exec_new(model, &options, &exec, NULL), BP_OK);
    char *printed = bp_exec_print(exec);
    assert_string_equal(text, printed);
    free(printed);
    free(text);
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

static void the_picture(void **state)
{
    (void)state;
    struct bp_graph *graph = fork_net();
    char *text = NULL;
    assert_int_equal(bp_program_dot(graph, 8, &text, NULL), BP_OK);
    assert_int_equal(count(text, "\"input\" -> \"n1\";"), 1);
    assert_int_equal(count(text, "\"n1\" -> \"n2\";"), 1);
    assert_int_equal(count(text, "\"n1\" -> \"n3\";"), 1);
    assert_int_equal(count(text, "label=\"d n1\""), 1); /* the first contribution is written, the other added */
    assert_int_equal(count(text, "label=\"+ d n1\""), 1);
    assert_int_equal(count(text, "label=\"d n2\""), 1);
    assert_int_equal(count(text, "label=\"d n3\""), 1);
    assert_int_equal(count(text, "label=\"d input\""), 0);
    assert_int_equal(count(text, "shape=note"), 2);
    assert_int_equal(count(text, "{"), count(text, "}"));
    free(text);
    assert_int_equal(bp_program_dot(graph, 0, &text, NULL), BP_INVALID);
    bp_graph_free(graph);
}

/* An error signal that is made in the instruction of another one has its edge all the same. */
static void the_picture_of_a_chain(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(1, 3, 0, 0);
    char *text = NULL;
    int n = net_act(graph, net_dense(graph, 0, 4), BP_TANH, 0);
    net_head(graph, net_act(graph, net_dense(graph, n, 2), BP_SIGMOID, 0), BP_LOSS_MSE, 1);
    assert_int_equal(bp_program_dot(graph, 8, &text, NULL), BP_OK);
    assert_int_equal(count(text, "\"n2\" -> \"n1\" [style=dashed"), 1);
    assert_int_equal(count(text, "\"n3\" -> \"n2\" [style=dashed"), 1);
    assert_int_equal(count(text, "\"n4\" -> \"n3\" [style=dashed"), 1);
    assert_int_equal(count(text, "\"loss 0\" -> \"n4\" [style=dashed"), 1);
    free(text);
    bp_graph_free(graph);
}

/* The relu of a sequence has bits in place of its value (activation.c): its slope is no part of a product. */
static void a_relu_with_bits_is_on_its_own(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(1, 3, 0, 0);
    char *text = NULL;
    int n = net_reshape(graph, net_dense(graph, 0, 6), (struct bp_shape){.rank = 2, .dim = {2, 3}});
    n = net_flatten(graph, net_act(graph, n, BP_RELU, 0));
    net_head(graph, net_dense(graph, n, 2), BP_LOSS_MSE, 1);
    assert_int_equal(bp_program_text(graph, 8, &text, NULL), BP_OK);
    assert_int_equal(count(text, "relu'(d n3)"), 1);
    assert_int_equal(count(text, "\n        "), 0); /* each line has a number */
    free(text);
    bp_graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_the_executions),
        cmocka_unit_test(the_picture),
        cmocka_unit_test(the_picture_of_a_chain),
        cmocka_unit_test(a_relu_with_bits_is_on_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
