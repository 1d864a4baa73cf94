/* What the node tells the head, and people, about what runs. */
#include "sched/agent-internal.h"

#include "core/base/alloc.h"
#include "sched/supervise/capture.h"

#include <stdlib.h>
#include <string.h>

static double wall(const struct rs_agent *a, int64_t at)
{
    return at ? (double)at / 1e9 + a->wall_offset_s : 0;
}

static char *log_file(const struct rs_agent *a, const struct rs_ag_deployment *d, const char *id)
{
    if (!a->log_dir)
        return NULL;
    rs_auto(rs_freep) char *label = rs_asprintf("%s#%s#%s", d->app, d->name, id);

    return rs_capture_path_of(a->log_dir, label);
}

static void add_replica(struct rs_report *out, const struct rs_ag_replica *r)
{
    const struct rs_ag_deployment *d = r->deployment;
    struct rs_report_replica *rr = rs_report_add_replica(out);

    *rr = (struct rs_report_replica){
        .app = rs_strdup(d->app),
        .deployment = rs_strdup(d->name),
        .replica_id = rs_strdup(r->id),
        .version = rs_strdup(r->version),
        .state = r->state,
        .pid = (int)r->pid,
        .rank = r->rank,
        .waiting = r->waiting,
        .start_time_s = wall(d->agent, r->start_at),
        .ready_time_s = wall(d->agent, r->ready_at),
        .message = rs_strdup(r->message),
        .log_file = log_file(d->agent, d, r->id),
        .health = rs_ag_health_json(r),
    };
}

static void add_dead(struct rs_report *out, const struct rs_ag_deployment *d)
{
    for (size_t i = 0; i < d->n_dead; i++) {
        struct rs_report_replica *rr = rs_report_add_dead(out);

        *rr = d->dead[i];
        rr->app = rs_strdup(d->app);
        rr->deployment = rs_strdup(d->name);
        rr->replica_id = rs_strdup(d->dead[i].replica_id);
        rr->version = rs_strdup(d->dead[i].version);
        rr->message = rs_strdup(d->dead[i].message);
        rr->health = json_incref(d->dead[i].health);
        rr->log_file = log_file(d->agent, d, d->dead[i].replica_id);
    }
}

/* What an environment that is being built is at; NULL: it is not. */
static char *env_text(const struct rs_agent *a, const char *key)
{
    const struct rs_ag_env *e = rs_ag_env_find(a, key);

    if (!e || e->state == RS_ENV_READY || e->state == RS_ENV_FAILED)
        return NULL;
    return rs_asprintf("Setting up the runtime environment: %s", e->progress);
}

/* Why a replica that has its resources is not started yet; NULL: it is. */
static char *env_wait(const struct rs_ag_deployment *d)
{
    rs_list_for_each (it, &d->list) {
        const struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);
        const struct rs_ag_zygote *z = r->zygote ? rs_map_get(&d->agent->zygotes, r->zygote) : NULL;
        char *text;

        if (r->state != RS_REPLICA_PENDING)
            continue;
        text = env_text(d->agent, z ? z->env : r->environment);
        if (text)
            return text;
    }
    return NULL;
}

static void add_deployment(struct rs_report *out, const struct rs_ag_deployment *d)
{
    struct rs_report_deployment *rd = rs_report_add_deployment(out);

    *rd = (struct rs_report_deployment){
        .app = rs_strdup(d->app),
        .name = rs_strdup(d->name),
        .version = rs_strdup(d->version),
        .start_failures = d->start_failures,
        .failures_total = d->failures_total,
        .deaths = d->deaths,
        .ever_ran = d->ever_ran,
        .last_error = rs_strdup(d->last_error),
        .blocked = d->blocked ? rs_strdup(d->blocked) : env_wait(d),
        .lost = rs_ag_lost_places(d),
    };
    rs_list_for_each (it, &d->list) {
        const struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        add_replica(out, r);
    }
    add_dead(out, d);
}

static void add_zygote(struct rs_report *out, const struct rs_agent *a,
                       const struct rs_ag_zygote *z)
{
    struct rs_report_zygote *rz = rs_report_add_zygote(out);

    *rz = (struct rs_report_zygote){
        .app = rs_strdup(z->app),
        .version = rs_strdup(z->version),
        .start = rs_strdup(z->spawn ? "spawn" : "fork"),
        .reason = rs_strdup(z->reason),
        .python = rs_strdup(z->executable),
        .state = rs_strdup(rs_ag_zygote_state_name(z->state)),
        .message = z->state == RS_ZYGOTE_PREPARING ? env_text(a, z->env) : NULL,
        .pid = (int)z->pid,
    };
}

struct rs_report *rs_agent_report(const struct rs_agent *a, int64_t now)
{
    struct rs_report *out = rs_report_new();

    out->revision = a->target ? a->target->revision : 0;
    out->draining = a->draining;
    out->resources = rs_resources_json(rs_ledger_total(a->ledger));
    out->free = rs_resources_json(rs_ledger_available(a->ledger));
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        const struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, NULL);

        if (d && !d->old)
            add_deployment(out, d);
    }
    for (size_t i = 0; i < rs_map_slots(&a->deployments);
         i++) { /* who looks by name finds the above */
        const struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, NULL);

        if (d && d->old)
            add_deployment(out, d);
    }
    for (size_t i = 0; i < rs_map_slots(&a->zygotes); i++) {
        const struct rs_ag_zygote *z = rs_map_at(&a->zygotes, i, NULL);

        if (z)
            add_zygote(out, a, z);
    }
    return out;
}

char *rs_agent_waits_for(const struct rs_agent *a)
{
    enum { SHOWN = 3 };
    size_t n = rs_map_count(&a->replicas);
    size_t shown = 0;
    struct rs_buf out = {0};

    if (n == 0) {
        rs_buf_puts(&out, rs_agent_done(a) ? "" : "the interpreters that fork replicas");
        return rs_buf_steal(&out);
    }
    rs_buf_printf(&out, "%zu replica%s: ", n, n == 1 ? "" : "s");
    for (size_t i = 0; i < rs_map_slots(&a->replicas) && shown < SHOWN; i++) {
        const struct rs_ag_replica *r = rs_map_at(&a->replicas, i, NULL);

        if (!r)
            continue;
        rs_buf_printf(&out, "%s%s#%s#%s (%s)", shown ? ", " : "", r->deployment->app,
                      r->deployment->name, r->id,
                      r->state == RS_REPLICA_DRAINING   ? "finishes its requests"
                      : r->state == RS_REPLICA_STOPPING ? "stops"
                                                        : "still runs");
        shown++;
    }
    if (n > shown)
        rs_buf_printf(&out, " and %zu more", n - shown);
    return rs_buf_steal(&out);
}
