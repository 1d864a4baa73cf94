/* What the files of a node share: node.c (life, reports, drains), node-ops.c (the agent's ops), node-health.c,
 * node-events.c (what processes, the data plane and the head say).
 */
#pragma once

#include "cmd/advice.h"
#include "cmd/asks.h"
#include "cmd/drivers.h"
#include "cmd/envs.h"
#include "cmd/launch.h"
#include "cmd/node-logs.h"
#include "cmd/node.h"
#include "cmd/probes.h"
#include "cmd/values.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/map.h"
#include "net/wire/conn.h"
#include "sched/agent.h"
#include "sched/supervise/guard.h"
#include "sched/supervise/keeper.h"
#include "sched/supervise/look.h"
#include "sched/supervise/statedir.h"

struct rs_node_zygote {
    struct rs_node *node;
    char *key, *app;
    struct rs_conn *conn; /* NULL: hung up */
};

/* The connection of a replica that speaks frames. What it last said may still be on its way when its
 * process is seen to end: the end is told after the connection's, or a little later. */
struct rs_node_line {
    struct rs_node *node;
    char *replica_id;
    bool ended; /* the process; how, follows */
    int status;
    char *output;
    struct rs_timer late;
};

struct rs_node {
    struct rs_loop *loop;
    struct rs_node_ops ops;
    void *arg;
    char *node_id, *name, *address;
    json_t *resources, *labels;
    struct rs_launch_conf launch;
    struct rs_statedir *state;
    struct rs_guard *guard;
    struct rs_capture_hub *hub;
    struct rs_keeper *keeper;
    struct rs_dataplane *dataplane;
    struct rs_drivers *drivers;
    struct rs_values *values;
    struct rs_advice *advice;
    struct rs_agent *agent;
    struct rs_oom oom;
    struct rs_envs *envs;
    struct rs_node_logs *logs;
    struct rs_listener *peers;
    struct rs_conn *head;  /* NULL: away */
    struct rs_map zygotes; /* key -> struct zygote */
    struct rs_probes probes;
    struct rs_metrics *metrics;
    struct rs_map lines; /* replica id -> struct line, while its connection is up */
    struct rs_after hook;
    bool dirty, closing;
    bool long_reports; /* the last one had to be shortened */
    bool busy;         /* the last report told of requests under way */
    int64_t reported_at, reaped_at;
    struct rs_asks asks;
    bool within;         /* the head is on this machine, and back in a moment when it went away */
    unsigned still;      /* reports without news in a row */
    int64_t report_cost; /* ns that the last report took to make */
    double grace_s;      /* longest graceful_shutdown_timeout_s of what was deployed */
    enum { SERVING, FINISHING, DRAINING, KILLING, DRAINED } phase;
    int64_t ended_at; /* the last process did, while the node stops; 0: not yet */
    int64_t finish_by;
};

static inline int64_t rs_node_now(const struct rs_node *n)
{
    (void)n;
    return rs_clock_now();
}

/* node-health.c */
void rs_node_sample(struct rs_node *n);
void rs_node_weigh(const char *replica_id, unsigned percent, void *arg);
bool rs_node_look(pid_t pid, struct rs_agent_look *ret, void *arg);
bool rs_node_oom(struct rs_agent_oom *ret, void *arg);

/* node-ops.c */
extern const struct rs_agent_ops rs_node_agent_ops;
void rs_node_zygote_free(struct rs_node_zygote *z);
void rs_node_build(const char *key, const json_t *build, void *arg);
void rs_node_line_free(struct rs_node_line *l); /* NULL is fine */
/* The connection is gone, or is waited for no longer. */
void rs_node_line_down(struct rs_node *n, const char *replica_id);
void rs_node_on_probed(const char *replica_id, bool ok, const char *why, void *arg);
uint64_t rs_node_random(void *arg);

/* node-events.c */
extern const struct rs_values_ops rs_node_values_ops;
extern const struct rs_dataplane_ops rs_node_dataplane_ops;
extern const struct rs_keeper_ops rs_node_keeper_ops;
extern const struct rs_advice_ops rs_node_advice_ops;
void rs_node_send_lines(uint64_t stream, const json_t *msg, void *arg); /* LOG_LINES */
