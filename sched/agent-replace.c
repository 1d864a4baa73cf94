/* Replaces a replica that runs: a new one starts first, then the old one finishes what it has and goes.
 *
 * One at a time for each deployment of a node, and only while all that are wanted run and no version
 * rolls. Where there is no room for one more, the old one goes first. What asks for it: a replica that
 * stays slow (agent-health.c), and those that grew, aged or worked enough.
 */
#include "sched/agent-internal.h"

#include "core/base/alloc.h"
#include "core/base/clock.h"

#include <string.h>

#define LOOK_EVERY (5 * RS_SEC)  /* at the memory of processes */
#define FIRST_LOOK (60 * RS_SEC) /* after it was ready: what it has then is what it needs */

static uint32_t hash_of(const char *id)
{
    uint32_t h = 2166136261u;

    for (; *id; id++)
        h = (h ^ (unsigned char)*id) * 16777619u;
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    return h ^ (h >> 13);
}

static bool is_current(const struct rs_ag_replica *r)
{
    return strcmp(r->version, r->deployment->version) == 0;
}

/* All that are wanted run, of one version, and none is on its way. */
static bool settled(struct rs_ag_deployment *d, int64_t now)
{
    unsigned up = 0;

    if (d->gone || d->agent->draining || rs_ag_is_core(d) || rs_ag_given_up(d) ||
        now < d->retry_at || rs_deployment_conf_grouped(d->conf))
        return false;
    rs_list_for_each (it, &d->list) {
        const struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (r->state == RS_REPLICA_STOPPED)
            continue;
        if (!rs_ag_is_up(r) || !is_current(r) || r->outgoing)
            return false;
        up++;
    }
    return up > 0 && up >= d->replicas;
}

void rs_ag_replace(struct rs_ag_replica *r, const struct rs_health_finding *f, int64_t now)
{
    if (r->outgoing || !rs_ag_is_up(r) || !settled(r->deployment, now))
        return;
    r->outgoing = true;
    r->going = *f;
    r->going.since = now;
    rs_ag_changed(r->deployment->agent);
}

/* --- wear ---------------------------------------------------------------------------------------- */

static void look(struct rs_ag_replica *r, int64_t now)
{
    rs_ag_look(r);
    if (!r->memory_first && now - r->ready_at >= FIRST_LOOK)
        r->memory_first = r->memory;
}

static void look_at_memory(struct rs_ag_deployment *d, int64_t now)
{
    const struct rs_replace_conf *c = &d->conf->replace;

    if ((c->memory <= 0 && c->memory_growth <= 0) || now < d->look_at)
        return;
    d->look_at = now + LOOK_EVERY;
    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (rs_ag_is_up(r))
            look(r, now);
    }
}

/* The one that is furthest over its time goes first. */
static void find_worn(struct rs_ag_deployment *d, int64_t now)
{
    struct rs_ag_replica *worst = NULL;
    struct rs_health_finding f, of_worst = {0};

    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);
        const struct rs_wear wear = {
            .memory = r->memory,
            .memory_first = r->memory_first,
            .age = now - r->ready_at,
            .requests = r->health ? r->health->requests : 0,
            .hash = hash_of(r->id),
        };

        if (!rs_ag_is_up(r) || r->outgoing || !rs_wear_judge(&d->conf->replace, &wear, &f))
            continue;
        if (!worst || f.value / f.limit > of_worst.value / of_worst.limit) {
            worst = r;
            of_worst = f;
        }
    }
    if (worst)
        rs_ag_replace(worst, &of_worst, now);
}

/* --- somebody asked for it ------------------------------------------------------------------------ */

void rs_agent_replace(struct rs_agent *a, const char *replica_id, int64_t now)
{
    struct rs_ag_replica *r = rs_map_get(&a->replicas, replica_id);

    if (!r || r->state == RS_REPLICA_STOPPED)
        return;
    r->asked = true;
    rs_ag_reconcile(a, now);
}

static void find_asked(struct rs_ag_deployment *d, int64_t now)
{
    const struct rs_health_finding f = {.what = RS_HEALTH_ASKED, .action = RS_HEALTH_REPLACE};

    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        if (r->asked)
            rs_ag_replace(r, &f, now); /* none, while another one is under way */
    }
}

/* ------------------------------------------------------------------------------------------------- */

/* Those that stay, and take requests. */
static unsigned count_up(struct rs_ag_deployment *d)
{
    unsigned up = 0;

    rs_list_for_each (it, &d->list) {
        const struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);

        up += rs_ag_is_up(r) && is_current(r) && !r->outgoing;
    }
    return up;
}

static int64_t deadline(struct rs_ag_deployment *d, int64_t now)
{
    const struct rs_replace_conf *c = d->conf ? &d->conf->replace : NULL;
    int64_t at;

    if (!c || rs_ag_is_core(d) || d->gone || !rs_wear_asked(c))
        return 0;
    at = c->memory > 0 || c->memory_growth > 0 ? d->look_at : 0;
    rs_list_for_each (it, &d->list) {
        const struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);
        int64_t age = rs_wear_age_limit(c, hash_of(r->id));

        /* One that is past it waits for the others: what happens to them is looked at. */
        if (rs_ag_is_up(r) && age >= 0 && r->ready_at + age > now)
            at = rs_ag_sooner(at, r->ready_at + age);
    }
    return at;
}

void rs_ag_replace_step(struct rs_ag_deployment *d, int64_t now)
{
    unsigned up;

    if (d->conf && rs_wear_asked(&d->conf->replace) && !rs_ag_is_core(d) && !d->gone) {
        look_at_memory(d, now);
        if (settled(d, now))
            find_worn(d, now);
    }
    if (d->conf)
        find_asked(d, now);
    up = count_up(d);
    rs_list_for_each (it, &d->list) {
        struct rs_ag_replica *r = rs_container_of(it, struct rs_ag_replica, link);
        struct rs_buf why = {0};

        if (!r->outgoing || !rs_ag_is_up(r) || !is_current(r) || (up < d->replicas && !d->blocked))
            continue;
        rs_buf_puts(&why, "replaced: ");
        rs_health_text(&why, &r->going);
        if (up < d->replicas)
            rs_buf_puts(&why, "; there is no room for another one beside it");
        rs_ag_retire(r, rs_buf_text(&why), now);
        rs_buf_fini(&why);
    }
    d->replace_at = deadline(d, now);
}
