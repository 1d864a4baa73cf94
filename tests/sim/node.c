/* Around an agent: what cmd/node.c does. */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As in cmd/node.c. */
#define REPORT_GAP (5 * RS_MS)
#define REPORT_BUSY (200 * RS_MS)
#define REPORT_EVERY RS_SEC

static int64_t report_at(const struct sim_node *n)
{
    return n->link ? n->reported_at + (n->dirty  ? REPORT_GAP
                                       : n->busy ? REPORT_BUSY
                                                 : REPORT_EVERY)
                   : INT64_MAX;
}

/* --- figures ------------------------------------------------------------------------------------- */

static void add_deployment(struct sim_node *n, struct rs_report_deployment *d)
{
    struct sim *s = n->sim;
    struct sim_pool *p =
        sim_pool_get(n, sim_app_index(d->app), sim_deployment_index(d->name), false);

    if (!p)
        return;
    d->queued = p->pool.queue.queued;
    d->load_us = rs_sim_pool_load_us(&p->pool, s->now);
    d->dropped_full = p->pool.queue.dropped[RS_DROP_FULL];
    d->dropped_shed = p->pool.queue.dropped[RS_DROP_SHED];
    d->dropped_expired = p->pool.queue.dropped[RS_DROP_EXPIRED];
    if (s->mutation == SIM_MUTATION_LOAD_WAVES && d->load_us > 0)
        d->queued = s->now / (8 * RS_SEC) % 2 ? 20 : 0;
    n->busy |= d->queued > 0;
}

static void add_replica(struct sim_node *n, struct rs_report_replica *r)
{
    const struct sim_proc *p = rs_map_get(&n->procs, r->replica_id);

    if (!p || !p->pool)
        return;
    r->in_flight = p->backend.slots.in_flight;
    r->done = p->backend.done;
    n->busy |= r->in_flight > 0;
}

void sim_node_report(struct sim_node *n)
{
    rs_auto(rs_report_freep) struct rs_report *r = rs_agent_report(n->agent, n->sim->now);

    n->busy = n->dirty = false;
    for (size_t i = 0; i < r->n_deployments; i++)
        add_deployment(n, &r->deployments[i]);
    for (size_t i = 0; i < r->n_replicas; i++)
        add_replica(n, &r->replicas[i]);
    n->reported_at = n->sim->now;
    sim_send_report(n, rs_report_to_json(r));
}

/* --- time ---------------------------------------------------------------------------------------- */

static void on_wake(struct sim_note *note)
{
    struct sim_node *n = note->node;

    n->wake_at = INT64_MAX;
    if (rs_agent_deadline(n->agent) <= n->sim->now)
        rs_agent_tick(n->agent, n->sim->now);
    if (report_at(n) <= n->sim->now)
        sim_node_report(n);
}

void sim_node_settle(struct sim_node *n)
{
    struct sim *s = n->sim;
    int64_t at = rs_agent_deadline(n->agent), report = report_at(n);

    at = report < at ? report : at;
    if (at >= n->wake_at)
        return;
    at = at < s->now ? s->now : at;
    n->wake_at = at;
    sim_later(s, at - s->now, on_wake, n);
}

/* --- life ---------------------------------------------------------------------------------------- */

void sim_node_start(struct sim *s, unsigned index, int64_t cpus)
{
    struct sim_node *n = &s->nodes[index];
    rs_auto(rs_json_decrefp) json_t *total = json_pack(
        "{s:f}", "CPU", (double)cpus * (s->mutation == SIM_MUTATION_DOUBLE_PLACE ? 2 : 1));
    struct rs_agent_conf conf = {.node_id = n->id, .resources = total, .wall_offset_s = 1e9};
    struct rs_error err = {0};
    unsigned life = n->life;

    if (index >= s->cap_nodes || n->agent)
        return;
    if (index >= s->n_nodes)
        s->n_nodes = index + 1;
    if (n->sim)
        sim_head_mourns(n);
    *n = (struct sim_node){.sim = s,
                           .index = index,
                           .life = life + 1,
                           .cpus = cpus,
                           .wake_at = INT64_MAX,
                           .slow = n->slow,
                           .slow_until = n->slow_until};
    snprintf(n->id, sizeof(n->id), life ? "n%u.%u" : "n%u", index, life);
    if (rs_agent_new(&n->agent, &conf, &sim_agent_ops, n, &err) < 0)
        abort();
    sim_join_later(n, 20 * RS_MS);
}

void sim_node_stop(struct sim_node *n)
{
    struct sim *s = n->sim;

    if (!s || !n->agent)
        return;
    sim_say(s, "%s is killed", n->id);
    rs_agent_free(n->agent);
    n->agent = NULL;
    n->link = 0;
    sim_requests_of_gone(n);
    for (size_t i = 0; i < rs_map_slots(&n->procs); i++) {
        struct sim_proc *p = rs_map_at(&n->procs, i, NULL);

        if (p)
            sim_proc_gone(p);
    }
    rs_map_fini(&n->procs);
    for (size_t i = 0; i < rs_map_slots(&n->pools); i++)
        sim_pool_free(rs_map_at(&n->pools, i, NULL));
    rs_map_fini(&n->pools);
    n->procs = n->pools = (struct rs_map){0};
    n->used = 0;
    /* Its connection may still be open at the head's end, but what it says there is over. */
    n->life++;
}
