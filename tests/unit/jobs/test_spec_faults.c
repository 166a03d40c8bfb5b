/* What a bad spec is told: each fault with its code, at the place in what the user wrote. */
#include "jobs/spec_fixture.h"

#define IRIS "'dataset':'iris','target':'species','layers':[8]"
#define HOUSES "'dataset':'houses','target':'price','layers':[8]"

struct fault {
    const char *spec, *pointer, *code;
};

static void assert_faults(const struct fault *faults, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct bp_spec s;
        bp_status status = fixture_resolve(faults[i].spec, &s);
        json_t *entry = fixture_entry(s.problems.errors, faults[i].pointer, faults[i].code);
        if (status != BP_INVALID || !entry || json_array_size(s.problems.errors) != 1) {
            char *dump = json_dumps(s.problems.errors, JSON_INDENT(1));
            fail_msg("%s: expected one %s at %s, got %s", faults[i].spec, faults[i].code, faults[i].pointer,
                     dump ? dump : "none");
        }
        bp_spec_done(&s);
    }
}

#define CHECK(list) assert_faults(list, sizeof(list) / sizeof((list)[0]))

static void test_shape_of_the_document(void **state)
{
    (void)state;
    static const struct fault list[] = {
        {"[]", "", "wrong_type"},
        {"'x'", "", "wrong_type"},
        {"123", "", "wrong_type"},
        {"null", "", "wrong_type"},
        {"{" IRIS ",'learning_rte':0.1}", "/learning_rte", "unknown_field"},
        {"{" IRIS ",'momentum':0.9}", "/momentum", "unknown_field"},
        {"{" IRIS ",'id':'job_1'}", "/id", "read_only"},
        {"{" IRIS ",'state':'queued'}", "/state", "read_only"},
        {"{" IRIS ",'owner':'me'}", "/owner", "read_only"},
        {"{" IRIS ",'status':'queued'}", "/status", "read_only"},
        {"{'dataset':'iris','target':'species'}", "/layers", "required"},
        {"{'target':'species','layers':[8]}", "/dataset/name", "required"},
        {"{'layers':[8]}", "/dataset", "required"},
        {"{'dataset':'iris','layers':[8]}", "/target", "required"},
        {"{" IRIS ",'lr':1,'learning_rate':2}", "/learning_rate", "conflict"},
        {"{" IRIS ",'lr':1,'optimizer':{'lr':2}}", "/lr", "conflict"},
        {"{" IRIS ",'optimizer':{'lr':2,'learning_rate':1}}", "/optimizer/learning_rate", "conflict"},
        {"{" IRIS ",'optimizer':7}", "/optimizer", "wrong_type"},
        {"{" IRIS ",'training':[]}", "/training", "wrong_type"},
    };
    CHECK(list);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct fault list[] = {
        {"{" IRIS ",'lr':'0.1'}", "/lr", "wrong_type"},
        {"{" IRIS ",'lr':null}", "/lr", "wrong_type"},
        {"{" IRIS ",'lr':true}", "/lr", "wrong_type"},
        {"{" IRIS ",'lr':[0.1]}", "/lr", "wrong_type"},
        {"{" IRIS ",'lr':0}", "/lr", "out_of_range"},
        {"{" IRIS ",'lr':-1}", "/lr", "out_of_range"},
        {"{" IRIS ",'lr':1e30}", "/lr", "out_of_range"},
        {"{" IRIS ",'lr':1e-400}", "/lr", "out_of_range"},
        {"{" IRIS ",'optimizer':{'type':'sgd','lr':0}}", "/optimizer/lr", "out_of_range"},
        {"{" IRIS ",'epochs':0}", "/epochs", "out_of_range"},
        {"{" IRIS ",'epochs':-1}", "/epochs", "out_of_range"},
        {"{" IRIS ",'epochs':1.5}", "/epochs", "wrong_type"},
        {"{" IRIS ",'epochs':1000000000}", "/epochs", "out_of_range"},
        {"{" IRIS ",'epochs':10.0}", "/epochs", "wrong_type"},
        {"{" IRIS ",'epochs':1e12}", "/epochs", "out_of_range"},
        {"{" IRIS ",'batch_size':0}", "/batch_size", "out_of_range"},
        {"{" IRIS ",'batch_size':8.5}", "/batch_size", "wrong_type"},
        {"{" IRIS ",'optimizer':{'betas':[0.9,1.0]}}", "/optimizer/betas/1", "out_of_range"},
        {"{" IRIS ",'optimizer':{'betas':[0.9]}}", "/optimizer/betas", "bad_length"},
        {"{" IRIS ",'optimizer':{'eps':0}}", "/optimizer/eps", "out_of_range"},
        {"{" IRIS ",'optimizer':{'weight_decay':-1}}", "/optimizer/weight_decay", "out_of_range"},
        {"{" IRIS ",'optimizer':{'type':'sgd','momentum':1}}", "/optimizer/momentum", "out_of_range"},
        {"{" IRIS ",'optimizer':{'type':'sgd','nesterov':true}}", "/optimizer/nesterov", "incompatible"},
        {"{" IRIS ",'validation_split':1}", "/validation_split", "out_of_range"},
        {"{" IRIS ",'validation_split':1.5}", "/validation_split", "out_of_range"},
        {"{" IRIS ",'validation_split':0.5,'test_split':0.5}", "/validation_split", "out_of_range"},
        {"{" IRIS ",'seed':-1}", "/seed", "out_of_range"},
        {"{" IRIS ",'seed':9007199254740992}", "/seed", "out_of_range"},
        {"{" IRIS ",'seed':'x'}", "/seed", "wrong_type"},
        {"{" IRIS ",'seed':10.0}", "/seed", "wrong_type"},
        {"{" IRIS ",'clip_grad_norm':0}", "/clip_grad_norm", "out_of_range"},
        {"{" IRIS ",'training':{'clip_grad_norm':-1}}", "/training/clip_grad_norm", "out_of_range"},
        {"{" IRIS ",'threads':3}", "/threads", "out_of_range"},
        {"{" IRIS ",'threads':1000000}", "/threads", "out_of_range"},
        {"{" IRIS ",'threads':-1}", "/threads", "out_of_range"},
        {"{" IRIS ",'name':''}", "/name", "bad_length"},
        {"{" IRIS ",'name':'a/b'}", "/name", "bad_value"},
        {"{" IRIS ",'name':'<script>'}", "/name", "bad_value"},
        {"{" IRIS ",'name':'a\\u202eb'}", "/name", "bad_value"},
        {"{" IRIS ",'name':'a\\nb'}", "/name", "bad_value"},
        {"{" IRIS ",'tags':{'a':1}}", "/tags/a", "wrong_type"},
        {"{" IRIS ",'tags':{'a b':'c'}}", "/tags/a b", "bad_value"},
        {"{" IRIS ",'tags':{'':'c'}}", "/tags/", "bad_value"},
        {"{" IRIS ",'lr_schedule':{'type':'multistep','milestones':[5,3]}}", "/lr_schedule/milestones/1",
         "out_of_order"},
        {"{" IRIS ",'lr_schedule':{'type':'multistep','milestones':[3,3]}}", "/lr_schedule/milestones/1",
         "out_of_order"},
    };
    CHECK(list);
}

