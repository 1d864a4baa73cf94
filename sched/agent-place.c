/* Named replicas: those of deployments whose replicas have placement groups. The head says which
 * process, by its id, and decides alone what takes the place of one that ended: a process is started
 * once for an id. What was started and is no more is reported as lost.
 */
#include "sched/agent-internal.h"

#include "core/base/alloc.h"
#include "core/base/json.h"

#include <stdlib.h>
#include <string.h>

const struct rs_target_place *rs_ag_place(const struct rs_ag_deployment *d, const char *id)
{
    const struct rs_target_deployment *t = rs_ag_told(d);

    for (size_t i = 0; t && i < t->n_places; i++)
        if (strcmp(t->places[i].id, id) == 0)
            return &t->places[i];
    return NULL;
}

/* NULL: no process of this id, or it is on its way out. */
static struct rs_ag_replica *live(const struct rs_ag_deployment *d, const char *id)
{
    struct rs_ag_replica *r = rs_map_get(&d->agent->replicas, id);

    return r && r->deployment == d && rs_ag_live(r) ? r : NULL;
}

json_t *rs_ag_lost_places(const struct rs_ag_deployment *d)
{
    const struct rs_target_deployment *t = rs_ag_told(d);
    json_t *lost = json_object();

    for (size_t i = 0; t && !d->gone && i < t->n_places; i++) {
        const char *id = t->places[i].id;

        if (rs_map_get(&d->used, id) && !live(d, id))
            json_object_set_new(lost, id, json_string("it ended"));
    }
    return lost;
}

static void end(struct rs_ag_deployment *d, const char *id, int64_t now)
{
    struct rs_ag_replica *r = rs_map_get(&d->agent->replicas, id);

    if (!r || r->deployment != d || r->kill_stage == 2)
        return;
    r->counted = true; /* the one that failed has been counted */
    rs_ag_kill(r, "another replica of its gang failed", now);
}

/* What the head says of those that are there. */
static void follow(struct rs_ag_deployment *d, const struct rs_target_deployment *t, int64_t now)
{
    for (size_t i = 0; i < t->n_places; i++) {
        const struct rs_target_place *p = &t->places[i];
        struct rs_ag_replica *r = live(d, p->id);

        if (p->end) {
            end(d, p->id, now);
        } else if (r && r->rank != p->rank) {
            r->rank = p->rank;
            rs_ag_replica_reconfigure(r, now);
        }
    }
}

/* Those that have no place any more. Replicas from before the deployment had placement groups go one
 * by one, as others come up. */
static void retire_rest(struct rs_ag_deployment *d, int64_t now)
{
    unsigned up = 0, before = 0;

    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (!rs_ag_live(r))
            continue;
        if (!rs_map_get(&d->used, r->id))
            before++;
        else if (rs_ag_place(d, r->id))
            up += rs_ag_is_up(r);
        else
            rs_ag_retire(r, d->old ? "replaced by a new version" : "scaled down", now);
    }
    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (!rs_ag_live(r) || rs_map_get(&d->used, r->id))
            continue;
        if (up + before <= d->replicas && !d->blocked)
            return;
        rs_ag_retire(r, "replaced by a new version", now);
        before--;
    }
}

static void start_missing(struct rs_ag_deployment *d, const struct rs_target_deployment *t,
                          int64_t now)
{
    for (size_t i = 0; i < t->n_places; i++) {
        const struct rs_target_place *p = &t->places[i];

        if (p->end || strcmp(p->version, d->version) != 0 || rs_map_get(&d->used, p->id) ||
            rs_map_get(&d->agent->replicas, p->id))
            continue;
        if (now < d->retry_at || rs_ag_given_up(d))
            return;
        if (!rs_ag_start(d, p, now))
            return;
        rs_map_put(&d->used, p->id, d);
    }
    rs_ag_block(d, NULL);
}

/* Ids that the head does not name any more, and that do not run, are never asked for again. */
static void forget_used(struct rs_ag_deployment *d)
{
    for (size_t i = 0; i < rs_map_slots(&d->used); i++) {
        const char *id = NULL;

        if (rs_map_at(&d->used, i, &id) && !rs_ag_place(d, id) &&
            !rs_map_get(&d->agent->replicas, id))
            rs_map_remove(&d->used, id);
    }
}

void rs_ag_places_reconcile(struct rs_ag_deployment *d, int64_t now)
{
    const struct rs_target_deployment *t = rs_ag_told(d);

    follow(d, t, now);
    start_missing(d, t, now);
    retire_rest(d, now);
    forget_used(d);
}
