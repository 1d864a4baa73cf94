/* Replicas that a node runs already when it joins: an earlier head had them started, or this one before
 * the connection broke. They have the places first, before others are started elsewhere. */
#include "sched/controller-place.h"

#include "core/base/alloc.h"
#include "core/resource/labels.h"
#include "sched/controller-roll.h"

#include <string.h>

static bool is_up(const struct rs_report_replica *r)
{
    return r->state == RS_REPLICA_RUNNING || r->state == RS_REPLICA_UPDATING;
}

static bool is_of(const struct rs_report_replica *r, const struct rs_ct_deployment *d)
{
    if (strcmp(r->deployment, d->name) != 0 || strcmp(r->app, d->app->name) != 0)
        return false;
    for (size_t i = 0; i < d->n_old; i++)
        if (strcmp(r->version, d->old[i]->version) == 0)
            return false; /* it has places of its own */
    /* One that this head knows nothing of is replaced where it runs. */
    return !d->next || strcmp(r->version, d->version) == 0;
}

static bool runs(const struct rs_ct_deployment *d, const struct rs_ct_slot *slot)
{
    const struct rs_report *r = slot->node->report;

    for (size_t i = 0; r && i < r->n_replicas; i++)
        if (r->replicas[i].rank == slot->rank && is_up(&r->replicas[i]) &&
            is_of(&r->replicas[i], d))
            return true;
    return false;
}

static struct rs_ct_slot *with_rank(struct rs_ct_deployment *d, unsigned rank)
{
    for (size_t s = 0; s < d->n_slots; s++)
        if (d->slots[s].rank == rank)
            return &d->slots[s];
    return NULL;
}

/* A place on that node (NULL: on any other one) in which nothing runs. One of a node that has not
 * reported yet is the last choice: something may run there. */
static struct rs_ct_slot *idle_slot(struct rs_ct_deployment *d, const struct rs_ct_node *on,
                                    const struct rs_ct_node *other_than)
{
    struct rs_ct_slot *last = NULL;

    for (size_t s = 0; s < d->n_slots; s++) {
        struct rs_ct_slot *slot = &d->slots[s];

        if ((on && slot->node != on) || slot->node == other_than || runs(d, slot))
            continue;
        if (slot->node->report)
            return slot;
        last = slot;
    }
    return last;
}

/* The rank is that of the replica; who had it and does not run gets the one that was given up for it. */
static void give_rank(struct rs_ct_deployment *d, struct rs_ct_slot *slot, unsigned rank)
{
    struct rs_ct_slot *had = with_rank(d, rank);

    if (had && had != slot && runs(d, had))
        return;
    if (had && had != slot)
        had->rank = slot->rank;
    slot->rank = rank;
}

static bool may_run(const struct rs_ct_deployment *d, const struct rs_ct_node *n)
{
    const json_t *options = json_object_get(d->conf->json, "ray_actor_options");
    int here = 0;

    for (size_t s = 0; s < d->n_slots; s++)
        here += d->slots[s].node == n;
    return (d->conf->max_replicas_per_node == 0 || here < d->conf->max_replicas_per_node) &&
           rs_labels_match(n->labels, json_object_get(options, "label_selector"));
}

static unsigned unused_rank(struct rs_ct_deployment *d)
{
    unsigned rank = 0;

    while (with_rank(d, rank))
        rank++;
    return rank;
}

static void adopt(struct rs_ct_board *b, struct rs_ct_deployment *d, size_t at, unsigned rank)
{
    struct rs_ct_node *n = b->nodes[at];
    struct rs_ct_slot *slot = idle_slot(d, n, NULL);
    size_t from;

    if (slot) {
        give_rank(d, slot, rank);
        return;
    }
    slot = d->n_slots < rs_ct_run(d) ? NULL : idle_slot(d, NULL, n);
    if ((d->n_slots >= rs_ct_run(d) && !slot) || !may_run(d, n) ||
        !rs_resources_take(&b->free[at], &d->conf->resources))
        return;
    b->all[at]++;
    if (slot) {
        from = rs_ct_board_index(b, slot->node);
        rs_resources_give(&b->free[from], &d->conf->resources);
        b->all[from]--;
    } else {
        d->slots = rs_grow(d->slots, &d->cap_slots, d->n_slots + 1, sizeof(*d->slots));
        slot = &d->slots[d->n_slots];
        *slot = (struct rs_ct_slot){.node = n, .rank = unused_rank(d)};
        d->n_slots++;
    }
    slot->node = n;
    give_rank(d, slot, rank);
}

void rs_ct_adopt(struct rs_ct_board *b, struct rs_ct_deployment *d)
{
    for (size_t at = 0; at < b->n; at++) {
        const struct rs_ct_node *n = b->nodes[at];

        if (n->sent || n->draining) /* what it runs is what it was told to, or leaves */
            continue;
        for (size_t i = 0; n->report && i < n->report->n_replicas; i++) {
            const struct rs_report_replica *r = &n->report->replicas[i];
            const struct rs_ct_slot *has;

            if (!is_up(r) || !is_of(r, d))
                continue;
            has = with_rank(d, r->rank);
            if (!has || has->node != n)
                adopt(b, d, at, r->rank);
        }
    }
}