#define PIXELS(list) "{'dataset':'pixels','layers':[" list "]}"
#define LAYERS(text) "{'dataset':'iris','target':'species','layers':[" text "]}"

static void test_layers(void **state)
{
    (void)state;
    static const struct fault list[] = {
        {LAYERS(""), "/layers", "bad_length"},
        {LAYERS("0"), "/layers/0", "out_of_range"},
        {LAYERS("8,-5"), "/layers/1", "out_of_range"},
        {LAYERS("2147483648"), "/layers/0", "out_of_range"},
        {LAYERS("1.5"), "/layers/0", "wrong_type"},
        {LAYERS("{'type':'dense','units':0}"), "/layers/0/units", "out_of_range"},
        {LAYERS("{'type':'dense'}"), "/layers/0/units", "required"},
        {LAYERS("{'units':3}"), "/layers/0", "required"},
        {LAYERS("true"), "/layers/0", "wrong_type"},
        {LAYERS("8,'rellu'"), "/layers/1", "unknown_name"},
        {LAYERS("{'type':'dence','units':3}"), "/layers/0/type", "unknown_name"},
        {LAYERS("{'type':'dense','unit':3,'units':4,'activation':'relu'}"), "/layers/0/unit", "unknown_field"},
        {LAYERS("{'type':'dense','units':3,'activation':'rellu'}"), "/layers/0/activation", "unknown_name"},
        {LAYERS("{'type':'dense','units':3,'activation':'step'}"), "/layers/0/activation", "not_differentiable"},
        {LAYERS("8,'sign'"), "/layers/1", "not_differentiable"},
        {LAYERS("8,'Heaviside'"), "/layers/1", "not_differentiable"},
        {LAYERS("{'type':'dropout','rate':1.0}"), "/layers/0/rate", "out_of_range"},
        {LAYERS("{'type':'dropout','rate':-0.1}"), "/layers/0/rate", "out_of_range"},
        {LAYERS("{'type':'dropout','rate':1}"), "/layers/0/rate", "out_of_range"},
        {LAYERS("{'type':'dropout'}"), "/layers/0/rate", "required"},
        {LAYERS("8,{'type':'conv2d','filters':8,'kernel_size':3}"), "/layers/1", "incompatible"},
        {LAYERS("{'type':'conv2d','filters':8,'kernel_size':'3'}"), "/layers/0/kernel_size", "wrong_type"},
        {LAYERS("{'type':'conv2d','filters':8,'kernel_size':0}"), "/layers/0/kernel_size", "out_of_range"},
        {LAYERS("{'type':'conv2d','filters':8,'kernel_size':[3,0]}"), "/layers/0/kernel_size/1", "out_of_range"},
        {LAYERS("{'type':'conv2d','filters':8,'kernel_size':[3,3,3]}"), "/layers/0/kernel_size", "wrong_type"},
        {LAYERS("{'type':'conv2d','filters':8,'kernel_size':3,'padding':'sane'}"), "/layers/0/padding", "wrong_type"},
        {LAYERS("{'type':'conv1d','filters':8,'kernel_size':[3,3]}"), "/layers/0/kernel_size", "wrong_type"},
        {LAYERS("{'type':'conv2d','kernel_size':3}"), "/layers/0/filters", "required"},
        {PIXELS("{'type':'conv2d','filters':8,'kernel_size':5}"), "/layers/0", "incompatible"},
        {PIXELS("{'type':'conv2d','filters':8,'kernel_size':3,'dilation':2}"), "/layers/0", "incompatible"},
        {PIXELS("{'type':'conv2d','filters':8,'kernel_size':3,'groups':2}"), "/layers/0", "incompatible"},
        {PIXELS("{'type':'conv2d','filters':2,'kernel_size':1,'kernel_initializer':'ones'}"),
         "/layers/0/kernel_initializer", "symmetric"},
        {PIXELS("'max_pool2d','max_pool2d','max_pool2d'"), "/layers/2", "incompatible"},
        {PIXELS("{'type':'max_pool2d','padding':2}"), "/layers/0", "incompatible"},
        {PIXELS("{'type':'reshape','shape':[3,5]}"), "/layers/0", "incompatible"},
        {PIXELS("{'type':'reshape','shape':[]}"), "/layers/0/shape", "bad_length"},
        {LAYERS("{'type':'dense','units':4,'activation':'relu','inputs':['x']}"), "/layers/0/inputs/0",
         "unknown_name"},
        {LAYERS("{'type':'dense','units':4,'activation':'relu','name':'a','inputs':'a'}"), "/layers/0/inputs",
         "incompatible"},
        {LAYERS("{'type':'dense','units':4,'inputs':'b'},{'type':'dense','units':'auto','name':'b'}"),
         "/layers/0/inputs", "incompatible"},
        {LAYERS("{'type':'dense','units':4,'activation':'relu','inputs':[]}"), "/layers/0/inputs", "bad_length"},
        {LAYERS("8,{'type':'dense','units':4,'activation':'relu','inputs':['dense_1','input']}"), "/layers/1/inputs",
         "incompatible"},
        {LAYERS("8,{'type':'dense','units':4,'activation':'relu','inputs':'input'}"), "/layers/0", "unused"},
        {LAYERS("8,'add'"), "/layers/1", "incompatible"},
        {LAYERS("8,{'type':'add','inputs':'input'}"), "/layers/1/inputs", "incompatible"},
        {LAYERS("8,{'type':'add','inputs':['dense_1','input']}"), "/layers/1", "incompatible"},
        {LAYERS("8,{'type':'concat','axis':1,'inputs':['dense_1','input']}"), "/layers/1", "incompatible"},
        {LAYERS("{'type':'batch_norm','eps':0}"), "/layers/0/eps", "out_of_range"},
        {LAYERS("{'type':'batch_norm','momentum':2}"), "/layers/0/momentum", "out_of_range"},
        {LAYERS("{'type':'group_norm'}"), "/layers/0/groups", "required"},
        {LAYERS("8,{'type':'group_norm','groups':3}"), "/layers/1", "incompatible"},
        {LAYERS("8,{'type':'multi_head_attention','heads':2}"), "/layers/1", "incompatible"},
        {LAYERS("{'type':'multi_head_attention'}"), "/layers/0/heads", "required"},
        {LAYERS("{'type':'dense','units':4,'activation':'relu','weights':[[1]]}"), "/layers/0/weights",
         "shape_mismatch"},
        {LAYERS("{'name':'a','type':'dense','units':4,'activation':'relu'},{'name':'a','type':'flatten'}"),
         "/layers/1/name", "duplicate"},
        {LAYERS("{'name':'input','type':'flatten'}"), "/layers/0/name", "bad_value"},
        {LAYERS("{'type':'dense','units':'auto'},8"), "/layers/0/units", "incompatible"},
        {LAYERS("{'type':'dense','units':5,'activation':'softmax'}"), "/layers/0/units", "incompatible"},
        {LAYERS("{'type':'dense','units':1,'activation':'softmax'}"), "/layers/0/units", "incompatible"},
        {LAYERS("8,{'type':'dense','units':5}"), "/layers/1/units", "incompatible"},
        {LAYERS("{'type':'dense','units':8,'activation':'relu','kernel_initializer':'zeros'}"),
         "/layers/0/kernel_initializer", "symmetric"},
        {LAYERS("{'type':'dense','units':8,'activation':'relu','kernel_initializer':{'type':'constant','value':1}}"),
         "/layers/0/kernel_initializer", "symmetric"},
        {LAYERS("{'type':'dense','units':8,'activation':'relu','kernel_initializer':{'type':'normal','std':0}}"),
         "/layers/0/kernel_initializer", "symmetric"},
        {LAYERS("{'type':'dense','units':8,'activation':'relu','kernel_initializer':{'type':'uniform','low':2,"
                "'high':1}}"),
         "/layers/0/kernel_initializer", "out_of_range"},
        {LAYERS("1000000,1000000"), "/layers/1", "too_large"},
        {LAYERS("30000,30000"), "/model", "exceeds_memory"},
        /* A flatten of ours in front does not move what the user wrote. */
        {"{'dataset':'pixels','layers':[1000000,1000000]}", "/layers/1", "too_large"},
        {"{'dataset':'pixels','layers':[{'type':'Linear','out_features':4,'init':'zeros','activation':'relu'},4]}",
         "/layers/0/init", "symmetric"},
        {"{'dataset':'pixels','layers':[4,{'type':'Linear','out_features':4,'init':'zeros','activation':'relu'}]}",
         "/layers/1/init", "symmetric"},
        {"{'dataset':'iris','target':'species','model':{'layers':[{'type':'dense','units':0}]}}",
         "/model/layers/0/units", "out_of_range"},
    };
    CHECK(list);
}

