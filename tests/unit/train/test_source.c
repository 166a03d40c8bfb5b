/* test_source.c: a gathered batch is exactly what the formulas say, for every type, and at memory speed. */
#include "fixture.h"

#include <time.h>

struct __attribute__((packed)) row {
    uint8_t pixels[100];
    uint8_t small;
    int32_t code;
    float f;
    double d;
    int32_t integer;
    uint8_t gap;
    double value[2];
    float level;
};

enum { ROWS = 50 };
static struct row rows[ROWS];
static const double levels[] = {-1.5, 0.0, 2.25, 7.0, INFINITY}; /* the last for what is missing */
static const double classes[] = {1.0, 3.0, 8.0};

static void fill_rows(void)
{
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < 100; i++) {
            rows[r].pixels[i] = (uint8_t)(r * 37 + i * 11);
        }
        rows[r].small = (uint8_t)(r % 3);
        rows[r].code = r % 5 - 1;
        rows[r].f = r == 7 ? NAN : noise(1, (uint64_t)r) * 1e3f;
        rows[r].d = r == 9 ? NAN : (double)noise(2, (uint64_t)r) / 3.0;
        rows[r].integer = r == 11 ? -1 : r * 1000003;
        rows[r].level = r == 13 ? NAN : r == 14 ? 3.0f : (float)levels[r % 4];
        rows[r].value[0] = r / 7.0;
        rows[r].value[1] = classes[r % 3];
    }
}

#define NUMBER(field, kind, n, first)                                                                                \
    {                                                                                                                \
        .type = kind, .offset = offsetof(struct row, field), .count = n, .encoding = BP_ENCODE_NUMBER, .fill = 0.3,  \
        .shift = 0.1, .scale = 1.0 / 255.0, .output = first                                                          \
    }
static struct bp_feature features[] = {
    NUMBER(pixels, BP_U8, 100, 0),
    NUMBER(small, BP_U8, 1, 100),
    NUMBER(f, BP_F32, 1, 101),
    NUMBER(d, BP_F64, 1, 102),
    NUMBER(integer, BP_I32, 1, 103),
    {.type = BP_I32,
     .offset = offsetof(struct row, code),
     .count = 1,
     .encoding = BP_ENCODE_ONE_HOT,
     .levels = 3,
     .missing_level = -1,
     .output = 104},
    {.type = BP_F32,
     .offset = offsetof(struct row, level),
     .count = 1,
     .encoding = BP_ENCODE_ONE_HOT,
     .levels = 5,
     .values = levels,
     .missing_level = 4,
     .output = 107},
    {.type = BP_U8,
     .offset = offsetof(struct row, small),
     .count = 1,
     .encoding = BP_ENCODE_ONE_HOT,
     .levels = 2,
     .missing_level = -1,
     .output = 112},
};
static struct bp_target targets[] = {
    {.is_class = true,
     .type = BP_F64,
     .offset = offsetof(struct row, value) + 8,
     .count = 1,
     .classes = 3,
     .values = classes},
    {.is_class = true, .type = BP_I32, .offset = offsetof(struct row, code), .count = 1, .classes = 3},
    {.type = BP_F64, .offset = offsetof(struct row, value), .count = 2, .shift = 0.25, .scale = 3.0},
};
static const struct bp_source source = {.rows = (const uint8_t *)rows,
                                        .stride = sizeof(struct row),
                                        .nrows = ROWS,
                                        .nfeatures = 8,
                                        .features = features,
                                        .inputs = 114,
                                        .ntargets = 3,
                                        .targets = targets};

static float expect(double v)
{
    return (float)(((v != v ? 0.3 : v) - 0.1) * (1.0 / 255.0));
}

static void test_features(void **state)
{
    uint32_t order[ROWS];
    float *x = malloc(ROWS * 114 * sizeof *x);

    (void)state;
    fill_rows();
    for (uint32_t i = 0; i < ROWS; i++) {
        order[i] = i * 7 % ROWS;
    }
    memset(x, 0xff, ROWS * 114 * sizeof *x);
    bp_source_gather(&source, order, ROWS, x);
    for (int i = 0; i < ROWS; i++) {
        const struct row *r = &rows[order[i]];
        const float *y = x + i * 114;
        int level = r->level != r->level ? 4 : r->level == 3.0f ? -1 : (int)(order[i] % 4);

        for (int p = 0; p < 100; p++) {
            assert_true(y[p] == expect(r->pixels[p]));
        }
        assert_true(y[100] == expect(r->small));
        assert_true(y[101] == expect((double)r->f));
        assert_true(y[102] == expect(r->d));
        assert_true(y[103] == expect(r->integer == -1 ? NAN : r->integer));
        for (int j = 0; j < 3; j++) {
            assert_true(y[104 + j] == (r->code == j ? 1.0f : 0.0f));
        }
        for (int j = 0; j < 5; j++) {
            assert_true(y[107 + j] == (level == j ? 1.0f : 0.0f));
        }
        for (int j = 0; j < 2; j++) {
            assert_true(y[112 + j] == (r->small == j ? 1.0f : 0.0f));
        }
    }
    free(x);
}

