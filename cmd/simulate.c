#include "cmd/simulate.h"

#include "cmd/simulate_world.h"
#include "core/base/alloc.h"
#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/config/deployment.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double percents[] = {50, 90, 99};

/* The smallest latency that so many percent do not exceed; < 0: there is none. */
static double percentile(const struct rs_sim_app_figures *a, double percent)
{
    size_t rank = (size_t)ceil(percent / 100 * (double)a->n);

    return a->n == 0 ? -1 : a->latencies_s[rank > 0 ? rank - 1 : 0];
}

static size_t arrived(const struct rs_sim_app_figures *a)
{
    size_t n = 0;

    for (int i = 0; i < RS_SIM_ENDS; i++)
        n += a->ends[i];
    return n;
}

static double mean(const struct rs_sim_app_figures *a)
{
    double sum = 0;

    for (size_t i = 0; i < a->n; i++)
        sum += a->latencies_s[i];
    return a->n ? sum / (double)a->n : -1;
}

/* --- for people ---------------------------------------------------------------------------------- */

static void put_seconds(struct rs_buf *out, double s)
{
    if (s < 0)
        rs_buf_printf(out, "%9s", "-");
    else if (s < 0.9995)
        rs_buf_printf(out, "%6.*f ms", s < 0.00995 ? 2 : s < 0.0995 ? 1 : 0, s * 1e3);
    else if (s < 99.95)
        rs_buf_printf(out, "%7.2f s", s);
    else
        rs_buf_printf(out, "%7.0f s", s);
}

static void put_span(struct rs_buf *out, double s)
{
    if (s >= 3600)
        rs_buf_printf(out, "%.0f h %.0f min", floor(s / 3600), floor(fmod(s, 3600) / 60));
    else if (s >= 60)
        rs_buf_printf(out, "%.0f min %.0f s", floor(s / 60), fmod(s, 60));
    else
        rs_buf_printf(out, "%.3g s", s);
}

static void put_apps(struct rs_buf *out, const struct rs_sim_result *r)
{
    rs_buf_printf(out, "\n%-16s%9s%9s%10s%9s%9s%9s%9s\n", "application", "requests", "answered",
                  "p50", "p90", "p99", "mean", "longest");
    for (size_t i = 0; i < r->n_apps; i++) {
        const struct rs_sim_app_figures *a = &r->apps[i];

        rs_buf_printf(out, "%-15.15s %9zu%9zu ", a->name, arrived(a), a->ends[RS_SIM_ANSWERED]);
        for (size_t k = 0; k < RS_COUNT(percents); k++)
            put_seconds(out, percentile(a, percents[k]));
        put_seconds(out, mean(a));
        put_seconds(out, a->n ? a->latencies_s[a->n - 1] : -1);
        rs_buf_puts(out, "\n");
    }
}

static void put_missed(struct rs_buf *out, const struct rs_sim_result *r)
{
    static const char *const texts[RS_SIM_ENDS] = {
        [RS_SIM_END_FULL] = "503, the queue was full (max_queued_requests)",
        [RS_SIM_END_SHED] = "503, they waited too long",
        [RS_SIM_END_TIMEOUT] = "408, their time was over (request_timeout_s)",
        [RS_SIM_END_UNAVAILABLE] = "503, no replica could take them",
    };

    for (size_t i = 0; i < r->n_apps; i++)
        for (int k = RS_SIM_ANSWERED + 1; k < RS_SIM_ENDS; k++)
            if (r->apps[i].ends[k])
                rs_buf_printf(out, "  not answered by %.20s: %zu (%.2f %%): %s\n", r->apps[i].name,
                              r->apps[i].ends[k],
                              100.0 * (double)r->apps[i].ends[k] / (double)arrived(&r->apps[i]),
                              texts[k]);
}

