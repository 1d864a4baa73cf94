/* Units: replicas that have a placement group of their own. A gang is one, and so is a single replica
 * with bundles. A unit is placed whole or not at all, each of its processes is started once, and when
 * one of them is lost the others are killed and another unit takes its place. Its room is given back
 * when nothing of it runs any more.
 *
 * A new version comes in whole units; how many of which version there are is decided in
 * controller-roll.c.
 */
#include "sched/controller-place.h"

#include "core/base/alloc.h"
#include "sched/controller-roll.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static bool is_current(const struct rs_ct_unit *u)
{
    return strcmp(u->version, u->of->version) == 0;
}

static bool active(const struct rs_ct_unit *u)
{
    return u->state == RS_UNIT_ACTIVE;
}

struct rs_ct_node *rs_ct_unit_node(const struct rs_controller *c, const struct rs_ct_unit *u,
                                   size_t member)
{
    const struct rs_ct_group *g = rs_ct_group_find(c, u->group);

    return g ? g->bundles[member * u->bundles].node : NULL;
}

static void unit_free(struct rs_ct_unit *u)
{
    struct rs_controller *c = u->of->app->controller;
    struct rs_ct_group *g = rs_ct_group_find(c, u->group);

    if (g)
        rs_ct_group_drop(c, g, c->now);
    for (size_t i = 0; i < u->n; i++)
        free(u->members[i].id);
    free(u->members);
    rs_resources_fini(&u->each);
    json_decref(u->gang);
    free(u->group);
    free(u->version);
    free(u);
}

void rs_ct_units_free(struct rs_ct_deployment *d)
{
    for (size_t i = 0; i < d->n_units; i++)
        unit_free(d->units[i]);
    free(d->units);
    d->units = NULL;
    d->n_units = d->cap_units = 0;
}

/* --- what the reports say --- */

/* The members of all units of a deployment, by their ids. */
static void index_members(struct rs_map *members, const struct rs_ct_deployment *d)
{
    for (size_t i = 0; i < d->n_units; i++)
        for (size_t k = 0; k < d->units[i]->n; k++) {
            struct rs_ct_member *m = &d->units[i]->members[k];

            m->up = m->there = m->lost = false;
            rs_map_put(members, m->id, m);
        }
}

static void look_at(const struct rs_map *members, const struct rs_ct_deployment *d,
                    const struct rs_report *r)
{
    for (size_t i = 0; i < r->n_deployments; i++) {
        const struct rs_report_deployment *x = &r->deployments[i];
        const char *id;
        json_t *why;

        if (strcmp(x->name, d->name) != 0 || strcmp(x->app, d->app->name) != 0)
            continue;
        json_object_foreach (x->lost, id, why) {
            struct rs_ct_member *m = rs_map_get(members, id);

            if (m)
                m->lost = true;
        }
    }
    for (size_t i = 0; i < r->n_replicas; i++) {
        const struct rs_report_replica *x = &r->replicas[i];
        struct rs_ct_member *m = rs_map_get(members, x->replica_id);

        if (!m)
            continue;
        m->there = x->state != RS_REPLICA_STOPPED;
        m->up = x->state == RS_REPLICA_RUNNING || x->state == RS_REPLICA_UPDATING;
    }
}

static void look(const struct rs_controller *c, struct rs_ct_deployment *d)
{
    struct rs_map members = {0};

    index_members(&members, d);
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        const struct rs_ct_node *n = rs_map_at(&c->nodes, i, NULL);

        if (n && n->report)
            look_at(&members, d, n->report);
    }
    rs_map_fini(&members);
}

/* Every bundle has its node; `leaving`: one of those takes no new replicas. */
static bool whole(const struct rs_ct_group *g, bool *leaving)
{
    for (size_t i = 0; g && i < g->n_bundles; i++) {
        if (!g->bundles[i].node)
            return false;
        *leaving |= g->bundles[i].node->draining;
    }
    return g != NULL;
}

/* True: nothing of it is left. */
static bool follow(struct rs_ct_unit *u, bool fresh)
{
    const struct rs_ct_deployment *d = u->of;
    bool leaving = false, there = false;
    bool lost = !whole(rs_ct_group_find(d->app->controller, u->group), &leaving);

    for (size_t k = 0; k < u->n; k++) {
        lost |= u->members[k].lost;
        there |= u->members[k].there;
    }
    if (active(u) && lost)
        u->state = RS_UNIT_BROKEN;
    else if (active(u) && (leaving || d->gone || !rs_deployment_conf_grouped(d->conf)))
        u->state = RS_UNIT_LEAVING;
    return !active(u) && !there && fresh;
}

