#include "cmd/gauges.h"

#include "core/base/json.h"

#include <string.h>

struct value {
    const char *name;
    int value;
};

static const struct value application_values[] = {
    {"DEPLOY_FAILED", 1}, {"UNHEALTHY", 2}, {"NOT_STARTED", 3}, {"DELETING", 4}, {"DEPLOYING", 5},
    {"RUNNING", 6},       {NULL},
};
static const struct value deployment_values[] = {
    {"DEPLOY_FAILED", 1}, {"UNHEALTHY", 2}, {"UPDATING", 3}, {"UPSCALING", 4},
    {"DOWNSCALING", 5},   {"HEALTHY", 6},   {NULL},
};
static const struct value proxy_values[] = {
    {"STARTING", 1}, {"HEALTHY", 2}, {"UNHEALTHY", 3}, {"DRAINING", 4}, {"DRAINED", 5}, {NULL},
};

/* 0: a status that has no number. */
static int value_of(const struct value *values, const json_t *of)
{
    const char *name = rs_json_str(of, "status", "");

    while (values->name && strcmp(values->name, name) != 0)
        values++;
    return values->value;
}

void rs_gauges_init(struct rs_gauges *g, struct rs_metrics *metrics)
{
    g->application = rs_metrics_family(
        metrics,
        &(struct rs_family_conf){
            .name = "ray_serve_application_status",
            .help = "Status of an application: 1 DEPLOY_FAILED, 2 UNHEALTHY, 3 NOT_STARTED, "
                    "4 DELETING, 5 DEPLOYING, 6 RUNNING, 0 unknown.",
            .kind = RS_GAUGE,
            .labels = {"application"}});
    g->deployment = rs_metrics_family(
        metrics, &(struct rs_family_conf){
                     .name = "ray_serve_deployment_status",
                     .help = "Status of a deployment: 1 DEPLOY_FAILED, 2 UNHEALTHY, 3 UPDATING, 4 "
                             "UPSCALING, 5 DOWNSCALING, 6 HEALTHY, 0 unknown.",
                     .kind = RS_GAUGE,
                     .labels = {"deployment", "application"}});
    g->replica = rs_metrics_family(
        metrics, &(struct rs_family_conf){.name = "ray_serve_deployment_replica_healthy",
                                          .help = "1: the replica is healthy, 0: it is not.",
                                          .kind = RS_GAUGE,
                                          .labels = {"deployment", "replica", "application"}});
    g->proxy = rs_metrics_family(
        metrics,
        &(struct rs_family_conf){
            .name = "ray_serve_proxy_status",
            .help = "Status of a node's HTTP ingress: 1 STARTING, 2 HEALTHY, 3 UNHEALTHY, 4 "
                    "DRAINING, 5 DRAINED.",
            .kind = RS_GAUGE,
            .labels = {"node_id", "node_ip_address"}});
}

static void set(struct rs_family *f, const char *const *labels, int value)
{
    rs_series_set(rs_family_series(f, labels), value);
}

static void update_deployment(const struct rs_gauges *g, const char *app, const char *name,
                              const json_t *d)
{
    const json_t *replicas = json_object_get(d, "replicas"), *replica;
    size_t i;

    set(g->deployment, (const char *[]){name, app}, value_of(deployment_values, d));
    json_array_foreach (replicas, i, replica) {
        const char *state = rs_json_str(replica, "state", "");

        if (strcmp(state, "STARTING") != 0) /* nothing is known of its health yet */
            set(g->replica, (const char *[]){name, rs_json_str(replica, "replica_id", ""), app},
                strcmp(state, "RUNNING") == 0);
    }
}

void rs_gauges_update(struct rs_gauges *g, const json_t *details)
{
    const char *app, *name;
    json_t *a, *d, *proxy;

    rs_family_clear(g->application);
    rs_family_clear(g->deployment);
    rs_family_clear(g->replica);
    rs_family_clear(g->proxy);
    json_object_foreach (json_object_get(details, "applications"), app, a) {
        set(g->application, (const char *[]){app}, value_of(application_values, a));
        json_object_foreach (json_object_get(a, "deployments"), name, d)
            update_deployment(g, app, name, d);
    }
    json_object_foreach (json_object_get(details, "proxies"), name, proxy)
        set(g->proxy, (const char *[]){name, rs_json_str(proxy, "node_ip", "")},
            value_of(proxy_values, proxy));
}
