/* Where replicas run: keeps what is placed where it is, gives up what is too much, and places what is
 * missing, all from the totals of the nodes. */
#include "sched/controller-place.h"

#include "core/base/alloc.h"
#include "core/resource/labels.h"
#include "sched/controller-roll.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* --- actors and tasks ---------------------------------------------------------------------------- */

unsigned rs_ct_waiting_on(const struct rs_ct_node *n, const struct rs_ct_deployment *d)
{
    unsigned count = 0;

    for (size_t i = 0; n->report && i < n->report->n_replicas; i++) {
        const struct rs_report_replica *r = &n->report->replicas[i];

        count += r->waiting && r->state <= RS_REPLICA_UPDATING &&
                 strcmp(r->deployment, d->name) == 0 && strcmp(r->app, d->app->name) == 0;
    }
    return count;
}

/* Where the room of a slot comes from: its placement group's, or the node's. NULL: the group keeps
 * none on that node (any more). */
static struct rs_resources *room_of(struct rs_ct_board *b, const struct rs_controller *c,
                                    const struct rs_ct_deployment *d, size_t at)
{
    const struct rs_ct_group *g = d->group ? rs_ct_group_find(c, d->group) : NULL;

    if (!d->group)
        return &b->free[at];
    for (size_t i = 0; g && i < g->n_bundles; i++)
        if (g->bundles[i].node == b->nodes[at] && (d->bundle < 0 || (size_t)d->bundle == i) &&
            rs_resources_fits(&g->bundles[i].free, &d->conf->resources))
            return &g->bundles[i].free;
    return NULL;
}

/* What a process is at stays where it is, also when those that waited go on and there is too little
 * for all of them. */
static bool keep_core(struct rs_ct_board *b, const struct rs_controller *c,
                      struct rs_ct_deployment *d, size_t at, bool waits)
{
    struct rs_resources *room = room_of(b, c, d, at);
    struct rs_resources want = {0};

    if (!room && !waits)
        return false;
    if (!room)
        return true; /* its room is lent to others of the group */
    rs_resources_copy(&want, &d->conf->resources);
    if (waits)
        want.cpu = 0;
    rs_resources_take_anyway(room, &want);
    rs_resources_fini(&want);
    return true;
}

/* --- slots --------------------------------------------------------------------------------------- */

/* Slots that still fit stay. */
static void keep_slots(struct rs_ct_board *b, const struct rs_controller *c,
                       struct rs_ct_deployment *d)
{
    size_t kept = 0;

    for (size_t s = 0; s < d->n_slots; s++) {
        size_t at = rs_ct_board_index(b, d->slots[s].node), before = 0;

        if (at == RS_PLACE_NONE || b->nodes[at]->draining)
            continue;
        for (size_t k = 0; k < kept && d->core; k++)
            before += d->slots[k].node == d->slots[s].node;
        if (d->core ? !keep_core(b, c, d, at, before < rs_ct_waiting_on(b->nodes[at], d))
                    : !rs_resources_take(&b->free[at], &d->conf->resources))
            continue;
        b->all[at]++;
        d->slots[kept++] = d->slots[s];
    }
    d->n_slots = kept;
}

/* Strategies of actors and tasks. */
static bool allowed(struct rs_ct_board *b, const struct rs_controller *c,
                    const struct rs_ct_deployment *d, size_t at)
{
    size_t n;

    if (d->group)
        return room_of(b, c, d, at) != NULL;
    if (!d->pinned || strcmp(d->pinned, b->nodes[at]->id) == 0)
        return true;
    if (!d->pinned_soft)
        return false;
    for (n = 0; n < b->n && strcmp(d->pinned, b->nodes[n]->id) != 0; n++)
        ;
    return n == b->n || b->nodes[n]->draining ||
           !rs_resources_fits(&b->free[n], &d->conf->resources);
}

