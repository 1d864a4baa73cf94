/* Where replicas run: keeps what is placed where it is, gives up what is too much, and places what is
 * missing, all from the totals of the nodes. */
#include "sched/controller-internal.h"

#include "core/base/alloc.h"

#include <stdlib.h>
#include <string.h>

struct board {
    struct rs_ct_node **nodes;
    struct rs_resources *free;
    unsigned *all; /* replicas of all deployments */
    size_t n;
};

static void board_init(struct board *b, const struct rs_controller *c)
{
    size_t n = rs_map_count(&c->nodes);

    b->nodes = rs_alloc((n + 1) * sizeof(struct rs_ct_node *));
    b->free = rs_alloc((n + 1) * sizeof(*b->free));
    b->all = rs_alloc((n + 1) * sizeof(*b->all));
    b->n = 0;
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        struct rs_ct_node *node = rs_map_at(&c->nodes, i, NULL);

        if (!node)
            continue;
        b->nodes[b->n] = node;
        rs_resources_copy(&b->free[b->n++], &node->total);
    }
}

static void board_fini(struct board *b)
{
    for (size_t i = 0; i < b->n; i++)
        rs_resources_fini(&b->free[i]);
    free(b->nodes);
    free(b->free);
    free(b->all);
}

static size_t index_of(const struct board *b, const struct rs_ct_node *node)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->nodes[i] == node)
            return i;
    return RS_PLACE_NONE;
}

/* Slots that still fit stay. */
static void keep_slots(struct board *b, struct rs_ct_deployment *d)
{
    size_t kept = 0;

    for (size_t s = 0; s < d->n_slots; s++) {
        size_t at = index_of(b, d->slots[s].node);

        if (at == RS_PLACE_NONE || b->nodes[at]->draining ||
            !rs_resources_take(&b->free[at], &d->conf->resources))
            continue;
        b->all[at]++;
        d->slots[kept++] = d->slots[s];
    }
    d->n_slots = kept;
}

static struct rs_place_node *view(const struct board *b, const struct rs_controller *c,
                                  const struct rs_ct_deployment *d)
{
    struct rs_place_node *nodes = rs_alloc((b->n + 1) * sizeof(*nodes));

    for (size_t i = 0; i < b->n; i++) {
        nodes[i] = (struct rs_place_node){
            .id = b->nodes[i]->id,
            .name = b->nodes[i]->name,
            .total = &b->nodes[i]->total,
            .free = &b->free[i],
            .replicas_all = b->all[i],
            .usable = !b->nodes[i]->draining,
            .head = strcmp(b->nodes[i]->id, c->node_id) == 0,
        };
        for (size_t s = 0; s < d->n_slots; s++)
            nodes[i].replicas += d->slots[s].node == b->nodes[i];
    }
    return nodes;
}

/* The highest rank on that node goes, so that ranks stay dense where they can. */
static void drop_slot(struct board *b, struct rs_ct_deployment *d, size_t at)
{
    size_t pick = d->n_slots;

    for (size_t s = 0; s < d->n_slots; s++)
        if (d->slots[s].node == b->nodes[at] &&
            (pick == d->n_slots || d->slots[s].rank > d->slots[pick].rank))
            pick = s;
    if (pick == d->n_slots)
        return;
    rs_resources_give(&b->free[at], &d->conf->resources);
    b->all[at]--;
    memmove(&d->slots[pick], &d->slots[pick + 1], (d->n_slots - pick - 1) * sizeof(*d->slots));
    d->n_slots--;
}

static bool rank_used(const struct rs_ct_deployment *d, unsigned rank)
{
    for (size_t s = 0; s < d->n_slots; s++)
        if (d->slots[s].rank == rank)
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

/* Ranks are 0 .. N-1: one beyond the end moves into a hole. */
static void close_holes(struct rs_ct_deployment *d)
{
    for (size_t s = 0; s < d->n_slots; s++)
        if (d->slots[s].rank >= d->n_slots)
            d->slots[s].rank = lowest_free_rank(d);
}

static void drop_surplus(struct board *b, const struct rs_controller *c, struct rs_ct_deployment *d)
{
    while (d->n_slots > d->wanted) {
        struct rs_place_node *nodes = view(b, c, d);
        size_t at = rs_place_drop(nodes, b->n);

        free(nodes);
        if (at == RS_PLACE_NONE)
            return;
        drop_slot(b, d, at);
    }
}

static void place_missing(struct board *b, const struct rs_controller *c,
                          struct rs_ct_deployment *d)
{
    struct rs_place_want want = {.each = &d->conf->resources,
                                 .max_per_node = (unsigned)d->conf->max_replicas_per_node};
    struct rs_place_node *nodes = view(b, c, d);

    rs_ct_set(&d->blocked, NULL);
    while (d->n_slots < d->wanted) {
        size_t at = rs_place_pick(nodes, b->n, &want);

        if (at == RS_PLACE_NONE || !rs_resources_take(&b->free[at], want.each)) {
            struct rs_buf why = {0};

            rs_place_why(nodes, b->n, &want, &why);
            d->blocked = rs_buf_steal(&why);
            break;
        }
        b->all[at]++;
        nodes[at].replicas++;
        nodes[at].replicas_all++;
        d->slots = rs_grow(d->slots, &d->cap_slots, d->n_slots + 1, sizeof(*d->slots));
        d->slots[d->n_slots] = (struct rs_ct_slot){b->nodes[at], lowest_free_rank(d)};
        d->n_slots++;
    }
    free(nodes);
    close_holes(d);
}

/* In the order of the applications and their deployments, so that the answer depends on the inputs
 * alone. What is placed goes before what is not. */
void rs_ct_place(struct rs_controller *c)
{
    struct board b;

    board_init(&b, c);
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < rs_map_slots(&c->apps); i++) {
            const struct rs_ct_app *app = rs_map_at(&c->apps, i, NULL);

            for (size_t k = 0; app && k < rs_map_slots(&app->deployments); k++) {
                struct rs_ct_deployment *d = rs_map_at(&app->deployments, k, NULL);

                if (!d)
                    continue;
                if (d->gone)
                    d->n_slots = 0;
                else if (pass == 0)
                    keep_slots(&b, d);
                else
                    place_missing(&b, c, d);
                if (pass == 0 && !d->gone)
                    drop_surplus(&b, c, d);
            }
        }
    board_fini(&b);
}
