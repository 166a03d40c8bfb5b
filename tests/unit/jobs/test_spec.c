/* What a good spec becomes: short forms, inference, defaults, and that a resolved spec resolves to itself. */
#include "jobs/spec_fixture.h"

#include "jobs/fields.h"
#include "jobs/predictor.h"

/* resolve(resolve(x)) == resolve(x), without a warning about anything inferred. */
static void assert_stable(const char *text)
{
    struct bp_spec once, twice;
    struct bp_error err = {0};
    fixture_good(text, &once);
    bp_status status = bp_spec_resolve(once.resolved, &fixture_context, &twice, &err);
    if (status != BP_OK || !json_equal(once.resolved, twice.resolved)) {
        char *a = json_dumps(once.resolved, JSON_INDENT(1)), *b = json_dumps(twice.resolved, JSON_INDENT(1));
        char *c = json_dumps(twice.problems.errors, JSON_INDENT(1));
        fail_msg("%s\nbecame %s\nthen %s\n%s", text, a, b ? b : "nothing", c ? c : "");
    }
    char *a = json_dumps(once.resolved, JSON_COMPACT), *b = json_dumps(twice.resolved, JSON_COMPACT);
    assert_string_equal(a, b); /* the order of members too */
    free(a);
    free(b);
    assert_int_equal(json_array_size(twice.warnings) <= json_array_size(once.warnings), 1);
    bp_spec_done(&once);
    bp_spec_done(&twice);
}

static void test_shortest(void **state)
{
    (void)state;
    struct bp_spec s;
    fixture_good("{'dataset': 'iris', 'target': 'species', 'layers': [64, 32]}", &s);
    fixture_is(s.resolved, "/dataset/name", "'iris'");
    fixture_is(s.resolved, "/dataset/task", "'classification'");
    fixture_is(s.resolved, "/dataset/scale", "'standard'");
    fixture_is(s.resolved, "/dataset/stratify", "true");
    fixture_is(s.resolved, "/dataset/validation_split", "0.2");
    fixture_is(s.resolved, "/loss", "'cross_entropy'");
    fixture_is(s.resolved, "/metrics", "['accuracy']");
    fixture_is(s.resolved, "/seed", "0");
    fixture_is(s.resolved, "/threads", "null");
    fixture_is(s.resolved, "/optimizer",
               "{'type':'adam','lr':0.001,'betas':[0.9,0.999],'eps':1e-8,'weight_decay':0.0,'amsgrad':false}");
    fixture_is(s.resolved, "/training/epochs", "10");
    fixture_is(s.resolved, "/training/batch_size", "32");
    fixture_is(s.resolved, "/training/early_stopping",
               "{'monitor':'val_loss','patience':null,'min_delta':0.0,'restore_best':true}");
    fixture_is(s.resolved, "/training/checkpoint", "{'every_epochs':1,'every_seconds':30.0,'keep':2}");
    fixture_is(s.resolved, "/training/log_every_steps", "10");
    fixture_is(s.resolved, "/training/on_divergence", "{'action':'stop'}");
    assert_int_equal(json_array_size(fixture_at(s.resolved, "/model/layers")), 3);
    fixture_is(s.resolved, "/model/layers/0",
               "{'type':'dense','name':'dense_1','units':64,'activation':'relu','use_bias':true,'trainable':true,"
               "'kernel_initializer':'kaiming_uniform','bias_initializer':'kaiming_uniform','l1':0.0,'l2':0.0}");
    fixture_is(s.resolved, "/model/layers/2/units", "3");
    fixture_is(s.resolved, "/model/layers/2/activation", "'linear'");
    assert_non_null(fixture_entry(s.warnings, "/target", "inferred"));
    assert_non_null(fixture_entry(s.warnings, "/layers", "inferred"));
    assert_int_equal(strlen(s.table), 64);
    bp_spec_done(&s);
}