static void test_targets(void **state)
{
    uint32_t order[ROWS];
    int32_t label[ROWS];
    float value[2 * ROWS];

    (void)state;
    fill_rows();
    for (uint32_t i = 0; i < ROWS; i++) {
        order[i] = ROWS - 1 - i;
    }
    bp_source_gather_labels(&source, 0, order, ROWS, label);
    for (int i = 0; i < ROWS; i++) {
        assert_int_equal(label[i], order[i] % 3);
    }
    bp_source_gather_labels(&source, 1, order, ROWS, label);
    for (int i = 0; i < ROWS; i++) {
        assert_int_equal(label[i], rows[order[i]].code == 3 ? -1 : rows[order[i]].code);
    }
    bp_source_gather_values(&source, 2, order, ROWS, value);
    for (int i = 0; i < ROWS; i++) {
        assert_true(value[2 * i] == (float)((rows[order[i]].value[0] - 0.25) * 3.0));
        assert_true(value[2 * i + 1] == (float)((rows[order[i]].value[1] - 0.25) * 3.0));
    }
    bp_source_gather_values(&source, 1, order, ROWS, value);
    for (int i = 0; i < ROWS; i++) {
        int32_t code = rows[order[i]].code;
        assert_true(code < 0 || code > 2 ? value[i] != value[i] : value[i] == (float)code);
    }
}

/* A window is its rows one after the other, whichever rows these are. */
static void test_windows(void **state)
{
    enum { STEPS = 19, WIDTH = 114 };
    static uint32_t previous[ROWS];
    uint32_t last[] = {49, 20, 43}, order[STEPS];
    float *x = malloc(3 * STEPS * WIDTH * sizeof *x), *y = malloc(STEPS * WIDTH * sizeof *y);
    struct bp_source windows = source;

    (void)state;
    fill_rows();
    windows.steps = STEPS;
    windows.inputs = STEPS * WIDTH;
    for (int form = 0; form < 3; form++) { /* consecutive rows, every second row, rows from outside */
        uint32_t stride = form == 1 ? 2 : 1;
        for (uint32_t r = 0; r < ROWS; r++) {
            previous[r] = r - stride;
        }
        windows.previous = form == 1 ? previous : NULL;
        windows.apart = form == 2;
        for (uint32_t i = 0; i < 3; i++) {
            last[i] = form == 0 ? (uint32_t[]){49, 20, 43}[i] : form == 1 ? (uint32_t[]){36, 49, 41}[i] : i % 2;
        }
        bp_source_gather(&windows, last, 3, x);
        for (int i = 0; i < 3; i++) {
            uint32_t end = form == 2 ? (last[i] + 1) * STEPS - 1 : last[i];
            for (uint32_t t = 0; t < STEPS; t++) {
                order[t] = end - (STEPS - 1 - t) * stride;
            }
            bp_source_gather(&source, order, STEPS, y);
            assert_memory_equal(x + i * STEPS * WIDTH, y, STEPS * WIDTH * sizeof *y);
        }
    }
    free(x);
    free(y);
}

/* Pixels of 60,000 images: reported, and far from slow. */
static void test_speed(void **state)
{
    enum { IMAGES = 20000, PIXELS = 784, BATCH = 128 };
    struct bp_feature feature = {.type = BP_U8, .count = PIXELS, .encoding = BP_ENCODE_NUMBER, .scale = 1.0 / 255.0};
    uint8_t *bytes = malloc((size_t)IMAGES * PIXELS);
    float *x = malloc((size_t)BATCH * PIXELS * sizeof *x);
    struct bp_source images = {
        .rows = bytes, .stride = PIXELS, .nrows = IMAGES, .nfeatures = 1, .features = &feature, .inputs = PIXELS};
    uint32_t order[BATCH];
    struct timespec a, b;
    double seconds;

    (void)state;
    memset(bytes, 7, (size_t)IMAGES * PIXELS);
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int first = 0; first + BATCH <= IMAGES; first += BATCH) {
        for (uint32_t i = 0; i < BATCH; i++) {
            order[i] = (uint32_t)first + i;
        }
        bp_source_gather(&images, order, BATCH, x);
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    print_message("gather of bytes: %.2f GB/s written\n", IMAGES * PIXELS * 4e-9 / seconds);
    assert_true(UNHURRIED || seconds < 1.0);
    free(bytes);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_speed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