static void test_names(void **state)
{
    (void)state;
    static const struct fault list[] = {
        {"{" IRIS ",'optimizer':'adm'}", "/optimizer", "unknown_name"},
        {"{" IRIS ",'optimizer':{'type':'adm'}}", "/optimizer/type", "unknown_name"},
        {"{" IRIS ",'loss':'cross'}", "/loss", "unknown_name"},
        {"{" IRIS ",'loss':'huber'}", "/loss", "incompatible"},
        {"{" IRIS ",'loss':{'type':'cross_entropy','label_smoothing':1.0}}", "/loss/label_smoothing", "out_of_range"},
        {"{" HOUSES ",'metrics':['f1_macro']}", "/metrics/0", "incompatible"},
        {"{" IRIS ",'metrics':[{'type':'top_k','k':0}]}", "/metrics/0/k", "out_of_range"},
        {"{" IRIS ",'metrics':['top_k',{'type':'top_k','k':2}]}", "/metrics/1", "duplicate"},
        {"{" IRIS ",'loss':{'type':'quantile','q':0}}", "/loss/q", "out_of_range"},
        {"{" HOUSES ",'loss':'hinge'}", "/loss", "incompatible"},
        {"{" HOUSES ",'loss':'kl_div'}", "/loss", "incompatible"},
        {"{" HOUSES ",'class_weights':'balanced'}", "/class_weights", "incompatible"},
        {"{" IRIS ",'class_weights':'fair'}", "/class_weights", "bad_value"},
        {"{" IRIS ",'class_weights':{'setosa':-1}}", "/class_weights/setosa", "out_of_range"},
        {"{" IRIS ",'class_weights':{'rosa':1}}", "/class_weights/rosa", "unknown_class"},
        {"{" IRIS ",'sample_weight':'species'}", "/sample_weight", "conflict"},
        {"{" IRIS ",'target_scale':'standard'}", "/target_scale", "incompatible"},
        {"{" IRIS ",'metrics':['accuracy','acuracy']}", "/metrics/1", "unknown_name"},
        {"{" IRIS ",'metrics':['accuracy','accuracy']}", "/metrics/1", "duplicate"},
        {"{" IRIS ",'metrics':['rmse']}", "/metrics/0", "incompatible"},
        {"{" IRIS ",'metrics':'rmse'}", "/metrics", "incompatible"},
        {"{" HOUSES ",'metrics':['accuracy']}", "/metrics/0", "incompatible"},
        {"{" IRIS ",'lr_schedule':'step'}", "/lr_schedule/step_size", "required"},
        {"{" IRIS ",'lr_schedule':{'type':'cosine_restarts','period':0}}", "/lr_schedule/period", "out_of_range"},
        {"{" IRIS ",'lr_schedule':{'type':'cosine','warmup_epochs':-1}}", "/lr_schedule/warmup_epochs",
         "out_of_range"},
        {"{" IRIS ",'init_from':{'checkpoint':'best'}}", "/init_from/job", "required"},
        {"{" IRIS ",'training':{'accumulate':0}}", "/training/accumulate", "out_of_range"},
        {"{" IRIS ",'training':{'clip_grad_value':0}}", "/training/clip_grad_value", "out_of_range"},
        {"{" IRIS ",'training':{'target':{'metric':'loss'}}}", "/training/target/value", "required"},
        {"{" IRIS ",'training':{'target':{'metric':'val_los','value':1}}}", "/training/target/metric",
         "unknown_name"},
        {"{" IRIS ",'training':{'on_divergence':{'action':'rollback','lr_factor':0}}}",
         "/training/on_divergence/lr_factor", "out_of_range"},
        {"{" IRIS ",'precision':'float64'}", "/precision", "not_supported"},
        {"{" IRIS ",'defaults':'keras'}", "/defaults", "not_supported"},
        {"{'dataset':{'name':'iris','target':'species','class_weights':3},'layers':[8]}", "/dataset/class_weights",
         "bad_value"},
        {"{'dataset':{'name':'iris','target':'species','split_by':'x'},'layers':[8]}", "/dataset/split_by",
         "unknown_column"},
        {"{'dataset':'iris','target':['species','petal_with'],'layers':[8]}", "/target/1", "unknown_column"},
        {"{'dataset':'iris','target':['species','species'],'layers':[8]}", "/target/1", "duplicate"},
        {"{'dataset':'iris','target':['species','petal_width'],'layers':[8],'loss':'mse'}", "/loss", "incompatible"},
        {"{'dataset':'iris','target':'features','layers':[8],'loss':'poisson'}", "/loss", "incompatible"},
        {"{'dataset':'iris','target':'species','heads':[{'target':'petal_width'}],'layers':[8]}", "/target",
         "conflict"},
        {"{" IRIS ",'early_stopping':{'monitor':'val_f1'}}", "/early_stopping/monitor", "unknown_name"},
        {"{" IRIS ",'validation_split':0,'early_stopping':{'monitor':'val_loss'}}", "/early_stopping/monitor",
         "unknown_name"},
        {"{" IRIS ",'early_stopping':{'patience':0}}", "/early_stopping/patience", "out_of_range"},
    };
    CHECK(list);
}