static void update(const struct rs_controller *c, struct rs_ct_deployment *d)
{
    bool fresh = rs_ct_look(c, d).fresh;
    size_t kept = 0;

    look(c, d);
    for (size_t n = 0; n < d->n_units; n++) {
        if (follow(d->units[n], fresh))
            unit_free(d->units[n]);
        else
            d->units[kept++] = d->units[n];
    }
    d->n_units = kept;
}

void rs_ct_units_update(struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            for (size_t o = 0; d && o < d->n_old; o++)
                if (d->old[o]->n_units > 0)
                    update(c, d->old[o]);
            if (d && d->n_units > 0)
                update(c, d);
        }
    }
}

void rs_ct_units_keep(struct rs_ct_board *b, struct rs_ct_deployment *d)
{
    const struct rs_controller *c = d->app->controller;

    for (size_t i = 0; i < d->n_units; i++) {
        const struct rs_ct_unit *u = d->units[i];
        struct rs_ct_group *g = rs_ct_group_find(c, u->group);

        for (size_t k = 0; g && k < u->n; k++) {
            struct rs_ct_bundle *bundle = &g->bundles[k * u->bundles];

            if (!bundle->node)
                continue;
            rs_resources_take_anyway(&bundle->free, &u->each);
            b->all[rs_ct_board_index(b, bundle->node)]++;
        }
    }
}

/* --- counting --- */

struct census {
    unsigned cur; /* replicas of active units */
    bool leaving; /* some unit is on its way out */
};

static unsigned up_in(const struct rs_ct_unit *u)
{
    unsigned n = 0;

    for (size_t k = 0; k < u->n; k++)
        n += u->members[k].up;
    return n;
}

static struct census count(const struct rs_ct_deployment *d)
{
    struct census s = {0};

    for (size_t i = 0; i < d->n_units; i++) {
        const struct rs_ct_unit *u = d->units[i];

        if (!active(u)) {
            s.leaving = true;
        } else if (is_current(u)) {
            s.cur += (unsigned)u->n;
        }
    }
    return s;
}

static unsigned cost_of(const struct rs_ct_unit *u)
{
    const struct rs_controller *c = u->of->app->controller;
    unsigned sum = 0;

    for (size_t k = 0; k < u->n; k++) {
        const struct rs_ct_node *n = rs_ct_unit_node(c, u, k);
        struct rs_report_replica *r =
            n && n->report ? rs_report_replica(n->report, u->members[k].id) : NULL;

        sum += r ? rs_ct_cost_of(r) : 0;
    }
    return sum;
}

/* The one that is missed least: not all of it runs, few requests, high ranks. */
static struct rs_ct_unit *cheapest(const struct rs_ct_deployment *d)
{
    struct rs_ct_unit *best = NULL;
    unsigned least = 0;

    for (size_t i = 0; i < d->n_units; i++) {
        struct rs_ct_unit *u = d->units[i];
        unsigned cost = up_in(u) < u->n ? 0 : 1 + cost_of(u);

        if (!active(u) || !is_current(u))
            continue;
        if (!best || cost < least ||
            (cost == least && u->members[0].rank > best->members[0].rank)) {
            best = u;
            least = cost;
        }
    }
    return best;
}

/* --- ranks --- */

static bool rank_used(const struct rs_ct_deployment *d, unsigned rank)
{
    for (size_t i = 0; i < d->n_units; i++)
        for (size_t k = 0; k < d->units[i]->n; k++)
            if (active(d->units[i]) && is_current(d->units[i]) &&
                d->units[i]->members[k].rank == rank)
                return true;
    return false;
}

static unsigned lowest_free_rank(const struct rs_ct_deployment *d)
{
    unsigned rank = 0;

    while (rank_used(d, rank))
        rank++;
    return rank;
}

/* Ranks are 0 .. N-1: those beyond the end move into holes, once nothing is on its way out. */
static void close_holes(struct rs_ct_deployment *d)
{
    struct census s = count(d);

    for (size_t i = 0; i < d->n_units && !s.leaving; i++)
        for (size_t k = 0; k < d->units[i]->n; k++)
            if (is_current(d->units[i]) && d->units[i]->members[k].rank >= s.cur)
                d->units[i]->members[k].rank = lowest_free_rank(d);
}

/* --- making one --- */

static unsigned gang_size(const struct rs_ct_deployment *d)
{
    return d->conf->gang_size > 0 ? (unsigned)d->conf->gang_size : 1;
}

