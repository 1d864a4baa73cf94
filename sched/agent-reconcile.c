/* How many replicas: what is wanted of a version against what is there. Which versions run, and how many of
 * each, the head says (sched/rollout.h); each is a deployment of its own here (agent-version.c), so that
 * what dies is started again as what it was, also while the head is away.
 */
#include "sched/agent-internal.h"

#include "core/base/alloc.h"
#include "core/base/json.h"

#include <stdlib.h>
#include <string.h>

struct census {
    unsigned live, up;
};

static struct census count(const struct rs_ag_deployment *d)
{
    struct census c = {0};

    rs_list_for_each (it, &d->list) {
        const struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (!rs_ag_live(r) || r->outgoing)
            continue; /* another one takes its place first (agent-replace.c) */
        c.live++;
        c.up += rs_ag_is_up(r);
    }
    return c;
}

/* --- ranks --- */

static bool rank_wanted(const struct rs_ag_deployment *d, unsigned rank)
{
    for (unsigned i = 0; i < d->replicas; i++)
        if (d->ranks[i] == rank)
            return true;
    return false;
}

static bool rank_taken(struct rs_ag_deployment *d, unsigned rank)
{
    rs_list_for_each (it, &d->list) {
        const struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (rs_ag_live(r) && !r->outgoing && r->rank == rank)
            return true;
    }
    return false;
}

static unsigned free_rank(struct rs_ag_deployment *d)
{
    unsigned best = 0;
    bool found = false;

    for (unsigned i = 0; i < d->replicas; i++)
        if (!rank_taken(d, d->ranks[i]) && (!found || d->ranks[i] < best)) {
            best = d->ranks[i];
            found = true;
        }
    return best;
}

/* The head closed a hole in the ranks: a replica whose rank is no longer this node's takes one that
 * is. Only when all are there, so that a start under way gets its own. */
static void move_ranks(struct rs_ag_deployment *d, int64_t now)
{
    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (!rs_ag_live(r) || rank_wanted(d, r->rank))
            continue;
        r->rank = free_rank(d);
        rs_ag_replica_reconfigure(r, now);
    }
}

/* --- stopping --- */

/* Which of two should go first: not started, then without a wanted rank, then the newer one. */
static bool goes_before(const struct rs_ag_replica *a, const struct rs_ag_replica *b)
{
    if (rs_ag_is_up(a) != rs_ag_is_up(b))
        return !rs_ag_is_up(a);
    if (a->outgoing != b->outgoing)
        return a->outgoing;
    if (rank_wanted(a->deployment, a->rank) != rank_wanted(b->deployment, b->rank))
        return !rank_wanted(a->deployment, a->rank);
    return a->start_at >= b->start_at;
}

static void retire_one(struct rs_ag_deployment *d, int64_t now)
{
    const char *why = d->old ? "replaced by a new version" : "scaled down";
    struct rs_ag_replica *pick = NULL;

    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (rs_ag_live(r) && (!pick || goes_before(r, pick)))
            pick = r;
    }
    if (pick)
        rs_ag_retire(pick, why, now);
}

/* It may have requests that need deployments which are no longer wanted: one on its way out, and one
 * of a version that is to be replaced, or of an application that goes. */
static bool may_need_old(const struct rs_ag_replica *r)
{
    const struct rs_ag_deployment *d = r->deployment;

    return r->state == RS_REPLICA_DRAINING ||
           (rs_ag_is_up(r) && (d->gone || d->agent->draining || d->replicas == 0 || d->old));
}

/* Requests that an application's ingress still works on may need the other deployments. */
static bool ingress_at_work(const struct rs_agent *a, const struct rs_ag_deployment *d)
{
    for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
        const struct rs_ag_deployment *other = rs_map_at(&a->deployments, i, NULL);

        if (!other || other == d || !other->ingress || strcmp(other->app, d->app) != 0)
            continue;
        rs_list_for_each (it, &other->list)
            if (may_need_old(rs_container_of(it, struct rs_ag_replica, link)))
                return true;
    }
    return false;
}

/* Actors and tasks serve replicas: they go when those are through. */
static bool replicas_at_work(const struct rs_agent *a)
{
    for (size_t i = 0; i < rs_map_slots(&a->replicas); i++) {
        const struct rs_ag_replica *r = rs_map_at(&a->replicas, i, NULL);

        if (r && !rs_ag_is_core(r->deployment) && r->state != RS_REPLICA_STOPPED)
            return true;
    }
    return false;
}

