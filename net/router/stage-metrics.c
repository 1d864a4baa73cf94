/* Figures of the steps of a graph. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "net/router/stage-internal.h"

/* Each made when it is first needed. */
struct rs_stage_series {
    struct rs_series *requests, *latency, *retries, *fallbacks, *dropped;
    struct rs_series *errors[RS_OUTCOME_COUNT];
    struct rs_series *cache[3]; /* hit, miss, shared */
};

void rs_stage_metrics_init(struct rs_live_graph *g)
{
    g->series = rs_alloc(rs_flow_plan(g->flow)->count * sizeof(*g->series));
    g->bytes = rs_family_series(g->lane->metrics->graph_bytes, (const char *const[]){g->app});
}

void rs_stage_metrics_fini(struct rs_live_graph *g)
{
    rs_series_add(g->bytes, -(double)g->bytes_shown);
    free(g->series);
}

void rs_stage_show_bytes(struct rs_live_graph *g)
{
    uint64_t bytes = rs_flow_cached(g->flow);

    if (bytes == g->bytes_shown)
        return;
    rs_series_add(g->bytes, (double)bytes - (double)g->bytes_shown);
    g->bytes_shown = bytes;
}

static struct rs_series *make(struct rs_series **at, struct rs_family *f,
                              const struct rs_live_graph *g, const struct rs_step *s,
                              const char *extra)
{
    if (!*at)
        *at = rs_family_series(
            f, (const char *const[]){g->app, s->name, s->deployment ? s->deployment : "", extra});
    return *at;
}

static void ended(struct rs_live_graph *g, const struct rs_step *s, enum rs_outcome o, int64_t ns)
{
    const struct rs_router_metrics *m = g->lane->metrics;
    struct rs_stage_series *series = &g->series[s->index];

    rs_series_add(make(&series->requests, m->stage_requests, g, s, NULL), 1);
    rs_series_observe(make(&series->latency, m->stage_latency, g, s, NULL),
                      (double)ns / (double)RS_MS);
    if (o != RS_OUTCOME_OK)
        rs_series_add(make(&series->errors[o], m->stage_errors, g, s, rs_outcome_name(o)), 1);
}

void rs_stage_observe(const struct rs_step *s, enum rs_flow_event what, enum rs_outcome o,
                      int64_t ns, void *arg)
{
    static const char *const results[] = {"hit", "miss", "shared"};
    struct rs_live_graph *g = arg;
    const struct rs_router_metrics *m = g->lane->metrics;
    struct rs_stage_series *series = &g->series[s->index];
    unsigned i;

    switch (what) {
    case RS_FLOW_ENDED:
        ended(g, s, o, ns);
        break;
    case RS_FLOW_RETRY:
        rs_series_add(make(&series->retries, m->stage_retries, g, s, NULL), 1);
        break;
    case RS_FLOW_FELL_BACK:
        rs_series_add(make(&series->fallbacks, m->stage_fallbacks, g, s, NULL), 1);
        break;
    case RS_FLOW_DROPPED:
        rs_series_add(make(&series->dropped, m->stage_dropped, g, s, NULL), 1);
        break;
    default:
        i = (unsigned)(what - RS_FLOW_HIT);
        rs_series_add(make(&series->cache[i], m->stage_cache, g, s, results[i]), 1);
        break;
    }
}