/* Told apart from all others by the clock and a number; nothing here is drawn by lot. */
static uint64_t mix(const struct rs_ct_deployment *d, unsigned serial, unsigned salt)
{
    const struct rs_controller *c = d->app->controller;
    rs_auto(rs_freep) char *text =
        rs_asprintf("%s#%s#%.6f#%u#%u", d->app->name, d->name, rs_ct_wall(c, c->now), serial, salt);
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (const char *p = text; *p; p++)
        h = (h ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    h ^= h >> 33;
    h *= UINT64_C(0xff51afd7ed558ccd);
    return h ^ (h >> 33);
}

static char *new_id(const struct rs_ct_deployment *d, unsigned serial, unsigned salt)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    uint64_t bits = mix(d, serial, salt);
    char id[9] = "";

    for (int i = 0; i < 8; i++, bits /= 36)
        id[i] = letters[bits % 36];
    return rs_strdup(id);
}

static const json_t *selector_of(const struct rs_ct_deployment *d, size_t bundle)
{
    const json_t *own = json_object_get(d->conf->json, "placement_group_bundle_label_selector");
    const json_t *options = json_object_get(d->conf->json, "ray_actor_options");

    if (json_array_size(own) > 0)
        return json_array_get(own, json_array_size(own) > bundle ? bundle : 0);
    return bundle == 0 ? json_object_get(options, "label_selector") : NULL;
}

static void set_bundles(struct rs_ct_group *g, struct rs_ct_unit *u)
{
    const struct rs_ct_deployment *d = u->of;
    const json_t *own = json_object_get(d->conf->json, "placement_group_bundles");
    size_t n = json_array_size(own);

    u->bundles = n ? n : 1;
    g->n_bundles = u->n * u->bundles;
    g->bundles = rs_alloc(g->n_bundles * sizeof(*g->bundles));
    for (size_t i = 0; i < g->n_bundles; i++) {
        struct rs_error err = {0};
        struct rs_resources *want = &g->bundles[i].want;

        if (n == 0 || rs_resources_from_json(want, json_array_get(own, i % n), &err) < 0)
            rs_resources_copy(want, &d->conf->resources);
        g->bundles[i].selector = json_incref((json_t *)(uintptr_t)selector_of(d, i % u->bundles));
    }
}

static struct rs_ct_group *new_group(struct rs_ct_unit *u, unsigned serial)
{
    struct rs_ct_deployment *d = u->of;
    struct rs_ct_group *g = rs_alloc(sizeof(*g));
    const json_t *gang = json_object_get(d->conf->json, "gang_scheduling_config");
    struct rs_error err = {0};
    const char *strategy = d->conf->gang_size > 0
                               ? rs_json_str(gang, "gang_placement_strategy", "PACK")
                               : rs_json_str(d->conf->json, "placement_group_strategy", "PACK");

    g->id = rs_asprintf("%016" PRIx64 "%016" PRIx64, mix(d, serial, UINT_MAX),
                        mix(d, serial, UINT_MAX - 1));
    if (d->conf->gang_size > 0)
        g->name =
            rs_asprintf("SERVE_GANG::%s_%s_%u_%.8s", d->app->name, d->name, serial - 1, g->id);
    else
        g->name = rs_asprintf("SERVE_REPLICA::%s#%s#%s", d->app->name, d->name, u->members[0].id);
    g->of_replicas = true;
    if (rs_ct_group_strategy(g, strategy, &err) < 0)
        g->strategy = RS_GROUP_PACK;
    set_bundles(g, u);
    return g;
}

static json_t *gang_of(const struct rs_ct_unit *u, const struct rs_ct_group *g)
{
    json_t *ids = json_array();
    rs_auto(rs_freep) char *id = rs_asprintf("%.8s", g->id);

    for (size_t i = 0; i < u->n; i++)
        json_array_append_new(ids, json_string(u->members[i].id));
    return json_pack("{s:s, s:i, s:o, s:s}", "gang_id", id, "world_size", (int)u->n,
                     "member_replica_ids", ids, "pg_name", g->name);
}

static struct rs_ct_unit *new_unit(struct rs_ct_deployment *d, struct rs_ct_group **ret)
{
    struct rs_ct_unit *u = rs_alloc(sizeof(*u));
    unsigned serial = d->next ? ++d->next->unit_serial : ++d->unit_serial; /* of the name */

    u->of = d;
    u->n = gang_size(d);
    u->version = rs_strdup(d->version);
    u->members = rs_alloc(u->n * sizeof(*u->members));
    for (size_t i = 0; i < u->n; i++)
        u->members[i].id = new_id(d, serial, (unsigned)i);
    rs_resources_copy(&u->each, &d->conf->resources);
    *ret = new_group(u, serial);
    u->group = rs_strdup((*ret)->id);
    u->gang = d->conf->gang_size > 0 ? gang_of(u, *ret) : json_object();
    return u;
}

