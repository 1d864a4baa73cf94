#include "net/router/rate.h"

#include "core/base/alloc.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum { SLOTS_MIN = 16 };

#define INTERVAL_MAX 1e18 /* so that no sum overflows */
#define SLACK_MAX 4e18

void rs_rate_init(struct rs_rate *r, double requests_per_s, unsigned burst, size_t max_slots)
{
    double interval = fmin(ceil(1e9 / requests_per_s), INTERVAL_MAX);

    assert(max_slots >= SLOTS_MIN && (max_slots & (max_slots - 1)) == 0);
    *r = (struct rs_rate){.interval = (int64_t)interval,
                          .slack = (int64_t)fmin((burst - 1.0) * interval, SLACK_MAX),
                          .now = 1,
                          .shared = {.full_at = 1},
                          .n_slots = SLOTS_MIN,
                          .max_slots = max_slots};
    r->slots = rs_alloc(r->n_slots * sizeof(*r->slots));
}

void rs_rate_fini(struct rs_rate *r)
{
    free(r->slots);
    *r = (struct rs_rate){0};
}

static size_t room(const struct rs_rate *r)
{
    return r->n_slots - r->n_slots / 4;
}

/* All buckets that are not full into a table of `n_slots`. */
static void rehash(struct rs_rate *r, size_t n_slots)
{
    struct rs_rate_slot *old = r->slots;
    size_t n_old = r->n_slots;

    r->slots = rs_alloc(n_slots * sizeof(*r->slots));
    r->n_slots = n_slots;
    r->used = 0;
    for (size_t i = 0; i < n_old; i++) {
        size_t at = (size_t)old[i].key & (n_slots - 1);

        if (old[i].full_at <= r->now)
            continue;
        while (r->slots[at].full_at)
            at = (at + 1) & (n_slots - 1);
        r->slots[at] = old[i];
        r->used++;
    }
    free(old);
}

/* Looks through the table, but no more often than it takes on average to fill half of it. */
static bool make_room(struct rs_rate *r)
{
    size_t live = 0;

    if (r->patience) {
        r->patience--;
        return false;
    }
    for (size_t i = 0; i < r->n_slots; i++)
        live += r->slots[i].full_at > r->now;
    rehash(r, live > r->n_slots / 2 && r->n_slots < r->max_slots ? 2 * r->n_slots : r->n_slots);
    if (r->used < room(r))
        return true;
    r->patience = r->n_slots / 2;
    return false;
}

/* The key's slot, or one that it may have; NULL: the table is full. */
static struct rs_rate_slot *find(const struct rs_rate *r, uint64_t key)
{
    struct rs_rate_slot *spare = NULL;

    for (size_t at = (size_t)key & (r->n_slots - 1);; at = (at + 1) & (r->n_slots - 1)) {
        struct rs_rate_slot *s = &r->slots[at];

        if (!s->full_at)
            return spare || r->used >= room(r) ? spare : s;
        if (s->key == key)
            return s;
        if (!spare && s->full_at <= r->now)
            spare = s;
    }
}

static struct rs_rate_slot *slot_of(struct rs_rate *r, uint64_t key)
{
    struct rs_rate_slot *s = find(r, key);

    if (!s && make_room(r))
        s = find(r, key);
    if (!s) {
        r->crowded++;
        return &r->shared;
    }
    if (s->key != key || !s->full_at) {
        r->used += s->full_at == 0;
        /* What it may have taken of the shared bucket counts. */
        *s = (struct rs_rate_slot){.key = key, .full_at = r->shared.full_at};
    }
    return s;
}

int64_t rs_rate_take(struct rs_rate *r, uint64_t key, int64_t now)
{
    struct rs_rate_slot *s;
    int64_t full_at;

    if (now > r->now)
        r->now = now;
    s = slot_of(r, key);
    full_at = s->full_at > r->now ? s->full_at : r->now;
    if (full_at - r->now > r->slack)
        return full_at - r->slack - r->now;
    s->full_at = full_at + r->interval;
    return 0;
}
