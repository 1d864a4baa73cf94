/* Whether a plan has room: the placing of controller-place.c on copies of the deployments and of what is
 * free. Nothing of the controller changes.
 */
#include "sched/controller-plan.h"

#include "core/base/alloc.h"
#include "sched/controller-place.h"
#include "sched/controller-roll.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- sums ---------------------------------------------------------------------------------------- */

static void add(struct rs_resources *sum, const struct rs_resources *each, unsigned n)
{
    for (; n > 0; n--)
        rs_resources_give(sum, each);
}

/* Of each resource the larger amount. */
static void raise_to(struct rs_resources *a, const struct rs_resources *b)
{
    a->cpu = a->cpu > b->cpu ? a->cpu : b->cpu;
    a->gpu = a->gpu > b->gpu ? a->gpu : b->gpu;
    a->memory = a->memory > b->memory ? a->memory : b->memory;
    for (size_t i = 0; i < b->count; i++)
        if (rs_resources_custom(a, b->custom[i].name) < b->custom[i].amount)
            rs_resources_set_custom(a, b->custom[i].name, b->custom[i].amount);
}

/* What one replica takes: its bundles, if it has any. */
static void each_of(struct rs_resources *ret, const struct rs_deployment_conf *conf)
{
    const json_t *bundles = json_object_get(conf->json, "placement_group_bundles"), *one;
    size_t i;

    *ret = (struct rs_resources){0};
    json_array_foreach (bundles, i, one) {
        struct rs_resources r = {0};
        struct rs_error err = {0};

        if (rs_resources_from_json(&r, one, &err) == 0)
            rs_resources_give(ret, &r);
        rs_resources_fini(&r);
    }
    if (json_array_size(bundles) == 0)
        rs_resources_copy(ret, &conf->resources);
}

static const struct rs_ct_deployment *real_of(const struct rs_ct_outlook *o)
{
    return o->app ? rs_map_get(&o->app->deployments, o->change->name) : NULL;
}

/* While it rolls there are up to `most` replicas; it begins with the old ones and ends with the new. */
static void rolling_peak(struct rs_ct_outlook *o, const struct rs_resources *old,
                         const struct rs_resources *new)
{
    const struct rs_ct_change *c = o->change;
    unsigned most = (c->live > c->wanted ? c->live : c->wanted) + o->surge_fits;
    struct rs_resources end = {0};

    add(&o->peak, old, c->live);
    add(&o->peak, new, most - c->live);
    add(&end, old, most - c->wanted);
    add(&end, new, c->wanted);
    raise_to(&o->peak, &end);
    rs_resources_fini(&end);
}

static void set_peak(struct rs_ct_outlook *o)
{
    const struct rs_ct_change *c = o->change;
    const struct rs_ct_deployment *d = real_of(o);
    struct rs_resources old = {0}, new = {0}, after = {0};

    if (d)
        each_of(&old, d->conf);
    if (c->conf)
        each_of(&new, c->conf);
    if (c->step == RS_CHANGE_ROLLING) {
        rolling_peak(o, &old, &new);
    } else {
        add(&o->peak, &old, c->step == RS_CHANGE_NEW ? 0 : c->live);
        add(&after, &new, c->wanted);
        raise_to(&o->peak, &after);
    }
    rs_resources_fini(&old);
    rs_resources_fini(&new);
    rs_resources_fini(&after);
}

/* --- copies -------------------------------------------------------------------------------------- */

/* A deployment as it will be: what placing reads and writes is its own, the rest is borrowed. */
struct shadow {
    struct rs_ct_app app; /* controller and name only */
    struct rs_ct_deployment d;
    const struct rs_ct_deployment *real; /* NULL: it is new */
    struct rs_ct_outlook *outlook;       /* NULL: the plan does not name it */
};

struct shadows {
    struct shadow **all;
    size_t n, cap;
};

