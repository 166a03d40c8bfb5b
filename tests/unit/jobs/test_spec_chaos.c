/* Specs that nobody would write, and a machine without memory: never a crash, never a leak, and whatever is accepted
 * is stable. */
#include "jobs/spec_fixture.h"

#include "base/random.h"

static const char *const seeds[] = {
    "{'dataset':'iris','target':'species','layers':[64,'relu',{'type':'dropout','rate':0.5},32],'lr':0.1,'epochs':3,"
    "'optimizer':'sgd','early_stopping':{'patience':3},'tags':{'a':'b'}}",
    "{'dataset':{'name':'houses','target':'price','columns':{'rooms':{'type':'category'}},'ignore':['x'],"
    "'validation_split':0.1},'model':{'layers':[{'type':'dense','units':8,'activation':{'type':'elu','alpha':1},"
    "'kernel_initializer':'he_normal','l2':0.1},{'type':'dense','units':'auto'}]},'loss':'mse','metrics':['r2'],"
    "'optimizer':{'type':'adamw','betas':[0.9,0.99]},'training':{'batch_size':7,'checkpoint':{'every_epochs':2}}}",
    "{'dataset':'pixels','layers':[8,'softmax'],'loss':'cross_entropy','lr_schedule':'constant','seed':5}",
};

static uint64_t draws;

static uint64_t draw(uint64_t below)
{
    uint32_t words[4];
    bp_random(1, bp_stream(BP_STREAM_CHECK, 0), 0, draws++, words);
    return bp_random_below(words[0], words[1], below);
}

static json_t *odd_value(void)
{
    static const char *const values[] = {"null",
                                         "true",
                                         "false",
                                         "0",
                                         "1",
                                         "-1",
                                         "3.5",
                                         "1e300",
                                         "''",
                                         "'a'",
                                         "[]",
                                         "{}",
                                         "'auto'",
                                         "[1,2]",
                                         "'softmax'",
                                         "{'type':'x'}",
                                         "'dense'",
                                         "'iris'",
                                         "1000",
                                         "[[[]]]",
                                         "{'type':'dense','units':3}",
                                         "'*'",
                                         "'features'",
                                         "'sigmoid'",
                                         "9007199254740991",
                                         "{'a':{'b':[{}]}}"};
    return fixture_json(values[draw(sizeof values / sizeof values[0])]);
}

/* Replaces, removes or adds something at a random place. */
static void mutate(json_t *json)
{
    static const char *const keys[] = {"target",  "task",  "loss",      "lr",     "layers",     "units",
                                       "type",    "name",  "p",         "alpha",  "activation", "scale",
                                       "monitor", "betas", "trainable", "epochs", "stratify"};
    if (json_is_array(json)) {
        size_t n = json_array_size(json), at = (size_t)draw(n + 1);
        if (at < n && draw(3))
            mutate(json_array_get(json, at));
        else if (at < n && draw(2))
            json_array_set_new(json, at, odd_value());
        else
            json_array_insert_new(json, at, odd_value());
    } else if (json_is_object(json)) {
        size_t n = json_object_size(json), at = (size_t)draw(n + 1);
        void *iterator = json_object_iter(json);
        for (; iterator && at > 0; at--)
            iterator = json_object_iter_next(json, iterator);
        json_t *value = iterator ? json_object_iter_value(iterator) : NULL;
        if (value && (json_is_object(value) || json_is_array(value)) && draw(4))
            mutate(value);
        else if (value && draw(2))
            json_object_set_new(json, json_object_iter_key(iterator), odd_value());
        else if (value)
            json_object_del(json, json_object_iter_key(iterator));
        else
            json_object_set_new(json, keys[draw(sizeof keys / sizeof keys[0])], odd_value());
    }
}

static void test_mutants(void **state)
{
    (void)state;
    int accepted = 0;
    for (int i = 0; i < 1500; i++) {
        struct bp_spec once, twice;
        struct bp_error err = {0};
        json_t *spec = fixture_json(seeds[draw(sizeof seeds / sizeof seeds[0])]);
        if (json_object_get(json_object_get(spec, "dataset"), "ignore"))
            json_object_del(json_object_get(spec, "dataset"), "ignore");
        for (uint64_t n = draw(3); n < 3; n++)
            mutate(spec);
        bp_status status = bp_spec_resolve(spec, &fixture_context, &once, &err);
        char *text = json_dumps(spec, JSON_COMPACT | JSON_ENCODE_ANY);
        if (status != BP_OK && status != BP_INVALID)
            fail_msg("%s: %s, %s", text, bp_status_name(status), err.message);
        if (status == BP_OK) {
            accepted++;
            status = bp_spec_resolve(once.resolved, &fixture_context, &twice, &err);
            char *a = json_dumps(once.resolved, JSON_INDENT(1)), *b = json_dumps(twice.resolved, JSON_INDENT(1));
            char *c = json_dumps(twice.problems.errors, JSON_INDENT(1));
            if (status != BP_OK || strcmp(a, b) != 0)
                fail_msg("%s\nbecame %s\nthen %s\n%s", text, a, b ? b : "nothing", c ? c : "");
            free(a);
            free(b);
            free(c);
            bp_spec_done(&twice);
        }
        bp_spec_done(&once);
        free(text);
        json_decref(spec);
    }
    assert_true(accepted > 100); /* else the mutants are too wild to test anything */
}

static int64_t allocations_left = INT64_MAX;

static void *scarce_malloc(size_t size)
{
    return allocations_left-- > 0 ? malloc(size) : NULL;
}

static void test_no_memory(void **state)
{
    (void)state;
    for (size_t s = 0; s < sizeof seeds / sizeof seeds[0]; s++) {
        json_t *spec = fixture_json(seeds[s]);
        for (int64_t n = 0;; n += 1 + n / 50) {
            struct bp_spec result;
            struct bp_error err = {0};
            allocations_left = n;
            bp_status status = bp_spec_resolve(spec, &fixture_context, &result, &err);
            bool enough = allocations_left > 0;
            allocations_left = INT64_MAX;
            assert_true(enough || status != BP_OK || result.resolved);
            assert_true(status == BP_OK || !result.resolved);
            bp_spec_done(&result);
            if (enough)
                break;
        }
        json_decref(spec);
    }
}

static int up(void **state)
{
    json_set_alloc_funcs(scarce_malloc, free);
    return fixture_up(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mutants), cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, up, fixture_down);
}
