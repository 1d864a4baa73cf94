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

/* Figures of the autoscaler, by their place in the details of a deployment. */
static const struct {
    const char *name, *help, *of, *key;
} scaling[] = {
    {"ray_serve_autoscaling_target_replicas", "Replicas that there should be.", NULL,
     "target_num_replicas"},
    {"ray_serve_autoscaling_desired_replicas",
     "Replicas that load, or the user's policy, asks for, within the bounds.", "autoscaling_detail",
     "desired_replicas"},
    {"ray_serve_autoscaling_total_requests",
     "Requests that wait and requests under way, as the last decision saw them.",
     "autoscaling_detail", "total_requests"},
    {"ray_serve_autoscaling_target_ongoing_requests",
     "Requests that each replica should have on average.", "deployment_config",
     "target_ongoing_requests"},
};
_Static_assert(RS_COUNT(scaling) == RS_GAUGES_SCALING, "a family for each");

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
    for (size_t i = 0; i < RS_COUNT(scaling); i++)
        g->scaling[i] = rs_metrics_family(
            metrics, &(struct rs_family_conf){.name = scaling[i].name,
                                              .help = scaling[i].help,
                                              .kind = RS_GAUGE,
                                              .labels = {"deployment", "application"}});
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

static void update_scaling(const struct rs_gauges *g, const char *app, const char *name,
                           const json_t *d)
{
    const json_t *detail = json_object_get(d, "autoscaling_detail");

    for (size_t i = 0; json_is_object(detail) && i < RS_COUNT(scaling); i++) {
        const json_t *of =
            !scaling[i].of ? d
            : strcmp(scaling[i].of, "autoscaling_detail") == 0
                ? json_object_get(detail, "metrics")
                : json_object_get(json_object_get(d, "deployment_config"), "autoscaling_config");

        rs_series_set(rs_family_series(g->scaling[i], (const char *[]){name, app}),
                      rs_json_num(of, scaling[i].key, 0));
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
    for (size_t i = 0; i < RS_COUNT(scaling); i++)
        rs_family_clear(g->scaling[i]);
    json_object_foreach (json_object_get(details, "applications"), app, a) {
        set(g->application, (const char *[]){app}, value_of(application_values, a));
        json_object_foreach (json_object_get(a, "deployments"), name, d) {
            update_deployment(g, app, name, d);
            update_scaling(g, app, name, d);
        }
    }
    json_object_foreach (json_object_get(details, "proxies"), name, proxy)
        set(g->proxy, (const char *[]){name, rs_json_str(proxy, "node_ip", "")},
            value_of(proxy_values, proxy));
}