static void test_short_forms(void **state)
{
    (void)state;
    struct bp_spec s;
    fixture_good("{'dataset':'iris','target':['species'],'ignore':'sepal_width','epochs':3,'batch_size':8,'lr':0.5,"
                 "'optimizer':'sgd','layers':[8,'tanh',{'type':'dropout','rate':0.25},{'type':'relu'},"
                 "{'type':'activation','activation':'elu','alpha':2},4],'early_stopping':true}",
                 &s);
    fixture_is(s.resolved, "/dataset/target", "'species'");
    fixture_is(s.resolved, "/dataset/ignore", "['sepal_width']");
    fixture_is(s.resolved, "/training/epochs", "3");
    fixture_is(s.resolved, "/training/batch_size", "8");
    fixture_is(s.resolved, "/optimizer",
               "{'type':'sgd','lr':0.5,'momentum':0.0,'dampening':0.0,'nesterov':false,'weight_decay':0.0}");
    fixture_is(s.resolved, "/training/early_stopping/patience", "10");
    fixture_is(s.resolved, "/model/layers/1/activation", "'tanh'");
    fixture_is(s.resolved, "/model/layers/2/rate", "0.25");
    fixture_is(s.resolved, "/model/layers/3/activation", "'relu'");
    fixture_is(s.resolved, "/model/layers/4/activation", "{'type':'elu','alpha':2.0}");
    fixture_is(s.resolved, "/model/layers/5/units", "4");
    fixture_is(s.resolved, "/model/layers/6/units", "3");
    fixture_is(s.resolved, "/model/layers/6/name", "'dense_3'");
    bp_spec_done(&s);
    fixture_good("{'data':'iris','label':'species','model':[{'type':'dense','units':4,'name':'dense_1','activation':"
                 "'relu'},4],'threads':0,'train':{'allow_symmetric':true}}",
                 &s);
    fixture_is(s.resolved, "/threads", "null");
    fixture_is(s.resolved, "/allow_symmetric", "true");
    fixture_is(s.resolved, "/model/layers/1/name", "'dense_2'");
    bp_spec_done(&s);
}

static void test_aliases(void **state)
{
    (void)state;
    struct bp_spec s;
    fixture_good(
        "{'dataset':{'name':'iris','target':'species','val_split':0.3},'model':{'layers':["
        "{'type':'nn.Linear','out_features':16,'activation':'swish','kernel_initializer':'xavier_uniform'},"
        "{'type':'Dropout','p':0.5},{'type':'Dense','units':'auto','activation':'softmax'}]},"
        "'loss':'categorical_crossentropy','optimizer':{'type':'AdamW','learning_rate':0.01,'epsilon':1e-6}}",
        &s);
    fixture_is(s.resolved, "/model/layers/0/type", "'dense'");
    fixture_is(s.resolved, "/model/layers/0/units", "16");
    fixture_is(s.resolved, "/model/layers/0/activation", "'silu'");
    fixture_is(s.resolved, "/model/layers/0/kernel_initializer", "'glorot_uniform'");
    fixture_is(s.resolved, "/model/layers/1/rate", "0.5");
    fixture_is(s.resolved, "/model/layers/2/activation", "'linear'");
    fixture_is(s.resolved, "/optimizer/lr", "0.01");
    fixture_is(s.resolved, "/optimizer/eps", "1e-6");
    fixture_is(s.resolved, "/dataset/validation_split", "0.3");
    assert_non_null(fixture_entry(s.warnings, "/model/layers/0/type", "alias"));
    assert_non_null(fixture_entry(s.warnings, "/model/layers/0/out_features", "alias"));
    assert_non_null(fixture_entry(s.warnings, "/model/layers/1/p", "alias"));
    assert_non_null(fixture_entry(s.warnings, "/optimizer/learning_rate", "alias"));
    assert_non_null(fixture_entry(s.warnings, "/optimizer/type", "alias"));
    assert_non_null(fixture_entry(s.warnings, "/loss", "alias"));
    assert_non_null(fixture_entry(s.warnings, "/model/layers/2/activation", "folded"));
    bp_spec_done(&s);
    static const struct {
        const char *written, *read;
    } losses[] = {{"CrossEntropyLoss", "'cross_entropy'"}, {"sparse_categorical_crossentropy", "'cross_entropy'"}};
    for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++) {
        char text[300];
        snprintf(text, sizeof text, "{'dataset':'iris','target':'species','layers':[4],'loss':'%s'}",
                 losses[i].written);
        fixture_good(text, &s);
        fixture_is(s.resolved, "/loss", losses[i].read);
        bp_spec_done(&s);
    }
    fixture_good("{'dataset':'xor','target':'y','layers':[4],'loss':'BCEWithLogitsLoss','learning_rate':1,"
                 "'validation_split':0}",
                 &s);
    fixture_is(s.resolved, "/loss", "'bce'");
    fixture_is(s.resolved, "/optimizer/lr", "1.0");
    bp_spec_done(&s);
}