static void shadow_add(struct shadows *s, const struct rs_controller *c,
                       const struct rs_ct_deployment *real, struct rs_ct_outlook *o)
{
    struct shadow *x = rs_alloc(sizeof(*x));

    if (real)
        x->d = *real;
    x->real = real;
    x->outlook = o;
    x->app.internal = true; /* nobody is told of what is only tried */
    x->d.roll = (struct rs_rollout){0};
    x->d.old = NULL;
    x->d.n_old = 0;
    x->app.controller = (struct rs_controller *)(uintptr_t)c;
    x->app.name = (char *)(uintptr_t)(o ? o->app_name : real ? real->app->name : NULL);
    x->d.app = &x->app;
    x->d.blocked = NULL;
    x->d.slots = NULL;
    x->d.n_slots = x->d.cap_slots = 0;
    x->d.by_node = NULL; /* what was worked out of the real one stays its own */
    x->d.up_on = NULL;
    x->d.cap_up_on = 0;
    if (o) {
        x->d.name = (char *)(uintptr_t)o->change->name;
        x->d.conf = o->change->conf ? o->change->conf : x->d.conf;
        x->d.wanted = o->change->wanted;
        x->d.gone = o->change->step == RS_CHANGE_REMOVED;
        if (!o->change->same)
            x->d.version = o->change->heavy ? o->change->heavy : x->d.version;
    }
    for (size_t i = 0; real && i < real->n_slots; i++) {
        x->d.slots = rs_grow(x->d.slots, &x->d.cap_slots, i + 1, sizeof(*x->d.slots));
        x->d.slots[x->d.n_slots++] = real->slots[i];
    }
    s->all = rs_grow(s->all, &s->cap, s->n + 1, sizeof(struct shadow *));
    s->all[s->n++] = x;
}

static struct rs_ct_outlook *outlook_of(const struct rs_ct_room *r, const char *app,
                                        const char *name)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->all[i].app_name, app) == 0 && strcmp(r->all[i].change->name, name) == 0)
            return &r->all[i];
    return NULL;
}

/* Those that are there in the order in which they are placed, then those that come. */
static void shadows_make(struct shadows *s, struct rs_ct_room *r, const struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            const struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            if (d)
                shadow_add(s, c, d, outlook_of(r, app->name, d->name));
        }
    }
    for (size_t i = 0; i < r->n; i++)
        if (!real_of(&r->all[i]))
            shadow_add(s, c, NULL, &r->all[i]);
}

static void shadows_fini(struct shadows *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->all[i]->d.slots);
        free(s->all[i]->d.blocked);
        free(s->all[i]);
    }
    free(s->all);
}

/* --- boards -------------------------------------------------------------------------------------- */

static size_t index_of(const struct rs_ct_board *b, const struct rs_ct_slot *slot)
{
    return slot->node ? rs_ct_board_index(b, slot->node) : RS_PLACE_NONE;
}

/* Actors and tasks, and placement groups of programs. */
static void take_core(struct rs_ct_board *b, const struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->core.apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->core.apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            const struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            for (size_t s = 0; d && !d->group && s < d->n_slots; s++) {
                size_t at = index_of(b, &d->slots[s]);

                if (at == RS_PLACE_NONE)
                    continue;
                rs_resources_take_anyway(&b->free[at], &d->conf->resources);
                b->all[at]++;
            }
        }
    }
}

/* `of_replicas`: those of units too. */
static void take_groups(struct rs_ct_board *b, const struct rs_controller *c, bool of_replicas)
{
    for (size_t i = 0; i < rs_map_slots(&c->core.groups); i++) {
        const struct rs_ct_group *g = rs_map_at(&c->core.groups, i, NULL);

        for (size_t k = 0; g && k < g->n_bundles; k++)
            if (g->bundles[k].node && (of_replicas || !g->of_replicas))
                rs_resources_take_anyway(&b->free[rs_ct_board_index(b, g->bundles[k].node)],
                                         &g->bundles[k].want);
    }
}

static bool grouped(const struct shadow *x)
{
    return rs_deployment_conf_grouped(x->d.conf);
}

/* Units of the version that stays keep their room. */
static unsigned keep_units(struct rs_ct_board *b, const struct rs_controller *c, struct shadow *x,
                           unsigned *on_node)
{
    unsigned kept = 0;

    if (!x->real || (x->outlook && !x->outlook->change->same))
        return 0;
    for (size_t i = 0; i < x->real->n_units && kept < x->d.wanted; i++) {
        const struct rs_ct_unit *u = x->real->units[i];
        const struct rs_ct_group *g = rs_ct_group_find(c, u->group);

        if (!g || u->state != RS_UNIT_ACTIVE || strcmp(u->version, x->real->version) != 0)
            continue;
        for (size_t k = 0; k < g->n_bundles; k++)
            if (g->bundles[k].node)
                rs_resources_take_anyway(&b->free[rs_ct_board_index(b, g->bundles[k].node)],
                                         &g->bundles[k].want);
        for (size_t k = 0; on_node && k < u->n; k++) {
            const struct rs_ct_node *n = rs_ct_unit_node(c, u, k);

            if (n)
                on_node[rs_ct_board_index(b, n)]++;
        }
        kept += (unsigned)u->n;
    }
    return kept;
}