static void test_data(void **state)
{
    (void)state;
    static const struct fault list[] = {
        {"{'dataset':'iriss','target':'species','layers':[8]}", "/dataset", "dataset_not_found"},
        {"{'dataset':{'name':'none'},'layers':[8]}", "/dataset/name", "dataset_not_found"},
        {"{'dataset':'../iris','target':'species','layers':[8]}", "/dataset", "bad_value"},
        {"{'dataset':'iris','target':'specie','layers':[8]}", "/target", "unknown_column"},
        {"{'dataset':{'name':'iris','target':'specie'},'layers':[8]}", "/dataset/target", "unknown_column"},
        {"{" IRIS ",'features':['petal_lenght']}", "/features/0", "unknown_column"},
        {"{" IRIS ",'ignore':['x']}", "/ignore/0", "unknown_column"},
        {"{" IRIS ",'ignore':'x'}", "/ignore", "unknown_column"},
        {"{'dataset':'iris','label':'specie','layers':[8]}", "/label", "unknown_column"},
        {"{'dataset':{'name':'iris','label':'specie'},'layers':[8]}", "/dataset/label", "unknown_column"},
        {"{" IRIS ",'columns':{'petal_width':{'fill':1}}}", "/columns/petal_width/fill", "incompatible"},
        {"{" IRIS ",'columns':{'petal_width':{'missing':'constant'}}}", "/columns/petal_width/fill", "required"},
        {"{" IRIS ",'columns':{'petal_width':{'type':'nummer'}}}", "/columns/petal_width/type", "unknown_name"},
        {"{" IRIS ",'loss':'mse'}", "/loss", "incompatible"},
        {"{" IRIS ",'loss':'bce'}", "/loss", "incompatible"},
        {"{" IRIS ",'task':'regression'}", "/task", "incompatible"},
        {"{" IRIS ",'task':'classification','loss':'mse'}", "/loss", "incompatible"},
        {"{" HOUSES ",'loss':'cross_entropy'}", "/loss", "incompatible"},
        {"{" HOUSES ",'loss':'bce'}", "/loss", "incompatible"},
        {"{" HOUSES ",'task':'regression','loss':'cross_entropy'}", "/loss", "incompatible"},
        {"{" HOUSES ",'stratify':true}", "/stratify", "incompatible"},
        {"{'dataset':'xor','target':'y','layers':[4,{'type':'dense','units':10}],'loss':'bce','validation_split':0}",
         "/layers/1/units", "incompatible"},
        {"{'dataset':'split','layers':[8],'test_split':0.1}", "/test_split", "incompatible"},
        {"{'dataset':{'name':'soft','target':'p','target_scale':'standard'},'loss':'bce','layers':[8]}",
         "/dataset/target_scale", "incompatible"},
    };
    CHECK(list);
}

