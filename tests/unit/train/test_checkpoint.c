/* test_checkpoint.c: a checkpoint gives back the whole state, and no damaged or foreign one is ever believed. */
#include "fixture.h"

static struct data data;
static struct bp_graph *graph;
static struct bp_trainer *trainer; /* paused in the middle of the third epoch, with a best of its own */
static uint8_t *bytes;
static size_t size;

static enum bp_command pause_at_27(void *ctx, int *threads)
{
    struct bp_progress progress;

    (void)threads;
    bp_trainer_progress(*(struct bp_trainer **)ctx, &progress);
    return progress.step == 27 ? BP_PAUSE : BP_GO_ON;
}

static struct bp_train_config config(void)
{
    struct bp_train_config c = config_default();

    c.batch_size = 10;
    c.optimizer.lr = 0.01;
    return c;
}

static int setup(void **state)
{
    static const int hidden[] = {5};
    struct bp_train_config c = config();
    struct bp_train_hooks hooks = {.ctx = &trainer, .command = pause_at_27};

    (void)state;
    data_init(&data, 125, 3, 3, 0);
    data_fill(&data, 3);
    data_split(&data, 0.2);
    graph = mlp(3, hidden, 1, BP_TANH, 0.0, 3, BP_LOSS_CROSS_ENTROPY);
    trainer = trainer_new(&c, graph, &data);
    assert_int_equal(bp_trainer_run(trainer, &hooks, NULL), BP_RUN_PAUSED);
    assert_int_equal(trainer->at.epoch, 2);
    assert_int_equal(trainer->at.epoch_step, 7);
    bytes = encode(trainer, &size);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(bytes);
    bp_trainer_free(trainer);
    bp_graph_free(graph);
    data_done(&data);
    return 0;
}

static void test_whole_state(void **state)
{
    struct bp_train_config c = config();
    struct bp_trainer *other;
    struct bp_error err;
    struct bp_best best;
    bool exact = false;
    uint8_t *again;
    size_t again_size;

    (void)state;
    c.threads = 2;
    other = trainer_new(&c, graph, &data);
    assert_int_equal(bp_checkpoint_restore(other, bytes, size, &exact, &err), BP_OK);
    assert_true(exact);
    bp_trainer_best(other, &best);
    assert_true(best.any && best.epoch == 2 && best.step == 20);
    assert_memory_equal(other->best, trainer->best, graph->nparams * sizeof(float));
    assert_memory_equal(other->epoch_accs, trainer->epoch_accs, sizeof *trainer->epoch_accs);
    assert_true(other->epoch_accs->rows == 70.0);
    assert_true(other->at.seconds == trainer->at.seconds);
    assert_int_equal(other->at.samples, 270);
    again = encode(other, &again_size);
    assert_int_equal(again_size, size);
    assert_memory_equal(again, bytes, size);
    free(again);
    bp_trainer_free(other);
}

static void test_read(void **state)
{
    uint8_t *moved = malloc(size + 1); /* sections at any alignment */
    struct bp_checkpoint_header header;
    const uint8_t *params, *stats;
    struct bp_error err;

    (void)state;
    memcpy(moved + 1, bytes, size);
    assert_int_equal(bp_checkpoint_read(moved + 1, size, false, &header, &params, &stats, &err), BP_OK);
    assert_memory_equal(params, trainer->model->params, graph->nparams * sizeof(float));
    assert_int_equal(header.step, 27);
    assert_int_equal(header.nslots, 2);
    assert_int_equal(header.numerics, BP_NUMERICS_VERSION);
    assert_true(header.has_best && header.best.step == 20);
    assert_int_equal(bp_checkpoint_read(moved + 1, size, true, &header, &params, &stats, &err), BP_OK);
    assert_memory_equal(params, trainer->best, graph->nparams * sizeof(float));
    free(moved);
}

static void test_layout(void **state)
{
    struct bp_checkpoint_layout layout;
    struct bp_error err;
    size_t n = size < BP_CHECKPOINT_HEADER_MAX ? size : BP_CHECKPOINT_HEADER_MAX;

    (void)state;
    assert_int_equal(bp_checkpoint_layout(bytes, n, size, &layout, &err), BP_OK);
    assert_memory_equal(bytes + layout.params, trainer->model->params, graph->nparams * sizeof(float));
    assert_memory_equal(bytes + layout.slots, trainer->model->slots[0], graph->nparams * sizeof(float));
    assert_memory_equal(bytes + layout.best_params, trainer->best, graph->nparams * sizeof(float));
    assert_int_equal(layout.stats, 0);
    assert_int_equal(layout.best_stats, 0);
    assert_int_equal(layout.size, size);
    assert_true(layout.params <= BP_CHECKPOINT_HEADER_MAX);
    assert_int_equal(bp_checkpoint_layout(bytes, n, size + 1, &layout, &err), BP_CORRUPT);
    assert_int_equal(bp_checkpoint_layout(bytes, 100, size, &layout, &err), BP_CORRUPT);
}