static struct rs_place_node *view(struct rs_ct_board *b, const struct rs_controller *c,
                                  const struct rs_ct_deployment *d)
{
    struct rs_place_node *nodes = rs_alloc((b->n + 1) * sizeof(*nodes));

    for (size_t i = 0; i < b->n; i++) {
        nodes[i] = (struct rs_place_node){
            .id = b->nodes[i]->id,
            .name = b->nodes[i]->name,
            .total = &b->nodes[i]->total,
            .free = d->group && room_of(b, c, d, i) ? room_of(b, c, d, i) : &b->free[i],
            .replicas_all = b->all[i],
            .usable = !b->nodes[i]->draining && allowed(b, c, d, i),
            .head = strcmp(b->nodes[i]->id, c->node_id) == 0,
        };
    }
    for (size_t s = 0; s < d->n_slots; s++) {
        size_t at = rs_ct_board_index(b, d->slots[s].node);

        if (at != RS_PLACE_NONE)
            nodes[at].replicas++;
    }
    return nodes;
}

/* What giving up a slot costs. */
enum {
    COST_NOTHING, /* nothing runs there yet */
    COST_IDLE,
    COST_WARM, /* it is idle and has models loaded */
    COST_BUSY  /* and so many more as it has requests to finish */
};

unsigned rs_ct_cost_of(const struct rs_report_replica *r)
{
    if (r->in_flight)
        return COST_BUSY + r->in_flight;
    return r->models ? COST_WARM : COST_IDLE;
}

static unsigned cost_of(const struct rs_ct_deployment *d, const struct rs_ct_slot *slot)
{
    const struct rs_report *r = slot->node->report;

    for (size_t i = 0; r && i < r->n_replicas; i++) {
        const struct rs_report_replica *x = &r->replicas[i];

        if (x->rank == slot->rank && strcmp(x->version, d->version) == 0 &&
            (x->state == RS_REPLICA_RUNNING || x->state == RS_REPLICA_UPDATING) &&
            strcmp(x->deployment, d->name) == 0 && strcmp(x->app, d->app->name) == 0)
            return rs_ct_cost_of(x);
    }
    return COST_NOTHING;
}

/* The cheapest on that node goes; of equals the highest rank, so that ranks stay dense where they
 * can. */
static void drop_slot(struct rs_ct_board *b, struct rs_ct_deployment *d, size_t at)
{
    size_t pick = d->n_slots;
    unsigned least = 0;

    for (size_t s = 0; s < d->n_slots; s++) {
        unsigned cost = cost_of(d, &d->slots[s]);

        if (d->slots[s].node == b->nodes[at] &&
            (pick == d->n_slots || cost < least ||
             (cost == least && d->slots[s].rank > d->slots[pick].rank))) {
            pick = s;
            least = cost;
        }
    }
    if (pick == d->n_slots)
        return;
    if (!d->group) /* room in a group is counted anew in the next round */
        rs_resources_give(&b->free[at], &d->conf->resources);
    b->all[at]--;
    if (!b->dry)
        rs_ct_note_chosen(d, &d->slots[pick]);
    memmove(&d->slots[pick], &d->slots[pick + 1], (d->n_slots - pick - 1) * sizeof(*d->slots));
    d->n_slots--;
}

static unsigned lowest_free_rank(const struct rs_ct_deployment *d)
{
    bool *used = rs_alloc(d->n_slots + 1);
    unsigned rank = 0;

    for (size_t s = 0; s < d->n_slots; s++)
        if (d->slots[s].rank < d->n_slots)
            used[d->slots[s].rank] = true;
    while (used[rank])
        rank++;
    free(used);
    return rank;
}

/* Ranks are 0 .. N-1: one beyond the end moves into a hole. Not before the replica whose slot was
 * given up is on its way out: until then its rank tells its node which one is to go. */
static void close_holes(const struct rs_controller *c, struct rs_ct_deployment *d)
{
    struct rs_ct_seen seen = rs_ct_look(c, d);

    if (d->has_holes && (!seen.fresh || seen.running + seen.updating + seen.starting > d->n_slots))
        return;
    d->has_holes = false;
    for (size_t s = 0; s < d->n_slots; s++)
        if (d->slots[s].rank >= d->n_slots)
            d->slots[s].rank = lowest_free_rank(d);
}

/* Nodes without a slot of the cheapest kind are spared. */
static void spare_busy(struct rs_place_node *nodes, const struct rs_ct_board *b,
                       const struct rs_ct_deployment *d)
{
    unsigned least = UINT_MAX;

    for (size_t s = 0; s < d->n_slots; s++) {
        unsigned cost = cost_of(d, &d->slots[s]);

        least = cost < least ? cost : least;
    }
    for (size_t i = 0; i < b->n; i++)
        nodes[i].replicas = 0;
    for (size_t s = 0; s < d->n_slots; s++) {
        unsigned cost = cost_of(d, &d->slots[s]);
        size_t at = rs_ct_board_index(b, d->slots[s].node);

        if (at != RS_PLACE_NONE && (cost == least || (cost >= COST_BUSY && least >= COST_BUSY)))
            nodes[at].replicas++;
    }
}