/* Nothing hides anything else. */
static void test_a_member_out_of_place(void **state)
{
    (void)state;
    struct bp_spec s;
    fixture_resolve("{" IRIS ",'momentum':0.9,'window':{'rows':4},'accumulate':2,'label_smoothing':0.1,'epoch':5}",
                    &s);
    fixture_is(fixture_entry(s.problems.errors, "/momentum", "unknown_field"), "/suggestion", "'optimizer'");
    fixture_is(fixture_entry(s.problems.errors, "/window", "unknown_field"), "/suggestion", "'dataset'");
    fixture_is(fixture_entry(s.problems.errors, "/accumulate", "unknown_field"), "/suggestion", "'training'");
    fixture_is(fixture_entry(s.problems.errors, "/label_smoothing", "unknown_field"), "/suggestion", "'loss'");
    fixture_is(fixture_entry(s.problems.errors, "/epoch", "unknown_field"), "/suggestion", "'epochs'");
    bp_spec_done(&s);
}

static void test_all_at_once(void **state)
{
    (void)state;
    struct bp_spec s;
    fixture_resolve("{'dataset':'iriss','target':'species','layers':[8,0],'lr':-1,'epochs':1.5,'learning_rte':1,"
                    "'optimizer':{'type':'adam','betas':[0.9,2]},'loss':'msee'}",
                    &s);
    assert_non_null(fixture_entry(s.problems.errors, "/dataset", "dataset_not_found"));
    assert_non_null(fixture_entry(s.problems.errors, "/layers/1", "out_of_range"));
    assert_non_null(fixture_entry(s.problems.errors, "/lr", "out_of_range"));
    assert_non_null(fixture_entry(s.problems.errors, "/epochs", "wrong_type"));
    assert_non_null(fixture_entry(s.problems.errors, "/learning_rte", "unknown_field"));
    assert_non_null(fixture_entry(s.problems.errors, "/optimizer/betas/1", "out_of_range"));
    assert_non_null(fixture_entry(s.problems.errors, "/loss", "unknown_name"));
    assert_int_equal(json_array_size(s.problems.errors), 7);
    json_t *loss = fixture_entry(s.problems.errors, "/loss", "unknown_name");
    fixture_is(loss, "/allowed", "['cross_entropy','bce','mse','mae','huber','hinge','poisson','quantile','kl_div']");
    fixture_is(loss, "/suggestion", "'mse'");
    fixture_is(fixture_entry(s.problems.errors, "/learning_rte", "unknown_field"), "/suggestion", "'lr'");
    fixture_is(fixture_entry(s.problems.errors, "/dataset", "dataset_not_found"), "/suggestion", "'iris'");
    fixture_is(fixture_entry(s.problems.errors, "/epochs", "wrong_type"), "/detail", "'must be an integer, got 1.5'");
    fixture_is(fixture_entry(s.problems.errors, "/layers/1", "out_of_range"), "/detail",
               "'must be at least 1, got 0'");
    bp_spec_done(&s);

    fixture_resolve(LAYERS("30000,30000"), &s);
    json_t *entry = fixture_entry(s.problems.errors, "/model", "exceeds_memory");
    fixture_is(entry, "/limit", "268435456");
    assert_true(json_integer_value(json_object_get(entry, "need")) > 900000000LL * 4);
    bp_spec_done(&s);
}