static void test_tasks(void **state)
{
    (void)state;
    struct bp_spec s;
    fixture_good("{'dataset':'houses','target':'price','layers':[8]}", &s);
    fixture_is(s.resolved, "/dataset/task", "'regression'");
    fixture_is(s.resolved, "/loss", "'mse'");
    fixture_is(s.resolved, "/metrics", "['rmse','mae','r2']");
    fixture_is(s.resolved, "/dataset/target_scale", "'standard'");
    fixture_is(s.resolved, "/dataset/stratify", "false");
    fixture_is(s.resolved, "/model/layers/1/units", "1");
    bp_spec_done(&s);
    /* Whole numbers, few of them: classes, unless the task or the loss says otherwise. */
    fixture_good("{'dataset':'houses','target':'rooms','layers':[8]}", &s);
    fixture_is(s.resolved, "/dataset/task", "'classification'");
    fixture_is(s.resolved, "/model/layers/1/units", "6");
    bp_spec_done(&s);
    fixture_good("{'dataset':'houses','target':'rooms','task':'regression','layers':[8]}", &s);
    fixture_is(s.resolved, "/loss", "'mse'");
    bp_spec_done(&s);
    fixture_good("{'dataset':'houses','target':'rooms','loss':'mse','layers':[8]}", &s);
    fixture_is(s.resolved, "/dataset/task", "'regression'");
    bp_spec_done(&s);
    /* The classical network for xor: a sigmoid output fits 0 and 1 as they are. */
    fixture_good("{'dataset':'xor','target':'y','loss':'mse','layers':[{'type':'dense','units':2,'activation':"
                 "'sigmoid'},{'type':'dense','units':1,'activation':'sigmoid'}],'validation_split':0}",
                 &s);
    fixture_is(s.resolved, "/dataset/target_scale", "'none'");
    fixture_is(s.resolved, "/training/early_stopping/monitor", "'loss'");
    fixture_is(s.resolved, "/training/batch_size", "4");
    assert_non_null(fixture_entry(s.warnings, "/training/batch_size", "clamped"));
    assert_int_equal(json_array_size(fixture_at(s.resolved, "/model/layers")), 2);
    bp_spec_done(&s);
    fixture_good("{'dataset':'soft','target':'p','loss':'bce','layers':[4,{'type':'dense','units':1,'activation':"
                 "'sigmoid'}]}",
                 &s);
    fixture_is(s.resolved, "/dataset/task", "'regression'");
    fixture_is(s.resolved, "/metrics", "[]");
    fixture_is(s.resolved, "/model/layers/1/activation", "'linear'");
    bp_spec_done(&s);
    /* Too few rows for a share: what is watched is the loss of the training rows. */
    fixture_good("{'dataset':'xor','target':'y','layers':[2],'validation_split':0.1}", &s);
    fixture_is(s.resolved, "/training/early_stopping/monitor", "'loss'");
    assert_non_null(fixture_entry(s.warnings, "/validation_split", "no_validation_rows"));
    bp_spec_done(&s);
    fixture_good("{'dataset':'rare','target':'kind','layers':[4]}", &s);
    assert_non_null(fixture_entry(s.warnings, "/target", "single_member"));
    bp_spec_done(&s);
}