static void drop_surplus(struct rs_ct_board *b, const struct rs_controller *c,
                         struct rs_ct_deployment *d)
{
    while (d->n_slots > rs_ct_run(d)) {
        struct rs_place_node *nodes = view(b, c, d);
        size_t at;

        spare_busy(nodes, b, d);
        at = rs_place_drop(nodes, b->n);
        free(nodes);
        d->has_holes = true;
        if (at == RS_PLACE_NONE)
            return;
        drop_slot(b, d, at);
    }
}

/* Why not, where the numbers of the nodes are not the reason. */
static bool why_core(const struct rs_controller *c, const struct rs_ct_deployment *d,
                     struct rs_buf *why)
{
    const struct rs_ct_group *g = d->group ? rs_ct_group_find(c, d->group) : NULL;

    if (d->group && g && g->placed) {
        rs_buf_puts(why, "needs ");
        rs_resources_print(why, &d->conf->resources);
        rs_buf_printf(why, "; placement group %s has not so much free", g->id);
    } else if (d->group) {
        rs_buf_printf(why, "waits for placement group %s: %s", d->group,
                      g && g->why ? g->why : "it is not there");
    } else if (d->pinned && !d->pinned_soft && !rs_map_get(&c->nodes, d->pinned)) {
        rs_buf_printf(why, "node %s, where it is to run, is not there", d->pinned);
    }
    return rs_buf_len(why) > 0;
}

/* The node for one more: by the selector of the deployment, or else by the first of its fallbacks that
 * gives one. When none does, `nodes` say what the selector itself finds. */
static size_t pick(struct rs_place_node *nodes, const struct rs_ct_board *b,
                   const struct rs_ct_deployment *d, const struct rs_place_want *want)
{
    const json_t *options = json_object_get(d->conf->json, "ray_actor_options");
    const json_t *fallbacks = json_object_get(options, "fallback_strategy");
    size_t at = RS_PLACE_NONE;

    for (size_t n = json_array_size(fallbacks) + 1, i = 0; i <= n && at == RS_PLACE_NONE; i++) {
        const json_t *from = i == 0 || i == n ? options : json_array_get(fallbacks, i - 1);
        const json_t *selector = json_object_get(from, "label_selector");

        for (size_t k = 0; k < b->n; k++)
            nodes[k].unlike = !rs_labels_match(b->nodes[k]->labels, selector);
        at = rs_place_pick(nodes, b->n, want);
    }
    return at;
}

static void add_slot(struct rs_ct_board *b, struct rs_ct_deployment *d, size_t at, unsigned rank)
{
    b->all[at]++;
    d->slots = rs_grow(d->slots, &d->cap_slots, d->n_slots + 1, sizeof(*d->slots));
    d->slots[d->n_slots++] = (struct rs_ct_slot){b->nodes[at], rank};
}

/* One more would have room if old versions were not there. */
static bool feasible(const struct rs_ct_board *b, const struct rs_ct_deployment *d)
{
    struct rs_resources *free_then = rs_alloc((b->n + 1) * sizeof(*free_then));
    bool fits = false;

    for (size_t i = 0; i < b->n; i++)
        rs_resources_copy(&free_then[i], &b->free[i]);
    rs_ct_roll_give_old(b, d, free_then);
    for (size_t i = 0; i < b->n; i++) {
        fits |= !b->nodes[i]->draining && rs_resources_fits(&free_then[i], &d->conf->resources);
        rs_resources_fini(&free_then[i]);
    }
    free(free_then);
    return fits;
}

void rs_ct_place_missing(struct rs_ct_board *b, const struct rs_controller *c,
                         struct rs_ct_deployment *d)
{
    struct rs_place_want want = {.each = &d->conf->resources,
                                 .max_per_node = (unsigned)d->conf->max_replicas_per_node};
    struct rs_place_node *nodes;

