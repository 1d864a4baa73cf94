/* The room of the nodes while a round of placing goes on, and the placement groups in it. */
#include "sched/controller-place.h"

#include "core/base/alloc.h"
#include "core/resource/labels.h"

#include <stdlib.h>
#include <string.h>

void rs_ct_board_init(struct rs_ct_board *b, const struct rs_controller *c)
{
    size_t n = rs_map_count(&c->nodes);

    b->nodes = rs_alloc((n + 1) * sizeof(struct rs_ct_node *));
    b->free = rs_alloc((n + 1) * sizeof(*b->free));
    b->all = rs_alloc((n + 1) * sizeof(*b->all));
    b->n = 0;
    b->dry = false;
    for (size_t i = 0; i < rs_map_slots(&c->nodes); i++) {
        struct rs_ct_node *node = rs_map_at(&c->nodes, i, NULL);

        if (!node)
            continue;
        b->nodes[b->n] = node;
        node->on_board = b->n;
        rs_resources_copy(&b->free[b->n++], &node->total);
    }
}

void rs_ct_board_fini(struct rs_ct_board *b)
{
    for (size_t i = 0; i < b->n; i++)
        rs_resources_fini(&b->free[i]);
    free(b->nodes);
    free(b->free);
    free(b->all);
}

size_t rs_ct_board_index(const struct rs_ct_board *b, const struct rs_ct_node *node)
{
    return node && node->on_board < b->n && b->nodes[node->on_board] == node ? node->on_board
                                                                             : RS_PLACE_NONE;
}

/* --- placement groups ---------------------------------------------------------------------------- */

void rs_ct_keep_bundles(struct rs_ct_board *b, struct rs_ct_group *g)
{
    for (size_t i = 0; i < g->n_bundles; i++) {
        struct rs_ct_bundle *bundle = &g->bundles[i];
        size_t at = bundle->node ? rs_ct_board_index(b, bundle->node) : RS_PLACE_NONE;

        rs_resources_fini(&bundle->free);
        bundle->free = (struct rs_resources){0};
        if (at == RS_PLACE_NONE)
            continue;
        rs_resources_take_anyway(&b->free[at], &bundle->want);
        rs_resources_copy(&bundle->free, &bundle->want);
    }
}

static unsigned bundles_on(const struct rs_ct_group *g, const struct rs_ct_node *n)
{
    unsigned count = 0;

    for (size_t i = 0; i < g->n_bundles; i++)
        count += g->bundles[i].node == n;
    return count;
}

/* PACK goes where bundles are already, SPREAD where none are; the strict ones nowhere else. */
static bool suits(const struct rs_ct_group *g, const struct rs_ct_node *n)
{
    unsigned here = bundles_on(g, n), placed = 0;

    for (size_t i = 0; i < g->n_bundles; i++)
        placed += g->bundles[i].node != NULL;
    if (g->strategy == RS_GROUP_STRICT_PACK)
        return here == placed;
    return g->strategy != RS_GROUP_STRICT_SPREAD || here == 0;
}

static bool better(const struct rs_ct_group *g, const struct rs_ct_node *n,
                   const struct rs_ct_node *than)
{
    unsigned a = bundles_on(g, n), b = bundles_on(g, than);

    return g->strategy == RS_GROUP_PACK || g->strategy == RS_GROUP_STRICT_PACK ? a > b : a < b;
}

static size_t pick_for(const struct rs_ct_board *b, const struct rs_ct_group *g,
                       const struct rs_ct_bundle *bundle, const struct rs_ct_node *only)
{
    size_t best = RS_PLACE_NONE;

    for (size_t i = 0; i < b->n; i++)
        if (!b->nodes[i]->draining && (!only || b->nodes[i] == only) &&
            rs_resources_fits(&b->free[i], &bundle->want) &&
            rs_labels_match(b->nodes[i]->labels, bundle->selector) && suits(g, b->nodes[i]) &&
            (best == RS_PLACE_NONE || better(g, b->nodes[i], b->nodes[best])))
            best = i;
    return best;
}

/* All missing bundles or none; with `only`, all on that node. */
static bool try_group(struct rs_ct_board *b, struct rs_ct_group *g, const struct rs_ct_node *only)
{
    size_t done = 0;
    bool *fresh = rs_alloc((g->n_bundles + 1) * sizeof(*fresh));

    for (; done < g->n_bundles; done++) {
        struct rs_ct_bundle *bundle = &g->bundles[done];
        size_t at = bundle->node ? RS_PLACE_NONE : pick_for(b, g, bundle, only);

        if (bundle->node)
            continue;
        if (at == RS_PLACE_NONE || !rs_resources_take(&b->free[at], &bundle->want))
            break;
        bundle->node = b->nodes[at];
        fresh[done] = true;
    }
    g->placed = done == g->n_bundles;
    for (size_t i = 0; i < g->n_bundles; i++) {
        struct rs_ct_bundle *bundle = &g->bundles[i];

        if (!fresh[i])
            continue;
        if (g->placed) {
            rs_resources_fini(&bundle->free);
            rs_resources_copy(&bundle->free, &bundle->want);
        } else {
            rs_resources_give(&b->free[rs_ct_board_index(b, bundle->node)], &bundle->want);
            bundle->node = NULL;
        }
    }
    free(fresh);
    return g->placed;
}

static void explain_group(const struct rs_ct_board *b, struct rs_ct_group *g)
{
    struct rs_buf why = {0};
    bool asks = false;

    for (size_t i = 0; i < g->n_bundles; i++)
        asks |= json_object_size(g->bundles[i].selector) > 0;
    rs_buf_printf(&why, "%s of", rs_ct_strategy_name(g->strategy));
    for (size_t i = 0; i < g->n_bundles; i++) {
        rs_buf_puts(&why, i ? "; " : " ");
        rs_resources_print(&why, &g->bundles[i].want);
        if (json_object_size(g->bundles[i].selector) > 0) {
            rs_buf_puts(&why, " where ");
            rs_labels_print(&why, g->bundles[i].selector);
        }
    }
    for (size_t i = 0; i < b->n; i++) {
        rs_buf_printf(&why, ". %s has free: ", b->nodes[i]->name);
        rs_resources_print(&why, &b->free[i]);
        if (asks && json_object_size(b->nodes[i]->labels) > 1) {
            rs_buf_puts(&why, ", and the labels ");
            rs_labels_print(&why, b->nodes[i]->labels);
        }
    }
    rs_ct_set(&g->why, rs_buf_steal(&why));
}

bool rs_ct_place_group(struct rs_ct_board *b, struct rs_ct_group *g)
{
    bool together = g->strategy == RS_GROUP_PACK || g->strategy == RS_GROUP_STRICT_PACK;

    for (size_t n = 0; together && n < b->n && !g->placed; n++)
        (void)try_group(b, g, b->nodes[n]);
    if (!g->placed && g->strategy != RS_GROUP_STRICT_PACK)
        (void)try_group(b, g, NULL);
    if (!g->placed)
        explain_group(b, g);
    return g->placed;
}

void rs_ct_place_groups(struct rs_ct_board *b, const struct rs_controller *c)
{
    for (size_t i = 0; i < rs_map_slots(&c->core.groups); i++) {
        struct rs_ct_group *g = rs_map_at(&c->core.groups, i, NULL);

        if (g && !g->placed && !g->of_replicas)
            (void)rs_ct_place_group(b, g);
    }
}