/* One extent of a new shape may be left to be found out. */
static void test_reshape(void **state)
{
    (void)state;
    struct bp_spec s;
    fixture_good("{'dataset':'pixels','layers':[{'type':'reshape','shape':[2,-1]},{'type':'lstm','units':3}]}", &s);
    bp_spec_done(&s);
    static const char *const wrong[] = {"[3,-1]", "[-1,-1]", "[0,-1]", "[16,0]", "[-2,8]"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char text[160];
        snprintf(text, sizeof text, "{'dataset':'pixels','layers':[{'type':'reshape','shape':%s}]}", wrong[i]);
        assert_int_equal(fixture_resolve(text, &s), BP_INVALID);
        bp_spec_done(&s);
    }
}

static void test_images(void **state)
{
    (void)state;
    struct bp_spec s;
    fixture_good("{'dataset':'pixels','layers':[8]}", &s);
    fixture_is(s.resolved, "/dataset/target", "'target'");
    fixture_is(s.resolved, "/dataset/scale", "'unit'");
    fixture_is(s.resolved, "/dataset/task", "'classification'");
    fixture_is(s.resolved, "/model/layers/0/type", "'flatten'");
    fixture_is(s.resolved, "/model/layers/1/units", "8");
    fixture_is(s.resolved, "/model/layers/2/units", "4");
    assert_non_null(fixture_entry(s.warnings, "/layers/0", "inferred"));
    bp_spec_done(&s);
    fixture_good("{'dataset':'pixels','layers':['flatten',8]}", &s);
    assert_int_equal(json_array_size(fixture_at(s.resolved, "/model/layers")), 3);
    bp_spec_done(&s);
    fixture_good("{'dataset':'pixels','layers':[{'type':'Conv2D','filters':3,'kernel_size':[3],'padding':'same'},"
                 "{'type':'max_pool2d'},8,{'type':'dense','units':'auto'}]}",
                 &s);
    fixture_is(s.resolved, "/model/layers/0/type", "'conv2d'");
    fixture_is(s.resolved, "/model/layers/0/name", "'conv2d_1'");
    fixture_is(s.resolved, "/model/layers/0/kernel_size", "3");
    fixture_is(s.resolved, "/model/layers/0/strides", "1");
    fixture_is(s.resolved, "/model/layers/0/padding", "'same'");
    fixture_is(s.resolved, "/model/layers/1/pool_size", "2");
    fixture_is(s.resolved, "/model/layers/2/type", "'flatten'");
    bp_spec_done(&s);
    fixture_good("{'dataset':'pixels','layers':[{'type':'conv2d','filters':3,'kernel_size':2},"
                 "'global_avg_pool2d',8,'relu',{'type':'dense','units':'auto'}]}",
                 &s);
    assert_int_equal(json_array_size(fixture_at(s.resolved, "/model/layers")), 5); /* no flatten */
    bp_spec_done(&s);
    fixture_good("{'dataset':'split','layers':[8]}", &s);
    fixture_is(s.resolved, "/dataset/test_split", "0.0");
    bp_spec_done(&s);
}