static void put_deployments(struct rs_buf *out, const struct rs_sim_result *r)
{
    rs_buf_printf(out, "\n%-28s%9s%21s%10s%12s\n", "deployment", "calls", "replicas", "at work",
                  "queue");
    rs_buf_printf(out, "%-28s%9s%7s%7s%7s%10s%6s%6s\n", "", "", "least", "mean", "most", "mean",
                  "mean", "most");
    for (size_t i = 0; i < r->n_deployments; i++) {
        const struct rs_sim_deployment_figures *d = &r->deployments[i];
        rs_auto(rs_freep) char *name = rs_asprintf("%s#%s", d->app, d->name);

        rs_buf_printf(out, "%-27.27s %9zu%7u%7.1f%7u%10.1f%6.1f%6u\n", name, d->calls,
                      d->replicas_min, d->replicas_mean, d->replicas_max, d->busy_mean,
                      d->queued_mean, d->queued_max);
    }
}

enum { SHOWN = 4 }; /* deployments beside the time */

static void put_steps(struct rs_buf *out, const struct rs_sim_result *r)
{
    size_t n = r->n_deployments < SHOWN ? r->n_deployments : SHOWN;

    rs_buf_printf(out, "\n%9s%10s%8s", "until", "requests", "missed");
    for (size_t i = 0; i < n; i++)
        rs_buf_printf(out, "  %11.11s", r->deployments[i].name);
    rs_buf_printf(out, "\n%27s%s\n", "", n ? "  replicas and the longest queue" : "");
    for (int s = 0; s < RS_SIM_STEPS; s++) {
        rs_auto(rs_buf_fini) struct rs_buf at = {0};

        put_seconds(&at, r->span_s * (s + 1) / RS_SIM_STEPS);
        rs_buf_printf(out, "%9s%10zu%8zu", rs_buf_text(&at), r->arrivals[s], r->missed[s]);
        for (size_t i = 0; i < n; i++)
            rs_buf_printf(out, "  %4u %6u", r->deployments[i].steps[s].replicas,
                          r->deployments[i].steps[s].queued);
        rs_buf_puts(out, "\n");
    }
    if (n < r->n_deployments)
        rs_buf_printf(out, "(%zu more deployments: --json)\n", r->n_deployments - n);
}

static void print_table(const struct rs_sim_result *r, size_t requests, double took_s)
{
    rs_auto(rs_buf_fini) struct rs_buf out = {0};

    rs_buf_printf(&out, "%zu requests in ", requests);
    put_span(&out, r->span_s);
    rs_buf_printf(&out, ", simulated in %.2g s\n", took_s);
    put_apps(&out, r);
    put_missed(&out, r);
    put_deployments(&out, r);
    if (r->span_s > 0)
        put_steps(&out, r);
    for (size_t i = 0; i < r->n_notes; i++)
        rs_buf_printf(&out, "%snote: %s\n", i ? "" : "\n", r->notes[i]);
    fputs(rs_buf_text(&out), stdout);
}

/* --- for programs -------------------------------------------------------------------------------- */

static json_t *real_or_null(double v)
{
    return v < 0 ? json_null() : json_real(v);
}

static json_t *app_json(const struct rs_sim_app_figures *a)
{
    json_t *ends = json_object();

    for (int i = 0; i < RS_SIM_ENDS; i++)
        json_object_set_new(ends, rs_sim_end_names[i], json_integer((json_int_t)a->ends[i]));
    return json_pack("{s:I, s:o, s:{s:o, s:o, s:o, s:o, s:o}}", "requests", (json_int_t)arrived(a),
                     "ends", ends, "latency_s", "p50", real_or_null(percentile(a, 50)), "p90",
                     real_or_null(percentile(a, 90)), "p99", real_or_null(percentile(a, 99)),
                     "mean", real_or_null(mean(a)), "max",
                     real_or_null(a->n ? a->latencies_s[a->n - 1] : -1));
}