static void place_units(struct rs_ct_board *b, struct shadow *x, unsigned kept, unsigned *on_node)
{
    unsigned gang = x->d.conf->gang_size > 0 ? (unsigned)x->d.conf->gang_size : 1;
    unsigned missing = x->d.wanted > kept ? (x->d.wanted - kept) / gang : 0;
    unsigned done = rs_ct_units_try(b, &x->d, missing, on_node, &x->d.blocked);

    if (x->outlook)
        x->outlook->pending = (missing - done) * gang;
}

/* How it will be once all is done. */
static void place_all(struct rs_ct_board *b, const struct rs_controller *c, struct shadows *s)
{
    unsigned *none = rs_alloc((b->n + 1) * sizeof(*none));
    unsigned *kept = rs_alloc((s->n + 1) * sizeof(*kept));

    take_core(b, c);
    take_groups(b, c, false);
    for (size_t i = 0; i < s->n; i++) {
        struct shadow *x = s->all[i];

        if (x->outlook)
            x->outlook->on_node = rs_alloc((b->n + 1) * sizeof(*x->outlook->on_node));
        if (x->d.gone)
            x->d.n_slots = 0;
        else if (grouped(x))
            kept[i] = keep_units(b, c, x, x->outlook ? x->outlook->on_node : NULL);
        else
            rs_ct_place_keep(b, c, &x->d);
    }
    for (size_t i = 0; i < s->n; i++) {
        struct shadow *x = s->all[i];

        if (x->d.gone)
            continue;
        if (grouped(x)) {
            place_units(b, x, kept[i], x->outlook ? x->outlook->on_node : none);
            continue;
        }
        rs_ct_place_missing(b, c, &x->d);
        for (size_t k = 0; x->outlook && k < x->d.n_slots; k++)
            x->outlook->on_node[index_of(b, &x->d.slots[k])]++;
        if (x->outlook)
            x->outlook->pending = x->d.wanted - (unsigned)x->d.n_slots;
    }
    free(none);
    free(kept);
}

/* What is taken now, by all that runs. */
static void take_now(struct rs_ct_board *b, const struct rs_controller *c)
{
    take_core(b, c);
    take_groups(b, c, true);
    for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
        const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            const struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            for (size_t s = 0; d && !rs_deployment_conf_grouped(d->conf) && s < d->n_slots; s++)
                if (index_of(b, &d->slots[s]) != RS_PLACE_NONE)
                    rs_resources_take_anyway(&b->free[index_of(b, &d->slots[s])],
                                             &d->conf->resources);
        }
    }
}

/* --- the roll ------------------------------------------------------------------------------------ */

static void note_short(struct rs_ct_outlook *o, const struct rs_ct_board *b, size_t at,
                       const struct rs_resources *each)
{
    struct rs_buf why = {0};
    const struct rs_place_node node = {
        .id = b->nodes[at]->id,
        .total = &b->nodes[at]->total,
        .free = &b->free[at],
        .usable = !b->nodes[at]->draining,
    };

    if (o->surge_why)
        return;
    rs_buf_printf(&why, "%s: ", b->nodes[at]->name);
    rs_place_why(&node, 1, &(struct rs_place_want){.each = each}, &why);
    o->surge_why = rs_buf_steal(&why);
}

/* New ones beside the old ones, on any node. */
static void look_surge(struct rs_ct_outlook *o, struct rs_ct_board *b,
                       const struct rs_controller *c)
{
    const struct rs_deployment_conf *conf = o->change->conf;
    const struct rs_ct_deployment *d = real_of(o);

    if (o->change->step != RS_CHANGE_ROLLING)
        return;
    if (rs_deployment_conf_grouped(conf)) {
        struct rs_ct_app app = {.controller = (struct rs_controller *)(uintptr_t)c,
                                .name = (char *)(uintptr_t)o->app_name};
        struct rs_ct_deployment like = *d;
        unsigned *none = rs_alloc((b->n + 1) * sizeof(*none));
        unsigned gang = rs_ct_roll_unit(conf);

        like.app = &app;
        like.conf = o->change->conf;
        o->surge = rs_rollout_surge(conf, o->change->wanted, gang);
        o->surge_fits = gang * rs_ct_units_try(b, &like, o->surge / gang, none, &o->surge_why);
        free(none);
        return;
    }
    o->surge = rs_rollout_surge(conf, o->change->wanted, 1);
    for (size_t at = 0; at < b->n; at++) {
        while (o->surge_fits < o->surge && !b->nodes[at]->draining &&
               rs_resources_take(&b->free[at], &conf->resources))
            o->surge_fits++;
        if (o->surge_fits < o->surge)
            note_short(o, b, at, &conf->resources);
    }
}