static void test_stable(void **state)
{
    (void)state;
    static const char *const specs[] = {
        "{'dataset':'iris','target':'species','layers':[64,32]}",
        "{'dataset':'iris','target':'species','layers':[{'type':'dense','units':3}]}",
        "{'dataset':'iris','target':'species','layers':[{'type':'dense','units':3,'activation':'relu'}]}",
        "{'dataset':'iris','target':'species','layers':[3]}",
        "{'dataset':'iris','target':'species','layers':[8,'softmax',{'type':'dense','units':'auto'},'softmax']}",
        "{'dataset':'iris','target':'species','layers':[8,{'type':'flatten'},{'type':'dropout','rate':0}]}",
        "{'dataset':'iris','target':'species','layers':[{'type':'dense','units':4,'activation':'leaky_relu',"
        "'kernel_initializer':{'type':'normal','std':0.1},'bias_initializer':'zeros','l2':1e-4}],'name':'a b',"
        "'tags':{'owner':'lea'},'seed':9007199254740991,'threads':2,'priority':-5}",
        "{'dataset':{'name':'houses','target':'price','scale':'minmax','features':['area','rooms'],"
        "'columns':{'rooms':{'type':'category','encode':'one_hot'}}},'layers':[8],'early_stopping':{'patience':3,"
        "'monitor':'val_r2'},'clip_grad_norm':1,'validation_split':0.25,'test_split':0.1}",
        "{'dataset':'xor','target':'y','layers':[2],'loss':'mse','validation_split':0,'epochs':100000}",
        "{'dataset':'pixels','layers':[{'type':'depthwise_conv2d','kernel_size':[3,2],'padding':[1,0],'strides':[2,1]"
        ","
        "'dilation':[1,2]},{'type':'avg_pool2d','pool_size':[1,2],'strides':1,'padding':'same'},8]}",
        "{'dataset':'pixels','layers':['flatten',{'type':'reshape','shape':[2,8]},{'type':'conv1d','filters':4,"
        "'kernel_size':3,'groups':2},8]}",
        "{'dataset':'xor','target':'y','layers':[2],'loss':'bce','validation_split':0}",
        "{'dataset':'xor','target':'y','layers':[2,'tanh'],'loss':'mse','validation_split':0.1}",
        "{'dataset':'soft','target':'p','layers':[2],'loss':{'type':'bce'},'optimizer':{'lr':1e-2}}",
        "{'dataset':'pixels','layers':[8]}",
        "{'dataset':'split','layers':[{'type':'dropout','rate':0.1},8]}",
        "{'dataset':'iris','target':'species','layers':[{'type':'dense','units':8,'activation':'relu','kernel_"
        "initializer':'zeros'}],"
        "'allow_symmetric':true,'training':{'shuffle':false,'early_stopping':null,'on_divergence':'stop',"
        "'checkpoint':{'every_seconds':null,'every_epochs':null}},'metrics':['loss','accuracy']}",
    };
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++)
        assert_stable(specs[i]);
}

/* A pass over rows to be predicted takes as many as fit into its memory. */
static void test_rows_of_a_prediction(void **state)
{
    static const struct {
        int64_t steps;
        int low, high;
    } list[] = {{10, BP_PREDICT_BATCH, BP_PREDICT_BATCH}, {1000000, 2, 16}};
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct bp_graph *graph = NULL;
        struct bp_error err = {0};
        struct bp_shape input = {.rank = 1, .dim = {list[i].steps}};
        struct bp_node dense = {.kind = BP_OP_DENSE, .name = "out", .ninputs = 1, .u.dense.units = 1};
        int at;
        assert_int_equal(bp_graph_new(&input, &graph, &err), BP_OK);
        assert_int_equal(bp_graph_add(graph, &dense, &at, &err), BP_OK);
        assert_int_equal(bp_graph_add_head(graph, at, BP_LOSS_MSE, 1, &err), BP_OK);
        assert_in_range(bp_predict_batch(graph), list[i].low, list[i].high);
        bp_graph_free(graph);
    }
}