/* Nobody wants their answers any more: there is nothing to wait for. */
static void kill_all(struct rs_ag_deployment *d, const char *why, int64_t now)
{
    if (!d->gone && replicas_at_work(d->agent))
        return;
    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (r->kill_stage < 2)
            rs_ag_kill(r, why, now);
    }
}

static void retire_all(struct rs_ag_deployment *d, const char *why, int64_t now)
{
    bool wait = !d->ingress && ingress_at_work(d->agent, d);

    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (!wait || !rs_ag_is_up(r))
            rs_ag_retire(r, why, now);
    }
}

/* --- starting --- */

void rs_ag_block(struct rs_ag_deployment *d, char *why)
{
    if (!d->blocked != !why || (why && strcmp(d->blocked, why) != 0))
        rs_ag_changed(d->agent);
    rs_ag_set(&d->blocked, why);
}

bool rs_ag_given_up(const struct rs_ag_deployment *d)
{
    unsigned max_starts = (unsigned)rs_json_int(d->core, "max_starts", 0);

    return d->failed || (max_starts && d->started >= max_starts) ||
           (!d->ever_ran && d->start_limit && d->start_failures >= d->start_limit);
}

bool rs_ag_start(struct rs_ag_deployment *d, const struct rs_target_place *place, int64_t now)
{
    struct rs_agent *a = d->agent;
    const struct rs_target_app *app = rs_ag_code(d);
    struct rs_reservation *reservation = NULL;
    struct rs_ag_replica *r;
    struct rs_ag_zygote *z = NULL;

    if (rs_ledger_reserve(a->ledger, &d->want, &reservation) == RS_LEDGER_NO_ROOM) {
        struct rs_buf why = {0};

        rs_ledger_why(a->ledger, &d->want, &why);
        rs_ag_block(d, rs_strdup(rs_buf_text(&why)));
        rs_buf_fini(&why);
        return false;
    }
    r = rs_ag_replica_new(d, place ? place->id : NULL, place ? place->rank : free_rank(d),
                          reservation);
    if (d->conf->kind == RS_KIND_PYTHON && app && !app->spawn) {
        z = rs_ag_zygote_for(a, app, d);
        r->zygote = rs_strdup(z->key);
        if (z->state != RS_ZYGOTE_READY)
            return true; /* PENDING until it is */
    } else if (d->conf->kind == RS_KIND_PYTHON && app && rs_ag_env_needed(d->conf->runtime_env)) {
        const struct rs_ag_env *e =
            rs_ag_env_for(a, app->python, app->app_dir, d->conf->runtime_env);

        r->environment = rs_strdup(e->key);
        if (e->state != RS_ENV_READY)
            return true;
    }
    rs_ag_replica_launch(r, now);
    return true;
}

static void start_missing(struct rs_ag_deployment *d, const struct census *c, int64_t now)
{
    unsigned live = c->live;

    if (live >= d->replicas || rs_ag_given_up(d)) {
        rs_ag_block(d, NULL);
        return;
    }
    if (now < d->retry_at)
        return;
    while (live < d->replicas) {
        if (!rs_ag_start(d, NULL, now))
            return;
        live++;
        if (now < d->retry_at || rs_ag_given_up(d)) /* that start failed at once */
            return;
    }
    rs_ag_block(d, NULL);
}

static void drop_pending(struct rs_ag_deployment *d, int64_t now)
{
    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (r->state == RS_REPLICA_PENDING)
            rs_ag_retire(r, "given up", now);
    }
}

/* One of it is on its way out. */
static bool leaves(const struct rs_ag_deployment *d)
{
    rs_list_for_each (it, &d->list)
        if (!rs_ag_live(rs_container_of(it, struct rs_ag_replica, link)))
            return true;
    return false;
}

/* The head did not say how many of it (it knows nothing of it): as many as the new version lacks. */
static void retire_strays(struct rs_ag_deployment *d, int64_t now)
{
    const struct rs_ag_deployment *next = rs_ag_deployment(d->agent, d->app, d->name);
    struct census c, n = next ? count(next) : (struct census){0};
    unsigned keep = next && next->replicas > n.up ? next->replicas - n.up : 0;

    rs_ag_block(d, NULL);
    rs_list_for_each (it, &d->list) /* nothing is started in its place */
        rs_container_of(it, struct rs_ag_replica, link)->outgoing = false;
    c = count(d);
    if (next && next->blocked && n.live == n.up && !leaves(d) && c.live > 0 && keep >= c.live)
        keep = c.live - 1; /* there is no room beside them */
    for (; c.live > keep || c.live > c.up; c = count(d))
        retire_one(d, now);
}