bool rs_ct_outlook_gap(const struct rs_ct_outlook *o)
{
    const struct rs_ct_change *c = o->change;
    double batch;

    if (c->live == 0 || c->wanted == 0)
        return false;
    if (c->step == RS_CHANGE_RECREATE)
        return true;
    batch = floor(c->step == RS_CHANGE_ROLLING ? c->conf->rolling_update_percentage * c->live : 0);
    return c->step == RS_CHANGE_ROLLING && o->surge_fits == 0 &&
           (o->surge == 0 || c->conf->rollout.when_full == RS_FULL_STOP_FIRST) &&
           (unsigned)(batch < 1 ? 1 : batch) >= c->live;
}

/* --- all of it ----------------------------------------------------------------------------------- */

static void used(struct rs_resources *ret, const struct rs_ct_board *b)
{
    for (size_t i = 0; i < b->n; i++) {
        struct rs_resources taken = {0};

        rs_resources_copy(&taken, &b->nodes[i]->total);
        rs_resources_take_anyway(&taken, &b->free[i]);
        rs_resources_give(ret, &taken);
        rs_resources_fini(&taken);
    }
}

/* Of what the plan does not name, and of actors and tasks: what it takes now. */
static void add_others(struct rs_ct_room *r, const struct rs_controller *c, const struct shadows *s)
{
    rs_auto(rs_ct_board_fini) struct rs_ct_board b;

    rs_ct_board_init(&b, c);
    take_core(&b, c);
    take_groups(&b, c, false);
    used(&r->peak, &b);
    for (size_t i = 0; i < s->n; i++) {
        struct rs_resources each = {0};

        if (s->all[i]->outlook)
            continue;
        each_of(&each, s->all[i]->d.conf);
        add(&r->peak, &each, s->all[i]->d.gone ? 0 : s->all[i]->d.wanted);
        rs_resources_fini(&each);
    }
}

void rs_ct_room_add(struct rs_ct_room *r, const struct rs_ct_app *app, const char *app_name,
                    const struct rs_ct_change *change)
{
    r->all = rs_grow(r->all, &r->cap, r->n + 1, sizeof(*r->all));
    r->all[r->n++] = (struct rs_ct_outlook){.app = app, .app_name = app_name, .change = change};
}

void rs_ct_room_look(struct rs_ct_room *r, const struct rs_controller *c)
{
    rs_auto(rs_ct_board_fini) struct rs_ct_board after, now;
    rs_auto(shadows_fini) struct shadows s = {0};

    rs_ct_board_init(&after, c);
    after.dry = true;
    rs_ct_board_init(&now, c);
    r->nodes = rs_alloc((after.n + 1) * sizeof(char *));
    for (r->n_nodes = 0; r->n_nodes < after.n; r->n_nodes++) {
        r->nodes[r->n_nodes] = rs_strdup(after.nodes[r->n_nodes]->name);
        rs_resources_give(&r->total, &after.nodes[r->n_nodes]->total);
    }
    shadows_make(&s, r, c);
    place_all(&after, c, &s);
    for (size_t i = 0; i < s.n; i++)
        if (s.all[i]->outlook && s.all[i]->d.blocked)
            s.all[i]->outlook->why = rs_strdup(s.all[i]->d.blocked);
    take_now(&now, c);
    used(&r->now, &now);
    add_others(r, c, &s);
    for (size_t i = 0; i < r->n; i++) {
        look_surge(&r->all[i], &now, c);
        set_peak(&r->all[i]);
        rs_resources_give(&r->peak, &r->all[i].peak);
    }
}

void rs_ct_room_fini(struct rs_ct_room *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->all[i].on_node);
        free(r->all[i].why);
        free(r->all[i].surge_why);
        rs_resources_fini(&r->all[i].peak);
    }
    for (size_t i = 0; i < r->n_nodes; i++)
        free(r->nodes[i]);
    free(r->all);
    free(r->nodes);
    rs_resources_fini(&r->now);
    rs_resources_fini(&r->peak);
    rs_resources_fini(&r->total);
    *r = (struct rs_ct_room){0};
}

const struct rs_ct_outlook *rs_ct_room_find(const struct rs_ct_room *r, const char *app,
                                            const char *name)
{
    return outlook_of(r, app, name);
}