static void test_plan(void **state)
{
    (void)state;
    struct bp_spec s;
    struct bp_table *table = NULL;
    struct bp_problems problems;
    struct bp_plan plan;
    struct bp_split split;
    struct bp_error err = {0};
    fixture_good("{'dataset':'iris','target':'species','seed':7,'layers':[{'type':'dense','units':5,'activation':"
                 "'tanh','l2':0.5},{'type':'dropout','rate':0.5}],'optimizer':{'type':'adamw','betas':[0.8,0.9]},"
                 "'early_stopping':{'patience':4,'monitor':'val_accuracy','min_delta':0.1},'clip_grad_norm':2,"
                 "'batch_size':50,'epochs':6}",
                 &s);
    assert_int_equal(fixture_open(NULL, "iris", &table, &err), BP_OK);
    bp_problems_init(&problems);
    assert_int_equal(bp_plan_build(s.resolved, table, NULL, &problems, &plan, &err), BP_OK);
    assert_int_equal(plan.parameters, 4 * 5 + 5 + 5 * 3 + 3);
    assert_int_equal(plan.graph->nnodes, 5); /* input, dense, its tanh, dropout, dense */
    assert_string_equal(plan.graph->nodes[1].name, "dense_1");
    assert_string_equal(plan.graph->nodes[2].name, "dense_1.activation");
    assert_int_equal(plan.graph->heads[0].loss, BP_LOSS_CROSS_ENTROPY);
    assert_int_equal(plan.config.seed, 7);
    assert_int_equal(plan.config.batch_size, 50);
    assert_int_equal(plan.config.epochs, 6);
    assert_true(plan.config.shuffle && plan.config.early_stopping && plan.config.restore_best);
    assert_int_equal(plan.config.patience, 4);
    assert_true(plan.config.min_delta == 0.1 && plan.config.clip_grad_norm == 2);
    assert_int_equal(plan.config.monitor.metric, BP_METRIC_ACCURACY);
    assert_true(plan.config.monitor.validation);
    assert_int_equal(plan.config.optimizer.kind, BP_ADAMW);
    assert_true(plan.config.optimizer.beta1 == 0.8 && plan.config.optimizer.beta2 == 0.9);
    assert_true(plan.config.optimizer.weight_decay == 0.01);
    assert_int_equal(plan.config.checkpoint_epochs, 1);
    assert_true(plan.config.checkpoint_seconds == 30);
    assert_true(plan.stratify && !plan.standardize_target);
    assert_int_equal(bp_plan_split(&plan, plan.transform, table, &split, &err), BP_OK);
    assert_int_equal(split.count[BP_TRAIN], 120);
    assert_int_equal(split.count[BP_VALIDATION], 30);

    json_t *model = bp_plan_model_json(&plan), *estimate = bp_plan_estimate_json(&plan, &split);
    bp_split_done(&split);
    fixture_is(model, "/parameters", "43");
    assert_int_equal(json_array_size(json_object_get(model, "layers")), 3);
    fixture_is(model, "/layers/0",
               "{'name':'dense_1','type':'dense','activation':'tanh','output_shape':[5],"
               "'parameters':25}");
    fixture_is(estimate, "/steps", "18");
    fixture_is(estimate, "/steps_per_epoch", "3");
    assert_true(json_integer_value(json_object_get(estimate, "bytes")) > 43 * 4);
    json_decref(model);
    json_decref(estimate);

    /* A fitted transform is enough for predictions. */
    assert_int_equal(bp_plan_split(&plan, plan.transform, table, &split, &err), BP_OK);
    assert_int_equal(bp_transform_fit(plan.transform, table, &split, false, &err), BP_OK);
    struct bp_plan second;
    assert_int_equal(bp_plan_build(s.resolved, NULL, plan.transform, &problems, &second, &err), BP_OK);
    assert_null(second.transform);
    assert_int_equal(second.parameters, 43);
    bp_plan_done(&second);
    bp_split_done(&split);
    bp_plan_done(&plan);
    bp_table_close(table);
    bp_spec_done(&s);
}

static void test_tables(void **state)
{
    (void)state;
    json_t *capabilities = bp_spec_capabilities(), *schema = bp_spec_schema();
    fixture_is(capabilities, "/layers/0/name", "'dense'");
    fixture_is(capabilities, "/layers/0/available", "true");
    fixture_is(capabilities, "/layers/2/available", "true");
    fixture_is(capabilities, "/optimizers/4/parameters/0",
               "{'name':'lr','type':'number','available':true,'default':0.001,'above':0,'max':10000,'aliases':"
               "['learning_rate','eta','step_size'],'help':'learning rate'}");
    assert_int_equal(json_array_size(json_object_get(capabilities, "layers")), 22);
    assert_int_equal(json_array_size(json_object_get(capabilities, "initializers")), 14);
    assert_int_equal(json_array_size(json_object_get(capabilities, "schedules")), 9);
    fixture_is(schema, "/$schema", "'https://json-schema.org/draft/2020-12/schema'");
    fixture_is(schema, "/additionalProperties", "false");
    json_decref(capabilities);
    json_decref(schema);
}