static void reconcile_one(struct rs_ag_deployment *d, int64_t now)
{
    struct rs_agent *a = d->agent;
    struct census c;

    if (d->gone || a->draining ||
        (d->replicas == 0 && !d->old && !rs_deployment_conf_grouped(d->conf))) {
        rs_ag_block(d, NULL);
        if (rs_ag_is_core(d) && (d->gone || a->draining))
            kill_all(d, d->gone ? "it is no longer wanted" : "the node stops", now);
        else
            retire_all(d,
                       d->gone       ? "deleted"
                       : a->draining ? "the node stops"
                                     : "scaled down",
                       now);
        return;
    }
    if (d->stray) {
        retire_strays(d, now);
        return;
    }
    if (rs_ag_given_up(d))
        drop_pending(d, now);
    if (rs_deployment_conf_grouped(d->conf)) {
        rs_ag_places_reconcile(d, now);
        return;
    }
    for (c = count(d); c.live > d->replicas; c = count(d))
        retire_one(d, now);
    start_missing(d, &c, now);
    if (count(d).live == d->replicas && !rs_ag_is_core(d))
        move_ranks(d, now);
}

/* A fresh process, once its environment is there. */
static void launch_in(struct rs_ag_replica *r, int64_t now)
{
    struct rs_agent *a = r->deployment->agent;
    const struct rs_ag_env *e = rs_ag_env_find(a, r->environment);

    if (e && e->state == RS_ENV_READY) {
        rs_ag_replica_launch(r, now);
    } else if (!e || e->state == RS_ENV_FAILED) {
        rs_ag_start_failed(
            r, rs_json_str(e ? e->failure : NULL, "traceback", "its environment went away"), now);
        rs_ag_lost(r, now);
    }
}

/* Replicas that waited for their zygote, or their environment. */
static void launch_pending(struct rs_ag_deployment *d, int64_t now)
{
    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);
        const struct rs_target_app *app = rs_ag_code(d);
        const struct rs_ag_zygote *z = r->zygote ? rs_map_get(&d->agent->zygotes, r->zygote) : NULL;

        if (r->state != RS_REPLICA_PENDING)
            continue;
        if (r->environment) {
            launch_in(r, now);
            continue;
        }
        if (z && z->state == RS_ZYGOTE_READY && z->spawn) {
            rs_ag_set(&r->zygote, NULL); /* found out when it was imported here */
            r->environment = rs_strdup(z->env);
            rs_ag_replica_launch(r, now);
        } else if (z && z->state == RS_ZYGOTE_READY) {
            rs_ag_replica_launch(r, now);
        } else if (!z && app) {
            struct rs_ag_zygote *next = rs_ag_zygote_for(d->agent, app, d);

            rs_ag_set(&r->zygote, rs_strdup(next->key));
        }
    }
}

static void deployment_free(struct rs_ag_deployment *d)
{
    json_decref(d->core);
    json_decref(d->told);
    rs_deployment_conf_free(d->conf);
    for (size_t i = 0; i < d->n_dead; i++) {
        free(d->dead[i].replica_id);
        free(d->dead[i].version);
        free(d->dead[i].message);
        json_decref(d->dead[i].health);
    }
    rs_ag_health_forget(d);
    free(d->app);
    free(d->name);
    free(d->version);
    free(d->ranks);
    rs_map_fini(&d->used);
    free(d->last_error);
    free(d->blocked);
    free(d);
}

void rs_ag_deployment_free(struct rs_ag_deployment *d)
{
    rs_list_for_each (it, &d->list)
        rs_ag_replica_free(rs_container_of(it, struct rs_ag_replica, link));
    deployment_free(d);
}

/* One pass may make work for the next (a place that became free); a few settle it, and what is left
 * is taken up with the next event. */
void rs_ag_reconcile(struct rs_agent *a, int64_t now)
{
    for (int pass = 0; pass < 3; pass++) {
        rs_ag_sweep(a, now); /* what ended gives its resources back */
        for (size_t i = 0; i < rs_map_slots(&a->deployments); i++) {
            struct rs_ag_deployment *d = rs_map_at(&a->deployments, i, NULL);

            if (!d)
                continue;
            reconcile_one(d, now);
            rs_ag_replace_step(d, now);
            launch_pending(d, now);
        }
    }
    rs_ag_sweep(a, now);
    rs_ag_versions_forget(a);
    rs_ag_routes(a);
    rs_ag_zygotes_tick(a, now);
}