/* Too many layers, and too deep a table of faults. */
static void test_many(void **state)
{
    (void)state;
    struct bp_spec s;
    struct bp_error err;
    json_t *spec = fixture_json("{" IRIS "}"), *layers = json_array();
    for (int i = 0; i < 10000; i++)
        json_array_append_new(layers, json_integer(4));
    json_object_set_new(spec, "layers", layers);
    assert_int_equal(bp_spec_resolve(spec, &fixture_context, &s, &err), BP_INVALID);
    assert_non_null(fixture_entry(s.problems.errors, "/layers", "bad_length"));
    bp_spec_done(&s);
    json_array_clear(layers);
    for (int i = 0; i < 999; i++)
        json_array_append_new(layers, json_integer(2));
    assert_int_equal(bp_spec_resolve(spec, &fixture_context, &s, &err), BP_OK);
    assert_int_equal(json_array_size(fixture_at(s.resolved, "/model/layers")), 1000);
    bp_spec_done(&s);
    for (int i = 0; i < 999; i++)
        json_array_set_new(layers, (size_t)i, json_integer(0));
    assert_int_equal(bp_spec_resolve(spec, &fixture_context, &s, &err), BP_INVALID);
    assert_int_equal(json_array_size(s.problems.errors), BP_PROBLEMS_MAX);
    bp_spec_done(&s);
    json_decref(spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shape_of_the_document),
                                       cmocka_unit_test(test_numbers),
                                       cmocka_unit_test(test_layers),
                                       cmocka_unit_test(test_names),
                                       cmocka_unit_test(test_data),
                                       cmocka_unit_test(test_a_member_out_of_place),
                                       cmocka_unit_test(test_all_at_once),
                                       cmocka_unit_test(test_many)};
    return cmocka_run_group_tests(tests, fixture_up, fixture_down);
}
