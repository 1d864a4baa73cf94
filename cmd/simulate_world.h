/* A node, its head and their applications on a virtual clock, with requests as a trace tells of them:
 * the controller, the agent, the autoscaler and the queues are those that serve; processes are only
 * pretended.
 *
 * Units: ns of virtual time where it is not said otherwise; it begins at 0 with the first arrival.
 */
#pragma once

#include "cmd/simulate_pool.h"
#include "cmd/simulate_trace.h"
#include "core/config/config.h"

#include <jansson.h>

struct rs_sim_conf {
    struct rs_config *config; /* taken */
    const struct rs_sim_trace *trace;
    const char *file;        /* of the trace, for messages */
    const json_t *resources; /* of the node */
    int64_t start_time;      /* that a replica takes to be ready */
};

enum { RS_SIM_STEPS = 20 }; /* in which the time is shown */

/* Why a request was not answered. */
enum rs_sim_end {
    RS_SIM_ANSWERED,
    RS_SIM_END_FULL,        /* max_queued_requests: 503 */
    RS_SIM_END_SHED,        /* waited too long: 503 */
    RS_SIM_END_TIMEOUT,     /* request_timeout_s: 408 */
    RS_SIM_END_UNAVAILABLE, /* nothing could take it: 503 */
    RS_SIM_ENDS
};
extern const char *const rs_sim_end_names[RS_SIM_ENDS]; /* "answered", "queue_full", .. */

struct rs_sim_app_figures {
    const char *name;
    double *latencies_s; /* of those that were answered, in order of size */
    size_t n, cap;
    size_t ends[RS_SIM_ENDS];
};

struct rs_sim_step {
    unsigned replicas; /* at its end */
    unsigned queued;   /* at most */
};

struct rs_sim_deployment_figures {
    const char *app, *name;
    size_t calls;
    unsigned queued_max, replicas_min, replicas_max, replicas;
    double queued_mean, replicas_mean, busy_mean; /* requests at work, in the mean */
    struct rs_sim_step steps[RS_SIM_STEPS];
};

struct rs_sim_result {
    struct rs_sim_app_figures *apps;
    size_t n_apps;
    struct rs_sim_deployment_figures *deployments;
    size_t n_deployments;
    double span_s; /* from the first arrival to the last */
    size_t arrivals[RS_SIM_STEPS], missed[RS_SIM_STEPS];
    uint64_t events;
    char **notes; /* what was left out, for people */
    size_t n_notes, cap_notes;
    void *storage;
};

/* -1: it cannot be simulated, `err` says why. Release with rs_sim_result_fini. */
RS_MUST_CHECK int rs_simulate(const struct rs_sim_conf *conf, struct rs_sim_result *ret,
                              struct rs_error *err);
void rs_sim_result_fini(struct rs_sim_result *r);