static json_t *deployment_json(const struct rs_sim_deployment_figures *d)
{
    json_t *replicas = json_array(), *queued = json_array();

    for (int i = 0; i < RS_SIM_STEPS; i++) {
        json_array_append_new(replicas, json_integer(d->steps[i].replicas));
        json_array_append_new(queued, json_integer(d->steps[i].queued));
    }
    return json_pack("{s:s, s:s, s:I, s:{s:i, s:f, s:i, s:i, s:o}, s:{s:f, s:i, s:o}, s:f}", "app",
                     d->app, "name", d->name, "calls", (json_int_t)d->calls, "replicas", "min",
                     (int)d->replicas_min, "mean", d->replicas_mean, "max", (int)d->replicas_max,
                     "last", (int)d->replicas, "steps", replicas, "queue", "mean", d->queued_mean,
                     "max", (int)d->queued_max, "steps", queued, "at_work_mean", d->busy_mean);
}

static void print_json(const struct rs_sim_result *r, size_t requests, double took_s)
{
    rs_auto(rs_json_decrefp) json_t *all = NULL;
    rs_auto(rs_freep) char *text = NULL;
    json_t *apps = json_object(), *deployments = json_array(), *arrivals = json_array(),
           *missed = json_array(), *notes = json_array();

    for (size_t i = 0; i < r->n_apps; i++)
        json_object_set_new(apps, r->apps[i].name, app_json(&r->apps[i]));
    for (size_t i = 0; i < r->n_deployments; i++)
        json_array_append_new(deployments, deployment_json(&r->deployments[i]));
    for (int i = 0; i < RS_SIM_STEPS; i++) {
        json_array_append_new(arrivals, json_integer((json_int_t)r->arrivals[i]));
        json_array_append_new(missed, json_integer((json_int_t)r->missed[i]));
    }
    for (size_t i = 0; i < r->n_notes; i++)
        json_array_append_new(notes, json_string(r->notes[i]));
    all = json_pack("{s:I, s:f, s:f, s:I, s:o, s:o, s:{s:f, s:o, s:o}, s:o}", "requests",
                    (json_int_t)requests, "span_s", r->span_s, "took_s", took_s, "events",
                    (json_int_t)r->events, "applications", apps, "deployments", deployments,
                    "steps", "seconds", r->span_s / RS_SIM_STEPS, "requests", arrivals, "missed",
                    missed, "notes", notes);
    text = rs_json_dump(all);
    puts(text);
}

/* --- the command --------------------------------------------------------------------------------- */

static void note_limits(struct rs_sim_result *r, const struct rs_sim_trace *t)
{
    if (t->from_log)
        r->notes[r->n_notes++] = rs_asprintf(
            "%zu service times are latencies of an access log: what they waited there is in them",
            t->from_log);
}

static int simulate(struct rs_config *config, const struct rs_serve_options *serve,
                    const struct rs_simulate_options *o, struct rs_sim_trace *trace,
                    struct rs_error *err)
{
    rs_auto(rs_json_decrefp) json_t *resources = NULL;
    struct rs_sim_result result = {0};
    struct rs_sim_conf conf = {
        .config = config, .trace = trace, .file = o->trace, .start_time = o->start_time};
    int64_t began = rs_clock_now();
    double took_s;

    if (rs_serve_resources(serve, &resources, err) < 0) {
        rs_config_free(config);
        return -1;
    }
    conf.resources = resources;
    if (rs_simulate(&conf, &result, err) < 0)
        return -1;
    took_s = (double)(rs_clock_now() - began) / 1e9;
    result.notes = rs_grow(result.notes, &result.cap_notes, result.n_notes + 1, sizeof(char *));
    note_limits(&result, trace);
    if (o->json)
        print_json(&result, trace->n, took_s);
    else
        print_table(&result, trace->n, took_s);
    rs_sim_result_fini(&result);
    return 0;
}

int rs_simulate_command(struct rs_config *config, const struct rs_serve_options *serve,
                        const struct rs_simulate_options *o, struct rs_error *err)
{
    struct rs_sim_trace trace = {0};
    int r;

    if (rs_sim_trace_load(&trace, o->trace, err) < 0) {
        rs_config_free(config);
        return -1;
    }
    r = simulate(config, serve, o, &trace, err);
    rs_sim_trace_fini(&trace);
    return r;
}
