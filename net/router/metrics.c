#include "net/router/metrics.h"

#include "core/base/error.h"

static const double latency_ms[] = {1,   2,    5,    10,   20,    50,    100,    200,    300,   400,
                                    500, 1000, 2000, 5000, 10000, 60000, 120000, 300000, 600000};

static struct rs_family *counter(struct rs_metrics *m, struct rs_family_conf conf)
{
    conf.kind = RS_COUNTER;
    return rs_metrics_family(m, &conf);
}

static struct rs_family *gauge(struct rs_metrics *m, struct rs_family_conf conf)
{
    conf.kind = RS_GAUGE;
    return rs_metrics_family(m, &conf);
}

static struct rs_family *latency(struct rs_metrics *m, struct rs_family_conf conf)
{
    conf.kind = RS_HISTOGRAM;
    conf.buckets = latency_ms;
    conf.n_buckets = RS_COUNT(latency_ms);
    return rs_metrics_family(m, &conf);
}

#define FAMILY(metric, text, ...)                                                                  \
    ((struct rs_family_conf){.name = "ray_serve_" metric, .help = text, .labels = {__VA_ARGS__}})

#define STAGE(metric, text, ...)                                                                   \
    ((struct rs_family_conf){.name = "rserve_graph_" metric, .help = text, .labels = {__VA_ARGS__}})

static void stage_metrics(struct rs_router_metrics *f, struct rs_metrics *m)
{
    f->stage_requests =
        counter(m, STAGE("requests_total", "Times that a step of a declared graph ended.",
                         "application", "stage", "deployment"));
    f->stage_errors =
        counter(m, STAGE("errors_total",
                         "Steps of a declared graph that did not succeed, by outcome: "
                         "error, timeout, overload, refused.",
                         "application", "stage", "deployment", "outcome"));
    f->stage_latency =
        latency(m, STAGE("latency_ms", "Time that a step of a declared graph took, in ms.",
                         "application", "stage", "deployment"));
    f->stage_retries = counter(m, STAGE("retries_total", "Calls of a stage that were made again.",
                                        "application", "stage", "deployment"));
    f->stage_fallbacks =
        counter(m, STAGE("fallbacks_total", "Times that a fallback went on to its next step.",
                         "application", "stage", "deployment"));
    f->stage_cache = counter(m, STAGE("cache_total",
                                      "Requests to the cache of a step, by result: hit, miss, or "
                                      "shared: it waited for the answer of an equal one.",
                                      "application", "stage", "deployment", "result"));
    f->stage_dropped = counter(m, STAGE("shadows_dropped_total",
                                        "Copies for a shadow that were not made, because its "
                                        "limit was met.",
                                        "application", "stage", "deployment"));
    f->graph_bytes =
        gauge(m, STAGE("cache_bytes", "Memory that the caches of a graph take.", "application"));
}

void rs_router_metrics_init(struct rs_router_metrics *f, struct rs_metrics *m)
{
    *f = (struct rs_router_metrics){
        .http_requests = counter(m, FAMILY("num_http_requests_total", "HTTP requests answered.",
                                           "route", "method", "application", "status_code")),
        .http_errors = counter(m, FAMILY("num_http_error_requests_total",
                                         "HTTP requests answered with an error.", "route",
                                         "error_code", "method", "application")),
        .deployment_errors =
            counter(m, FAMILY("num_deployment_http_error_requests_total",
                              "HTTP requests that a deployment answered with an error.",
                              "deployment", "error_code", "method", "route", "application")),
        .access_log_dropped =
            counter(m, ((struct rs_family_conf){
                           .name = "rserve_access_log_dropped_lines_total",
                           .help = "Lines of the access log that could not be written."})),
        .http_refused =
            counter(m, ((struct rs_family_conf){
                           .name = "rserve_http_refused_requests_total",
                           .help = "HTTP requests that got no answer of the application, by cause.",
                           .labels = {"route", "application", "cause"}})),
        .http_latency =
            latency(m, FAMILY("http_request_latency_ms", "Time to answer an HTTP request, in ms.",
                              "method", "route", "application", "status_code")),
        .http_ongoing = gauge(m, FAMILY("num_ongoing_http_requests", "HTTP requests under way.",
                                        "node_id", "node_ip_address")),
        .queued =
            gauge(m, FAMILY("deployment_queued_queries", "Requests that wait for a free slot.",
                            "deployment", "application", "handle", "actor_id")),
        .handle_requests =
            counter(m, FAMILY("handle_request_counter_total", "Requests to a deployment.", "handle",
                              "deployment", "route", "application")),
        .fallbacks = counter(
            m, ((struct rs_family_conf){
                   .name = "rserve_router_fallbacks_total",
                   .help = "Requests that the built-in choice routed because the deployment's own "
                           "request router failed or did not answer in time.",
                   .labels = {"deployment", "application"}})),
        .waits = latency(
            m,
            ((struct rs_family_conf){
                .name = "rserve_queue_wait_ms",
                .help = "Time that requests waited for a free slot, in ms; of those that had to.",
                .labels = {"deployment", "application"}})),
        .dropped = counter(
            m, ((struct rs_family_conf){
                   .name = "rserve_requests_dropped_total",
                   .help = "Requests that were refused before any work on them began. cause: "
                           "queue_full (max_queued_requests), shed (they wait too long), expired "
                           "(their time limit passed).",
                   .labels = {"deployment", "application", "cause"}})),
        .interrupted = counter(
            m,
            ((struct rs_family_conf){
                .name = "rserve_interrupted_requests_total",
                .help = "Requests whose replica died, by what became of them: return (it was not "
                        "started, and waits again), again (it runs once more), or why it failed: "
                        "unsafe, answered, cut, often, budget.",
                .labels = {"deployment", "application", "outcome"}})),
        .replica_requests = counter(m, FAMILY("deployment_request_counter_total",
                                              "Requests that a replica finished.", "deployment",
                                              "replica", "route", "application")),
        .replica_errors = counter(m, FAMILY("deployment_error_counter_total",
                                            "Requests that failed in a replica.", "deployment",
                                            "replica", "route", "application", "exception_type")),
        .replica_latency = latency(m, FAMILY("deployment_processing_latency_ms",
                                             "Time a replica worked on a request, in ms.",
                                             "deployment", "replica", "route", "application")),
        .replica_processing =
            gauge(m, FAMILY("replica_processing_queries", "Requests under way in a replica.",
                            "deployment", "replica", "application")),
    };
    stage_metrics(f, m);
}
