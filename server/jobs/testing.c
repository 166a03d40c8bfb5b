/* testing.c: the weights that a job hands out, judged on its test rows.
 *
 * The results are points of the last step, named like the series of validation with test_ in place of val_: the total
 * loss, and for each output what was asked for and makes sense there.
 */
#include "jobs/run.h"

#include "jobs/predictor.h"
#include "train/scores.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOP_K 5 /* of top_k where nothing is said */

struct testing {
    const struct bp_graph *graph;
    struct bp_accumulator *accs; /* one a head, as the scores */
    struct bp_scores **scores;
};

static bool add_batch(void *ctx, struct bp_exec *exec, const uint32_t *rows, int n)
{
    const struct testing *t = ctx;
    (void)rows;
    for (int h = 0; h < t->graph->nheads; h++)
        bp_scores_add(t->scores[h], exec, h, n);
    return true;
}

static bp_status make_scores(struct bp_job_run *run, struct testing *t, struct bp_error *err)
{
    const struct bp_train_config *config = &run->plan.config;
    uint64_t n = run->split.count[BP_TEST];
    bp_status status = BP_OK;
    for (int h = 0; h < t->graph->nheads && !status; h++) {
        int columns = bp_scores_columns(&t->graph->heads[h]);
        bool ranked = columns > 0 && n <= (uint64_t)BP_AUC_SCORES_MAX / (uint64_t)columns;
        status = bp_scores_new(&t->graph->heads[h], config->metrics, config->top_k > 0 ? config->top_k : TOP_K,
                               ranked ? n : 0, &t->scores[h], err);
    }
    return status;
}

/* One pass over the test rows with the weights that the job hands out. */
static bp_status judge(struct bp_job_run *run, struct testing *t, struct bp_error *err)
{
    struct bp_model *model = NULL;
    struct bp_exec *exec = NULL;
    struct bp_exec_options options = {.capacity = bp_predict_batch(t->graph), .threads = 1};
    bp_status status = bp_model_new(t->graph, false, 0, &model, err);
    if (!status)
        status = bp_exec_new(model, &options, &exec, err);
    if (!status) {
        memcpy(model->params, bp_trainer_final_params(run->trainer), model->nparams * sizeof *model->params);
        memcpy(model->stats, bp_trainer_final_stats(run->trainer), model->nstats * sizeof *model->stats);
        bp_model_pack(model, NULL);
        bp_evaluate(exec, options.capacity, NULL, t->graph, &run->source, run->split.rows[BP_TEST],
                    run->split.count[BP_TEST], t->accs, add_batch, t);
    }
    bp_exec_free(exec);
    bp_model_free(model);
    return status;
}

static void tell(struct bp_job_run *run, json_t *results, enum bp_metric metric, const char *label, double value)
{
    char name[128];
    struct bp_progress progress;
    bp_trainer_progress(run->trainer, &progress);
    snprintf(name, sizeof name, "test_%s%s%s", bp_metric_name(metric), *label ? "_" : "", label);
    bp_run_point(run, name, progress.epoch, progress.step, value);
    json_object_set_new(results, name, bp_json_number(value));
}

static void tell_all(struct bp_job_run *run, const struct testing *t, json_t *results)
{
    const struct bp_graph *graph = t->graph;
    double loss = 0;
    for (int h = 0; h < graph->nheads; h++)
        loss += graph->heads[h].weight * bp_accumulator_value(&t->accs[h], BP_METRIC_LOSS);
    tell(run, results, BP_METRIC_LOSS, "", loss);
    for (int h = 0; h < graph->nheads; h++)
        for (enum bp_metric m = BP_METRIC_LOSS; m < BP_METRIC_COUNT; m++) {
            bool wanted = m == BP_METRIC_LOSS ? graph->nheads > 1 : (run->plan.config.metrics >> m & 1u) != 0;
            if (!wanted || !bp_metric_applies(m, graph->heads[h].loss))
                continue;
            double value =
                bp_metric_is_score(m) ? bp_scores_value(t->scores[h], m) : bp_accumulator_value(&t->accs[h], m);
            tell(run, results, m, graph->heads[h].label, value);
        }
}

bp_status bp_run_test(struct bp_job_run *run, char **ret_json, struct bp_error *err)
{
    *ret_json = NULL;
    if (!run->split.count[BP_TEST])
        return BP_OK;
    struct testing t = {.graph = run->plan.graph};
    json_t *results = json_object();
    t.accs = calloc((size_t)t.graph->nheads, sizeof *t.accs);
    t.scores = calloc((size_t)t.graph->nheads, sizeof *t.scores);
    bp_status status =
        results && t.accs && t.scores ? BP_OK : bp_fail(err, BP_NOMEM, "no memory to test the network");
    if (!status)
        status = make_scores(run, &t, err);
    if (!status)
        status = judge(run, &t, err);
    if (!status) {
        tell_all(run, &t, results);
        *ret_json = bp_json_text(results);
        if (!*ret_json)
            status = bp_fail(err, BP_NOMEM, "no memory for the test's results");
    }
    for (int h = 0; t.scores && h < t.graph->nheads; h++)
        bp_scores_free(t.scores[h]);
    free(t.scores);
    free(t.accs);
    json_decref(results);
    return status;
}