/* Whether anything believes these bytes. They are copied to a block of their very size, so that a sanitizer sees a
 * read past their end. */
static bool believed(const uint8_t *some, size_t n)
{
    uint8_t *copy = malloc(n > 0 ? n : 1);
    struct bp_checkpoint_header header;
    const uint8_t *params, *stats;
    struct bp_error err;
    uint64_t before = hash_state(trainer);
    bool exact, any;

    memcpy(copy, some, n);
    any = bp_checkpoint_read(copy, n, true, &header, &params, &stats, &err) == BP_OK;
    any = bp_checkpoint_restore(trainer, copy, n, &exact, &err) == BP_OK || any;
    assert_true(any || hash_state(trainer) == before);
    free(copy);
    return any;
}

static void test_every_truncation(void **state)
{
    (void)state;
    for (size_t n = 0; n < size; n++) {
        assert_false(believed(bytes, n));
    }
    assert_true(believed(bytes, size));
}

static void test_every_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < 8 * size; i++) {
        bytes[i / 8] ^= (uint8_t)(1u << (i % 8));
        assert_false(believed(bytes, size));
        bytes[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
    assert_true(believed(bytes, size));
}

/* Random damage with a hash made right again: nothing may crash, whatever the figures say. */
static void test_forged(void **state)
{
    uint8_t *forged = malloc(size);

    (void)state;
    for (uint64_t i = 0; i < 20000; i++) {
        uint32_t words[4];
        uint64_t hash = BP_HASH_START;

        memcpy(forged, bytes, size);
        bp_random(5, 0, 0, i, words);
        memcpy(forged + words[0] % 180, &words[1], 1 + words[2] % 4);
        hash = bp_hash_bytes(hash, forged, size - 8);
        memcpy(forged + size - 8, &hash, 8);
        believed(forged, size);
    }
    free(forged);
    assert_true(believed(bytes, size));
}

static bp_status restore_into(const struct bp_train_config *c, const struct bp_graph *g, const struct data *d)
{
    struct bp_trainer *other = trainer_new(c, g, d);
    uint64_t before = hash_state(other);
    struct bp_error err = {0};
    bool exact;
    bp_status status = bp_checkpoint_restore(other, bytes, size, &exact, &err);

    assert_true(status == BP_OK || (hash_state(other) == before && other->at.step == 0 && err.message[0] != '\0'));
    bp_trainer_free(other);
    return status;
}

static void test_foreign(void **state)
{
    static const int hidden[] = {5}, wider[] = {6};
    struct bp_train_config c = config();
    struct bp_graph *wide = mlp(3, wider, 1, BP_TANH, 0.0, 3, BP_LOSS_CROSS_ENTROPY);
    struct bp_graph *relu = mlp(3, hidden, 1, BP_RELU, 0.0, 3, BP_LOSS_CROSS_ENTROPY);
    struct data other = data;

    (void)state;
    assert_int_equal(restore_into(&c, graph, &data), BP_OK);
    assert_int_equal(restore_into(&c, wide, &data), BP_MISMATCH);
    assert_int_equal(restore_into(&c, relu, &data), BP_MISMATCH);
    c.seed++;
    assert_int_equal(restore_into(&c, graph, &data), BP_MISMATCH);
    c = config();
    c.optimizer.kind = BP_SGD;
    assert_int_equal(restore_into(&c, graph, &data), BP_MISMATCH);
    c = config();
    c.batch_size = 11;
    assert_int_equal(restore_into(&c, graph, &data), BP_MISMATCH);
    c = config();
    data_split(&other, 0.3);
    assert_int_equal(restore_into(&c, graph, &other), BP_MISMATCH);
    bp_split_done(&other.split);
    bp_graph_free(wide);
    bp_graph_free(relu);
}

/* A checkpoint of the end is the end; with more epochs it is not. */
static void test_finished(void **state)
{
    struct bp_train_hooks hooks = {0};
    struct bp_train_config c = config();
    struct bp_trainer *a, *b;
    struct bp_error err;
    uint8_t *end;
    size_t end_size;
    bool exact;

    (void)state;
    c.epochs = 3;
    a = trainer_new(&c, graph, &data);
    assert_int_equal(bp_trainer_run(a, &hooks, &err), BP_RUN_FINISHED);
    end = encode(a, &end_size);
    b = trainer_new(&c, graph, &data);
    assert_int_equal(bp_checkpoint_restore(b, end, end_size, &exact, &err), BP_OK);
    assert_int_equal(bp_trainer_stop_reason(b), BP_STOP_MAX_EPOCHS);
    assert_memory_equal(bp_trainer_final_params(a), bp_trainer_final_params(b), graph->nparams * sizeof(float));
    assert_int_equal(bp_trainer_run(b, &hooks, &err), BP_RUN_FINISHED);
    assert_int_equal(b->at.step, 30);
    bp_trainer_free(b);
    c.epochs = 4;
    b = trainer_new(&c, graph, &data);
    assert_int_equal(bp_checkpoint_restore(b, end, end_size, &exact, &err), BP_OK);
    assert_int_equal(bp_trainer_run(b, &hooks, &err), BP_RUN_FINISHED);
    assert_int_equal(b->at.step, 40);
    bp_trainer_free(b);
    bp_trainer_free(a);
    free(end);
}

/* The checkpoint as an older version would have written it: the last `cut` bytes of the header left out. malloc'd. */
static uint8_t *as_version(const uint8_t *now, size_t now_size, uint32_t version, size_t cut)
{
    struct bp_checkpoint_layout layout;
    uint64_t hash;
    uint8_t *old = malloc(now_size);
    size_t head;

    assert_non_null(old);
    assert_int_equal(bp_checkpoint_layout(now, now_size, now_size, &layout, NULL), BP_OK);
    head = layout.params - cut;
    memcpy(old, now, head);
    memcpy(old + 8, &version, sizeof version);
    memcpy(old + head, now + layout.params, now_size - layout.params - 8);
    hash = bp_hash_bytes(BP_HASH_START, old, now_size - cut - 8);
    memcpy(old + now_size - cut - 8, &hash, 8);
    return old;
}

/* Checkpoints of every version so far are read. */
static void test_older_versions(void **state)
{
    static const struct {
        uint32_t version;
        size_t cut; /* bytes of the header that came later */
    } versions[] = {{2, 58}, {1, 66}};
    struct bp_train_config c = config();
    struct bp_train_hooks hooks = {.ctx = &trainer, .command = pause_at_27};
    struct bp_trainer *kept = trainer, *from;
    uint8_t *now;
    size_t now_size;

    (void)state;
    c.metrics = 1u << BP_METRIC_LOSS; /* the first version had no counts */
    trainer = from = trainer_new(&c, graph, &data);
    assert_int_equal(bp_trainer_run(from, &hooks, NULL), BP_RUN_PAUSED);
    now = encode(from, &now_size);
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        uint8_t *old = as_version(now, now_size, versions[i].version, versions[i].cut);
        struct bp_trainer *to = trainer_new(&c, graph, &data);
        struct bp_error err = {0};
        bool exact = false;

        assert_int_equal(bp_checkpoint_restore(to, old, now_size - versions[i].cut, &exact, &err), BP_OK);
        assert_true(exact && hash_state(to) == hash_state(from) && to->at.step == 27);
        assert_true(to->at.rate_factor == 1.0 && to->at.plateau.lr == c.optimizer.lr && isnan(to->at.last_loss));
        bp_trainer_free(to);
        free(old);
    }
    free(now);
    bp_trainer_free(from);
    trainer = kept;
}

static void test_small_buffer(void **state)
{
    size_t n = 7;
    struct bp_error err;

    (void)state;
    assert_true(bp_checkpoint_size(trainer) >= size);
    assert_int_equal(bp_checkpoint_encode(trainer, bytes, size - 1, &n, &err), BP_LIMIT);
    assert_int_equal(n, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_state),    cmocka_unit_test(test_read),
        cmocka_unit_test(test_layout),         cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_bit),      cmocka_unit_test(test_forged),
        cmocka_unit_test(test_foreign),        cmocka_unit_test(test_finished),
        cmocka_unit_test(test_older_versions), cmocka_unit_test(test_small_buffer),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