/* False: there is no room, and d->blocked says so. */
static bool add_unit(struct rs_ct_board *b, struct rs_ct_deployment *d)
{
    struct rs_controller *c = d->app->controller;
    struct rs_ct_group *g = NULL;
    struct rs_ct_unit *u = new_unit(d, &g);

    rs_map_put(&c->core.groups, g->id, g);
    if (!rs_ct_place_group(b, g)) {
        rs_ct_set(&d->blocked, rs_strdup(g->why));
        unit_free(u);
        return false;
    }
    d->units = rs_grow(d->units, &d->cap_units, d->n_units + 1, sizeof(struct rs_ct_unit *));
    d->units[d->n_units++] = u;
    for (size_t k = 0; k < u->n; k++) /* it is in the list: its own ranks count */
        u->members[k].rank = UINT_MAX;
    for (size_t k = 0; k < u->n; k++) {
        struct rs_ct_bundle *bundle = &g->bundles[k * u->bundles];

        u->members[k].rank = lowest_free_rank(d);
        rs_resources_take_anyway(&bundle->free, &u->each);
        b->all[rs_ct_board_index(b, bundle->node)]++;
    }
    return true;
}

/* --- a new version --- */

/* A new unit would find room if old ones were not there. */
static bool would_fit(struct rs_ct_board *b, struct rs_ct_deployment *d)
{
    struct rs_ct_board without = {.nodes = b->nodes, .n = b->n};
    struct rs_ct_group *g = NULL;
    struct rs_ct_unit *u = new_unit(d, &g);
    bool fits;

    without.free = rs_alloc((b->n + 1) * sizeof(*without.free));
    for (size_t i = 0; i < b->n; i++)
        rs_resources_copy(&without.free[i], &b->free[i]);
    rs_ct_roll_give_old(b, d, without.free);
    fits = rs_ct_place_group(&without, g);
    for (size_t i = 0; i < b->n; i++)
        rs_resources_fini(&without.free[i]);
    free(without.free);
    rs_ct_group_free(g);
    unit_free(u);
    return fits;
}

unsigned rs_ct_units_try(struct rs_ct_board *b, const struct rs_ct_deployment *d, unsigned n,
                         unsigned *on_node, char **why)
{
    struct rs_ct_deployment like = *d; /* its serial numbers are not used up */
    unsigned done = 0;
    bool fits = true;

    for (; fits && done < n; done += fits) {
        struct rs_ct_group *g = NULL;
        struct rs_ct_unit *u = new_unit(&like, &g);

        fits = rs_ct_place_group(b, g);
        for (size_t k = 0; fits && k < u->n; k++)
            on_node[rs_ct_board_index(b, g->bundles[k * u->bundles].node)]++;
        if (!fits && why)
            rs_ct_set(why, rs_strdup(g->why));
        rs_ct_group_free(g);
        unit_free(u);
    }
    return done;
}

/* Also those that wait, once the deployment was given up. */
static void drop_surplus(struct rs_ct_deployment *d)
{
    for (size_t i = 0; d->failed && i < d->n_units; i++)
        if (active(d->units[i]) && is_current(d->units[i]) && up_in(d->units[i]) == 0)
            d->units[i]->state = RS_UNIT_LEAVING;
    while (count(d).cur > rs_ct_run(d))
        cheapest(d)->state = RS_UNIT_LEAVING;
}

static void place_missing(struct rs_ct_board *b, struct rs_ct_deployment *d)
{
    unsigned gang = gang_size(d);

    rs_ct_set(&d->blocked, NULL);
    while (!d->failed && count(d).cur + gang <= rs_ct_run(d))
        if (!add_unit(b, d)) {
            d->feasible = would_fit(b, d);
            return;
        }
}

/* The slots that the rest of the controller counts. */
static void set_slots(struct rs_ct_deployment *d)
{
    const struct rs_controller *c = d->app->controller;

    d->n_slots = 0;
    d->has_holes = false;
    for (size_t i = 0; i < d->n_units; i++)
        for (size_t k = 0; k < d->units[i]->n; k++) {
            const struct rs_ct_unit *u = d->units[i];

            if (!active(u) || !is_current(u))
                continue;
            d->slots = rs_grow(d->slots, &d->cap_slots, d->n_slots + 1, sizeof(*d->slots));
            d->slots[d->n_slots++] =
                (struct rs_ct_slot){rs_ct_unit_node(c, u, k), u->members[k].rank};
        }
}

void rs_ct_units_place(struct rs_ct_board *b, struct rs_ct_deployment *d)
{
    drop_surplus(d);
    place_missing(b, d);
    if (!d->next)
        close_holes(d);
    set_slots(d);
}
