/* What a node tells its agent of how replicas do: figures of the data plane, and what the kernel says. */
#include "cmd/node-internal.h"

#include "sched/health.h"
#include "sched/supervise/look.h"

#include <stdio.h>

static void add_sample(const struct rs_dataplane_stat *s, void *arg)
{
    struct rs_node *n = arg;
    uint64_t took[RS_TALLY_BUCKETS];

    if (!s->replica_id)
        return;
    struct rs_health_sample x = {
        .in_flight = s->in_flight,
        .open = s->open,
        .calls = s->calls,
        .moved = s->moved,
        .given_up = s->given_up,
        .done = s->done,
        .took = rs_dataplane_took(n->dataplane, s->replica_id, took) ? took : NULL,
    };

    rs_agent_sample(n->agent, s->replica_id, &x, rs_node_now(n));
}

void rs_node_sample(struct rs_node *n)
{
    rs_dataplane_stats(n->dataplane, add_sample, n);
    rs_agent_sampled(n->agent, rs_node_now(n));
}

/* --- the agent's ops ----------------------------------------------------------------------------- */

void rs_node_weigh(const char *replica_id, unsigned percent, void *arg)
{
    struct rs_node *n = arg;

    rs_dataplane_weigh(n->dataplane, replica_id, percent);
}

bool rs_node_look(pid_t pid, struct rs_agent_look *ret, void *arg)
{
    struct rs_process_look seen;

    (void)arg;
    if (!rs_process_look(pid, &seen))
        return false;
    *ret = (struct rs_agent_look){.state = seen.state, .memory = seen.memory};
    return true;
}

bool rs_node_oom(struct rs_agent_oom *ret, void *arg)
{
    struct rs_node *n = arg;
    uint64_t kills = 0;
    enum rs_oom_seen seen = rs_oom_look(&n->oom, &kills);

    if (seen == RS_OOM_NONE)
        return false;
    *ret = (struct rs_agent_oom){.kills = (unsigned)kills, .certain = seen == RS_OOM_CGROUP};
    if (seen == RS_OOM_CGROUP)
        snprintf(ret->evidence, sizeof(ret->evidence),
                 "the kernel ended %u process%s of the node's cgroup for want of memory",
                 ret->kills, ret->kills == 1 ? "" : "es");
    else
        snprintf(ret->evidence, sizeof(ret->evidence),
                 "a guess: the kernel ended %u process%s of this machine for want of memory, "
                 "perhaps another one",
                 ret->kills, ret->kills == 1 ? "" : "es");
    return true;
}