/* Whether the table has exactly the n names of the engine as what can be used (and `refused` by their own). */
static void same_names(const struct bp_family *family, int n, const char *(*name)(int), int more)
{
    int usable = -more; /* names of the table that the engine does not know by itself */
    for (size_t i = 0; i < family->n; i++)
        usable += !(family->kinds[i].flags & BP_LATER) && !family->kinds[i].refused;
    assert_int_equal(usable, n);
    for (int i = 0; i < n; i++) {
        enum bp_match match = BP_MATCH_NONE;
        if (strcmp(name(i), "multi_margin") == 0) /* hinge of several classes */
            continue;
        const struct bp_kind *kind = bp_family_find(family, name(i), &match);
        assert_non_null(kind);
        assert_int_equal(match, BP_MATCH_EXACT);
        assert_false(kind->flags & BP_LATER);
    }
}

static const char *activation_at(int i)
{
    return bp_activation_name((enum bp_activation)i);
}

static const char *initializer_at(int i)
{
    return bp_init_name((enum bp_init_kind)i);
}

static const char *loss_at(int i)
{
    return bp_loss_name((enum bp_loss)i);
}

static const char *optimizer_at(int i)
{
    return bp_optimizer_name((enum bp_optimizer_kind)i);
}

static const char *metric_at(int i)
{
    return bp_metric_name((enum bp_metric)i);
}

static void test_engine_has_what_the_table_says(void **state)
{
    (void)state;
    same_names(&bp_activations, BP_ACTIVATION_COUNT, activation_at, 0);
    same_names(&bp_initializers, BP_INIT_COUNT, initializer_at, 0);
    same_names(&bp_losses, BP_LOSS_COUNT, loss_at, -1);
    same_names(&bp_optimizers, BP_OPTIMIZER_COUNT, optimizer_at, 0);
    same_names(&bp_metrics, BP_METRIC_COUNT, metric_at, 1);
}

/* Every default of the table is a value that the table accepts. */
static void test_every_kind_builds(void **state)
{
    (void)state;
    static const struct bp_family *const families[] = {&bp_activations, &bp_initializers, &bp_optimizers};
    static const char *const forms[] = {
        "{'dataset':'iris','target':'species','layers':[{'type':'dense','units':4,'activation':'%s'},8]}",
        ("{'dataset':'iris','target':'species','allow_symmetric':true,'layers':[{'type':'dense','units':4,"
         "'activation':'relu','kernel_initializer':'%s','bias_initializer':'%s'}]}"),
        "{'dataset':'iris','target':'species','layers':[4],'optimizer':'%s'}"};
    for (size_t f = 0; f < 3; f++)
        for (size_t i = 0; i < families[f]->n; i++) {
            const struct bp_kind *kind = &families[f]->kinds[i];
            char text[400];
            if ((kind->flags & BP_LATER) || kind->refused)
                continue;
            snprintf(text, sizeof text, forms[f], kind->name, kind->name);
            assert_stable(text);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shortest),
                                       cmocka_unit_test(test_short_forms),
                                       cmocka_unit_test(test_aliases),
                                       cmocka_unit_test(test_tasks),
                                       cmocka_unit_test(test_reshape),
                                       cmocka_unit_test(test_images),
                                       cmocka_unit_test(test_stable),
                                       cmocka_unit_test(test_rows_of_a_prediction),
                                       cmocka_unit_test(test_plan),
                                       cmocka_unit_test(test_tables),
                                       cmocka_unit_test(test_engine_has_what_the_table_says),
                                       cmocka_unit_test(test_every_kind_builds)};
    return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
