#include "net/router/tallies.h"

/* One lane writes. */
static void more(atomic_ullong *n)
{
    atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

void rs_tallies_count(struct rs_tallies *t, bool fresh, bool error)
{
    if (error)
        more(&t->of[fresh].errors);
    more(&t->of[fresh].requests);
}

void rs_tallies_time(struct rs_tallies *t, bool fresh, int64_t took)
{
    more(&t->of[fresh].bucket[rs_tally_bucket(took)]);
}

void rs_tallies_died(struct rs_tallies *t, bool fresh)
{
    more(&t->of[fresh].deaths);
}

static void read_counts(struct rs_counts *c, struct rs_tally *ret)
{
    ret->requests = atomic_load_explicit(&c->requests, memory_order_relaxed);
    ret->errors = atomic_load_explicit(&c->errors, memory_order_relaxed);
    ret->deaths = atomic_load_explicit(&c->deaths, memory_order_relaxed);
    for (unsigned i = 0; i < RS_TALLY_BUCKETS; i++)
        ret->bucket[i] = atomic_load_explicit(&c->bucket[i], memory_order_relaxed);
}

void rs_tallies_read(struct rs_tallies *t, struct rs_tally *old, struct rs_tally *fresh)
{
    read_counts(&t->of[0], old);
    read_counts(&t->of[1], fresh);
}