    rs_ct_set(&d->blocked, NULL);
    if (d->n_slots >= rs_ct_run(d)) {
        if (!d->next && !b->dry)
            close_holes(c, d);
        return;
    }
    nodes = view(b, c, d);
    while (d->n_slots < rs_ct_run(d)) {
        size_t at = pick(nodes, b, d, &want);
        struct rs_resources *room = at == RS_PLACE_NONE ? NULL : room_of(b, c, d, at);

        if (!room || !rs_resources_take(room, want.each)) {
            struct rs_buf why = {0};

            if (!why_core(c, d, &why))
                rs_place_why(nodes, b->n, &want, &why);
            d->blocked = rs_buf_steal(&why);
            d->feasible = feasible(b, d);
            break;
        }
        add_slot(b, d, at, lowest_free_rank(d));
        if (d->core) { /* what is free may be in another bundle now */
            free(nodes);
            nodes = view(b, c, d);
        } else {
            nodes[at].replicas++;
            nodes[at].replicas_all++;
        }
    }
    free(nodes);
    if (!d->next && !b->dry)
        close_holes(c, d);
}

void rs_ct_place_keep(struct rs_ct_board *b, const struct rs_controller *c,
                      struct rs_ct_deployment *d)
{
    keep_slots(b, c, d);
    if (!d->core)
        rs_ct_adopt(b, d);
    drop_surplus(b, c, d);
}

static void note_available(struct rs_controller *c, const struct rs_ct_board *b)
{
    rs_resources_fini(&c->core.available);
    c->core.available = (struct rs_resources){0};
    for (size_t i = 0; i < b->n; i++) {
        struct rs_resources *f = &b->free[i];

        /* More may be taken than there is, when processes that waited go on. */
        f->cpu = f->cpu < 0 ? 0 : f->cpu;
        f->gpu = f->gpu < 0 ? 0 : f->gpu;
        f->memory = f->memory < 0 ? 0 : f->memory;
        for (size_t k = f->count; k-- > 0;)
            if (f->custom[k].amount < 0)
                rs_resources_set_custom(f, f->custom[k].name, 0);
        rs_resources_give(&c->core.available, f);
        rs_resources_fini(&b->nodes[i]->spare);
        rs_resources_copy(&b->nodes[i]->spare, f);
    }
}

bool rs_ct_short_of_room(const struct rs_controller *c)
{
    for (size_t i = 0; i < rs_ct_all_slots(c); i++) {
        const struct rs_ct_app *app = rs_ct_all_at(c, i);

        for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
            const struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

            if (d && d->blocked)
                return true;
        }
    }
    for (size_t i = 0; i < rs_map_slots(&c->core.groups); i++) {
        const struct rs_ct_group *g = rs_map_at(&c->core.groups, i, NULL);

        if (g && !g->placed && !g->of_replicas)
            return true;
    }
    return false;
}

/* Pass 0: what has a place. Pass 1: what has none. */
static void place_one(struct rs_ct_board *b, const struct rs_controller *c,
                      struct rs_ct_deployment *d, int pass)
{
    bool grouped = rs_deployment_conf_grouped(d->conf);

    if (pass == 0)
        rs_ct_units_keep(b, d);
    if (d->gone)
        d->n_slots = 0;
    else if (pass == 1 && grouped)
        rs_ct_units_place(b, d);
    else if (pass == 0 && !grouped)
        rs_ct_place_keep(b, c, d);
    else if (pass == 1)
        rs_ct_place_missing(b, c, d);
}

/* In the order of the applications and their deployments, so that the answer depends on the inputs
 * alone. What is placed goes before what is not. */
void rs_ct_place(struct rs_controller *c)
{
    struct rs_ct_board b;

    rs_ct_units_update(c);
    rs_ct_board_init(&b, c);
    for (size_t i = 0; i < rs_map_slots(&c->core.groups); i++) {
        struct rs_ct_group *g = rs_map_at(&c->core.groups, i, NULL);

        if (g)
            rs_ct_keep_bundles(&b, g);
    }
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1)
            rs_ct_place_groups(&b, c);
        for (size_t i = 0; i < rs_ct_all_slots(c); i++) {
            const struct rs_ct_app *app = rs_ct_all_at(c, i);

            for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
                struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

                if (!d)
                    continue;
                for (size_t o = 0; o < d->n_old; o++)
                    place_one(&b, c, d->old[o], pass);
                place_one(&b, c, d, pass);
            }
        }
    }
    note_available(c, &b);
    rs_ct_board_fini(&b);
}
